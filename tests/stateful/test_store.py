"""The store against a dictionary: fill, evict, pin, crash and reopen in any order.

After every step: whatever the store gives is right, what it counts is what is on the disk, and a
check finds nothing.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from forebay_protos.table import BLOB, PACKED
from forebayd.cache.eviction import Evictor
from forebayd.store import check, disk
from forebayd.store.folder import CacheFolder
from forebayd.store.rows import Entry
from forebayd.store.store import Store

if TYPE_CHECKING:
    from collections.abc import Coroutine

MIB = 1 << 20
LIMIT = 12 * MIB
BLOCK_SHIFT = 18  # 256 KiB, so that a small blob has several
VALIDITY = (2**63, 2**32 - 1)
LEASE = "0123456789abcdef"
KEYS = st.integers(0, 30)


class StoreMachine(RuleBasedStateMachine):
    """Drives one cache folder."""

    def __init__(self) -> None:
        super().__init__()
        self.path = Path(tempfile.mkdtemp(prefix="forebay-store-"))
        self.contents: dict[int, bytes] = {}  # generation -> all bytes of that version

    @initialize()
    def open(self) -> None:
        self.folder = CacheFolder(self.path / "cache")
        self.store = Store(self.folder, max_bytes=LIMIT, segment_bytes=2 * MIB, meta_bytes=0)
        self.publish_attachment()
        self.evictor = Evictor(self.store, lambda *_: None)

    def publish_attachment(self) -> None:
        from forebay_protos.layout import Attachment

        self.store.publish_attachment(
            Attachment(self.folder.cache_id, self.store.table.epoch, 2 * MIB, {}, ())
        )

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run(work)

    def key(self, number: int) -> bytes:
        return number.to_bytes(8, "little") * 2

    def make_entry(self, number: int, size: int, flags: int) -> Entry:
        return Entry(
            fingerprint=self.key(number),
            uri=f"s3://b/{number % 3}/{number}",
            version=f"v{size}",
            size_bytes=size,
            modified=None,
            generation=self.store.new_generation(),
            flags=flags,
            place=0,
            block_shift=BLOCK_SHIFT if flags == BLOB else 0,
            present=0,
            charge_bytes=0,
            validated_at_ns=1,
        )

    @rule(number=KEYS, size=st.integers(0, 300_000), seed=st.binary(min_size=1, max_size=4))
    def pack(self, number: int, size: int, seed: bytes) -> None:
        async def work() -> None:
            old = self.store.get(self.key(number))
            if old is not None:
                self.store.remove([old])
            data = (seed * (size // len(seed) + 1))[:size]
            charge = disk.rounded(size)
            if not self.evictor.make_room(charge):
                return
            self.store.space.reserve(charge)
            segment, offset = self.store.append(memoryview(data))
            entry = dataclasses.replace(
                self.make_entry(number, size, PACKED),
                place=segment << 32 | offset // 4096,
                present=1,
                charge_bytes=charge,
            )
            self.contents[entry.generation] = data
            self.store.publish(entry, charge, VALIDITY, is_new=True)
            await self.store.committed()

        self.run(work())

    @rule(number=KEYS, size=st.integers(300_001, 2_000_000), blocks=st.integers(1, 8))
    def grow_blob(self, number: int, size: int, blocks: int) -> None:
        async def work() -> None:
            entry = self.store.get(self.key(number))
            is_new = entry is None or entry.is_packed
            if entry is None or entry.is_packed:
                if entry is not None:
                    self.store.remove([entry])
                entry = self.make_entry(number, size, BLOB)
                self.contents[entry.generation] = os.urandom(size)
                self.store.begin_blob(entry)
            for block in range(min(blocks, entry.block_count)):
                if entry.present >> block & 1:
                    continue
                start = block << BLOCK_SHIFT
                data = self.contents[entry.generation][start : start + (1 << BLOCK_SHIFT)]
                charge = disk.rounded(len(data))
                if not self.evictor.make_room(charge):
                    return
                now = self.store.get(entry.fingerprint)
                if not is_new and (now is None or now.generation != entry.generation):
                    return  # it had to make room for itself
                self.store.space.reserve(charge)
                disk.pwrite_all(self.store.blobs.fd(entry.generation), memoryview(data), start)
                entry = dataclasses.replace(
                    entry,
                    present=entry.present | 1 << block,
                    charge_bytes=entry.charge_bytes + charge,
                )
                self.store.publish(entry, charge, VALIDITY, is_new=is_new)
                is_new = False
                await self.store.committed()

        self.run(work())

    @rule(number=KEYS)
    def remove(self, number: int) -> None:
        entry = self.store.get(self.key(number))
        if entry is not None:
            self.store.remove([entry])

    @rule(number=KEYS)
    def relocate(self, number: int) -> None:
        async def work() -> None:
            entry = self.store.get(self.key(number))
            if entry is None or not entry.is_packed:
                return
            assert entry in self.store.packed_in(entry.place >> 32)
            if not self.evictor.make_room(entry.charge_bytes):
                return
            now = self.store.get(entry.fingerprint)
            if now is None:
                return
            self.store.space.reserve(entry.charge_bytes)
            self.store.relocate(entry)
            moved = self.store.get(entry.fingerprint)
            assert moved is not None
            assert moved.place != entry.place
            self.contents[moved.generation] = self.contents[entry.generation]

        self.run(work())

    @rule(folder=st.integers(0, 2), pinned=st.booleans())
    def pin(self, folder: int, pinned: bool) -> None:
        self.store.set_pinned(list(self.store.catalogue.below(f"s3://b/{folder}/")), pinned)

    @rule(number=KEYS)
    def lease_and_release(self, number: int) -> None:
        entry = self.store.get(self.key(number))
        if entry is None or entry.is_packed or not entry.is_complete:
            return
        used = self.store.space.used_bytes
        tree = self.store.leases.create(LEASE)
        self.store.lease_add(LEASE, "file", entry, None)
        self.store.remove([entry])

        held = self.path / "cache" / tree / "file"
        assert held.read_bytes() == self.contents[entry.generation]
        assert self.store.space.used_bytes == used
        self.store.lease_release(LEASE)
        assert self.store.space.used_bytes == used - entry.charge_bytes

    @rule()
    def crash(self) -> None:
        """The process ends here; what was not committed is gone."""
        self.store.segments.close()
        self.store.blobs.close()
        self.store.catalogue.close()
        self.folder.close()
        self.open()

    @rule()
    def lose_the_table(self) -> None:
        self.crash()
        epoch = self.store.table.epoch
        self.crash_with(lambda: (self.path / "cache" / f"table.{epoch}").unlink())

    @rule()
    def leave_garbage_behind(self) -> None:
        """Bytes that were written but not yet committed when the process ended."""

        def litter() -> None:
            entry = self.make_entry(99, 600_000, BLOB)
            self.store.begin_blob(entry)
            disk.pwrite_all(self.store.blobs.fd(entry.generation), memoryview(b"x" * 9000), 0)
            self.store.append(memoryview(b"y" * 50_000))

        self.crash_with(litter)

    def crash_with(self, damage: Any) -> None:
        damage()
        self.crash()

    @precondition(lambda self: hasattr(self, "store"))
    @invariant()
    def everything_is_right(self) -> None:
        self.store.flush()
        for entry in self.store.catalogue.all():
            content = self.contents[entry.generation]
            if entry.is_packed:
                assert self.store.read(entry, 0, entry.size_bytes) == content
                continue
            for block in range(entry.block_count):
                if entry.present >> block & 1:
                    start = block << BLOCK_SHIFT
                    end = min(entry.size_bytes, start + (1 << BLOCK_SHIFT))
                    assert self.store.read(entry, start, end) == content[start:end]
        report = asyncio.run(check.check(self.store, repair=False))
        assert report.problems == []
        assert self.store.space.reserved_bytes == 0
        on_disk = sum(path.lstat().st_blocks * 512 for path in (self.path / "cache").rglob("*"))
        assert on_disk <= LIMIT

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
            self.folder.close()
        shutil.rmtree(self.path)


StoreMachine.TestCase.settings = settings(
    max_examples=25,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
TestStore = StoreMachine.TestCase
