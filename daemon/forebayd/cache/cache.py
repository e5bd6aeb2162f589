"""The cache of a node: origins, store and policy put together. ``service`` calls only this."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from typing import TYPE_CHECKING, Any

from forebay_protos import layout
from forebayd import __version__
from forebayd.cache import watched
from forebayd.cache.eviction import Evictor
from forebayd.cache.fill import Filler, Uncached
from forebayd.cache.leases import LeaseKeeper
from forebayd.cache.listing import Listings
from forebayd.cache.origins import Origins, Target
from forebayd.cache.refresh import Refresher
from forebayd.cache.warm import Warmer
from forebayd.cache.written import CatalogueMemory, Written
from forebayd.errors import ConfigError, InvalidPathError
from forebayd.spool.journal import Journal
from forebayd.spool.order import Order
from forebayd.spool.spool import Spool
from forebayd.spool.staging import Staging
from forebayd.spool.uploader import Uploader
from forebayd.stats import ClientCounters, Statistics
from forebayd.store import check, disk
from forebayd.store.folder import CacheFolder
from forebayd.store.store import Store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from forebayd.config import DaemonConfig
    from forebayd.origin.base import ObjectInfo
    from forebayd.store.rows import Entry

log = logging.getLogger(__name__)

_CHUNK_BYTES = 1 << 20  # of a stream: below gRPC's message limit, large enough for 1 GB/s
_DRAIN_S = 5.0  # for fills under way at the end
_RELOCATED_AT_ONCE = 64  # packed objects, every few seconds
_SLICE_ENTRIES = 500  # of a long scan between two turns of the event loop
_LEAST_MAX_BYTES = 8 << 20  # some 3 MiB are the cache's own files
_META_SHARE = 256
_LEAST_META_BYTES, _MOST_META_BYTES = 1 << 20, 64 << 20


class Cache:
    """Objects of all origins through one cache folder."""

    def __init__(self, config: DaemonConfig) -> None:
        """Open the folder and build the origins. Raises ConfigError if that cannot be."""
        if config.max_bytes < _LEAST_MAX_BYTES:
            raise ConfigError(
                f"max_bytes {config.max_bytes} leaves no room for objects: give at least "
                f"{_LEAST_MAX_BYTES} (8MiB)"
            )
        self.config = config
        self.folder = CacheFolder(config.cache_dir)
        meta_bytes = min(_MOST_META_BYTES, max(_LEAST_META_BYTES, config.max_bytes // _META_SHARE))
        self.store = Store(
            self.folder,
            max_bytes=config.max_bytes,
            segment_bytes=config.segment_bytes,
            meta_bytes=meta_bytes,
        )
        catalogue = self.store.catalogue
        # After the store, which may have had to start empty.
        counters = ClientCounters(config.cache_dir)
        self.statistics = Statistics(
            counters,
            catalogue.meta("statistics", {}),
            [origin.prefix for origin in config.origins],
        )
        self.origins = Origins(config.origins, self.folder.cache_id, self.statistics)
        self.store.publish_attachment(
            layout.Attachment(
                cache_id=self.folder.cache_id,
                epoch=self.store.table.epoch,
                segment_bytes=config.segment_bytes,
                path_mapping=dict(config.path_mapping),
                origins=self.origins.rows(),
            )
        )
        self._pins: set[str] = set(catalogue.meta("pins", []))
        self.evictor = Evictor(self.store, self.statistics.evicted)
        self.filler = Filler(
            self.store,
            self.evictor,
            self.statistics,
            packing_limit_bytes=config.packing_limit_bytes,
            block_bytes=config.block_bytes,
            min_free_bytes=config.min_free_bytes,
            is_pinned=self._is_pinned,
        )
        # Half of the allowance: a database is larger than what is in it.
        self.listings = Listings(config.cache_dir, meta_bytes // 2, self.statistics)
        order = Order()
        self.written = Written(
            order, self.store, self.filler, self.evictor, self.listings, self.origins
        )
        self.filler.written = self.written
        self.leases = LeaseKeeper(self.store, self.filler, self.evictor, self.origins, self.written)
        self.spool = self._make_spool(order)
        self._tasks: list[asyncio.Task[None]] = []

    def _make_spool(self, order: Order) -> Spool:
        config = self.config
        journal = Journal(config.cache_dir)
        staging = Staging(
            journal,
            self.store.space,
            self.evictor.make_room,
            limit_bytes=config.spool_max_bytes or config.max_bytes // 2,
            can_punch=self.store.can_punch,
        )
        uploader = Uploader(
            journal,
            part_bytes=config.upload_part_bytes,
            parts_at_once=config.upload_parts_at_once,
        )
        return Spool(
            journal,
            staging,
            order,
            uploader,
            self.origins,
            self.written,
            CatalogueMemory(self.store.catalogue),
            self.statistics.uploaded,
            uploads_at_once=config.uploads_at_once,
            lingers_s=config.request_lingers_s,
            max_age_s=config.upload_max_age_s,
        )

    async def start(self) -> None:
        """Begin the background work, and bring the store within its limit."""
        # Clients of a wiped cache, and of other origins, notice within one lease; before that
        # nobody is answered, and nothing leaves its place.
        await asyncio.sleep(2 * layout.LEASE_S)
        self.spool.recover()
        self.spool.start()
        self.evictor.make_room(0)
        shortest_s = min((o.max_age_s for o in self.config.origins), default=300.0)
        refresher = Refresher(self.store, self.filler, self.origins, self.statistics, shortest_s)
        self._tasks = [
            asyncio.create_task(refresher.run()),
            asyncio.create_task(self._keep_house()),
        ]

    async def _keep_house(self) -> None:
        while True:
            await asyncio.sleep(self.statistics.tick_s)
            try:
                self.statistics.tick()
                self.store.measure_overhead()
                self.evictor.make_room(0)
                self.leases.sweep()
                self.spool.staging.sweep()
                self.spool.tidy()
                self._compact()
                self.store.catalogue.commit(meta={"statistics": self.statistics.totals_to_carry()})
            except Exception:
                log.exception("housekeeping failed")

    def _compact(self) -> None:
        """Move the last objects out of an almost empty segment, a little at a time."""
        segment = self.store.segments.emptiest()
        if segment is None:
            return
        for entry in self.store.packed_in(segment)[:_RELOCATED_AT_ONCE]:
            if not self.evictor.make_room(entry.charge_bytes):
                return
            now = self.store.get(entry.fingerprint)
            if now is not None and now.generation == entry.generation:
                self.store.space.reserve(entry.charge_bytes)
                self.store.relocate(entry)

    async def stop(self) -> None:
        """Finish what runs, bring everything to the disk and give the folder back."""
        await self.spool.stop(self.config.shutdown_grace_s)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with contextlib.suppress(asyncio.TimeoutError):
            # What is cut here is tidied at the next start.
            await asyncio.wait_for(self.filler.flights.drain(), _DRAIN_S)
        await self.origins.close()
        self.listings.close()
        self.store.catalogue.commit(meta={"statistics": self.statistics.totals_to_carry()})
        await asyncio.to_thread(os.sync)
        self.store.sync()
        self.folder.mark_clean()
        self.store.close()
        self.folder.close()

    # --- reading -----------------------------------------------------------------------------

    async def fill(
        self, uri: str, start: int, end: int | None, version: str, *, is_counted: bool = True
    ) -> Entry | Uncached:
        """Ensure that a range is in the table; counts its bytes and, with *is_counted*, a read."""
        target = self.origins.target(uri)
        entry = self.filler.cached(target)
        if entry is not None and (not version or self.written.is_same(version, entry.version)):
            end_there = entry.size_bytes if end is None else min(end, entry.size_bytes)
            if not entry.missing_blocks(start, end_there):
                self._count_read("hits" if is_counted else "", "hit_bytes", end_there - start)
                self._show(target, entry)
                return entry
        outcome, filled = await self.filler.ensure(target, start, end, version)
        if isinstance(outcome, Uncached):
            return outcome
        length = (outcome.size_bytes if end is None else min(end, outcome.size_bytes)) - start
        if filled:
            self._count_read("misses" if is_counted else "", "miss_bytes", length)
        else:
            self._count_read("hits" if is_counted else "", "hit_bytes", length)
            self._show(target, outcome)
        return outcome

    def _count_read(self, reads: str, size: str, length: int) -> None:
        if reads:
            self.statistics.add(reads)
        self.statistics.add(size, max(0, length))

    def _show(self, target: Target, entry: Entry) -> None:
        """Put a cached entry's record where clients look, if a crash has kept it from there."""
        self.store.flush()
        found = self.store.table.find(target.fingerprint)
        if found is not None:
            self.store.table.touch(found[0])
            record = entry.record(found[1].stale_after_ns, found[1].refresh_after_s)
            if record == found[1]:
                return
        self.store.validated([entry], self.filler.validity(target, entry))

    async def read(
        self, uri: str, start: int, end: int | None, version: str
    ) -> AsyncIterator[tuple[ObjectInfo, bytes | memoryview]]:
        """Yield the bytes in chunks, with the object's info; one version to the end.

        The first chunk comes even if it is empty. Raises VersionChangedError if the object changes
        meanwhile.
        """
        outcome = await self.fill(uri, start, min_end(start, end, _CHUNK_BYTES), version)
        if isinstance(outcome, Uncached):
            self.statistics.add("misses")
        target = self.origins.target(uri)
        info = self.filler.info(outcome)
        end_there = info.size_bytes if end is None else min(end, info.size_bytes)
        position = min(start, info.size_bytes)
        while True:
            stop = min(end_there, position + _CHUNK_BYTES)
            data: bytes | None = None
            if not isinstance(outcome, Uncached):
                data = self.store.read(outcome, position, stop) if stop > position else b""
            if data is None:
                async for piece in self._pass_through(target, position, end_there, info.version):
                    yield info, piece
                return
            yield info, data
            position = stop
            if position >= end_there:
                return
            outcome, _ = await self.filler.ensure(
                target, position, min(end_there, position + _CHUNK_BYTES), info.version
            )

    async def _pass_through(
        self, target: Target, start: int, end: int, version: str
    ) -> AsyncIterator[memoryview]:
        """Yield bytes straight from the origin, a few blocks ahead of the reader."""
        self.statistics.add("uncached_reads")
        self.statistics.add("miss_bytes", max(0, end - start))
        step = self.config.block_bytes
        ahead: list[asyncio.Task[Any]] = []
        position = start
        try:
            while position < end or ahead:
                while position < end and len(ahead) < 4:
                    stop = min(end, position + step)
                    request = target.origin.driver.get_range(
                        target.uri, position, stop, version=self.written.version(version)
                    )
                    ahead.append(asyncio.create_task(request))
                    position = stop
                data = memoryview((await ahead.pop(0)).data)
                self.statistics.busiest.received(target.uri, len(data))
                for offset in range(0, len(data), _CHUNK_BYTES):
                    yield data[offset : offset + _CHUNK_BYTES]
        finally:
            for task in ahead:
                task.cancel()
            await asyncio.gather(*ahead, return_exceptions=True)

    async def stat(self, uri: str, *, fresh: bool) -> tuple[ObjectInfo | None, Entry | None]:
        """Return the object's info (None for a bare prefix) and what is cached of it."""
        target = self.origins.target(uri)
        entry = self.filler.cached(target)
        if entry is not None and not fresh:
            return self.filler.info(entry), entry
        info = await self.written.stat(target, fresh=fresh)
        entry = self.store.get(target.fingerprint)
        if info is not None and entry is not None and entry.version != info.version:
            entry = None
        return info, entry

    async def list_below(
        self, uri: str, *, recursive: bool, fresh: bool = False
    ) -> AsyncIterator[tuple[list[tuple[ObjectInfo, int]], tuple[str, ...]]]:
        """Yield pages of ((info, cached bytes) of objects, prefixes)."""
        target = self.origins.target(uri)
        async for page in self.written.pages(target, recursive=recursive, fresh=fresh):
            targets = [self.origins.target(info.uri) for info in page.objects]
            entries = self.store.catalogue.get_many(t.fingerprint for t in targets)
            rows = [
                (info, entry.cached_bytes if entry and entry.version == info.version else 0)
                for info, entry in zip(page.objects, entries, strict=True)
            ]
            yield rows, page.prefixes

    def warmer(self) -> Warmer:
        return Warmer(self.filler, self.written, self.origins)

    # --- what is cached ----------------------------------------------------------------------

    async def _below(self, prefix: str) -> list[Entry]:
        """Return the cached entries of a URI: the object itself and what is below it."""
        target = self.origins.target(prefix)
        self.store.flush()
        folder = target.uri.rstrip("/") + "/"
        below = await asyncio.to_thread(lambda: list(self.store.catalogue.below(folder)))
        own = self.store.get(target.fingerprint)
        return below if own is None or own in below else [own, *below]

    async def evict(self, prefix: str, *, everything: bool = False) -> tuple[int, int]:
        """Drop what is cached under *prefix*; returns (objects, bytes).

        Who reads from here on gets what the origin has from here on.
        """
        if not everything and not prefix:
            raise InvalidPathError("evict needs a path or prefix, or everything")
        self.filler.evicting("" if everything else self.origins.target(prefix).uri)
        self.store.flush()
        if everything:
            entries = await asyncio.to_thread(lambda: list(self.store.catalogue.all()))
        else:
            entries = await self._below(prefix)
        self.listings.forget()
        objects = freed = 0
        for start in range(0, len(entries), _SLICE_ENTRIES):
            chunk = entries[start : start + _SLICE_ENTRIES]
            now = self.store.get_many([entry.fingerprint for entry in chunk])
            current = [
                entry
                for entry, listed in zip(now, chunk, strict=True)
                if entry is not None and entry.generation == listed.generation
            ]
            self.evictor.remove(current, "asked")
            objects += len(current)
            freed += sum(entry.charge_bytes for entry in current)
            await asyncio.sleep(0)
        return objects, freed

    def _is_pinned(self, uri: str) -> bool:
        return any(uri == pin or uri.startswith(pin.rstrip("/") + "/") for pin in self._pins)

    async def pin(self, prefix: str, *, pinned: bool) -> int:
        """Pin or unpin a prefix, also for what is filled later; returns how many changed."""
        uri = self.origins.target(prefix).uri
        if pinned:
            self._pins.add(uri)
        else:
            self._pins.discard(uri)
        self.store.catalogue.commit(meta={"pins": sorted(self._pins)})
        entries = await self._below(uri)
        wanted = [entry for entry in entries if self._is_pinned(entry.uri) is pinned]
        changed = 0
        for start in range(0, len(wanted), _SLICE_ENTRIES):
            changed += self.store.set_pinned(wanted[start : start + _SLICE_ENTRIES], pinned)
            await asyncio.sleep(0)
        return changed

    async def check(self, *, repair: bool) -> check.Report:
        """Compare catalogue, table, files and totals."""
        self.folder.check_there()
        return await check.check(self.store, repair=repair)

    def stats(self) -> dict[str, Any]:
        """Return everything that ``forebay stats`` shows."""
        self.folder.check_there()
        space, snapshot = self.store.space, self.statistics.snapshot()
        return {
            **snapshot,
            "version": __version__,
            "pid": os.getpid(),
            "cache_dir": str(self.folder.path),
            "cache_id": self.folder.cache_id,
            "used_bytes": space.used_bytes + space.reserved_bytes,
            "reserved_bytes": space.reserved_bytes,
            "overhead_bytes": space.overhead_bytes,
            "max_bytes": space.max_bytes,
            "disk_free_bytes": disk.free_bytes(self.folder.path),
            "min_free_bytes": self.config.min_free_bytes,
            "objects": self.store.object_count,
            "pinned_prefixes": sorted(self._pins),
            "spool": {
                **self.spool.report.stats(),
                "uploaded_bytes_last_minute": snapshot["last_minute"]["uploaded_bytes"],
            },
            "leases": len(self.store.leases.names()),
            "prefixes": watched.prefixes(self.store, self.statistics.busiest),
            "fills": watched.fills(self.store, self.filler.flights),
            "fills_in_flight": len(self.filler.flights),
            "deduplicated_fills": self.filler.flights.joined_total,
            "origins": watched.origins(self.config.origins, self.statistics.origins),
        }


def min_end(start: int, end: int | None, length: int) -> int:
    """Return the end of the first *length* bytes of a range."""
    return start + length if end is None else min(end, start + length)
