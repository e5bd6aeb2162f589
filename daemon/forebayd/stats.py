"""What an operator asks: counters since the daemon's start, over the last minute, and in total.

Hits that clients made without the daemon come from the shared ``counters`` file; they are totals
of the cache folder's life, so this module keeps where they stood at the start.
"""

from __future__ import annotations

import fcntl
import os
import time
from bisect import bisect_left
from collections import Counter, defaultdict, deque
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np

from forebay_protos import layout
from forebay_protos.counters import FLOCK, HIT_BOUNDS_NS, ROW_FIELDS, ROW_SIZE
from forebayd.busiest import Busiest

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_TICK_S = 5.0
_READS = ("head", "get", "list")
_MINUTE_TICKS = 12
_CLIENTS_TOLD = 256
_GROWTH = 1.25  # of a histogram's buckets: a percentile is exact to a quarter
_BOUNDS_S = [0.0001 * _GROWTH**i for i in range(72)]  # to 759 s: an upload is overdue at 600


class Histogram:
    """Durations in exponential buckets."""

    def __init__(self) -> None:
        self._counts = [0] * (len(_BOUNDS_S) + 1)
        self.count = 0
        self.sum_s = 0.0

    def observe(self, seconds: float) -> None:
        self._counts[bisect_left(_BOUNDS_S, seconds)] += 1
        self.count += 1
        self.sum_s += seconds

    def add(self, other: Histogram) -> None:
        self._counts = [mine + more for mine, more in zip(self._counts, other._counts, strict=True)]
        self.count += other.count
        self.sum_s += other.sum_s

    def cumulative(self) -> list[tuple[float, int]]:
        """Return (upper bound in seconds, how many were not longer), for every third bound."""
        below = list(accumulate(self._counts))
        return [(_BOUNDS_S[i], below[i]) for i in range(2, len(_BOUNDS_S), 3)]

    def buckets(self) -> list[tuple[float, int]]:
        """Return (upper bound in seconds, how many) of the buckets that are not empty."""
        bounds = [*_BOUNDS_S, _BOUNDS_S[-1] * _GROWTH]
        pairs = zip(bounds, self._counts, strict=True)
        return [(float(f"{bound:.4g}"), count) for bound, count in pairs if count]

    def percentile(self, share: float) -> float | None:
        """Return the upper bound in seconds of the bucket that holds this share, None if empty."""
        if not self.count:
            return None
        remaining = share * self.count
        for bound, count in zip(_BOUNDS_S, self._counts, strict=False):
            remaining -= count
            if remaining <= 0:
                return bound
        return _BOUNDS_S[-1] * _GROWTH


class OriginStatistics:
    """What was asked of one origin."""

    def __init__(self) -> None:
        self.reads = Histogram()
        self.writes = Histogram()
        self.uploads = Histogram()  # of whole objects, from their commit
        self.received_bytes = 0
        self.sent_bytes = 0
        self.retries = 0
        self.errors: Counter[str] = Counter()

    def told(self) -> dict[str, Any]:
        """Return what ``forebay stats`` has of it, besides its name."""
        return {
            "received_bytes": self.received_bytes,
            "sent_bytes": self.sent_bytes,
            "retries": self.retries,
            "errors": dict(sorted(self.errors.items())),
            "reads": self.reads.buckets(),
            "writes": self.writes.buckets(),
            "uploads": self.uploads.buckets(),
        }

    def add(self, other: OriginStatistics) -> None:
        self.reads.add(other.reads)
        self.writes.add(other.writes)
        self.uploads.add(other.uploads)
        self.received_bytes += other.received_bytes
        self.sent_bytes += other.sent_bytes
        self.retries += other.retries
        self.errors.update(other.errors)


class ClientCounters:
    """The shared file of the clients' own counters."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / layout.COUNTERS
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o660)
        try:
            if os.fstat(fd).st_size == 0:
                os.posix_fallocate(fd, 0, 32 * ROW_SIZE)
        finally:
            os.close(fd)

    def totals(self) -> dict[str, int]:
        """Return the sums over all processes, present and past."""
        rows = np.fromfile(self._path, dtype="<u8").reshape(-1, ROW_SIZE // 8)
        sums = rows.sum(axis=0).tolist()
        return dict(zip(ROW_FIELDS, sums, strict=False))

    def rows(self, rows: Iterable[int]) -> list[dict[str, int]]:
        """Return what stands in rows, which others may have begun."""
        table = np.fromfile(self._path, dtype="<u8").reshape(-1, ROW_SIZE // 8)
        hits, size = ROW_FIELDS.index("hits"), ROW_FIELDS.index("hit_bytes")
        return [
            {"row": row, "hits": int(table[row, hits]), "hit_bytes": int(table[row, size])}
            for row in rows
        ]

    def attached(self) -> list[int]:
        """Return the rows that processes hold."""
        fd = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
        try:
            rows, parts = [], [(0, os.fstat(fd).st_size)]
            while parts:
                start, end = parts.pop()
                if start >= end:
                    continue
                # Asking for a write lock tells some lock in the way, not always the first: the
                # kernel keeps them by owner.
                asked = FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, start, end - start, 0)
                told = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, asked)
                kind, _, held, length, _ = FLOCK.unpack(told)
                if kind != fcntl.F_UNLCK:
                    rows.append(held // ROW_SIZE)
                    parts += [(start, held), (held + max(1, length), end)]
            return sorted(rows)
        finally:
            os.close(fd)


class Statistics:
    """Counts what happens; one event loop. Implements the origins' ``Observer``."""

    def __init__(
        self, clients: ClientCounters, carried: dict[str, int], origin_prefixes: Iterable[str]
    ) -> None:
        """*carried* are the totals of earlier daemons on this folder."""
        self._clients = clients
        self._carried = Counter(carried)
        self._counts: Counter[str] = Counter()
        self._clients_at_start = Counter(clients.totals())
        self.errors: Counter[str] = Counter()
        self.evictions: dict[str, list[int]] = {}
        self.origin_latency = Histogram()
        self.origins: defaultdict[str, OriginStatistics] = defaultdict(OriginStatistics)
        self.fill_latency = Histogram()
        self.busiest = Busiest(origin_prefixes)
        self.started_at = time.time()
        self._ticks: deque[Counter[str]] = deque(maxlen=_MINUTE_TICKS + 1)
        self.tick()

    # --- events ------------------------------------------------------------------------------

    def add(self, name: str, amount: int = 1) -> None:
        self._counts[name] += amount

    def count_error(self, kind: str) -> None:
        self.errors[kind] += 1

    def evicted(self, reason: str, objects: int, size_bytes: int) -> None:
        row = self.evictions.setdefault(reason, [0, 0])
        row[0] += objects
        row[1] += size_bytes

    def request_ended(
        self,
        origin_prefix: str,
        operation: str,
        seconds: float,
        size_bytes: int,
        error_kind: str | None,
    ) -> None:
        """One attempt of a request at an origin ended."""
        origin = self.origins[origin_prefix]
        if operation in _READS:
            self._counts["origin_requests"] += 1
            self._counts["origin_bytes"] += size_bytes
            self.origin_latency.observe(seconds)
            origin.reads.observe(seconds)
            origin.received_bytes += size_bytes
        else:
            self._counts["upload_requests"] += 1
            self._counts["uploaded_bytes"] += size_bytes
            origin.writes.observe(seconds)
            origin.sent_bytes += size_bytes
        if error_kind is not None:
            self.errors[error_kind] += 1
            origin.errors[error_kind] += 1

    def request_retried(self, origin_prefix: str, operation: str) -> None:
        self._counts["origin_retries"] += 1
        self.origins[origin_prefix].retries += 1

    def uploaded(self, origin_prefix: str, uri: str, size_bytes: int, seconds: float) -> None:
        """An object is in its origin, so long after it was committed."""
        self.origins[origin_prefix].uploads.observe(seconds)
        self.busiest.sent(uri, size_bytes)

    def clients(self) -> dict[str, int]:
        """Return what clients counted by themselves, over the life of the folder."""
        return self._clients.totals()

    def tick(self) -> None:
        """Note where the counters stand; called every ``tick_s`` seconds."""
        self._ticks.append(self._now())
        self.busiest.tick()

    tick_s = _TICK_S

    # --- answers -----------------------------------------------------------------------------

    def _now(self) -> Counter[str]:
        """Return the counts since the start, the clients' own hits included."""
        counts = Counter(self._counts)
        clients = Counter(self._clients.totals())
        clients.subtract(self._clients_at_start)
        counts["hits"] += clients["hits"]
        counts["hit_bytes"] += clients["hit_bytes"]
        return counts

    def totals_to_carry(self) -> dict[str, int]:
        """Return the daemon's own counts of all runs, for the catalogue."""
        return dict(self._carried + self._counts)

    def snapshot(self) -> dict[str, Any]:
        """Return the part of the stats that this module knows."""
        now = self._now()
        earlier = self._ticks[0]
        total = self._carried + self._counts
        clients = self._clients.totals()
        attached = self._clients.attached()
        total["hits"] += clients["hits"]
        total["hit_bytes"] += clients["hit_bytes"]
        return {
            "since_start": _window(now),
            "last_minute": _window(now - earlier),
            "total": _window(total),
            "origin_latency_s": _percentiles(self.origin_latency),
            "fill_latency_s": _percentiles(self.fill_latency),
            "evictions": {
                reason: {"objects": row[0], "bytes": row[1]}
                for reason, row in sorted(self.evictions.items())
            },
            "errors": dict(sorted(self.errors.items())),
            "attached_clients": len(attached),
            "clients": self._clients.rows(attached[:_CLIENTS_TOLD]),
            "histograms": {
                "hits": _hit_buckets(clients),
                "fills": self.fill_latency.buckets(),
            },
            "started_at": self.started_at,
            "uptime_s": time.time() - self.started_at,
        }


def _hit_buckets(clients: dict[str, int]) -> list[tuple[float | None, int]]:
    """Return the clients' own histogram like ``Histogram.buckets``; longer hits have no bound."""
    bounds: list[float | None] = [bound / 1e9 for bound in HIT_BOUNDS_NS]
    counts = [clients[f"timed_until_{bound}_ns"] for bound in HIT_BOUNDS_NS]
    pairs = zip([*bounds, None], [*counts, clients["timed_longer"]], strict=True)
    return [(bound, count) for bound, count in pairs if count]


def _percentiles(histogram: Histogram) -> dict[str, Any]:
    return {
        "p50": histogram.percentile(0.5),
        "p99": histogram.percentile(0.99),
        "count": histogram.count,
    }


def _window(counts: Counter[str]) -> dict[str, Any]:
    reads = counts["hits"] + counts["misses"]
    read_bytes = counts["hit_bytes"] + counts["miss_bytes"]
    return {
        "hits": counts["hits"],
        "misses": counts["misses"],
        "hit_ratio": counts["hits"] / reads if reads else None,
        "hit_bytes": counts["hit_bytes"],
        "miss_bytes": counts["miss_bytes"],
        "byte_hit_ratio": counts["hit_bytes"] / read_bytes if read_bytes else None,
        "served_bytes": read_bytes,
        "uncached_reads": counts["uncached_reads"],
        "origin_requests": counts["origin_requests"],
        "origin_bytes": counts["origin_bytes"],
        "origin_retries": counts["origin_retries"],
        "upload_requests": counts["upload_requests"],
        "uploaded_bytes": counts["uploaded_bytes"],
        "stale_served": counts["stale_served"],
    }
