"""Opening a cache folder's files after any end of the last daemon.

The order of publication and removal leaves only these differences after kill -9: bytes that no row
names, and rows that no record shows. Both are found without a walk over the objects: numpy passes
over the table, one stat a segment, and the short list of unsettled blobs.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import lmdb
import numpy as np

from forebay_protos import layout
from forebay_protos.table import PACKED
from forebayd.store import disk
from forebayd.store.blobs import Blobs
from forebayd.store.catalogue import Catalogue
from forebayd.store.segments import Segments
from forebayd.store.table import Table

if TYPE_CHECKING:
    from forebayd.store.folder import CacheFolder
    from forebayd.store.rows import Entry

log = logging.getLogger(__name__)

_LEAST_SLOTS = 1024
_MOST_FIRST_SLOTS = 1 << 16
_BYTES_PER_FIRST_SLOT = 16 << 10


@dataclass(frozen=True, slots=True)
class Recovered:
    catalogue: Catalogue
    table: Table
    segments: Segments
    blobs: Blobs


def recover(folder: CacheFolder, segment_bytes: int, max_bytes: int) -> Recovered:
    """Open what *folder* holds; what cannot be opened is given up, and the cache starts empty."""
    try:
        return _open(folder, segment_bytes, max_bytes)
    except (lmdb.Error, OSError, ValueError):
        if folder.is_new:
            raise
        log.exception("the cache folder cannot be read, starting empty")
        folder.empty()
        return _open(folder, segment_bytes, max_bytes)


def _open(folder: CacheFolder, segment_bytes: int, max_bytes: int) -> Recovered:
    catalogue = Catalogue(folder.path / layout.CATALOGUE)
    try:
        if catalogue.meta("segment_bytes", segment_bytes) != segment_bytes:
            raise ValueError("the segment size has changed")
        catalogue.commit(meta={"segment_bytes": segment_bytes})
        table, rebuilt = _open_table(folder, max_bytes)
        if rebuilt or not folder.was_clean:
            table = _show_missing(catalogue, table)
        segments = Segments(folder.path, segment_bytes, catalogue.meta("next_segment", 1) + 1024)
        _count_live(segments, table)
        blobs = Blobs(folder.path)
        if not folder.was_clean:
            _tidy_segments(segments, table)
        # After a clean end too: a fill that was cut short has left its blob in the list.
        _tidy_blobs(catalogue, table, blobs, can_punch=disk.can_punch(folder.path))
    except BaseException:
        catalogue.close()
        raise
    return Recovered(catalogue, table, segments, blobs)


def _open_table(folder: CacheFolder, max_bytes: int) -> tuple[Table, bool]:
    cache_id = bytes.fromhex(folder.cache_id)
    epoch = 0
    try:
        attachment = layout.Attachment.from_json((folder.path / layout.ATTACH).read_text())
        epoch = attachment.epoch
        table = Table(folder.path, epoch)
        if table.cache_id == cache_id:
            for path in folder.path.glob("*.*"):  # of a growth that was cut short
                prefix, _, suffix = path.name.partition(".")
                if prefix in ("table", "recency") and suffix != str(epoch):
                    path.unlink()
            return table, False
    except (OSError, ValueError) as error:
        if not folder.is_new:
            log.warning("the shared table is made again", extra={"reason": str(error)})
    slots = _LEAST_SLOTS
    while slots < min(_MOST_FIRST_SLOTS, max_bytes // _BYTES_PER_FIRST_SLOT):
        slots *= 2
    for pattern in ("table.*", "recency.*"):
        for path in folder.path.glob(pattern):
            path.unlink()
    return Table.create(folder.path, epoch + 1, cache_id, slots), True


def _show_missing(catalogue: Catalogue, table: Table) -> Table:
    """Put records of rows that have none, and clear records that no row backs."""
    dtype = np.dtype([("high", ">u8"), ("low", ">u8")])
    known = np.frombuffer(catalogue.fingerprints(), dtype=dtype)
    slots = table.occupied()
    shown = np.ascontiguousarray(table.records["fingerprint"][slots]).view(dtype)
    extra = slots[~np.isin(_order_key(shown), _order_key(known))]
    table.clear_slots(extra)
    missing = known[~np.isin(_order_key(known), _order_key(shown))]
    for key in missing:
        entry = catalogue.get(key.tobytes())
        if entry is not None:
            # Stale at once: the first reader asks, and the daemon looks the object up again.
            while table.put(entry.record(0, 0)) is None:
                smaller, table = table, table.grown()
                smaller.remove_files()
    return table


def _order_key(fingerprints: np.ndarray) -> np.ndarray:
    """Return 64 bits of each 128-bit hash: enough to tell a cache's entries apart."""
    high, low = fingerprints["high"].astype(np.uint64), fingerprints["low"].astype(np.uint64)
    key: np.ndarray = high * np.uint64(0x9E3779B97F4A7C15) ^ low
    return key


def _packed(table: Table) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (segment numbers, byte offsets, sizes) of all packed objects."""
    chosen = (table.records["generation"] != 0) & (table.records["flags"] & PACKED != 0)
    places = table.records["place"][chosen]
    return places >> 32, (places & 0xFFFF_FFFF) * disk.BLOCK, table.records["size_bytes"][chosen]


def _count_live(segments: Segments, table: Table) -> None:
    numbers, _, sizes = _packed(table)
    rounded = np.maximum(disk.BLOCK, -(-sizes.astype(np.int64) // disk.BLOCK) * disk.BLOCK)
    if len(numbers):
        first = int(numbers.min())
        totals = np.bincount((numbers - first).astype(np.int64), weights=rounded)
        for number in np.flatnonzero(totals).tolist():
            segments.live_bytes[first + number] = int(totals[number])


def _tidy_segments(segments: Segments, table: Table) -> None:
    """Punch out what no record names, in segments that occupy more than their live bytes."""
    numbers, offsets, sizes = _packed(table)
    for path in list(segments.path(0).parent.iterdir()):
        number = int(path.stem)
        live = segments.live_bytes.get(number, 0)
        if live == 0:
            path.unlink()
        elif disk.allocated_bytes(path) > live:
            chosen = numbers == number
            extents = zip(offsets[chosen].tolist(), sizes[chosen].tolist(), strict=True)
            segments.keep_only(number, [(int(o), int(s)) for o, s in extents])


def _tidy_blobs(catalogue: Catalogue, table: Table, blobs: Blobs, *, can_punch: bool) -> None:
    """Settle the blobs that were being written or removed."""
    settled, dropped = [], []
    for generation, fingerprint in catalogue.unsettled().items():
        entry = catalogue.get(fingerprint)
        if entry is None or entry.generation != generation:
            blobs.remove(generation, punch=can_punch)
            settled.append(generation)
        elif entry.is_complete and not entry.is_pending:
            settled.append(generation)
        elif entry.is_pending or not can_punch or not blobs.path(generation).exists():
            # What an unpublished block has taken cannot be given back alone.
            table.clear(fingerprint)
            dropped.append(entry)
        else:
            blobs.keep_only(generation, present_extents(entry))
    freed = sum(entry.charge_bytes for entry in dropped)
    used = catalogue.meta("used_bytes", 0) - freed
    catalogue.commit(deletes=dropped, meta={"used_bytes": used}, settled=settled)
    for entry in dropped:
        blobs.remove(entry.generation, punch=can_punch)
    catalogue.commit(settled=[entry.generation for entry in dropped])


def present_extents(entry: Entry) -> list[tuple[int, int]]:
    """Return the (offset, length) of a blob's cached blocks, lengths in whole disk blocks."""
    block_bytes = 1 << entry.block_shift
    return [
        (
            block * block_bytes,
            disk.rounded(min(block_bytes, entry.size_bytes - block * block_bytes)),
        )
        for block in range(entry.block_count)
        if entry.present >> block & 1
    ]
