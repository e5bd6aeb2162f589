"""The cache folder as a client sees it: table, recency, segments and blobs, mapped or open.

All of it is read-only but the recency of a slot and the process's own counters. Everything stays
valid over a fork, except the counter row, which each process claims for itself.
"""

from __future__ import annotations

import mmap
import os
import threading
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from forebay._counters import CounterRow
from forebay_protos import layout, uris
from forebay_protos.table import (
    BUCKET_RECORDS,
    BUCKET_SIZE,
    HEADER_SIZE,
    RECORD_SIZE,
    Record,
    buckets_of,
    find_in_bucket,
    unpack_header,
    unpack_record,
)

if TYPE_CHECKING:
    from collections.abc import MutableSequence

_OPEN_BLOBS = 256
_PROBE = [bytearray(1)]


class Found(NamedTuple):
    """A record and where it lies in the table."""

    slot: int
    offset: int  # of the record in the table file
    data: bytes  # the 64 bytes
    record: Record


class _NoRecency:
    """Stands in for the recency of a folder that this process may not write."""

    def __getitem__(self, slot: int) -> int:
        return 0

    def __setitem__(self, slot: int, time_ns: int) -> None:
        pass


class SharedCache:
    """One attachment: valid until ``is_current`` says otherwise."""

    def __init__(self, folder: Path) -> None:
        """Attach to a folder. Raises OSError or ValueError if it cannot be hit from here."""
        self.folder = folder
        self._attach_file = (folder / layout.ATTACH).open(encoding="utf-8")
        try:
            # Kept open: while it is, its inode number belongs to no other file.
            status = os.fstat(self._attach_file.fileno())
            self._attach_path = str(folder / layout.ATTACH)
            self._attach_inode = (status.st_dev, status.st_ino)
            attachment = layout.Attachment.from_json(self._attach_file.read())
            self.attachment = attachment
            self.cache_id = attachment.cache_id
            self._keys = {
                row.prefix: layout.fingerprint_key(attachment.cache_id, row.identity)
                for row in attachment.origins
            }
            self.table = _map(folder / layout.table_name(attachment.epoch), mmap.PROT_READ)
            header = unpack_header(self.table[:HEADER_SIZE])
            if header.cache_id.hex() != attachment.cache_id:
                raise ValueError("the table belongs to another cache")
            self._mask = header.slots // BUCKET_RECORDS - 1
            self.recency = self._map_recency(attachment.epoch, header.slots)
        except BaseException:
            self._attach_file.close()
            raise
        self.row = CounterRow(folder)
        self._segments: dict[int, tuple[mmap.mmap, int]] = {}
        self._blobs: OrderedDict[int, int] = OrderedDict()
        self._blobs_lock = threading.Lock()  # guards _blobs; taken last

    def _map_recency(self, epoch: int, slots: int) -> MutableSequence[int] | _NoRecency:
        try:
            path = self.folder / layout.recency_name(epoch)
            mapping = _map(path, mmap.PROT_READ | mmap.PROT_WRITE)
        except OSError:
            return _NoRecency()  # this process's hits do not count for LRU
        view = memoryview(mapping).cast("Q")
        return view if len(view) == slots else _NoRecency()  # type: ignore[return-value]

    def is_current(self) -> bool:
        """Tell whether the folder's attach.json is still the one that was read."""
        try:
            status = os.stat(self._attach_path)  # noqa: PTH116  # 1 us less than Path.stat
        except OSError:
            return False
        return (status.st_dev, status.st_ino) == self._attach_inode

    def fingerprint(self, uri: str) -> tuple[str, bytes] | None:
        """Return the URI as the daemon knows it, and its fingerprint; None without an origin."""
        found = uris.resolve(uri, self._keys)
        if found is None:
            return None
        canonical, _, key = found
        return canonical, layout.fingerprint(key, canonical)

    def find(self, fingerprint: bytes) -> Found | None:
        """Look a record up; a torn one is None."""
        table = self.table
        for bucket in buckets_of(fingerprint, self._mask):
            start = HEADER_SIZE + bucket * BUCKET_SIZE
            data = table[start : start + BUCKET_SIZE]
            for index in find_in_bucket(data, fingerprint):
                bits = data[index * RECORD_SIZE : (index + 1) * RECORD_SIZE]
                record = unpack_record(bits)
                if record is not None:
                    slot = bucket * BUCKET_RECORDS + index
                    return Found(slot, start + index * RECORD_SIZE, bits, record)
        return None

    def segment(self, number: int) -> tuple[mmap.mmap, int]:
        """Return a segment's mapping and open file. Raises OSError if it is gone."""
        known = self._segments.get(number)
        if known is None:
            fd = os.open(self.folder / layout.segment_name(number), os.O_RDONLY | os.O_CLOEXEC)
            try:
                mapping = mmap.mmap(fd, self.attachment.segment_bytes, prot=mmap.PROT_READ)
            except BaseException:
                os.close(fd)
                raise
            # Two threads may get here at once: the first one's mapping is kept.
            known = self._segments.setdefault(number, (mapping, fd))
            if known[1] != fd:
                os.close(fd)
        return known

    def duplicate_blob(self, generation: int) -> int:
        """Return an open file of a blob, the caller's to close. Raises OSError if it is gone."""
        with self._blobs_lock:
            fd = self._blobs.get(generation)
            if fd is None:
                fd = os.open(
                    self.folder / layout.blob_name(generation), os.O_RDONLY | os.O_CLOEXEC
                )
                self._blobs[generation] = fd
                if len(self._blobs) > _OPEN_BLOBS:
                    os.close(self._blobs.popitem(last=False)[1])
            self._blobs.move_to_end(generation)
            return os.dup(fd)

    def after_fork_in_child(self) -> None:
        self._blobs_lock = threading.Lock()
        self.row.release()  # the copy of the parent's file; the lock stays the parent's
        self.row = CounterRow(self.folder)

    def __del__(self) -> None:
        # Of an attachment that was replaced: other threads may have been reading until now.
        if hasattr(self, "row"):
            self.close()

    def close(self) -> None:
        """Let go of files. Mappings go when nothing refers to them."""
        self._attach_file.close()
        self.row.release()
        for _, fd in self._segments.values():
            os.close(fd)
        for fd in self._blobs.values():
            os.close(fd)
        self._segments, self._blobs = {}, OrderedDict()


def _map(path: Path, protection: int) -> mmap.mmap:
    writable = protection & mmap.PROT_WRITE
    fd = os.open(path, (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC)
    try:
        return mmap.mmap(fd, 0, prot=protection)
    finally:
        os.close(fd)


def is_resident(fd: int, start: int, end: int) -> bool:
    """Tell whether the page cache seems to hold [start, end) of a file, by its first and last page.

    Reading cold pages through a mapping would hold the GIL for the time of the disk and read more
    than is wanted.
    """
    try:
        os.preadv(fd, _PROBE, start, os.RWF_NOWAIT)
        if end - start > mmap.PAGESIZE:
            os.preadv(fd, _PROBE, end - 1, os.RWF_NOWAIT)
    except OSError:  # EAGAIN: cold; EOPNOTSUPP: a file system that cannot tell
        return False
    return True
