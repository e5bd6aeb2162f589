"""Append-only files of packed small objects.

A segment file is as long as ``segment_bytes`` from the start, sparse, and never truncated, so that
a client's mapping of it never faults beyond its end. An object's bytes are written once; when it is
evicted its blocks are punched out. A number is never used again.
"""

from __future__ import annotations

import contextlib
import os
from collections import OrderedDict
from typing import TYPE_CHECKING

from forebay_protos import layout
from forebayd.store import disk

if TYPE_CHECKING:
    from pathlib import Path

_OPEN_FILES = 64
_SPARE_SEGMENTS, _FILES_FOR_ONE = 64, 4


class Segments:
    """Places for packed objects, and how many of their bytes are live."""

    def __init__(self, folder: Path, segment_bytes: int, first_number: int) -> None:
        self._folder = folder
        self.segment_bytes = segment_bytes
        self.next_number = first_number
        self._current: int | None = None
        self._offset = 0
        self._files: OrderedDict[int, int] = OrderedDict()
        self.live_bytes: dict[int, int] = {}  # by segment number, in whole blocks

    def path(self, number: int) -> Path:
        return self._folder / layout.segment_name(number)

    def _fd(self, number: int) -> int:
        fd = self._files.get(number)
        if fd is None:
            fd = os.open(self.path(number), os.O_RDWR | os.O_CLOEXEC)
            self._files[number] = fd
            if len(self._files) > _OPEN_FILES:
                os.close(self._files.popitem(last=False)[1])
        self._files.move_to_end(number)
        return fd

    def _begin(self) -> int:
        number = self.next_number
        self.next_number += 1
        path = self.path(number)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
        os.ftruncate(fd, self.segment_bytes)
        os.close(fd)
        previous, self._current, self._offset = self._current, number, 0
        self.live_bytes[number] = 0
        if previous is not None:
            self._drop_if_empty(previous)
        return number

    def append(self, data: memoryview) -> tuple[int, int]:
        """Write an object and return (segment, offset). Raises OSError with nothing taken."""
        size = disk.rounded(len(data))
        if self._current is None or self._offset + size > self.segment_bytes:
            self._begin()
        assert self._current is not None  # noqa: S101  # for the type checker
        number, offset = self._current, self._offset
        fd = self._fd(number)
        try:
            disk.pwrite_all(fd, data, offset)
        except OSError:
            disk.punch(fd, offset, size)
            raise
        self._offset += size
        self.live_bytes[number] += size
        return number, offset

    def read(self, number: int, offset: int, length: int) -> bytes:
        return os.pread(self._fd(number), length, offset)

    def emptiest(self) -> int | None:
        """Return the closed segment with the fewest live bytes, if there are far too many files.

        Holes give the space back, but every file costs a client a mapping, of which Linux gives a
        process 65,530.
        """
        needed = sum(self.live_bytes.values()) // self.segment_bytes
        closed = [number for number in self.live_bytes if number != self._current]
        if len(closed) <= _SPARE_SEGMENTS + _FILES_FOR_ONE * needed:
            return None
        return min(closed, key=self.live_bytes.__getitem__)

    def free(self, number: int, offset: int, size_bytes: int) -> None:
        """Give an object's blocks back; the file goes with its last object."""
        size = disk.rounded(size_bytes)
        if number in self.live_bytes:
            self.live_bytes[number] -= size
        with contextlib.suppress(FileNotFoundError):  # somebody has removed it
            disk.punch(self._fd(number), offset, size)
        self._drop_if_empty(number)

    def _drop_if_empty(self, number: int) -> None:
        if self.live_bytes.get(number) == 0 and number != self._current:
            del self.live_bytes[number]
            fd = self._files.pop(number, None)
            if fd is not None:
                os.close(fd)
            self.path(number).unlink(missing_ok=True)

    def keep_only(self, number: int, live: list[tuple[int, int]]) -> None:
        """Punch out everything but the *live* (offset, size) extents: leftovers of a crash."""
        fd = self._fd(number)
        position = 0
        for offset, size in sorted(live):
            if offset > position:
                disk.punch(fd, position, offset - position)
            position = offset + disk.rounded(size)
        if position < self.segment_bytes:
            disk.punch(fd, position, self.segment_bytes - position)

    def sync(self) -> None:
        for fd in self._files.values():
            os.fdatasync(fd)

    def close(self) -> None:
        for fd in self._files.values():
            os.close(fd)
        self._files.clear()
