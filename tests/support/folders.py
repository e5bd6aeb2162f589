"""A cache folder as a daemon leaves it, written through the shared formats, with no daemon."""

from __future__ import annotations

import os
import secrets
import time
from typing import TYPE_CHECKING

from forebay_protos import layout, table
from forebay_protos.counters import ROW_SIZE

if TYPE_CHECKING:
    from pathlib import Path

SEGMENT_BYTES = 1 << 20
IDENTITY = "origin"
PREFIX = "s3://bucket"
NEVER = table.NEVER_STALE


class FolderWriter:
    """Puts objects into ``PREFIX``; each method is one step of the daemon's, in its order."""

    def __init__(
        self, path: Path, *, slots: int = 64, mapping: dict[str, str] | None = None
    ) -> None:
        self.path = path
        self.cache_id = secrets.token_hex(16)
        self.epoch = 0
        self._mapping = mapping or {}
        self._slots = slots
        self._generation = 0
        self._segment = 1
        self._offset = 0
        self._table_path = path
        for name in (layout.SEGMENTS, layout.BLOBS):
            (path / name).mkdir(parents=True)
        self._allocate(path / layout.COUNTERS, 4 * ROW_SIZE)
        self.new_table()

    @staticmethod
    def _allocate(path: Path, size_bytes: int) -> None:
        with path.open("wb") as file:
            file.truncate(size_bytes)

    def new_table(self) -> None:
        """Begin an empty table under the next epoch and tell clients of it; empty the old one."""
        old = self._table_path
        self.epoch += 1
        self._table_path = self.path / layout.table_name(self.epoch)
        header = table.pack_header(bytes.fromhex(self.cache_id), self._slots, self.epoch)
        self._table_path.write_bytes(header + bytes(self._slots * table.RECORD_SIZE))
        self._allocate(self.path / layout.recency_name(self.epoch), self._slots * 8)
        self.announce()
        if old != self.path:
            with old.open("r+b") as file:
                file.seek(table.HEADER_SIZE)
                file.write(bytes(self._slots * table.RECORD_SIZE))
            old.unlink()

    def announce(self, identity: str = IDENTITY) -> None:
        """Replace ``attach.json``."""
        self.key = layout.fingerprint_key(self.cache_id, identity)
        attachment = layout.Attachment(
            self.cache_id,
            self.epoch,
            SEGMENT_BYTES,
            self._mapping,
            (layout.OriginRow(PREFIX, identity),),
        )
        scratch = self.path / "attach.new"
        scratch.write_text(attachment.to_json())
        scratch.replace(self.path / layout.ATTACH)

    # --- objects -----------------------------------------------------------------------------

    def fingerprint(self, name: str) -> bytes:
        return layout.fingerprint(self.key, f"{PREFIX}/{name}")

    def put(self, name: str, data: bytes, *, stale_after_ns: int = NEVER) -> table.Record:
        """Cache a packed object."""
        offset = self._offset
        path = self.path / layout.segment_name(self._segment)
        if offset + len(data) > SEGMENT_BYTES or not path.exists():
            self._segment += path.exists()
            path = self.path / layout.segment_name(self._segment)
            self._allocate(path, SEGMENT_BYTES)
            offset = 0
        self.overwrite(self._segment, offset, data)
        self._offset = offset + -(-len(data) // table.ALIGNMENT) * table.ALIGNMENT
        self._generation += 1
        record = table.Record(
            self.fingerprint(name),
            self._generation,
            table.packed_place(self._segment, offset),
            len(data),
            stale_after_ns,
            table.PACKED,
        )
        self.publish(record)
        return record

    def put_blob(
        self, name: str, data: bytes, *, block_shift: int = 16, blocks: set[int] | None = None
    ) -> table.Record:
        """Cache a blob, of which only *blocks* are present if given."""
        self._generation += 1
        count = max(1, -(-len(data) >> block_shift))
        present = set(range(count)) if blocks is None else blocks
        with (self.path / layout.blob_name(self._generation)).open("wb") as file:
            file.truncate(len(data))
            for block in present:
                start = block << block_shift
                file.seek(start)
                file.write(data[start : start + (1 << block_shift)])
        record = table.Record(
            self.fingerprint(name),
            self._generation,
            sum(1 << block for block in present),
            len(data),
            NEVER,
            table.BLOB,
            block_shift,
        )
        self.publish(record)
        return record

    def overwrite(self, segment: int, offset: int, data: bytes) -> None:
        """Write into a segment, as when its space is used again."""
        with (self.path / layout.segment_name(segment)).open("r+b") as file:
            file.seek(offset)
            file.write(data)

    def publish(self, record: table.Record) -> None:
        """Write a record over its predecessor, or into a free slot."""
        slot = self.slot_of(record.fingerprint)
        if slot is None:
            slot = next(s for s in self._candidates(record.fingerprint) if self._read(s) is None)
        self.write_slot(slot, table.pack_record(record))

    def clear(self, name: str) -> None:
        slot = self.slot_of(self.fingerprint(name))
        assert slot is not None
        self.write_slot(slot, table.EMPTY)

    def _candidates(self, fingerprint: bytes) -> list[int]:
        buckets = table.buckets_of(fingerprint, self._slots // table.BUCKET_RECORDS - 1)
        return [b * table.BUCKET_RECORDS + i for b in buckets for i in range(table.BUCKET_RECORDS)]

    def slot_of(self, fingerprint: bytes) -> int | None:
        for slot in self._candidates(fingerprint):
            record = self._read(slot)
            if record is not None and record.fingerprint == fingerprint:
                return slot
        return None

    def _read(self, slot: int) -> table.Record | None:
        start = table.HEADER_SIZE + slot * table.RECORD_SIZE
        with self._table_path.open("rb") as file:
            return table.unpack_record(os.pread(file.fileno(), table.RECORD_SIZE, start))

    def write_slot(self, slot: int, data: bytes) -> None:
        start = table.HEADER_SIZE + slot * table.RECORD_SIZE
        with self._table_path.open("r+b") as file:
            os.pwrite(file.fileno(), data, start)

    # --- what clients have written -----------------------------------------------------------

    def recency(self, name: str) -> int:
        slot = self.slot_of(self.fingerprint(name))
        assert slot is not None
        data = (self.path / layout.recency_name(self.epoch)).read_bytes()
        return int.from_bytes(data[slot * 8 : slot * 8 + 8], "little")

    def set_recency(self, name: str, seconds_ago: float) -> None:
        slot = self.slot_of(self.fingerprint(name))
        assert slot is not None
        value = time.time_ns() - int(seconds_ago * 1e9)
        with (self.path / layout.recency_name(self.epoch)).open("r+b") as file:
            os.pwrite(file.fileno(), value.to_bytes(8, "little"), slot * 8)

    def counted(self) -> list[int]:
        """Return the sums of the counters' columns."""
        data = (self.path / layout.COUNTERS).read_bytes()
        sums = [0] * (ROW_SIZE // 8)
        for at in range(0, len(data), 8):
            sums[at // 8 % len(sums)] += int.from_bytes(data[at : at + 8], "little")
        return sums
