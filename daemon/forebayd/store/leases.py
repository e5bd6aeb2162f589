"""Files that were handed out by path: hard links of blobs and copies of packed objects.

A lease is a folder ``leases/<id>`` with a file ``lock``, on which the holder keeps a shared flock,
``generations`` (JSON) and the tree ``files``. It outlives the daemon: what the flock says is true
after a restart too, and in every pid namespace.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections import Counter
from typing import TYPE_CHECKING

from forebay_protos import layout
from forebayd.store import disk

if TYPE_CHECKING:
    from pathlib import Path

_GRACE_S = 60.0  # between the daemon's reply and the holder's flock
_FOLDER_MODE = 0o2750
_FILES = "files"


class Leases:
    """The leases of one cache folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / layout.LEASES
        self.generations: Counter[int] = Counter()  # blobs that may not go
        for lease in self.names():
            self.generations.update(self._read_generations(lease))

    def names(self) -> list[str]:
        return [path.name for path in self._folder.iterdir() if path.is_dir()]

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

    def write(self, lease: str, name: str, data: bytes) -> None:
        """Write a copy. Raises OSError."""
        fd = os.open(
            self._place(lease, name), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o440
        )
        try:
            disk.pwrite_all(fd, memoryview(data), 0)
        finally:
            os.close(fd)

    def _read_generations(self, lease: str) -> list[int]:
        path = self._folder / lease / "generations"
        return list(json.loads(path.read_text())) if path.exists() else []

    def _held_bytes(self, lease: str) -> int:
        """Return what is on the disk only because of this lease."""
        held = 0
        for parent, _, files in os.walk(self._folder / lease / _FILES):
            for name in files:
                status = os.stat(os.path.join(parent, name))  # noqa: PTH116, PTH118  # a hot walk
                held += disk.rounded(status.st_size) if status.st_nlink == 1 else 0
        return held

    def held_bytes(self) -> int:
        return sum(self._held_bytes(lease) for lease in self.names())

    def remove(self, lease: str) -> int:
        """Remove a lease; returns the bytes that this frees. An unknown lease frees none."""
        base = self._folder / lease
        if "/" in lease or lease.startswith(".") or not base.is_dir():
            return 0
        freed = self._held_bytes(lease)
        self.generations.subtract(self._read_generations(lease))
        self.generations = +self.generations
        shutil.rmtree(base)
        return freed

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
