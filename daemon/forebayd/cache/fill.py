"""Bringing objects into the store: one request at the origin per block, whoever asks.

An object up to the packing limit is one block in a segment; a larger one is a blob, filled block
by block. The first request for an unknown object asks for a whole block, so a small object costs
one GET and no HEAD.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import time
from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from forebay_protos import uris
from forebay_protos.table import BLOB, NEVER_STALE, PACKED, PINNED, packed_place
from forebayd import traces
from forebayd.cache import freshness
from forebayd.cache.flight import Flights
from forebayd.errors import ObjectNotFoundError, VersionChangedError
from forebayd.origin.base import ObjectInfo
from forebayd.store import disk
from forebayd.store.rows import Entry

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from forebayd.cache.eviction import Evictor
    from forebayd.cache.origins import Target
    from forebayd.cache.written import Written
    from forebayd.origin.base import Body
    from forebayd.stats import Statistics
    from forebayd.store.store import Store

Filled = TypeVar("Filled")

log = logging.getLogger(__name__)

_FLOOR_WARNING_S = 60.0
_FLOOR_LOOK_BYTES, _FLOOR_LOOK_S = 64 << 20, 0.2
_ROUNDS = 5  # an object that is replaced at the origin faster than it can be read
_CHANGES_REMEMBERED = 65_536
_FIRSTS_AT_ONCE = 64  # of unknown size, nearly all small: 512 MiB in memory if none is
_BLOCKS_AT_ONCE = 16  # of all large objects: 128 MiB in memory


@dataclass(frozen=True, slots=True)
class Uncached:
    """An object that is there but cannot be cached now: larger than the cache, or no room."""

    info: ObjectInfo


class EvictedMeanwhileError(Exception):
    """The entry went away while a block of it was being filled."""


class Filler:
    """Ensures that ranges of objects are in the store."""

    def __init__(
        self,
        store: Store,
        evictor: Evictor,
        statistics: Statistics,
        *,
        packing_limit_bytes: int,
        block_bytes: int,
        min_free_bytes: int,
        is_pinned: Callable[[str], bool],
    ) -> None:
        self._store = store
        self._evictor = evictor
        self._statistics = statistics
        # Without holes, space comes back only with whole files.
        self._packing_limit_bytes = packing_limit_bytes if store.can_punch else -1
        self._block_shift = block_bytes.bit_length() - 1
        self._min_free_bytes = min_free_bytes
        self._is_pinned = is_pinned
        self.flights = Flights()
        self._first_places = asyncio.Semaphore(_FIRSTS_AT_ONCE)
        self._block_places = asyncio.Semaphore(_BLOCKS_AT_ONCE)
        self._evictions_asked = 0
        self._evicted_prefixes: deque[str] = deque(maxlen=256)
        self._changes = 0
        self._changed: OrderedDict[str, int] = OrderedDict()  # when, in changes, latest last
        self._forgotten_change = 0
        self.written: Written | None = None  # set once there is one; None: nothing is written
        self._floor_warned_at = -_FLOOR_WARNING_S
        self._floor_bytes, self._floor_until = 0, 0.0  # to be written, and the time, unlooked

    async def ensure(
        self, target: Target, start: int, end: int | None, version: str = ""
    ) -> tuple[Entry | Uncached, bool]:
        """Return the entry once [start, end) of it is cached, and whether the origin was read.

        With *version*, VersionChangedError is raised if the object is another by now.
        """
        filled = False
        for _ in range(_ROUNDS):
            entry = await self.current(target)
            if entry is None:
                outcome: Entry | Uncached = await self.flights.do(
                    (target.fingerprint, "first"),
                    lambda: self._timed(target, self._fill_first(target)),
                    target,
                )
                filled = True
                if isinstance(outcome, Uncached):
                    return outcome, True
                entry = outcome
            if version and not self._is_same(version, entry.version):
                raise VersionChangedError(
                    f"{target.uri} has changed: version {version} was asked for, "
                    f"it has {entry.version} now"
                )
            missing = entry.missing_blocks(
                start, entry.size_bytes if end is None else min(end, entry.size_bytes)
            )
            if not missing:
                return entry, filled
            try:
                complete = await self._fill_blocks(target, entry, missing)
            except (EvictedMeanwhileError, VersionChangedError):
                continue
            if not complete:
                return Uncached(self.info(entry)), True
            updated = self._store.get(target.fingerprint)
            if updated is not None and updated.generation == entry.generation:
                return updated, True
            filled = True
        raise VersionChangedError(f"{target.uri} changes faster than it can be read")

    def _is_same(self, one: str, other: str) -> bool:
        return one == other if self.written is None else self.written.is_same(one, other)

    def cached(self, target: Target) -> Entry | None:
        """Return the entry if it may be served now without asking the origin."""
        entry = self._store.get(target.fingerprint)
        if entry is not None and self._may_serve(target, entry):
            return entry
        return None

    @staticmethod
    def _may_serve(target: Target, entry: Entry) -> bool:
        return entry.is_pending or freshness.may_serve(target.origin.config, entry.validated_at_ns)

    async def current(self, target: Target) -> Entry | None:
        """Return the entry, looked up at the origin if its time is over; None if there is none."""
        if self.written is not None and (pending := self.written.entry(target)) is not None:
            return pending
        entry = self._store.get(target.fingerprint)
        if entry is None or self._may_serve(target, entry):
            return entry
        if target.origin.config.freshness == "always":
            # Not shared: an answer that was asked for before this reader came may be too old.
            return await self.validate(target, entry)
        await self.flights.do(
            (target.fingerprint, "validate"), lambda: self.validate(target, entry)
        )
        # Not what the flight returned: others have had their turns since it ended.
        return self._store.get(target.fingerprint)

    async def validate(self, target: Target, entry: Entry) -> Entry | None:
        """Ask the origin: the entry with its new time, or None if it had to go."""
        asked_at_ns = time.time_ns()
        try:
            info = await target.origin.driver.head(target.uri)
        except ObjectNotFoundError:
            self.drop(entry, "gone")
            raise
        return self.validated(target, entry, info.version, asked_at_ns)

    def validated(
        self, target: Target, entry: Entry, version: str, asked_at_ns: int
    ) -> Entry | None:
        """Take the origin's word that *version* was current at *asked_at_ns*."""
        now = self._store.get(entry.fingerprint)
        if now is None or now.generation != entry.generation:
            return now
        if now.version != version:
            self.drop(now, "changed")
            return None
        now = dataclasses.replace(now, validated_at_ns=asked_at_ns)
        self._store.validated([now], self.validity(target, now))
        return now

    def drop(self, entry: Entry, reason: str) -> None:
        """Take *entry* out unless it is already another generation."""
        now = self._store.get(entry.fingerprint)
        if now is not None and now.generation == entry.generation:
            self._evictor.remove([now], reason)

    @staticmethod
    def info(outcome: Entry | Uncached) -> ObjectInfo:
        """Return what is known of an object, cached or not."""
        if isinstance(outcome, Uncached):
            return outcome.info
        return ObjectInfo(outcome.uri, outcome.size_bytes, outcome.version, outcome.modified)

    @staticmethod
    def validity(target: Target, entry: Entry) -> tuple[int, int]:
        """Return until when clients may serve *entry* (see ``freshness.validity``)."""
        if entry.is_pending:
            return NEVER_STALE, 2**32 - 1
        return freshness.validity(target.origin.config, entry.validated_at_ns)

    def evicting(self, prefix: str) -> None:
        """Note that everything below *prefix* ("": everything) is being evicted on request."""
        self._evictions_asked += 1
        self._evicted_prefixes.append(prefix)

    def changing(self, uri: str) -> None:
        """Note that this node changes *uri*: what was asked for before is not to be cached."""
        self._changes += 1
        self._changed[uri] = self._changes
        self._changed.move_to_end(uri)
        if len(self._changed) > _CHANGES_REMEMBERED:
            _, self._forgotten_change = self._changed.popitem(last=False)

    def _moment(self) -> tuple[int, int]:
        """Return what ``_was_evicted`` compares with."""
        return self._evictions_asked, self._changes

    def _was_evicted(self, uri: str, since: tuple[int, int]) -> bool:
        """Tell whether *uri* was evicted on request, or written here, after a moment."""
        if max(self._changed.get(uri, 0), self._forgotten_change) > since[1]:
            return True
        count = self._evictions_asked - since[0]
        if count > len(self._evicted_prefixes):
            return True  # more than are remembered
        latest = list(self._evicted_prefixes)[len(self._evicted_prefixes) - count :]
        return any(not prefix or uris.has_prefix(uri, prefix) for prefix in latest)

    # --- one fill ----------------------------------------------------------------------------

    def _reserve(self, size_bytes: int) -> bool:
        """Reserve space, evicting for it; False if there is none to be had."""
        if not self._is_above_floor(size_bytes):
            self._statistics.count_error("disk_floor")
            if time.monotonic() > self._floor_warned_at + _FLOOR_WARNING_S:
                self._floor_warned_at = time.monotonic()
                log.warning(
                    "nothing is cached: less than min_free_bytes are free on the disk",
                    extra={"min_free_bytes": self._min_free_bytes},
                )
            return False
        if not self._evictor.make_room(size_bytes):
            return False
        self._store.space.reserve(size_bytes)
        return True

    def _may_reserve(self, size_bytes: int) -> bool:
        """Reserve space like ``_reserve``; what cannot be evicted makes none."""
        try:
            return self._reserve(size_bytes)
        except OSError as error:
            log.error("evicting failed", extra={"reason": str(error)})
            self._statistics.count_error("cache_write")
            return False

    def _is_above_floor(self, size_bytes: int) -> bool:
        """Keep the file system's free space above the floor, evicting for it."""
        now = time.monotonic()
        self._floor_bytes -= size_bytes
        # Others write to the disk too, but a look at it before every small object costs 10 us.
        if self._floor_bytes >= 0 and now < self._floor_until:
            return True
        path, wanted = self._store.path, self._min_free_bytes + size_bytes
        lacking = wanted - disk.free_bytes(path)
        if lacking > 0:
            self._evictor.evict_bytes(lacking)
        spare = disk.free_bytes(path) - wanted
        self._floor_bytes = min(spare, _FLOOR_LOOK_BYTES)
        self._floor_until = now + _FLOOR_LOOK_S
        return spare >= 0

    async def _timed(self, target: Target, fill: Awaitable[Filled]) -> Filled:
        """Return what *fill* returns; how long it took goes into the statistics."""
        began = time.perf_counter()
        with traces.span("fill", uri=target.uri):
            filled = await fill
        self._statistics.fill_latency.observe(time.perf_counter() - began)
        return filled

    async def _fill_first(self, target: Target) -> Entry | Uncached:
        """Fill an object of which nothing is known: one block of it, until it is written."""
        async with self._first_places:
            return await self._fetch_first(target)

    async def _fetch_first(self, target: Target) -> Entry | Uncached:
        for _ in range(_ROUNDS):
            asked_at_ns, moment = time.time_ns(), self._moment()
            body = await target.origin.driver.get_range(target.uri, 0, 1 << self._block_shift)
            self._statistics.busiest.received(target.uri, len(memoryview(body.data)))
            # Who reads after an evict, or a write, is not to get what was asked for before it.
            if self._was_evicted(target.uri, moment):
                if self.written is not None:
                    pending = self.written.entry(target)
                    if pending is not None:
                        return pending
                continue
            raced = self._store.get(target.fingerprint)
            if raced is not None:  # a block flight of an older entry cannot do this, validations do
                self.drop(raced, "changed")
            if body.info.size_bytes <= self._packing_limit_bytes:
                return await self._pack(target, body, asked_at_ns)
            if disk.rounded(body.info.size_bytes) > self._store.space.for_objects_bytes:
                break
            entry = self.new_entry(target, body.info, BLOB, asked_at_ns)
            try:
                self._store.begin_blob(entry)
            except OSError as error:
                return self._broken(body.info, error)
            try:
                if await self._write_block(target, entry, 0, body, new_since=moment):
                    await self._store.committed()
                    return self._store.get(target.fingerprint) or entry
            except EvictedMeanwhileError:
                self._store.abandon_blob(entry)
            except OSError as error:
                return self._broken(body.info, error)
            else:
                self._store.abandon_blob(entry)
                break
        return Uncached(body.info)

    async def _pack(self, target: Target, body: Body, asked_at_ns: int) -> Entry | Uncached:
        charge = disk.rounded(body.info.size_bytes)
        if not self._may_reserve(charge):
            return Uncached(body.info)
        try:
            segment, offset = self._store.append(memoryview(body.data))
        except OSError as error:
            self._store.space.release(charge)
            return self._broken(body.info, error)
        entry = dataclasses.replace(
            self.new_entry(target, body.info, PACKED, asked_at_ns),
            place=packed_place(segment, offset),
            present=1,
            charge_bytes=charge,
        )
        self._store.publish(entry, charge, self.validity(target, entry), is_new=True)
        try:
            await self._store.committed()
        except OSError as error:
            return self._broken(body.info, error)
        return entry

    async def _fill_blocks(self, target: Target, entry: Entry, missing: list[int]) -> bool:
        """Fill blocks concurrently; False if there was no room for one."""

        async def fill(block: int) -> bool:
            done: bool = await self.flights.do(
                (entry.generation, block), lambda: self._fill_block(target, entry, block), target
            )
            return done

        tasks = [asyncio.create_task(fill(block)) for block in missing]
        try:
            return all(await asyncio.gather(*tasks))
        finally:
            for task in tasks:
                task.cancel()

    async def _fill_block(self, target: Target, entry: Entry, block: int) -> bool:
        async with self._block_places:
            return await self._timed(target, self._fetch_block(target, entry, block))

    async def _fetch_block(self, target: Target, entry: Entry, block: int) -> bool:
        now = self._store.get(entry.fingerprint)
        if now is None or now.generation != entry.generation:
            raise EvictedMeanwhileError
        if now.present >> block & 1:
            return True
        start = block << self._block_shift
        end = min(start + (1 << self._block_shift), entry.size_bytes)
        try:
            body = await target.origin.driver.get_range(
                target.uri, start, end, version=entry.version
            )
        except (VersionChangedError, ObjectNotFoundError) as error:
            self.drop(entry, "changed" if isinstance(error, VersionChangedError) else "gone")
            raise
        self._statistics.busiest.received(target.uri, len(memoryview(body.data)))
        if not await self._write_block(target, entry, block, body):
            return False
        try:
            await self._store.committed()
        except OSError as error:
            self._broken(body.info, error)
            return False
        return True

    async def _write_block(
        self,
        target: Target,
        entry: Entry,
        block: int,
        body: Body,
        *,
        new_since: tuple[int, int] | None = None,
    ) -> bool:
        """Write and publish one block; False if there is no room for it.

        *new_since*: the entry is not published yet, and may not be if its object was evicted on
        request, or written here, after that moment.
        """
        charge = disk.rounded(len(memoryview(body.data)))
        if not self._may_reserve(charge):
            return False
        try:
            fd = self._store.blobs.duplicate(entry.generation)
            try:
                await asyncio.to_thread(
                    disk.pwrite_all, fd, memoryview(body.data), block << self._block_shift
                )
            finally:
                os.close(fd)
        except FileNotFoundError as error:
            self._store.space.release(charge)
            raise EvictedMeanwhileError from error
        except OSError as error:
            self._store.unwrite(entry.generation, block << self._block_shift, charge)
            self._store.space.release(charge)
            self._broken(body.info, error)
            return False
        now: Entry | None = entry
        if new_since is None:
            now = self._store.get(entry.fingerprint)
        elif self._was_evicted(entry.uri, new_since):
            now = None
        if now is None or now.generation != entry.generation:
            self._store.space.release(charge)
            raise EvictedMeanwhileError
        updated = dataclasses.replace(
            now, present=now.present | 1 << block, charge_bytes=now.charge_bytes + charge
        )
        validity, is_new = self.validity(target, updated), new_since is not None
        self._store.publish(updated, charge, validity, is_new=is_new)
        return True

    def new_entry(self, target: Target, info: ObjectInfo, kind: int, asked_at_ns: int) -> Entry:
        """Return an entry of a new generation, without bytes."""
        return Entry(
            fingerprint=target.fingerprint,
            uri=target.uri,
            version=info.version,
            size_bytes=info.size_bytes,
            modified=info.modified,
            generation=self._store.new_generation(),
            flags=kind | (PINNED if self._is_pinned(target.uri) else 0),
            place=0,
            block_shift=self._block_shift if kind == BLOB else 0,
            present=0,
            charge_bytes=0,
            validated_at_ns=asked_at_ns,
        )

    def _broken(self, info: ObjectInfo, error: OSError) -> Uncached:
        """A broken cache is a slow cache: log, count, and let the reader have the origin."""
        log.error("cache write failed", extra={"uri": info.uri, "reason": str(error)})
        self._statistics.count_error("cache_write")
        return Uncached(info)
