"""The store: what is cached, where it lies, and in which order it is published and taken back.

Publication: bytes, catalogue, record. Removal: record, catalogue, bytes. Publications of one turn
of the event loop share a transaction. Everything here runs on the event loop's thread, except
where a docstring says otherwise.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import os
from typing import TYPE_CHECKING

import numpy as np

from forebay_protos import layout
from forebay_protos.table import PACKED, PINNED, packed_place
from forebayd.store import disk, recovery
from forebayd.store.folder import write_atomically
from forebayd.store.leases import Leases
from forebayd.store.space import Space

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from forebay_protos.layout import Attachment
    from forebayd.store.folder import CacheFolder
    from forebayd.store.rows import Entry

log = logging.getLogger(__name__)

_MARGIN_BYTES = 1 << 20  # growth of catalogue and folders between two looks at them
_UNCLAIMED_GENERATIONS = 1 << 20  # more than a crash can have left uncommitted


class Store:
    """Cached objects of one folder, by fingerprint."""

    def __init__(
        self, folder: CacheFolder, *, max_bytes: int, segment_bytes: int, meta_bytes: int
    ) -> None:
        """Open the folder's files, mending what a crash has left; publish_attachment follows."""
        self.folder = folder
        self.path = folder.path
        recovered = recovery.recover(folder, segment_bytes, max_bytes)
        self.catalogue = recovered.catalogue
        self.table = recovered.table
        self.segments = recovered.segments
        self.blobs = recovered.blobs
        self.can_punch = disk.can_punch(self.path)
        if not self.can_punch:
            log.warning("the file system cannot punch holes: small objects leave in whole segments")
        self._next_generation: int = (
            self.catalogue.meta("next_generation", 1) + _UNCLAIMED_GENERATIONS
        )
        self._meta_bytes = meta_bytes
        self.leases = Leases(self.path)
        self.space = Space(
            max_bytes, used_bytes=self.catalogue.meta("used_bytes", 0) + self.leases.held_bytes()
        )
        self._lease_bytes = self.leases.held_bytes()  # on disk only because a lease holds them
        self.object_count = self.catalogue.count()
        self.changes = 0  # grows with every publication and removal
        self._puts: dict[bytes, tuple[Entry, tuple[int, int]]] = {}
        self._settled: list[int] = []
        self._commit_waiters: list[asyncio.Future[None]] = []
        self._commit_scheduled = False
        # Now, not with the next commit: a second crash must not start from the same numbers.
        self.catalogue.commit(meta=self._totals())
        self.measure_overhead()

    # --- reading -----------------------------------------------------------------------------

    def get(self, fingerprint: bytes) -> Entry | None:
        """Return the entry, also one whose transaction is still to come."""
        waiting = self._puts.get(fingerprint)
        return waiting[0] if waiting else self.catalogue.get(fingerprint)

    def get_many(self, fingerprints: Sequence[bytes]) -> list[Entry | None]:
        self.flush()
        return self.catalogue.get_many(fingerprints)

    def read(self, entry: Entry, start: int, end: int) -> bytes | None:
        """Return the bytes [start, end) of an entry, or None if it is no longer this generation."""
        try:
            if entry.is_packed:
                segment, offset = entry.place >> 32, (entry.place & 0xFFFF_FFFF) * disk.BLOCK
                data = self.segments.read(segment, offset + start, end - start)
            else:
                data = os.pread(self.blobs.fd(entry.generation), end - start, start)
        except OSError:
            log.exception("reading a cached object failed", extra={"uri": entry.uri})
            return None
        found = self.table.find(entry.fingerprint)
        if found is None or found[1].generation != entry.generation or len(data) < end - start:
            return None
        return data

    # --- publication -------------------------------------------------------------------------

    def new_generation(self) -> int:
        self._next_generation += 1
        return self._next_generation

    def append(self, data: memoryview) -> tuple[int, int]:
        """Write a packed object into reserved space; returns (segment, offset). Raises OSError."""
        return self.segments.append(data)

    def begin_blob(self, entry: Entry) -> None:
        """Make the file of a blob that is to be filled; a crash from here on is tidied up."""
        self.catalogue.commit(unsettled={entry.generation: entry.fingerprint})
        self.blobs.create(entry.generation, entry.size_bytes)

    def unwrite(self, generation: int, offset: int, length: int) -> None:
        """Give back what a failed write of a blob's block may have taken."""
        with contextlib.suppress(OSError):
            disk.punch(self.blobs.fd(generation), offset, length)

    def abandon_blob(self, entry: Entry) -> None:
        """Remove the file of a blob that was begun and is not published."""
        self.blobs.remove(entry.generation, punch=self.can_punch)
        with contextlib.suppress(OSError):  # on a full disk it stays for the next start
            self.catalogue.commit(settled=[entry.generation])

    def publish(
        self, entry: Entry, charge_bytes: int, validity: tuple[int, int], *, is_new: bool
    ) -> None:
        """Make *entry* (new, or with more blocks) visible soon; its bytes are in place.

        *charge_bytes* of the reservation become used. *validity* is (stale_after_ns,
        refresh_after_s). ``committed`` waits until clients see it.
        """
        self.changes += 1
        self.object_count += is_new
        self.space.use(charge_bytes)
        self._puts[entry.fingerprint] = (entry, validity)
        # A file that is the spool's too is for the next start to drop, and to be shown anew.
        if not entry.is_packed and entry.is_complete and not entry.is_pending:
            self._settled.append(entry.generation)
        if not self._commit_scheduled:
            self._commit_scheduled = True
            asyncio.get_running_loop().call_soon(self.flush)

    def committed(self) -> asyncio.Future[None]:
        """Return a future that is done when everything published so far is in the table.

        Its result is an OSError if that could not be: what was published is gone again.
        """
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._commit_scheduled:
            self._commit_waiters.append(future)
        else:
            future.set_result(None)
        return future

    def flush(self) -> None:
        """Commit what is published and write its records.

        What cannot be committed is taken back, and ``committed`` tells.
        """
        self._commit_scheduled = False
        puts, self._puts = self._puts, {}
        settled, self._settled = self._settled, []
        waiters, self._commit_waiters = self._commit_waiters, []
        try:
            if puts:
                self.catalogue.commit(
                    puts=[entry for entry, _ in puts.values()],
                    meta=self._totals(),
                    settled=settled,
                )
                for entry, validity in puts.values():
                    self.put_record(entry, validity)
        except OSError as error:
            log.exception("publishing failed")
            for entry, _ in puts.values():
                self._take_back(entry)
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_exception(error)
            return
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _take_back(self, entry: Entry) -> None:
        """Undo a publication that has no row."""
        before = self.catalogue.get(entry.fingerprint)
        self.changes += 1
        if before is not None and before.is_pending:
            # Of a write that is uploaded: its row would be believed for ever.
            self.space.free(entry.charge_bytes)
            with contextlib.suppress(OSError):
                self.remove([before])
        elif before is None:
            self.object_count -= 1
            self.space.free(entry.charge_bytes)
            if entry.is_packed:
                self._free_packed(entry)
            else:
                self.blobs.remove(entry.generation, punch=self.can_punch)
        elif entry.is_packed:
            self._free_packed(entry)  # it was to move, under its old charge
        else:
            self.space.free(entry.charge_bytes - before.charge_bytes)
            if self.can_punch:
                self.blobs.keep_only(entry.generation, recovery.present_extents(before))

    def put_record(self, entry: Entry, validity: tuple[int, int]) -> None:
        """Show an entry of the catalogue to clients; the table grows when it must, and can."""
        record = entry.record(*validity)
        try:
            while self.table.put(record) is None:
                self._grow_table()
        except OSError:
            log.exception("the table cannot grow: the daemon serves what is not in it")

    def _grow_table(self) -> None:
        smaller = self.table
        self.table = smaller.grown()
        self.publish_attachment(dataclasses.replace(self.attachment, epoch=self.table.epoch))
        smaller.remove_files()  # only now: a client that finds it empty must find the new one
        self.measure_overhead()

    def publish_attachment(self, attachment: Attachment) -> None:
        """Tell clients how to hit (``attach.json``)."""
        self.attachment = attachment
        write_atomically(self.path / layout.ATTACH, attachment.to_json())

    # --- what this node wrote ----------------------------------------------------------------

    def adopt(self, entry: Entry, path: Path, validity: tuple[int, int]) -> None:
        """Show a file of the spool, whose room is the spool's, as a complete object.

        Raises OSError. One transaction, before the file: a start drops such entries anyway, and
        the record, which comes last, is all that clients see.
        """
        self.changes += 1
        self.object_count += 1
        try:
            self.catalogue.commit(
                puts=[entry],
                meta=self._totals(),
                unsettled={entry.generation: entry.fingerprint},
            )
        except OSError:
            self.object_count -= 1
            raise
        try:
            self.blobs.adopt(entry.generation, path)
        except OSError:
            self.remove([entry])
            raise
        self.put_record(entry, validity)

    @staticmethod
    def charge_of(entry: Entry) -> int:
        """Return what the present blocks of a blob count as."""
        return sum(length for _, length in recovery.present_extents(entry))

    def own(self, entry: Entry, charge_bytes: int, validity: tuple[int, int]) -> None:
        """Keep an adopted object under its origin's version: the spool has let go of its file.

        *charge_bytes* were reserved.
        """
        self.blobs.trim(entry.generation, entry.size_bytes)
        owned = dataclasses.replace(entry, charge_bytes=charge_bytes)
        self.publish(owned, charge_bytes, validity, is_new=False)

    # --- changes of entries that stay --------------------------------------------------------

    def validated(self, entries: Sequence[Entry], validity: tuple[int, int]) -> None:
        """Note that the origin still has these versions.

        What is no longer the generation that was looked up is left alone: its place may be another
        object's by now. Of the rest only the time is taken; blocks and pins may be newer.
        """
        looked_up = {entry.fingerprint: entry for entry in entries}
        current = [
            dataclasses.replace(now, validated_at_ns=looked_up[now.fingerprint].validated_at_ns)
            for now in self.get_many(list(looked_up))
            if now is not None and now.generation == looked_up[now.fingerprint].generation
        ]
        try:
            self.catalogue.update(current)
        except OSError:  # after a restart they are looked up again
            log.exception("a look at the origin cannot be noted")
        for entry in current:
            self.put_record(entry, validity)

    def set_pinned(self, entries: Sequence[Entry], pinned: bool) -> int:
        """Set or clear the pin of entries that are still there; returns how many changed."""
        now = self.get_many([entry.fingerprint for entry in entries])
        changed = [
            dataclasses.replace(entry, flags=entry.flags ^ PINNED)
            for entry in now
            if entry is not None and entry.is_pinned is not pinned
        ]
        self.catalogue.update(changed)
        for entry in changed:
            found = self.table.find(entry.fingerprint)
            if found is not None and found[1].generation == entry.generation:
                self.put_record(entry, (found[1].stale_after_ns, found[1].refresh_after_s))
        return len(changed)

    # --- removal -----------------------------------------------------------------------------

    def remove(self, entries: Sequence[Entry]) -> int:
        """Take entries out of the cache; returns the bytes that this frees.

        Raises OSError if the catalogue cannot be written: they stay, and are not shown.
        """
        self.flush()
        for entry in entries:
            self.table.clear(entry.fingerprint)
        freed = sum(entry.charge_bytes for entry in entries)
        blobs = [entry for entry in entries if not entry.is_packed]
        self.changes += 1
        self.object_count -= len(entries)
        # What a lease still holds stays charged until it is released.
        held = sum(entry.charge_bytes for entry in blobs if self.leases.holds(entry.generation))
        self.space.free(freed - held)
        self._lease_bytes += held
        try:
            self.catalogue.commit(
                deletes=entries,
                meta=self._totals(),
                unsettled={entry.generation: entry.fingerprint for entry in blobs},
            )
        except OSError:
            self.object_count += len(entries)
            self.space.free(held - freed)
            self._lease_bytes -= held
            raise
        for entry in entries:
            if entry.is_packed:
                self._free_packed(entry)
            else:
                self.blobs.remove(entry.generation, punch=self._may_punch(entry.generation))
        if blobs:
            with contextlib.suppress(OSError):  # on a full disk they stay for the next start
                self.catalogue.commit(settled=[entry.generation for entry in blobs])
        return freed - held

    def relocate(self, entry: Entry) -> None:
        """Move a packed object into the open segment, for which its size is reserved."""
        data = self.read(entry, 0, entry.size_bytes)
        found = self.table.find(entry.fingerprint)
        if data is None or found is None:
            self.space.release(entry.charge_bytes)
            return
        try:
            segment, offset = self.append(memoryview(data))
        except OSError:
            self.space.release(entry.charge_bytes)
            raise
        moved = dataclasses.replace(
            entry,
            generation=self.new_generation(),
            place=packed_place(segment, offset),
        )
        validity = (found[1].stale_after_ns, found[1].refresh_after_s)
        # Without a record in between: after a crash, a row that the table does not show is shown
        # anew, but a record of an older generation would be believed.
        used_at_ns = self.table.recency[found[0]]
        self.table.clear(entry.fingerprint)
        self.publish(moved, 0, validity, is_new=False)  # it goes on under its old charge
        self.flush()
        shown = self.table.find(entry.fingerprint)
        if shown is not None:
            self.table.recency[shown[0]] = used_at_ns
        now = self.catalogue.get(entry.fingerprint)
        if now is not None and now.generation == moved.generation:
            # No reader that looks now is sent to the old place; one that copies from it compares.
            self._free_packed(entry)
        self.space.release(entry.charge_bytes)

    def packed_in(self, segment: int) -> list[Entry]:
        """Return the objects of a segment."""
        self.flush()
        records = self.table.records
        chosen = (records["generation"] != 0) & (records["flags"] & PACKED != 0)
        slots = np.flatnonzero(chosen & (records["place"] >> 32 == segment))
        keys = [value.tobytes() for value in records["fingerprint"][slots]]
        return [entry for entry in self.catalogue.get_many(keys) if entry is not None]

    def _free_packed(self, entry: Entry) -> None:
        offset = (entry.place & 0xFFFF_FFFF) * disk.BLOCK
        self.segments.free(entry.place >> 32, offset, entry.size_bytes)

    def _totals(self) -> dict[str, int]:
        return {
            "next_generation": self._next_generation,
            "next_segment": self.segments.next_number,
            "used_bytes": self.object_bytes,
        }

    def _may_punch(self, generation: int) -> bool:
        return self.can_punch and not self.leases.holds(generation)

    # --- leases ------------------------------------------------------------------------------

    def lease_add(self, lease: str, name: str, entry: Entry, copy: bytes | None) -> None:
        """Put a complete object into a lease: a blob by link, a packed object by its *copy*, for
        which space is reserved."""
        if copy is None:
            self.leases.link(lease, name, self.blobs.path(entry.generation), entry.generation)
        else:
            self.leases.write(lease, name, copy)
            self.lease_copied(disk.rounded(len(copy)))

    def lease_copied(self, size_bytes: int) -> None:
        """Count a copy in a lease, for which space was reserved."""
        self.space.use(size_bytes)
        self._lease_bytes += size_bytes

    def lease_release(self, lease: str) -> None:
        """Remove a lease and free what only it held."""
        freed = self.leases.remove(lease)
        self.space.free(freed)
        self._lease_bytes -= freed

    # --- the whole ---------------------------------------------------------------------------

    def measure_overhead(self) -> None:
        """Look how much of the limit everything that is not an object takes."""
        names = [
            layout.table_name(self.table.epoch),
            layout.recency_name(self.table.epoch),
            layout.COUNTERS,
        ]
        folders = (".", layout.SEGMENTS, layout.BLOBS, layout.LEASES, layout.CATALOGUE)
        measured = sum(disk.allocated_bytes(self.path / name) for name in (*names, *folders))
        # A table that grows is there twice for a moment, and the new one is twice as large.
        measured += 2 * sum(disk.allocated_bytes(self.path / name) for name in names[:2])
        measured += 8 * disk.BLOCK  # ID, VERSION, BOOT, lock, attach.json and its scratch copy
        margin = max(0, _MARGIN_BYTES - self.catalogue.reserve())
        catalogue = disk.allocated_bytes(self.catalogue.path)
        self.space.overhead_bytes = (
            measured + catalogue + catalogue // 16 + self._meta_bytes + margin
        )

    @property
    def object_bytes(self) -> int:
        """What the objects of the catalogue are counted as, without what only leases hold."""
        return self.space.used_bytes - self._lease_bytes

    def recount(self, objects: int, size_bytes: int) -> None:
        """Set the totals to what a check has found."""
        self.object_count = objects
        self.space.used_bytes = size_bytes + self._lease_bytes
        self.catalogue.commit(meta=self._totals())

    def is_pinned_or_leased(self, entry: Entry) -> bool:
        return entry.is_pinned or entry.is_pending or self.leases.holds(entry.generation)

    def sync(self) -> None:
        """Bring everything to the disk, for a clean shutdown."""
        self.flush()
        self.catalogue.commit(meta=self._totals())
        self.segments.sync()
        self.catalogue.sync()
        os.sync()

    def close(self) -> None:
        self.segments.close()
        self.blobs.close()
        self.catalogue.close()
