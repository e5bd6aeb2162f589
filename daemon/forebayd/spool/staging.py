"""Room in the spool: what staged files may take, within the spool's limit and the cache's.

A file that is larger than the spool can ever hold passes through it: what its writer has written is
uploaded in parts and punched out of the file, so that the file is long and takes little.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from forebayd import deadline
from forebayd.errors import SpoolFullError, StageLostError
from forebayd.origin.driver import TransientError
from forebayd.spool.uploader import gather_all, lent, opened
from forebayd.store import disk

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from forebayd.cache.origins import Target
    from forebayd.spool.journal import Journal
    from forebayd.store.space import Space

T = TypeVar("T")

log = logging.getLogger(__name__)

_PATIENCE_S = 5.0  # for room, before a file passes through although it would fit
_ABANDONED_S = 5.0  # a staged file that nobody has held for so long
_ANSWER_S = 0.3  # before a caller's deadline, to tell it what it waited for
_LEAST_PART_BYTES = 5 << 20  # S3's
_STEP_BYTES = 2 << 20
_STREAM_PART_BYTES = 64 << 20  # 10,000 parts of it are 640 GB
_PARTS_AT_ONCE = 4


@dataclass(slots=True)
class Stream:
    """An upload in parts that goes on while its bytes are still being written."""

    target: Target
    upload: str
    part_bytes: int
    tags: list[str] = field(default_factory=list)

    @property
    def sent_bytes(self) -> int:
        return len(self.tags) * self.part_bytes


@dataclass(slots=True)
class Staged:
    """A file that a writer fills."""

    name: str
    target: Target | None  # None: of a writer that has outlived a daemon
    granted_bytes: int  # the length that the file may have
    reserved_bytes: int  # of the spool; less once parts of it have passed through
    seen_at: float  # monotonic: when somebody was known to hold it
    stream: Stream | None = None


class Staging:
    """The staged files and the ledger of the spool."""

    def __init__(
        self,
        journal: Journal,
        space: Space,
        make_room: Callable[[int], bool],
        *,
        limit_bytes: int,
        can_punch: bool,
    ) -> None:
        """*make_room* evicts from the cache until so many bytes are free, or says no."""
        self._journal = journal
        self._space = space
        self._make_room = make_room
        self.limit_bytes = limit_bytes
        self._can_punch = can_punch
        self._files: dict[str, Staged] = {}
        self._freed = asyncio.Event()
        for name, length in journal.staged():
            if journal.parts.find(name) is not None:  # punched: what is left of it is no object
                journal.remove_staged(name)
                continue
            # Its writer may have lived on while there was no daemon, and may commit it yet.
            room = disk.rounded(length)
            self.charge(room)
            self._files[name] = Staged(name, None, length, room, time.monotonic())

    # --- the ledger --------------------------------------------------------------------------

    async def reserve(self, size_bytes: int) -> None:
        """Take room; waits until there is some. Raises SpoolFullError at the call's deadline."""
        while not self.try_reserve(size_bytes):
            if deadline.left_s() < _ANSWER_S:
                raise SpoolFullError(
                    f"the spool is full: {self.used_bytes} of {self.limit_bytes} bytes are being "
                    "written, or wait for their upload (see `forebay uploads`): raise "
                    "spool_max_bytes, or timeout_s to wait longer"
                )
            self._freed.clear()
            # Not only for the event: the cache may be able to evict by now.
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._freed.wait(), 0.2)
            self.sweep()

    def try_reserve(self, size_bytes: int) -> bool:
        if self._space.spool_bytes + size_bytes > self.limit_bytes:
            return False
        if not self._make_room(size_bytes):
            return False
        self._space.spool_bytes += size_bytes
        return True

    def charge(self, size_bytes: int) -> None:
        """Count what is there from an earlier run, whatever the limit is now."""
        self._space.spool_bytes += size_bytes

    @property
    def is_filling(self) -> bool:
        """Tell whether half of the room is taken, so that uploading is urgent."""
        return self._space.spool_bytes > self.limit_bytes // 2

    @property
    def used_bytes(self) -> int:
        return self._space.spool_bytes

    @property
    def count(self) -> int:
        """How many files are staged: being written, or held for the next write."""
        return len(self._files)

    def release(self, size_bytes: int) -> None:
        self._space.spool_bytes -= size_bytes
        self._freed.set()

    # --- staged files ------------------------------------------------------------------------

    async def stage(self, target: Target, size_bytes: int) -> Staged:
        """Return a new file for a writer. Raises SpoolFullError if it can never have room."""
        first_bytes = min(size_bytes, self._window_bytes)
        room = disk.rounded(first_bytes)
        await self.reserve(room)
        return self._make(target, first_bytes, room)

    def try_stage(self, target: Target, size_bytes: int) -> Staged | None:
        """Return a new file if there is room right now."""
        room = disk.rounded(size_bytes)
        # Not the last of it: what is staged ahead may never be used.
        if self._space.spool_bytes + 4 * room > self.limit_bytes or not self.try_reserve(room):
            return None
        return self._make(target, size_bytes, room)

    def _make(self, target: Target, granted_bytes: int, room: int) -> Staged:
        try:
            name = self._journal.stage(granted_bytes)
        except OSError as error:
            self.release(room)
            raise SpoolFullError(f"no file can be made in the spool: {error}") from error
        staged = Staged(name, target, granted_bytes, room, time.monotonic())
        self._files[name] = staged
        return staged

    @property
    def _window_bytes(self) -> int:
        """What a file may take of the spool before it has to pass through."""
        return max(disk.BLOCK, self.limit_bytes // 2)

    def get(self, name: str) -> Staged:
        """Return a staged file. Raises StageLostError."""
        staged = self._files.get(name)
        if staged is None:
            raise StageLostError(f"the staged file {name} was taken back: write it again")
        staged.seen_at = time.monotonic()
        return staged

    def target_of(self, name: str) -> Target | None:
        """Return what a staged file is to become, if that is known."""
        staged = self._files.get(name)
        return None if staged is None else staged.target

    async def grow(self, name: str, written_bytes: int, wanted_bytes: int) -> int:
        """Let a file become longer; returns how long it may be, which may be less than wanted.

        Raises StageLostError, SpoolFullError, or what the origin has against a stream.
        """
        staged = self.get(name)
        if wanted_bytes > staged.granted_bytes:
            fitting_bytes = min(wanted_bytes, self.limit_bytes // disk.BLOCK * disk.BLOCK)
            is_stream = staged.stream is not None or fitting_bytes <= staged.granted_bytes
            if not is_stream:
                more = max(0, disk.rounded(fitting_bytes) - staged.reserved_bytes)
                # When all room is taken by writers who wait like this one, nothing will come free.
                patience_s = _PATIENCE_S if self._may_stream(staged, written_bytes) else None
                is_stream = not await self._extend(staged, fitting_bytes, more, patience_s)
            if is_stream:
                await self._pass_through(staged, written_bytes, wanted_bytes)
        return staged.granted_bytes

    async def _extend(
        self, staged: Staged, wanted_bytes: int, more: int, patience_s: float | None
    ) -> bool:
        """Grant a longer file, for *more* bytes of room; False if there was none in time."""
        try:
            await asyncio.wait_for(self.reserve(more), patience_s)
        except asyncio.TimeoutError:
            return False
        try:
            self._journal.grow(staged.name, wanted_bytes)
        except OSError as error:
            self.release(more)
            raise StageLostError(f"the staged file {staged.name} is gone: {error}") from error
        staged.reserved_bytes += more
        staged.granted_bytes = wanted_bytes
        return True

    # --- files that are larger than the spool ------------------------------------------------

    async def _pass_through(self, staged: Staged, written_bytes: int, wanted_bytes: int) -> None:
        """Upload some parts, and grant the room that they have given back."""
        stream = staged.stream or await self._begin_stream(staged, written_bytes)
        await self._send(staged, stream, written_bytes)
        fitting_bytes = min(wanted_bytes, stream.sent_bytes + staged.reserved_bytes)
        if fitting_bytes > staged.granted_bytes:
            await self._extend(staged, fitting_bytes, 0, None)

    @property
    def _part_bytes(self) -> int:
        return min(_STREAM_PART_BYTES, max(_LEAST_PART_BYTES, self.limit_bytes // 16))

    def _may_stream(self, staged: Staged, written_bytes: int) -> bool:
        return (
            staged.target is not None
            and staged.target.origin.driver.can_upload_parts
            and self._can_punch
            # Who holds room for a part, and what is written at once, needs no more to get on.
            and written_bytes >= self._part_bytes + _STEP_BYTES
        )

    async def _begin_stream(self, staged: Staged, written_bytes: int) -> Stream:
        target = staged.target
        if target is None or not self._may_stream(staged, written_bytes):
            raise SpoolFullError(
                f"the file is larger than the spool holds ({self.limit_bytes} bytes), and cannot "
                "be passed on in parts: raise spool_max_bytes"
            )
        upload = await patiently(
            lambda: self._journal.parts.begin(
                staged.name, target.uri, target.origin.driver, self._part_bytes
            )
        )
        staged.stream = Stream(target, upload, self._part_bytes)
        return staged.stream

    async def _send(self, staged: Staged, stream: Stream, written_bytes: int) -> None:
        """Upload the first of the whole parts that are written, and punch them out of the file.

        Their room stays with the file, for what follows.
        """
        first = len(stream.tags)
        count = min(_PARTS_AT_ONCE, max(0, written_bytes // stream.part_bytes - first))
        tags = await self._send_parts(staged, stream, first, count, stream.part_bytes)
        stream.tags += tags
        if count:
            with opened(self._journal.cache_dir / staged.name, os.O_RDWR) as fd:
                disk.punch(fd, first * stream.part_bytes, count * stream.part_bytes)

    async def _send_parts(
        self, staged: Staged, stream: Stream, first: int, count: int, last_bytes: int
    ) -> list[str]:
        """Upload *count* parts from number *first* (0 on), the last of *last_bytes*."""
        tags = [""] * count
        places = asyncio.Semaphore(_PARTS_AT_ONCE)
        driver, uri = stream.target.origin.driver, stream.target.uri

        async def send(index: int) -> None:
            length = last_bytes if index == count - 1 else stream.part_bytes
            start = (first + index) * stream.part_bytes
            number = first + index + 1
            async with places, lent(fd, start, length) as data:
                tags[index] = await patiently(
                    lambda: driver.put_part(uri, stream.upload, number, data)
                )

        with opened(self._journal.cache_dir / staged.name) as fd:
            await gather_all(send(index) for index in range(count))
        return tags

    async def send_rest(self, staged: Staged, size_bytes: int) -> list[str]:
        """Upload what is left of a stream of *size_bytes*; returns the tags of all its parts."""
        stream = staged.stream
        assert stream is not None  # noqa: S101  # the caller has looked
        first = len(stream.tags)
        left = size_bytes - stream.sent_bytes
        count = max(-(-left // stream.part_bytes), 0 if first else 1)
        last_bytes = left - max(0, count - 1) * stream.part_bytes
        return stream.tags + await self._send_parts(staged, stream, first, count, last_bytes)

    # --- the end of a staged file ------------------------------------------------------------

    def forget(self, staged: Staged, kept_bytes: int = 0) -> None:
        """Take a file off the list, all of its room but *kept_bytes* given back."""
        if self._files.pop(staged.name, None) is not None:
            self.release(staged.reserved_bytes - kept_bytes)

    def abandon(self, name: str) -> None:
        """Remove a file whose writer has given up."""
        staged = self._files.get(name)
        if staged is not None:
            self._journal.remove_staged(name)
            self.forget(staged)

    def sweep(self) -> None:
        """Take back the files whose writers are gone; their notes of parts say what to end."""
        now = time.monotonic()
        for staged in list(self._files.values()):
            if now - staged.seen_at < _ABANDONED_S:
                continue
            if not self._journal.take_back(staged.name):
                staged.seen_at = now - _ABANDONED_S / 2  # held: no need to try it every time
                continue
            self.forget(staged)


async def patiently(request: Callable[[], Awaitable[T]]) -> T:
    """Repeat a request until it works, or fails for good; the caller's deadline ends it."""
    pause_s = 0.2
    while True:
        try:
            return await request()
        except TransientError as error:
            log.warning("a part is sent again", extra={"reason": str(error)})
        await asyncio.sleep(pause_s)
        pause_s = min(5.0, 2 * pause_s)
