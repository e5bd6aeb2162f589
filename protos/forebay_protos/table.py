"""The hash table in shared memory through which clients hit, without a lock and without a message.

File ``table.<epoch>``: a header of 4,096 bytes, then ``slots`` records of 64 bytes, in buckets of
8.
File ``recency.<epoch>``: one little-endian uint64 a slot, the unix time in ns of the last access.
Only the daemon writes the table; clients map it read-only. Any client may store into recency.

The protocol, on which "no wrong byte" rests:

* A *generation* is never used twice in the life of a cache folder. It names a place's content:
  while a record carries generation g, the bytes at its place are those of generation g.
* The daemon publishes bytes first, the record last; it clears the record first, and only then
  gives the bytes' place free.
* A reader takes the record, copies the bytes, and takes the record's first ``IDENTITY_SIZE`` bytes
  again. If they are unchanged, the bytes that it copied were those of that generation.
* A record that is being written may be seen torn: its CRC is wrong, and a torn record is a miss.
* A table that is replaced (it grew, or its cache is gone) is zeroed after the new ``attach.json``
  was renamed into place, so that a reader of the old one misses and attaches again.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple
from zlib import crc32

if TYPE_CHECKING:
    from collections.abc import Iterator

FORMAT_VERSION = 1
MAGIC = b"FOREBAYT"
HEADER = struct.Struct("<8sII16sQQ")  # magic, version, header size, cache id, slots, epoch
HEADER_SIZE = 4096

RECORD_SIZE = 64
BUCKET_RECORDS = 8
BUCKET_SIZE = RECORD_SIZE * BUCKET_RECORDS
IDENTITY_SIZE = 24  # fingerprint and generation

# fingerprint, generation, place, size_bytes, stale_after_ns, flags, block_shift, refresh_after_s,
# crc
RECORD = struct.Struct("<16sQQQQIIII")
_BODY_SIZE = RECORD.size - 4

PACKED = 1  # place = segment number << 32 | offset in units of 4 KiB
BLOB = 2  # file blobs/<generation in hex>; place = bitmap of present block groups
PINNED = 4
ALIGNMENT = 4096
PRESENCE_BITS = 64
NEVER_STALE = 2**64 - 1
EMPTY = bytes(RECORD_SIZE)


class Record(NamedTuple):
    """One slot: where an object's bytes lie and until when they may be served unasked."""

    fingerprint: bytes
    generation: int
    place: int
    size_bytes: int
    stale_after_ns: int
    flags: int
    block_shift: int = 0
    refresh_after_s: int = 0  # unix time from which the daemon, not the client, looks it up again

    @property
    def is_packed(self) -> bool:
        return bool(self.flags & PACKED)

    @property
    def segment(self) -> int:
        """Number of the segment file of a packed object."""
        return self.place >> 32

    @property
    def offset(self) -> int:
        """Byte offset of a packed object in its segment."""
        return (self.place & 0xFFFF_FFFF) * ALIGNMENT


def pack_record(record: Record) -> bytes:
    """Return the record's 64 bytes, CRC included."""
    body = RECORD.pack(*record, 0)[:_BODY_SIZE]
    return body + crc32(body).to_bytes(4, "little")


def unpack_record(data: bytes) -> Record | None:
    """Return the record in 64 bytes, or None if they are empty or torn."""
    fields = RECORD.unpack_from(data)
    if fields[1] == 0 or crc32(data[:_BODY_SIZE]) != fields[8]:
        return None
    return Record(*fields[:8])


def packed_place(segment: int, offset: int) -> int:
    """Return the ``place`` of a packed object; *offset* in bytes, 4 KiB aligned."""
    return segment << 32 | offset // ALIGNMENT


def buckets_of(fingerprint: bytes, bucket_mask: int) -> tuple[int, int]:
    """Return the two buckets in which a record may lie; *bucket_mask* is their number less one."""
    first = int.from_bytes(fingerprint[:8], "little") & bucket_mask
    second = int.from_bytes(fingerprint[8:], "little") & bucket_mask
    return first, second


def find_in_bucket(bucket: bytes, fingerprint: bytes) -> Iterator[int]:
    """Yield the record indices in a bucket's 512 bytes whose fingerprint fits."""
    at = bucket.find(fingerprint)
    while at >= 0:
        if at % RECORD_SIZE == 0:
            yield at // RECORD_SIZE
        at = bucket.find(fingerprint, at + 1)


def block_group(block: int, block_count: int) -> int:
    """Return a block's presence bit: one bit a block up to 64 blocks, else equal groups."""
    return block // -(-block_count // PRESENCE_BITS) if block_count > PRESENCE_BITS else block


def groups_mask(start: int, end: int, size_bytes: int, block_shift: int) -> int:
    """Return the presence bits that the byte range [start, end) of a blob needs; 0 if empty."""
    if end <= start:
        return 0
    blocks = max(1, -(-size_bytes >> block_shift))
    first = block_group(start >> block_shift, blocks)
    last = block_group((end - 1) >> block_shift, blocks)
    return (1 << (last + 1)) - (1 << first)


def pack_header(cache_id: bytes, slots: int, epoch: int) -> bytes:
    """Return a table file's first 4,096 bytes."""
    return HEADER.pack(MAGIC, FORMAT_VERSION, HEADER_SIZE, cache_id, slots, epoch).ljust(
        HEADER_SIZE, b"\0"
    )


class Header(NamedTuple):
    """What a table file says of itself."""

    cache_id: bytes
    slots: int
    epoch: int


def unpack_header(data: bytes) -> Header:
    """Return a table's header. Raises ValueError for another magic or version."""
    magic, version, _, cache_id, slots, epoch = HEADER.unpack_from(data)
    if magic != MAGIC:
        raise ValueError(f"not a Forebay table: magic {magic!r}")
    if version != FORMAT_VERSION:
        raise ValueError(f"table format {version}, this program knows {FORMAT_VERSION}")
    return Header(cache_id, slots, epoch)
