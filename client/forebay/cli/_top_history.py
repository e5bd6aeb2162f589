"""What has become of the daemon's counters between looks at it: rates, ratios, latencies."""

from __future__ import annotations

import math
from collections import Counter, defaultdict, deque
from typing import Any

_HISTORY_S = 300.0
_LATENCY_S = 10.0  # latencies of one second alone would flicker

Raw = dict[str, Any]
Buckets = Counter[float]  # by upper bound


class History:
    """The last minutes of one daemon, as often as it was asked. Survives its restarts."""

    def __init__(self, interval_s: float) -> None:
        length = max(2, math.ceil(_HISTORY_S / interval_s))
        self._recent: deque[Raw] = deque()  # of the last seconds, for differences
        # By name, a value for each look; None where there is none.
        self.rates: defaultdict[str, deque[float | None]] = defaultdict(
            lambda: deque(maxlen=length)
        )

    @property
    def now(self) -> Raw:
        return self._recent[-1]

    @property
    def _before(self) -> tuple[Raw, float]:
        """What was told the last time, and how many seconds ago; at first the same as now."""
        before = self._recent[max(0, len(self._recent) - 2)]
        return before, self.now["uptime_s"] - before["uptime_s"]

    def add(self, raw: Raw) -> None:
        """Take what the daemon told now."""
        if self._recent and self.now["started_at"] != raw["started_at"]:
            self._recent.clear()
        self._recent.append(raw)
        while len(self._recent) > 2 and self._recent[1]["uptime_s"] < raw["uptime_s"] - _LATENCY_S:
            self._recent.popleft()
        before, seconds = self._before
        earlier, now = _counts(before), _counts(raw)
        grown = {name: count - earlier[name] for name, count in now.items()}
        for name, growth in grown.items():
            self.rates[name].append(growth / seconds if seconds > 0 else None)
        reads = grown["reads"]
        self.rates["hit_ratio"].append(grown["hits"] / reads if reads else None)

    def missed(self) -> None:
        """Note that the daemon gave no answer."""
        for values in self.rates.values():
            values.append(None)

    def speeds(self, table: str, key: str, *fields: str) -> dict[Any, tuple[float, ...]]:
        """Return how much fields of a table's rows grow in a second, by what is under *key*.

        A row that was not there before does not grow: its counts may be another's.
        """
        before, seconds = self._before
        earlier = {row[key]: row for row in before[table]}
        return {
            row[key]: tuple(
                (row[field] - earlier.get(row[key], row)[field]) / seconds if seconds > 0 else 0.0
                for field in fields
            )
            for row in self.now[table]
        }

    def latency(self, section: str, name: str = "") -> Buckets:
        """Return the histogram of the last seconds: "hits", "fills", or of the origins "reads",
        "writes", "uploads"; with *name* of that origin alone."""
        buckets = _buckets(self.now, section, name)
        buckets.subtract(_buckets(self._recent[0], section, name))
        return +buckets

    def is_growing(self, kind: str) -> bool:
        """Tell whether errors of a kind came in the last seconds."""
        return bool(self.now["errors"][kind] > self._recent[0]["errors"].get(kind, 0))


def _counts(raw: Raw) -> dict[str, int]:
    counts = raw["since_start"]
    return {
        "hits": counts["hits"],
        "reads": counts["hits"] + counts["misses"],
        "hit_bytes": counts["hit_bytes"],
        "origin_bytes": counts["origin_bytes"],
        "uploaded_bytes": counts["uploaded_bytes"],
        "evicted_bytes": sum(row["bytes"] for row in raw["evictions"].values()),
    }


def _buckets(raw: Raw, section: str, name: str) -> Buckets:
    told = (
        [raw["histograms"][section]]
        if section in raw["histograms"]
        else [row[section] for row in raw["origins"] if name in ("", row["prefix"])]
    )
    buckets: Buckets = Counter()
    for histogram in told:
        for bound, count in histogram:
            buckets[math.inf if bound is None else bound] += count
    return buckets


def percentile(buckets: Buckets, share: float) -> float | None:
    """Return the upper bound of the bucket that holds this share, None if all are empty."""
    remaining = share * buckets.total()
    for bound, count in sorted(buckets.items()):
        remaining -= count
        if remaining <= 0:
            return bound
    return None
