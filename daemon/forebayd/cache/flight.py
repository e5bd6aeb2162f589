"""One piece of work per key, however many wait for it."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Hashable, Iterator


@dataclass(eq=False, slots=True)
class Flight:
    """Work that is under way."""

    task: asyncio.Task[Any]
    about: Any
    began: float = field(default_factory=time.monotonic)
    waiting: int = 0


class Flights:
    """Running work by key. One event loop; nothing is kept of work that has ended."""

    def __init__(self) -> None:
        self._running: dict[Hashable, Flight] = {}
        self.joined_total = 0  # waiters that found the work under way

    def __len__(self) -> int:
        return len(self._running)

    def __iter__(self) -> Iterator[Flight]:
        """Yield what runs, the oldest first."""
        return iter(self._running.values())

    def waiting(self, key: Hashable) -> int:
        """Return how many wait for *key* now."""
        flight = self._running.get(key)
        return 0 if flight is None else flight.waiting

    async def do(
        self, key: Hashable, work: Callable[[], Coroutine[Any, Any, Any]], about: Any = None
    ) -> Any:
        """Return what *work* returns or raise what it raises; join it if it is under way.

        A waiter that is cancelled leaves the work running: others may wait, and the bytes that it
        fetches are worth keeping. *about* is for who looks at what runs.
        """
        flight = self._running.get(key)
        if flight is None:
            flight = Flight(asyncio.get_running_loop().create_task(work()), about)
            self._running[key] = flight
            flight.task.add_done_callback(lambda done: self._ended(key, done))
        else:
            self.joined_total += 1
        flight.waiting += 1
        try:
            return await asyncio.shield(flight.task)
        finally:
            flight.waiting -= 1

    def _ended(self, key: Hashable, task: asyncio.Task[Any]) -> None:
        del self._running[key]
        if not task.cancelled():
            task.exception()  # marks it as seen when every waiter is gone

    async def drain(self) -> None:
        """Wait until nothing runs."""
        while self._running:
            await asyncio.wait([flight.task for flight in self])
