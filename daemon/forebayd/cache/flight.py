"""One piece of work per key, however many wait for it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Hashable


class Flights:
    """Running work by key. One event loop; nothing is kept of work that has ended."""

    def __init__(self) -> None:
        self._running: dict[Hashable, asyncio.Task[Any]] = {}
        self._waiting: dict[Hashable, int] = {}
        self.joined_total = 0  # waiters that found the work under way

    def __len__(self) -> int:
        return len(self._running)

    def waiting(self, key: Hashable) -> int:
        """Return how many wait for *key* now."""
        return self._waiting.get(key, 0)

    async def do(self, key: Hashable, work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """Return what *work* returns or raise what it raises; join it if it is under way.

        A waiter that is cancelled leaves the work running: others may wait, and the bytes that it
        fetches are worth keeping.
        """
        task = self._running.get(key)
        if task is None:
            task = asyncio.get_running_loop().create_task(work())
            self._running[key] = task
            task.add_done_callback(lambda done: self._ended(key, done))
        else:
            self.joined_total += 1
        self._waiting[key] = self._waiting.get(key, 0) + 1
        try:
            return await asyncio.shield(task)
        finally:
            self._waiting[key] -= 1
            if not self._waiting[key]:
                del self._waiting[key]

    def _ended(self, key: Hashable, task: asyncio.Task[Any]) -> None:
        del self._running[key]
        if not task.cancelled():
            task.exception()  # marks it as seen when every waiter is gone

    async def drain(self) -> None:
        """Wait until nothing runs."""
        while self._running:
            await asyncio.wait(list(self._running.values()))
