"""Comparing what the catalogue says with the table, the files and the totals.

The comparison runs while the daemon serves: a difference is a suspicion, and only what still
differs when it is looked at again, with nothing in between, is reported.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from forebay_protos import layout
from forebayd.store import disk

if TYPE_CHECKING:
    from collections.abc import Callable

    from forebayd.store.rows import Entry
    from forebayd.store.store import Store

_SLICE = 500


@dataclass(frozen=True, slots=True)
class Problem:
    what: str
    repaired: bool


@dataclass(slots=True)
class Report:
    """What was found; no problem means a clean cache. Totals are only compared when nothing was
    filled or evicted meanwhile."""

    problems: list[Problem] = field(default_factory=list)
    objects: int = 0
    bytes: int = 0

    def add(self, what: str, repair: Callable[[], object] | None) -> None:
        if repair is not None:
            repair()
        self.problems.append(Problem(what, repair is not None))


async def check(store: Store, *, repair: bool) -> Report:
    """Compare everything; with *repair*, drop or mend what is wrong. The bytes served stay right
    either way."""
    report = Report()
    store.flush()
    changes = store.changes
    fingerprints = await asyncio.to_thread(store.catalogue.fingerprints)
    for start in range(0, len(fingerprints), 16 * _SLICE):
        chunk = fingerprints[start : start + 16 * _SLICE]
        keys = [chunk[i : i + 16] for i in range(0, len(chunk), 16)]
        for entry in store.get_many(keys):
            if entry is not None:
                _check_entry(store, entry, report, repair=repair)
        await asyncio.sleep(0)
    _check_table(store, report, repair=repair)
    await _check_files(store, report, repair=repair)
    if store.changes == changes:  # else the sum is of no one moment
        _check_totals(store, report, repair=repair)
    return report


def _check_entry(store: Store, entry: Entry, report: Report, *, repair: bool) -> None:
    def drop() -> None:
        store.remove([entry])

    mend = drop if repair else None
    name = f"{entry.uri} (generation {entry.generation:#x})"
    if entry.is_packed:
        path = store.segments.path(entry.place >> 32)
        if not path.exists():
            report.add(f"{name}: segment {path.name} is missing", mend)
            return
        end = (entry.place & 0xFFFF_FFFF) * disk.BLOCK + entry.size_bytes
        if path.stat().st_size < end:
            report.add(f"{name}: segment {path.name} ends before it does", mend)
            return
    else:
        path = store.blobs.path(entry.generation)
        if not path.exists():
            report.add(f"{name}: blob {path.name} is missing", mend)
            return
        if entry.is_pending:  # its file, with a trailer, and its room are the spool's
            is_whole = path.stat().st_size >= entry.size_bytes
        else:
            is_whole = path.stat().st_size == entry.size_bytes
        if not is_whole:
            report.add(f"{name}: blob is {path.stat().st_size} bytes, not {entry.size_bytes}", mend)
            return
        charge = 0 if entry.is_pending else store.charge_of(entry)
        if charge != entry.charge_bytes:
            report.add(f"{name}: charged {entry.charge_bytes} bytes, its blocks are {charge}", mend)
            return
    found = store.table.find(entry.fingerprint)
    if found is None or found[1].generation != entry.generation:
        show = (lambda: store.put_record(entry, (0, 0))) if repair else None
        report.add(f"{name}: no record shows it", show)
    report.objects += 1
    report.bytes += entry.charge_bytes


def _check_table(store: Store, report: Report, *, repair: bool) -> None:
    slots = store.table.occupied()
    for start in range(0, len(slots), _SLICE):
        records = [
            (slot, store.table.record_at(int(slot))) for slot in slots[start : start + _SLICE]
        ]
        keys = [record.fingerprint for _, record in records if record is not None]
        entries = {e.fingerprint: e for e in store.get_many(keys) if e is not None}
        for slot, record in records:
            entry = None if record is None else entries.get(record.fingerprint)
            if record is not None and entry is not None and entry.generation == record.generation:
                continue
            chosen = slots[slots == slot]
            mend = (lambda chosen=chosen: store.table.clear_slots(chosen)) if repair else None
            what = "torn" if record is None else "backed by no row"
            report.add(f"slot {slot}: its record is {what}", mend)


async def _check_files(store: Store, report: Report, *, repair: bool) -> None:
    # In this order: a file that is listed first is in one of the two lists that follow.
    files = list((store.path / layout.BLOBS).iterdir())
    store.flush()
    unsettled = store.catalogue.unsettled()
    entries = await asyncio.to_thread(lambda: list(store.catalogue.all()))
    known = {entry.generation for entry in entries} | unsettled.keys()
    known |= store.catalogue.unsettled().keys()
    for path in files:
        if int(path.name, 16) not in known and path.exists():
            stray = (lambda path=path: path.unlink(missing_ok=True)) if repair else None
            report.add(f"blob {path.name} belongs to no row", stray)
    for path in list((store.path / layout.SEGMENTS).iterdir()):
        number = int(path.stem)
        if number not in store.segments.live_bytes:
            stray = (lambda path=path: path.unlink(missing_ok=True)) if repair else None
            report.add(f"segment {path.name} belongs to no row", stray)
            continue
        live, allocated = store.segments.live_bytes[number], disk.allocated_bytes(path)
        # Extent blocks of a much punched file come on top: some per cent at most.
        if store.can_punch and allocated > live + live // 16 + (1 << 20):
            report.add(f"segment {path.name} occupies {allocated} bytes, {live} are live", None)


def _check_totals(store: Store, report: Report, *, repair: bool) -> None:
    if store.object_bytes != report.bytes:
        report.add(
            f"{store.object_bytes} bytes are counted as used, the objects are {report.bytes}",
            (lambda: store.recount(report.objects, report.bytes)) if repair else None,
        )
    if store.object_count != report.objects:
        report.add(
            f"{store.object_count} objects are counted, there are {report.objects}",
            (lambda: store.recount(report.objects, report.bytes)) if repair else None,
        )
