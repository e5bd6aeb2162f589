"""Entries of the catalogue and their bytes.

An entry is all that is known of a cached object. A change to these bytes needs another
``forebay_protos.layout.FORMAT_VERSION``; tests/format holds fixed bytes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from forebay_protos.table import (
    PACKED,
    PINNED,
    PRESENCE_BITS,
    Record,
    block_group,
)

# generation, place, size, charge, validated_at_ns, modified, flags, block_shift, lengths of
# version, uri and bitmap
_ROW = struct.Struct("<QQQQQdIIHHI")
PENDING = "pending-"  # begins the version of an object that is not yet in its origin
_NO_TIME = float("-inf")


@dataclass(frozen=True, slots=True)
class Entry:
    """A cached object."""

    fingerprint: bytes
    uri: str
    version: str
    size_bytes: int
    modified: float | None
    generation: int
    flags: int  # PACKED or BLOB, PINNED
    place: int  # of a packed object; 0 for blobs
    block_shift: int  # of a blob
    present: int  # bitmap of a blob's blocks; 1 for a packed object
    charge_bytes: int  # on disk, in whole blocks
    validated_at_ns: int

    @property
    def is_packed(self) -> bool:
        return bool(self.flags & PACKED)

    @property
    def is_pending(self) -> bool:
        """Its bytes are the spool's: the origin does not have them yet."""
        return self.version.startswith(PENDING)

    @property
    def is_pinned(self) -> bool:
        return bool(self.flags & PINNED)

    @property
    def block_count(self) -> int:
        if self.is_packed:
            return 1
        return max(1, -(-self.size_bytes >> self.block_shift))

    @property
    def cached_bytes(self) -> int:
        """Bytes of the object that can be read from the cache."""
        if self.is_packed:
            return self.size_bytes
        whole = self.present.bit_count()
        last = self.block_count - 1
        if self.present >> last & 1:
            return (whole - 1 << self.block_shift) + self.size_bytes - (last << self.block_shift)
        return whole << self.block_shift

    @property
    def is_complete(self) -> bool:
        return self.is_packed or self.present == (1 << self.block_count) - 1

    def missing_blocks(self, start: int, end: int) -> list[int]:
        """Return the blocks that the bytes [start, end) need and that are not cached."""
        if self.is_packed or end <= start:
            return []
        blocks = range(start >> self.block_shift, ((end - 1) >> self.block_shift) + 1)
        return [block for block in blocks if not self.present >> block & 1]

    def record(self, stale_after_ns: int, refresh_after_s: int) -> Record:
        """Return what clients see of this entry."""
        place = self.place if self.is_packed else self._presence()
        return Record(
            self.fingerprint,
            self.generation,
            place,
            self.size_bytes,
            stale_after_ns,
            self.flags,
            self.block_shift,
            refresh_after_s,
        )

    def _presence(self) -> int:
        count = self.block_count
        if count <= PRESENCE_BITS:
            return self.present
        blocks_a_group = -(-count // PRESENCE_BITS)
        presence = 0
        for group in range(block_group(count - 1, count) + 1):
            first = group * blocks_a_group
            whole = (1 << min(blocks_a_group, count - first)) - 1
            if self.present >> first & whole == whole:
                presence |= 1 << group
        return presence


def encode(entry: Entry) -> bytes:
    """Return the row of *entry*; its key is the fingerprint."""
    uri = entry.uri.encode("utf-8", "surrogatepass")
    version = entry.version.encode("utf-8", "surrogatepass")
    bitmap = entry.present.to_bytes((entry.block_count + 7) // 8, "little")
    modified = _NO_TIME if entry.modified is None else entry.modified
    head = _ROW.pack(
        entry.generation,
        entry.place,
        entry.size_bytes,
        entry.charge_bytes,
        entry.validated_at_ns,
        modified,
        entry.flags,
        entry.block_shift,
        len(version),
        len(uri),
        len(bitmap),
    )
    return head + version + uri + bitmap


def decode(fingerprint: bytes, row: bytes) -> Entry:
    """Return the entry of a row."""
    (
        generation,
        place,
        size,
        charge,
        validated,
        modified,
        flags,
        shift,
        n_version,
        n_uri,
        n_bitmap,
    ) = _ROW.unpack_from(row)
    version_end = _ROW.size + n_version
    uri_end = version_end + n_uri
    return Entry(
        fingerprint=fingerprint,
        uri=row[version_end:uri_end].decode("utf-8", "surrogatepass"),
        version=row[_ROW.size : version_end].decode("utf-8", "surrogatepass"),
        size_bytes=size,
        modified=None if modified == _NO_TIME else modified,
        generation=generation,
        flags=flags,
        place=place,
        block_shift=shift,
        present=int.from_bytes(row[uri_end : uri_end + n_bitmap], "little"),
        charge_bytes=charge,
        validated_at_ns=validated,
    )
