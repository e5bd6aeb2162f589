"""This process's row of the shared counters (see ``forebay_protos.counters``)."""

from __future__ import annotations

import fcntl
import mmap
import os
import random
import threading
import time
from bisect import bisect_left

from forebay_protos.counters import (
    FLOCK,
    GROW_ROWS,
    HIT_BOUNDS_NS,
    ROW_FIELDS,
    ROW_SIZE,
    TIMED_ONE_IN,
)

HITS, HIT_BYTES, TABLE_MISSES, RETRIES, TIMED_NS, FIRST_BUCKET = range(6)


def count_hit(row: memoryview, size_bytes: int, began_ns: int) -> None:
    """Count a hit that began at *began_ns* of the wall clock."""
    hits = row[HITS] + 1
    row[HITS] = hits
    row[HIT_BYTES] += size_bytes
    if not hits % TIMED_ONE_IN:
        time_hit(row, began_ns)


def time_hit(row: memoryview, began_ns: int) -> None:
    """Count how long a hit took that ends now."""
    took_ns = max(0, time.time_ns() - began_ns)
    row[TIMED_NS] += took_ns
    row[FIRST_BUCKET + bisect_left(HIT_BOUNDS_NS, took_ns)] += 1


class Counters:
    """A row of eight-byte counts, and the lock by which it is this process's.

    Where no row can be had (a read-only folder, a full disk) the counts go to private memory. A
    forked child has its own row: the first of its counts go to private memory too, until ``claim``.

    ``row[HITS] += 1`` takes no lock: CPython with its GIL switches threads only at calls and
    backward jumps, of which such a line has none. A free-threaded build may lose some counts.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._lock = threading.Lock()  # held while a row is claimed
        self._fd: int | None = None
        self.is_claimed = False
        self.row: memoryview
        self._use_private_memory()

    def _use_private_memory(self) -> None:
        self.row = memoryview(bytearray(ROW_SIZE)).cast("Q")

    def claim(self) -> None:
        """Take a row, once; what was counted before goes into it."""
        with self._lock:
            if self.is_claimed:
                return
            self.is_claimed = True
            try:
                self._fd = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
                row = self._map(self._lock_free_row(self._fd))
            except OSError:
                return
            counted, self.row = self.row, row
            for index in range(len(ROW_FIELDS)):
                row[index] += counted[index]

    @staticmethod
    def _lock_free_row(fd: int) -> int:
        while True:
            size = os.fstat(fd).st_size
            rows = size // ROW_SIZE
            # Anywhere: with hundreds of processes the first rows are all taken.
            first = random.randrange(rows) if rows else 0  # noqa: S311  # no secret
            for index in range(rows):
                row = (first + index) % rows
                wanted = FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, row * ROW_SIZE, 1, 0)
                try:
                    fcntl.fcntl(fd, fcntl.F_OFD_SETLK, wanted)
                except (BlockingIOError, PermissionError):
                    continue
                return row
            # Allocated, not sparse: a store into a hole of a full disk would kill the process. Two
            # processes that grow the file at once ask for the same size.
            os.posix_fallocate(fd, 0, size + GROW_ROWS * ROW_SIZE)

    def _map(self, row: int) -> memoryview:
        start = row * ROW_SIZE
        page = start // mmap.ALLOCATIONGRANULARITY * mmap.ALLOCATIONGRANULARITY
        # Opened again: a mapping keeps its descriptor, and the lock must go with ours.
        fd = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
        try:
            mapped = mmap.mmap(fd, start - page + ROW_SIZE, offset=page)
        finally:
            os.close(fd)
        return memoryview(mapped)[start - page :].cast("Q")

    def is_in(self, path: str) -> bool:
        """Tell whether the row is in the file that is now at *path*."""
        if self._fd is None:
            return False
        try:
            return os.path.samestat(os.fstat(self._fd), os.stat(path))  # noqa: PTH116
        except OSError:
            return False

    def close(self) -> None:
        """Give the row back: its counts stay, and the next process goes on from them."""
        with self._lock:
            self._use_private_memory()
            self.is_claimed = True
            if self._fd is not None:
                os.close(self._fd)
                self._fd = None

    def after_fork_in_child(self) -> None:
        self._lock = threading.Lock()
        self._use_private_memory()
        self.is_claimed = False
        if self._fd is not None:
            # The lock is the parent's for as long as anybody has this description open.
            os.close(self._fd)
            self._fd = None
