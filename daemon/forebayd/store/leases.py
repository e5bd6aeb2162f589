"""Files that were handed out by path: hard links of blobs and copies of packed objects.

A lease is a folder ``leases/<id>`` with a file ``lock``, on which the holder keeps a shared flock,
``generations`` (JSON) and the tree ``files``. It outlives the daemon: what the flock says is true
after a restart too, and in every pid namespace.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import time
from collections import Counter
from typing import TYPE_CHECKING

from forebay_protos import layout
from forebayd.store import disk

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from typing_extensions import Buffer

_GRACE_S = 60.0  # between the daemon's reply and the holder's flock
_FOLDER_MODE = 0o2750
_FILES = "files"
_NAME = re.compile("[0-9a-f]{16}")


class Leases:
    """The leases of one cache folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / layout.LEASES
        self.generations: Counter[int] = Counter()  # blobs that may not go
        for lease in self.names():
            self.generations.update(self._read_generations(lease))

    def names(self) -> list[str]:
        return [path.name for path in self._folder.iterdir() if _NAME.fullmatch(path.name)]

    def holds(self, generation: int) -> bool:
        return self.generations[generation] > 0

    def create(self, lease: str) -> str:
        """Make an empty lease; returns the path of its tree relative to the cache folder."""
        base = self._folder / lease
        (base / _FILES).mkdir(parents=True, mode=_FOLDER_MODE)
        os.close(os.open(base / layout.LOCK, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o640))
        return f"{layout.LEASES}/{lease}/{_FILES}"

    def _place(self, lease: str, name: str) -> Path:
        path = self._folder / lease / _FILES / name
        path.parent.mkdir(parents=True, exist_ok=True, mode=_FOLDER_MODE)
        return path

    def link(self, lease: str, name: str, blob: Path, generation: int) -> None:
        generations = [*self._read_generations(lease), generation]
        (self._folder / lease / "generations").write_text(json.dumps(generations))
        self.generations[generation] += 1
        os.link(blob, self._place(lease, name))

    def write(self, lease: str, name: str, data: Buffer) -> None:
        """Write a copy. Raises OSError."""
        place = self._place(lease, name)
        fd = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o440)
        try:
            disk.pwrite_all(fd, memoryview(data), 0)
        except OSError:
            place.unlink()  # what was not charged must not be there to be freed
            raise
        finally:
            os.close(fd)

    def _read_generations(self, lease: str) -> list[int]:
        path = self._folder / lease / "generations"
        return list(json.loads(path.read_text())) if path.exists() else []

    def _held_bytes(self, leases: Iterable[str]) -> int:
        """Return what is on the disk only because of these leases: no other name leads to it."""
        links: Counter[int] = Counter()  # by inode
        files: dict[int, os.stat_result] = {}
        for lease in leases:
            for parent, _, names in os.walk(self._folder / lease / _FILES):
                for name in names:
                    status = os.stat(os.path.join(parent, name))  # noqa: PTH116, PTH118  # hot
                    links[status.st_ino] += 1
                    files[status.st_ino] = status
        return sum(
            disk.rounded(status.st_size)
            for inode, status in files.items()
            if status.st_nlink == links[inode]
        )

    def held_bytes(self) -> int:
        return self._held_bytes(self.names())

    def remove(self, lease: str) -> int:
        """Remove a lease; returns the bytes that this frees. An unknown lease frees none."""
        base = self._folder / lease
        if not _NAME.fullmatch(lease) or not base.is_dir():
            return 0
        freed = self._held_bytes([lease])
        self.generations.subtract(self._read_generations(lease))
        self.generations = +self.generations
        shutil.rmtree(base)
        return freed

    def handed_out(self, lease: str) -> None:
        """Begin the time in which the holder is to take the flock."""
        os.utime(self._folder / lease)

    def abandoned(self) -> list[str]:
        """Return the leases that nobody holds."""
        return [lease for lease in self.names() if self._is_abandoned(self._folder / lease)]

    @staticmethod
    def _is_abandoned(base: Path) -> bool:
        try:
            if time.time() - base.stat().st_mtime < _GRACE_S:
                return False
            fd = os.open(base / layout.LOCK, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return True
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        finally:
            os.close(fd)
        return True
