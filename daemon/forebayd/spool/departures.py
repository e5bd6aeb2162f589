"""Writes that are done with: their files go, for good, and their operations are remembered."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Protocol

from forebayd.spool.shown import tell

if TYPE_CHECKING:
    from forebayd.origin.base import ObjectInfo
    from forebayd.spool.journal import Journal
    from forebayd.spool.order import Upload
    from forebayd.spool.shown import Shown
    from forebayd.spool.staging import Staging

log = logging.getLogger(__name__)

_GATHER_S = 0.01  # files to remove with one fsync
# Finished operations, for commits that are repeated: within a run, and after one that ended before
# it could answer.
_REMEMBERED, _REMEMBERED_DURABLY = 10_000, 256


class Memory(Protocol):
    """A memory of finished operations that outlives the daemon."""

    def load(self) -> list[str]: ...

    def save(self, operations: list[str]) -> None: ...


class Departures:
    """The way out of the spool. One event loop."""

    def __init__(self, journal: Journal, staging: Staging, shown: Shown, memory: Memory) -> None:
        self._journal = journal
        self._staging = staging
        self._shown = shown
        self._memory = memory
        self._done: OrderedDict[str, str] = OrderedDict.fromkeys(memory.load(), "")
        self._leaving: list[tuple[Upload, ObjectInfo | None]] = []
        self._being_removed: list[tuple[Upload, ObjectInfo | None]] = []
        self._removing: asyncio.Task[None] | None = None

    # --- operations --------------------------------------------------------------------------

    def version_of(self, operation: str) -> str | None:
        """Return the version that a finished operation ended with ("" if it was not waited for),
        None if it is not known to be finished."""
        return self._done.get(operation)

    def remember(self, operation: str, version: str = "") -> None:
        self._done[operation] = version
        while len(self._done) > _REMEMBERED:
            self._done.popitem(last=False)

    def save(self) -> None:
        try:
            self._memory.save(list(islice(reversed(self._done), _REMEMBERED_DURABLY)))
        except OSError as error:
            log.warning("finished writes cannot be noted", extra={"reason": str(error)})

    # --- files -------------------------------------------------------------------------------

    def add(self, upload: Upload, info: ObjectInfo | None = None) -> None:
        """Take a write out of the journal, soon; *info* is what it has become at the origin."""
        self._leaving.append((upload, info))
        if self._removing is None or self._removing.done():
            self._removing = asyncio.create_task(self._remove())

    async def wait(self) -> None:
        """Return when the files of all writes so far are gone for good."""
        earlier = [upload.done for upload, _ in (*self._leaving, *self._being_removed)]
        if earlier:
            await asyncio.wait(earlier)

    async def _remove(self) -> None:
        """Remove the files, and make that last: what a power loss brought back would be written a
        second time. Not on the event loop: one takes 200 us."""
        while self._leaving:
            await asyncio.sleep(_GATHER_S)
            leaving, self._leaving = self._leaving, []
            self._being_removed = leaving
            self.save()  # before the files go, by which a repeated commit is known too
            try:
                if any(upload.superseded_by is not None for upload, _ in leaving):
                    await self._journal.durable()  # what took their places comes first
                await asyncio.to_thread(self._remove_all, leaving)
                await self._journal.durable()
            except OSError as error:
                log.error("the spool cannot be tidied: %s", error)
            for upload, info in leaving:
                self._staging.release(upload.charge_bytes)
                if info is not None:
                    # Only now: the cache cuts the trailer off a file that is its own.
                    tell(partial(self._shown.uploaded, upload, info))
                if not upload.done.done():
                    upload.done.set_result(info)
            self._being_removed = []

    def _remove_all(self, leaving: list[tuple[Upload, ObjectInfo | None]]) -> None:
        for upload, _ in leaving:
            self._journal.remove(upload.name)
