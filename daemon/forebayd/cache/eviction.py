"""Whom to evict: the least recently used, exactly.

One numpy pass over the table gives the oldest few thousand slots in order. Until they are used up
nobody else can be older: every access only makes a slot younger. A slot that was accessed since
the pass, or that now holds another object, is passed over. The order is the seam for another
policy: whatever ``Table.oldest`` sorts by is the score.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from forebayd.store.rows import Entry
    from forebayd.store.store import Store

_PASS_SLOTS = 4096
_SLACK_BYTES = 16 << 20
_SLACK_SHARE = 1024


class Evictor:
    """Makes room in a store."""

    def __init__(self, store: Store, evicted: Callable[[str, int, int], None]) -> None:
        """*evicted* is told (reason, objects, bytes)."""
        self._store = store
        self._evicted = evicted
        self._queue: list[tuple[int, int, bytes]] = []  # oldest last
        self._epoch = -1

    def make_room(self, size_bytes: int) -> bool:
        """Evict until *size_bytes* can be reserved; False if that cannot be."""
        space = self._store.space
        lacking = space.lacking(size_bytes)
        if not lacking:
            return True
        if size_bytes > space.for_objects_bytes:
            return False
        # A little more than needed, so that a full cache does not commit once for every object.
        self.evict_bytes(lacking, min(_SLACK_BYTES, space.max_bytes // _SLACK_SHARE))
        return not space.lacking(size_bytes)

    def evict_bytes(self, needed: int, slack: int = 0) -> None:
        """Evict the oldest until *needed* bytes are free, then as many as fit into *slack* more."""
        total = 0
        while total < needed + slack:
            victims: list[Entry] = []
            for victim in self._eligible():
                size = victim.charge_bytes
                if total >= needed and total + size > needed + slack:
                    slack = 0
                    break
                victims.append(victim)
                total += size
                if total >= needed + slack:
                    break
            if not victims:
                return
            self.remove(victims, "space")

    def remove(self, entries: list[Entry], reason: str) -> None:
        """Take entries out and count them."""
        self._store.remove(entries)
        self._evicted(reason, len(entries), sum(entry.charge_bytes for entry in entries))

    def _eligible(self) -> Iterator[Entry]:
        """Yield entries that may go, oldest first, from one pass over the table.

        Ends with the pass: the next call makes a new one, without those removed meanwhile.
        """
        yielded = False
        while not yielded:
            is_new_pass = not self._queue or self._epoch != self._store.table.epoch
            if is_new_pass:
                self._fill_queue()
            for entry in self._drain_queue():
                yielded = True
                yield entry
            if is_new_pass:
                return

    def _fill_queue(self) -> None:
        leased = np.fromiter(self._store.leases.generations, dtype=np.uint64)
        self._store.flush()
        table = self._store.table
        self._queue = table.oldest(
            _PASS_SLOTS, lambda records: ~np.isin(records["generation"], leased)
        )
        self._queue.reverse()
        self._epoch = table.epoch

    def _drain_queue(self) -> Iterator[Entry]:
        table = self._store.table
        while self._queue:
            time_ns, slot, fingerprint = self._queue[-1]
            record = table.record_at(slot)
            if (
                record is not None
                and record.fingerprint == fingerprint
                and int(table.recency[slot]) <= time_ns
            ):
                entry = self._store.get(fingerprint)
                if entry is not None and not self._store.is_pinned_or_leased(entry):
                    yield entry
            self._queue.pop()
