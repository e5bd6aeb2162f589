"""A cache folder as this process has it open: table, recency, counters, segments, blobs.

Knows files and mappings; knows nothing of paths, of the daemon, or of what a record promises.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import time
from collections import OrderedDict

from forebay._counters import Counters
from forebay._mapping import OpenFile, map_readonly
from forebay_protos import layout
from forebay_protos.table import BUCKET_RECORDS, HEADER_SIZE, RECORD_SIZE, unpack_header

LEASE_NS = int(layout.LEASE_S * 1e9)
_OPEN_FILES = 256  # of a usual limit of 1,024
_MAPPED_SEGMENTS = 16_384  # of a usual limit of 65,530 mappings
_MAPPED_BLOBS = 64
_HEAP_BYTES = 30 << 20  # glibc heeds blocks up to 32 MiB


class Folder:
    """One attachment to a cache folder. Never changes: another table means another Folder."""

    def __init__(self, path: str, counters: Counters | None = None) -> None:
        """Open the folder. Raises OSError or ValueError if it cannot be read.

        *counters* are those of the Folder that this one follows.
        """
        self.path = path
        self._attach_path = os.path.join(path, layout.ATTACH)  # noqa: PTH118  # stat'ed often
        # When attach.json was last known to be this one: taken before it is looked at, for what
        # takes its place from then on is not to go unseen for longer than a lease.
        self.checked_ns = time.time_ns()
        # Kept open: while it is, no new file can get its inode number.
        self._attach_file = OpenFile(self._attach_path)
        status = os.fstat(self._attach_file.fd)
        self._identity = (status.st_dev, status.st_ino)
        text = os.pread(self._attach_file.fd, status.st_size, 0)
        self.attachment = layout.Attachment.from_json(text.decode())
        epoch = self.attachment.epoch
        self.table = self._map_table(layout.table_name(epoch))
        header = unpack_header(self.table[:HEADER_SIZE])
        if (
            header.cache_id.hex() != self.attachment.cache_id
            or header.epoch != epoch
            or (len(self.table) != HEADER_SIZE + header.slots * RECORD_SIZE)
        ):
            raise ValueError(f"{path}: table and {layout.ATTACH} do not belong together")
        self.bucket_mask = header.slots // BUCKET_RECORDS - 1
        self.recency = self._map_recency(layout.recency_name(epoch), header.slots)
        self.counters = Counters(f"{path}/{layout.COUNTERS}") if counters is None else counters
        self.counters.claim()
        self.segments: dict[int, memoryview] = {}  # mapped, by number
        self._files: OrderedDict[int, OpenFile] = OrderedDict()
        self._blobs: OrderedDict[int, memoryview] = OrderedDict()
        self._spool: OpenFile | None = None
        _keep_freed_memory()

    def is_current(self, now_ns: int) -> bool:
        """Tell whether ``attach.json`` is still the one that this is made from; asks each lease."""
        if 0 <= now_ns - self.checked_ns < LEASE_NS:
            return True
        try:
            status = os.stat(self._attach_path)  # noqa: PTH116  # 1 us less, and it is hot
        except OSError:
            return False
        if (status.st_dev, status.st_ino) != self._identity:
            return False
        self.checked_ns = now_ns
        if not self.counters.is_claimed:
            self.counters.claim()
        return True

    def _map_table(self, name: str) -> mmap.mmap:
        file = OpenFile(f"{self.path}/{name}")
        return mmap.mmap(file.fd, 0, prot=mmap.PROT_READ)

    def _map_recency(self, name: str, slots: int) -> memoryview:
        """Return the shared times, or private ones where this process may not write."""
        with contextlib.suppress(OSError):
            fd = os.open(f"{self.path}/{name}", os.O_RDWR | os.O_CLOEXEC)
            try:
                if os.fstat(fd).st_size == slots * 8:
                    return memoryview(mmap.mmap(fd, 0)).cast("Q")
            finally:
                os.close(fd)
        return memoryview(mmap.mmap(-1, slots * 8)).cast("Q")

    def file(self, number: int) -> OpenFile:
        """Return the file of a segment, or of a blob by its negative generation. Raises OSError."""
        return self._files.get(number) or self._open(number)

    def _open(self, number: int) -> OpenFile:
        name = layout.segment_name(number) if number > 0 else layout.blob_name(-number)
        file = self._files[number] = OpenFile(f"{self.path}/{name}")
        while len(self._files) > _OPEN_FILES:
            with contextlib.suppress(KeyError):  # another thread was faster
                self._files.popitem(last=False)
        return file

    def sync_spool(self) -> None:
        """Have every rename in the spool's folder on the disk. Raises OSError."""
        spool = self._spool or OpenFile(f"{self.path}/{layout.SPOOL}")
        self._spool = spool
        os.fsync(spool.fd)

    def segment(self, number: int) -> memoryview:
        """Return the mapping of a segment. Raises OSError."""
        mapping = self.segments.get(number)
        if mapping is None:
            if len(self.segments) >= _MAPPED_SEGMENTS:
                self.segments.clear()
            mapping = self.segments[number] = self._map(number, self.attachment.segment_bytes)
        return mapping

    def blob(self, number: int, size_bytes: int) -> memoryview:
        """Return the mapping of a blob by its negative generation. Raises OSError."""
        mapping = self._blobs.get(number)
        if mapping is None:
            mapping = self._blobs[number] = self._map(number, size_bytes)
            while len(self._blobs) > _MAPPED_BLOBS:
                with contextlib.suppress(KeyError):
                    self._blobs.popitem(last=False)
        return mapping

    def _map(self, number: int, size_bytes: int) -> memoryview:
        file = self.file(number)
        if os.fstat(file.fd).st_size < size_bytes:
            raise OSError(f"file {number} of the cache is shorter than {size_bytes} bytes")
        return map_readonly(file.fd, size_bytes)

    def after_fork_in_child(self) -> None:
        self.checked_ns = 0
        self.counters.after_fork_in_child()


def _keep_freed_memory() -> None:
    """Let the allocator keep some 60 MiB of freed memory instead of giving it back at once.

    By default glibc gives back what is above 128 KiB, and the results of the next batch fault their
    pages in again: 64 objects of 100 KB cost 60 us each instead of 10. Freeing one large block,
    which was never touched, moves that threshold (mallopt(3): it is dynamic), as any program that
    works with arrays has done long before. Other allocators do not notice.
    """
    bytes(_HEAP_BYTES)
