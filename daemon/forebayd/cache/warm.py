"""Filling many objects at once, with progress."""

from __future__ import annotations

import asyncio
import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from forebayd.cache.fill import Uncached
from forebayd.errors import DaemonError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from forebayd.cache.fill import Filler
    from forebayd.cache.origins import Origins, Target
    from forebayd.cache.written import Written

_OBJECTS_AT_ONCE = 64
_PROGRESS_S = 0.2
_MOST_FAILURES = 100


@dataclass(slots=True)
class Progress:
    """Where a warm stands."""

    objects_total: int = 0
    objects_done: int = 0
    bytes_total: int = 0
    bytes_done: int = 0
    objects_failed: int = 0
    failures: list[tuple[str, DaemonError]] = field(default_factory=list)
    listing_done: bool = False


class Warmer:
    """One warm: objects by name, or all below a prefix."""

    def __init__(self, filler: Filler, written: Written, origins: Origins) -> None:
        self._filler = filler
        self._written = written
        self._origins = origins
        self._progress = Progress()
        self._waiting: asyncio.Queue[tuple[str, int | None] | None] = asyncio.Queue(1000)

    async def run(self, uris: Sequence[str], prefix: str) -> AsyncIterator[Progress]:
        """Yield the progress from time to time, and at the end; each failure once."""
        workers = [asyncio.create_task(self._work()) for _ in range(_OBJECTS_AT_ONCE)]
        names = asyncio.create_task(self._name(uris, prefix))
        everything = asyncio.gather(names, *workers)
        try:
            while not everything.done():
                await asyncio.wait([everything], timeout=_PROGRESS_S)
                if not everything.done():
                    yield self._report()
            everything.result()
            yield self._report()
        finally:
            names.cancel()
            for worker in workers:
                worker.cancel()
            await asyncio.gather(names, *workers, return_exceptions=True)

    def _report(self) -> Progress:
        """Return the progress with the failures since the last report."""
        report = dataclasses.replace(self._progress)
        self._progress.failures = []
        return report

    async def _name(self, uris: Sequence[str], prefix: str) -> None:
        for uri in uris:
            self._progress.objects_total += 1
            await self._waiting.put((uri, None))
        if prefix:
            await self._name_below(self._origins.target(prefix))
        self._progress.listing_done = True
        for _ in range(_OBJECTS_AT_ONCE):
            await self._waiting.put(None)

    async def _name_below(self, target: Target) -> None:
        """Name everything below the target, and the object of its own name if there is one."""
        found = False
        async for page in self._written.pages(target, recursive=True):
            for info in page.objects:
                found = True
                self._progress.objects_total += 1
                self._progress.bytes_total += info.size_bytes
                await self._waiting.put((info.uri, info.size_bytes))
        if target.uri.endswith("/") or (found and not await self._is_object(target)):
            return
        self._progress.objects_total += 1
        await self._waiting.put((target.uri, None))

    async def _is_object(self, target: Target) -> bool:
        try:
            return await self._written.stat(target) is not None
        except DaemonError:
            return False

    async def _work(self) -> None:
        while True:
            named = await self._waiting.get()
            if named is None:
                return
            uri, expected_bytes = named
            try:
                entry, _ = await self._filler.ensure(self._origins.target(uri), 0, None)
                if isinstance(entry, Uncached):
                    raise DaemonError(
                        "it does not fit into the cache: raise --max-bytes, or make room on the "
                        "disk, of which min_free_bytes stay free"
                    )
            except DaemonError as error:
                self._progress.objects_failed += 1
                if self._progress.objects_failed <= _MOST_FAILURES:
                    self._progress.failures.append((uri, error))
                continue
            self._progress.objects_done += 1
            self._progress.bytes_done += entry.size_bytes
            if expected_bytes is None:
                self._progress.bytes_total += entry.size_bytes
