"""The daemon's side of the shared table: the only writer. The format and its rules are in
``forebay_protos.table``.

Scans over all slots (victims, entries due for a look) are numpy passes over the mapped file: a
million slots are 64 MB and take some tens of milliseconds.
"""

from __future__ import annotations

import mmap
import os
import random
import time
from typing import TYPE_CHECKING

import numpy as np

from forebay_protos import layout
from forebay_protos.table import (
    BUCKET_RECORDS,
    BUCKET_SIZE,
    EMPTY,
    HEADER_SIZE,
    PINNED,
    RECORD_SIZE,
    Record,
    buckets_of,
    find_in_bucket,
    pack_header,
    pack_record,
    unpack_header,
    unpack_record,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy.typing as npt

RECORD_DTYPE = np.dtype(
    [
        ("fingerprint", "V16"),
        ("generation", "<u8"),
        ("place", "<u8"),
        ("size_bytes", "<u8"),
        ("stale_after_ns", "<u8"),
        ("flags", "<u4"),
        ("block_shift", "<u4"),
        ("refresh_after_s", "<u4"),
        ("crc", "<u4"),
    ]
)


def _create_allocated(path: Path, size: int, mode: int, head: bytes = b"") -> None:
    """Make a file with all its blocks: a store into a hole of a full disk kills the process."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        os.posix_fallocate(fd, 0, size)
        os.pwrite(fd, head, 0)
    finally:
        os.close(fd)


def _map(path: Path) -> mmap.mmap:
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        return mmap.mmap(fd, 0)
    finally:
        os.close(fd)


_SAMPLED_SLOTS = 1 << 18  # 2 MB of times: at most 2 ms
_NO_GENERATION = bytes(8)
_AT = tuple(index * RECORD_SIZE + 16 for index in range(BUCKET_RECORDS))  # of the generations


class Table:
    """Records by fingerprint, and the recency of their slots."""

    def __init__(self, folder: Path, epoch: int) -> None:
        """Open ``table.<epoch>``. Raises OSError or ValueError if it cannot be used."""
        self._folder = folder
        self.epoch = epoch
        self._file = _map(folder / layout.table_name(epoch))
        header = unpack_header(self._file[:HEADER_SIZE])
        self.cache_id = header.cache_id
        self.slots = header.slots
        recency_file = _map(folder / layout.recency_name(epoch))
        if len(self._file) != HEADER_SIZE + self.slots * RECORD_SIZE or (
            len(recency_file) != self.slots * 8
        ):
            raise ValueError("table or recency is not as long as its header says")
        self._mask = self.slots // BUCKET_RECORDS - 1
        self.records: npt.NDArray[np.void] = np.frombuffer(
            self._file, dtype=RECORD_DTYPE, offset=HEADER_SIZE
        )
        self.recency: npt.NDArray[np.uint64] = np.frombuffer(recency_file, dtype="<u8")

    @classmethod
    def create(cls, folder: Path, epoch: int, cache_id: bytes, slots: int) -> Table:
        """Make an empty table; *slots* is a power of two."""
        size = HEADER_SIZE + slots * RECORD_SIZE
        _create_allocated(
            folder / layout.table_name(epoch), size, 0o640, pack_header(cache_id, slots, epoch)
        )
        _create_allocated(folder / layout.recency_name(epoch), slots * 8, 0o660)
        return cls(folder, epoch)

    def remove_files(self) -> None:
        """Empty the table, so that clients which still map it miss, and remove its files."""
        self._file[HEADER_SIZE:] = bytes(len(self._file) - HEADER_SIZE)
        (self._folder / layout.table_name(self.epoch)).unlink(missing_ok=True)
        (self._folder / layout.recency_name(self.epoch)).unlink(missing_ok=True)

    def _bucket(self, bucket: int) -> bytes:
        start = HEADER_SIZE + bucket * BUCKET_SIZE
        return self._file[start : start + BUCKET_SIZE]

    def find(self, fingerprint: bytes) -> tuple[int, Record] | None:
        """Return the slot and the record, or None."""
        for bucket in buckets_of(fingerprint, self._mask):
            data = self._bucket(bucket)
            for index in find_in_bucket(data, fingerprint):
                record = unpack_record(data[index * RECORD_SIZE : (index + 1) * RECORD_SIZE])
                if record is not None:
                    return bucket * BUCKET_RECORDS + index, record
        return None

    def record_at(self, slot: int) -> Record | None:
        start = HEADER_SIZE + slot * RECORD_SIZE
        return unpack_record(self._file[start : start + RECORD_SIZE])

    def _free_slot(self, fingerprint: bytes) -> int | None:
        best: tuple[int, int] | None = None  # number of free records, slot
        for bucket in buckets_of(fingerprint, self._mask):
            data = self._bucket(bucket)
            free = [i for i in range(BUCKET_RECORDS) if data.startswith(_NO_GENERATION, _AT[i])]
            if free and (best is None or len(free) > best[0]):
                best = (len(free), bucket * BUCKET_RECORDS + free[0])
        return None if best is None else best[1]

    def put(self, record: Record) -> int | None:
        """Write a record over its predecessor or into a free slot; None if there is none."""
        found = self.find(record.fingerprint)
        slot = self._free_slot(record.fingerprint) if found is None else found[0]
        if slot is None:
            return None
        if found is None:
            self.touch(slot)
        self._write(slot, pack_record(record))
        return slot

    def clear(self, fingerprint: bytes) -> None:
        """Remove the record: from here on no reader that looks will accept its bytes."""
        found = self.find(fingerprint)
        if found is not None:
            self._write(found[0], EMPTY)

    def clear_slots(self, slots: npt.NDArray[np.intp]) -> None:
        self.records[slots] = np.zeros(1, RECORD_DTYPE)[0]

    def _write(self, slot: int, data: bytes) -> None:
        start = HEADER_SIZE + slot * RECORD_SIZE
        self._file[start : start + RECORD_SIZE] = data

    def touch(self, slot: int) -> None:
        """Note an access now."""
        self.recency[slot] = time.time_ns()

    def grown(self) -> Table:
        """Return a table of twice the size with the same records, under the next epoch.

        A bucket's records go to the bucket of the same number or to the one half the new table
        further, as the next bit of the hash half by which they were placed says; within a bucket
        they keep their place, so nothing can overflow and the whole is a few numpy passes.
        """
        larger = Table.create(self._folder, self.epoch + 1, self.cache_id, self.slots * 2)
        used = np.flatnonzero(self.records["generation"])
        records = self.records[used]
        halves = np.ascontiguousarray(records["fingerprint"]).view("<u8").reshape(-1, 2)
        bucket = (used // BUCKET_RECORDS).astype(np.uint64)
        mask = np.uint64(self._mask)
        by_first = (halves[:, 0] & mask) == bucket
        placed_by = np.where(by_first, halves[:, 0], halves[:, 1])
        upper = (placed_by & np.uint64(self._mask + 1)) != 0
        slots = used + np.where(upper, self.slots, 0)
        larger.records[slots] = records
        larger.recency[slots] = self.recency[used]
        return larger

    def occupied(self) -> npt.NDArray[np.intp]:
        """Return the slots that hold a record."""
        return np.flatnonzero(self.records["generation"])

    def oldest(
        self,
        count: int,
        wanted: Callable[[npt.NDArray[np.void]], npt.NDArray[np.bool_]] | None = None,
    ) -> list[tuple[int, int, bytes]]:
        """Return up to *count* unpinned slots as (recency, slot, fingerprint), oldest first.

        Times from the future (another clock, or one that was set back) become now.
        """
        now = np.uint64(time.time_ns())
        np.minimum(self.recency, now, out=self.recency)
        eligible = (self.records["generation"] != 0) & (self.records["flags"] & PINNED == 0)
        if wanted is not None:
            eligible &= wanted(self.records)
        slots = np.flatnonzero(eligible)
        times = self.recency[slots]
        if len(slots) > count:
            chosen = np.argpartition(times, count)[:count]
            slots, times = slots[chosen], times[chosen]
        order = np.argsort(times, kind="stable")
        fingerprints = self.records["fingerprint"][slots]
        return [(int(times[i]), int(slots[i]), fingerprints[i].tobytes()) for i in order.tolist()]

    def used_since(self, since_ns: int, count: int) -> tuple[list[bytes], float]:
        """Return up to *count* fingerprints that were used since a moment, and how many each
        stands for.

        A key's slot follows from its hash, so a stretch of a large table is a fair sample of it.
        """
        length = min(self.slots, _SAMPLED_SLOTS)
        start = random.randrange(self.slots // length) * length  # noqa: S311  # no secret
        used = start + np.flatnonzero(self.recency[start : start + length] >= np.uint64(since_ns))
        chosen = used if len(used) <= count else used[random.sample(range(len(used)), count)]
        share = len(chosen) / len(used) * length / self.slots if len(used) else 1.0
        records = self.records[chosen]
        there = records["fingerprint"][records["generation"] != 0]
        return [value.tobytes() for value in there], 1 / share

    def due(self, now_s: float, used_since_s: float) -> list[bytes]:
        """Return fingerprints whose refresh time has come and that were used lately."""
        records = self.records
        mask = (
            (records["generation"] != 0)
            & (records["refresh_after_s"] <= int(now_s))
            & (self.recency >= np.uint64(int(used_since_s * 1e9)))
        )
        return [value.tobytes() for value in records["fingerprint"][np.flatnonzero(mask)]]
