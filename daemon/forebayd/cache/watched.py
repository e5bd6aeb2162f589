"""What who watches the daemon is told beside counters: what runs, which prefixes and origins are
busy. Every list is bounded, and costs the same however large the cache is."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from forebayd.stats import OriginStatistics

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from forebayd.busiest import Busiest
    from forebayd.cache.flight import Flights
    from forebayd.cache.origins import Target
    from forebayd.config import OriginConfig
    from forebayd.store.store import Store

_FILLS_TOLD = 32
_SAMPLE = 256  # objects that were used lately: a prefix's share is exact to some percent
_USED_S = 60.0


def fills(store: Store, flights: Flights) -> list[dict[str, Any]]:
    """Return the objects of which something is being read from the origin, the oldest first."""
    found: dict[str, dict[str, Any]] = {}
    targets: dict[str, Target] = {}
    now = time.monotonic()
    for flight in flights:
        target = flight.about
        if target is None:
            continue
        row = found.get(target.uri)
        if row is None:
            if len(found) == _FILLS_TOLD:
                continue
            row = {"uri": target.uri, "requests": 0, "waiting": 0, "age_s": now - flight.began}
            found[target.uri], targets[target.uri] = row, target
        row["requests"] += 1
        # Of one that reads many blocks, each block has a waiter.
        row["waiting"] = max(row["waiting"], flight.waiting)
    for uri, row in found.items():
        entry = store.get(targets[uri].fingerprint)
        row["cached_bytes"] = 0 if entry is None else entry.cached_bytes
        row["size_bytes"] = None if entry is None else entry.size_bytes  # None: not known yet
    return list(found.values())


def prefixes(store: Store, busiest: Busiest) -> list[dict[str, Any]]:
    """Return the busiest prefixes of the last minute.

    Clients hit without the daemon and count no names. But each notes in the table when it has used
    an object: ``objects_used`` is how many objects were, however often, by a sample of them.
    """
    since_ns = time.time_ns() - int(_USED_S * 1e9)
    fingerprints, each = store.table.used_since(since_ns, _SAMPLE)
    entries = store.get_many(fingerprints)
    return busiest.rows([entry.uri for entry in entries if entry is not None], each)


def origins(
    configs: Iterable[OriginConfig], counted: Mapping[str, OriginStatistics]
) -> list[dict[str, Any]]:
    """Return what was asked of each origin, at last of those that nobody configured."""
    rows: dict[str, dict[str, Any]] = {
        config.prefix: {
            "endpoint_url": config.endpoint_url,
            "ca_bundle": None if config.ca_bundle is None else str(config.ca_bundle),
        }
        for config in configs
    }
    nothing = {"endpoint_url": None, "ca_bundle": None}
    return [
        {
            "prefix": prefix,
            **rows.get(prefix, nothing),
            **counted.get(prefix, OriginStatistics()).told(),
        }
        for prefix in rows | dict.fromkeys(counted)
    ]
