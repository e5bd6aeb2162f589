"""One sparse file per large object, its blocks at their natural offsets, named by generation.

A block is written once in a blob's life and never changed, so a reader of a present block can only
be disturbed by the removal of the whole blob.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from typing import TYPE_CHECKING

from forebay_protos import layout
from forebayd.store import disk

if TYPE_CHECKING:
    from pathlib import Path

_OPEN_FILES = 128


class Blobs:
    """Blob files by generation."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: OrderedDict[int, int] = OrderedDict()

    def path(self, generation: int) -> Path:
        return self._folder / layout.blob_name(generation)

    def create(self, generation: int, size_bytes: int) -> None:
        fd = os.open(
            self.path(generation), os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640
        )
        self._keep(generation, fd)
        os.ftruncate(fd, size_bytes)

    def adopt(self, generation: int, path: Path) -> None:
        """Make a file of the spool the blob, by another name for it; what follows the object's
        bytes in it is cut off by ``trim``. Raises OSError."""
        os.link(path, self.path(generation))
        self.path(generation).chmod(0o640)  # what clients may hit, none of them may change

    def trim(self, generation: int, size_bytes: int) -> None:
        """Cut an adopted file to the object's bytes; it is nobody else's now."""
        os.truncate(self.path(generation), size_bytes)

    def _keep(self, generation: int, fd: int) -> None:
        self._files[generation] = fd
        if len(self._files) > _OPEN_FILES:
            os.close(self._files.popitem(last=False)[1])

    def fd(self, generation: int) -> int:
        """Return an open file of the blob, valid until the next call; raises FileNotFoundError."""
        fd = self._files.get(generation)
        if fd is None:
            fd = os.open(self.path(generation), os.O_RDWR | os.O_CLOEXEC)
            self._keep(generation, fd)
        self._files.move_to_end(generation)
        return fd

    def duplicate(self, generation: int) -> int:
        """Return a file descriptor of the caller's own, for use in another thread."""
        return os.dup(self.fd(generation))

    def remove(self, generation: int, *, punch: bool) -> None:
        """Unlink the blob. *punch* gives its blocks back even while clients have it open.

        A blob with another name is never punched: a lease's holder reads it.
        """
        try:
            fd = self.fd(generation)
        except FileNotFoundError:
            return
        if punch and os.fstat(fd).st_nlink == 1:
            disk.punch(fd, 0, max(disk.BLOCK, os.fstat(fd).st_size))
        os.close(self._files.pop(generation))
        self.path(generation).unlink(missing_ok=True)

    def keep_only(self, generation: int, extents: list[tuple[int, int]]) -> None:
        """Punch out everything but the (offset, length) *extents*: leftovers of a crash."""
        fd = self.fd(generation)
        size, position = os.fstat(fd).st_size, 0
        for offset, length in sorted(extents):
            if offset > position:
                disk.punch(fd, position, offset - position)
            position = offset + length
        if position < size:
            disk.punch(fd, position, size - position)

    def close(self) -> None:
        for fd in self._files.values():
            os.close(fd)
        self._files.clear()
