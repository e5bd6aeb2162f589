"""Metrics for Prometheus, and health for those who ask by HTTP.

Everything that ``forebay stats`` shows. Labels are bounded: origins are those of the configuration
(what others a client asks for are "other"), kinds and reasons are the daemon's own words.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from aiohttp import web
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.exposition import choose_encoder

from forebay_protos.counters import HIT_BOUNDS_NS, TIMED_ONE_IN
from forebayd.errors import ConfigError
from forebayd.stats import OriginStatistics

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable, Iterator, Mapping

    from prometheus_client.core import Metric

    from forebayd.cache.cache import Cache
    from forebayd.stats import Histogram

_OTHER = "other"
# Counters that are there before they count: the first event of a kind is an increase, too.
_EVICTION_REASONS = ("space", "asked", "changed", "gone", "overwritten", "removed")
_ORIGIN_ERRORS = (
    *("ORIGIN_UNAVAILABLE", "ACCESS_DENIED", "OBJECT_NOT_FOUND", "VERSION_CHANGED"),
    *("ALREADY_EXISTS", "INVALID_PATH", "INTERNAL_ERROR", "CANCELLED"),
)
_OWN_ERRORS = ("cache_write", "disk_floor", "meta", "refresh")


class Collector:
    """What the daemon counted, at the moment that it is asked."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._prefixes = frozenset(origin.prefix for origin in cache.config.origins)

    def describe(self) -> Iterable[Metric]:
        """Return nothing: names are not to be collected before the cache is open."""
        return []

    def collect(self) -> Iterator[Metric]:
        told = self._cache.stats()
        yield InfoMetricFamily("forebay", "The daemon", {"version": told["version"]})
        yield _gauge("uptime_seconds", "Since the daemon's start", told["uptime_s"])
        yield from self._reads(told["since_start"])
        yield self._hit_seconds()
        yield from self._store(told)
        yield from self._origins()
        yield from self._spool(told["spool"])

    def _reads(self, counts: Mapping[str, Any]) -> Iterator[Metric]:
        yield _counters(
            "reads", "Reads of clients, by where the bytes came from", "result",
            {"hit": counts["hits"], "miss": counts["misses"]},
        )  # fmt: skip
        yield _counters(
            "read_bytes", "Bytes that clients got", "source",
            {"cache": counts["hit_bytes"], "origin": counts["miss_bytes"]},
        )  # fmt: skip
        yield _counter(
            "uncached_reads", "Reads past the cache, for want of room", counts["uncached_reads"]
        )
        yield _counter(
            "stale_served",
            "Reads of what is past max_age, since the origin does not answer",
            counts["stale_served"],
        )

    def _hit_seconds(self) -> Metric:
        sums = self._cache.statistics.clients()
        buckets, total = [], 0
        for bound in HIT_BOUNDS_NS:
            total += sums[f"timed_until_{bound}_ns"]
            buckets.append((_bound(bound / 1e9), total))
        buckets.append(("+Inf", total + sums["timed_longer"]))
        text = f"Hits without the daemon; one in {TIMED_ONE_IN} is timed"
        family = HistogramMetricFamily("forebay_hit_seconds", text)
        family.add_metric([], buckets, sums["timed_ns"] / 1e9)
        return family

    def _store(self, told: Mapping[str, Any]) -> Iterator[Metric]:
        yield _gauge("cache_used_bytes", "Disk space of cached objects", told["used_bytes"])
        yield _gauge(
            "cache_overhead_bytes",
            "Disk space of the index and the like",
            told["overhead_bytes"],
        )
        yield _gauge(
            "cache_max_bytes", "The limit of objects, overhead and spool", told["max_bytes"]
        )
        yield _gauge("cache_objects", "Cached objects", told["objects"])
        yield _gauge("disk_free_bytes", "Of the cache's file system", told["disk_free_bytes"])
        yield _gauge("disk_floor_bytes", "Fills stop below it", told["min_free_bytes"])
        evictions = told["evictions"]
        for name, text, key in (
            ("evictions", "Objects that left the cache", "objects"),
            ("evicted_bytes", "Bytes that left the cache", "bytes"),
        ):
            counts = {reason: row[key] for reason, row in evictions.items()}
            yield _counters(name, text, "reason", _from_zero(_EVICTION_REASONS, counts))
        yield _counters(
            "errors", "Failed attempts at origins, and what fails in the cache itself", "kind",
            _by_kind((*_ORIGIN_ERRORS, *_OWN_ERRORS), told["errors"]),
        )  # fmt: skip
        yield _gauge(
            "attached_clients", "Processes that share the folder", told["attached_clients"]
        )
        yield _gauge("fills_in_flight", "Blocks that are being read", told["fills_in_flight"])
        yield _counter("fills_joined", "Reads that joined another's", told["deduplicated_fills"])
        yield _gauge("leases", "Files and folders that clients hold open", told["leases"])
        yield _gauge("pinned_prefixes", "Kept from eviction", len(told["pinned_prefixes"]))
        fills = self._cache.statistics.fill_latency
        yield _histograms("fill_seconds", "Fills, as clients wait for them", {"": fills}, None)

    def _origins(self) -> Iterator[Metric]:
        origins: defaultdict[str, OriginStatistics] = defaultdict(OriginStatistics)
        for prefix, found in self._cache.statistics.origins.items():
            origins[prefix if prefix in self._prefixes else _OTHER].add(found)
        for name, text, field in (
            ("origin_received_bytes", "Bytes read from origins", "received_bytes"),
            ("origin_sent_bytes", "Bytes written to origins", "sent_bytes"),
            ("origin_retries", "Requests that were made again", "retries"),
        ):
            counts = {origin: getattr(found, field) for origin, found in origins.items()}
            yield _counters(name, text, "origin", counts)
        errors = CounterMetricFamily(
            "forebay_origin_errors", "Attempts that failed", labels=("origin", "kind")
        )
        for origin, found in origins.items():
            for kind, count in _by_kind(_ORIGIN_ERRORS, found.errors).items():
                errors.add_metric([origin, kind], count)
        yield errors
        for name, text, field in (
            ("origin_read_seconds", "Attempts of requests that read", "reads"),
            ("origin_write_seconds", "Attempts of requests that write", "writes"),
            ("upload_seconds", "Objects, from their commit to their origin", "uploads"),
        ):
            histograms = {origin: getattr(found, field) for origin, found in origins.items()}
            yield _histograms(name, text, histograms, "origin")

    def _spool(self, spool: Mapping[str, Any]) -> Iterator[Metric]:
        for name, text, key in (
            ("backlog_bytes", "Written on this node, and not in the origin yet", "backlog_bytes"),
            ("backlog_uploads", "Writes that the origin does not have yet", "backlog_uploads"),
            ("backlog_age_seconds", "Of the oldest of them", "oldest_age_s"),
            ("backlog_max_age_seconds", "Older ones are overdue", "max_age_s"),
            (
                "uploads_failed",
                "Writes that failed for good and wait for somebody",
                "uploads_failed",
            ),
            ("uploads_damaged", "Files of the spool that cannot be read", "damaged"),
            ("spool_used_bytes", "Of the spool's room", "spool_used_bytes"),
            ("spool_max_bytes", "The spool's room", "spool_max_bytes"),
        ):
            yield _gauge(name, text, spool[key])
        yield _counter("uploads", "Writes that the origin has", spool["uploads_done"])
        yield _counter("uploaded_bytes", "Bytes of these", spool["uploaded_bytes"])


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"forebay_{name}", text, value)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"forebay_{name}", text, value)


def _counters(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    family = CounterMetricFamily(f"forebay_{name}", text, labels=(label,))
    for key, value in values.items():
        family.add_metric([key], value)
    return family


def _from_zero(names: Iterable[str], counts: Mapping[str, int]) -> dict[str, int]:
    return {**dict.fromkeys(names, 0), **counts}


def _by_kind(kinds: Iterable[str], counts: Mapping[str, int]) -> dict[str, int]:
    """Return the counts with kinds in lower case, as ``forebay stats`` shows them."""
    return {kind.lower(): count for kind, count in _from_zero(kinds, counts).items()}


def _histograms(
    name: str, text: str, histograms: Mapping[str, Histogram], label: str | None
) -> Metric:
    family = HistogramMetricFamily(f"forebay_{name}", text, labels=(label,) if label else ())
    for key, histogram in histograms.items():
        buckets = [(_bound(bound), count) for bound, count in histogram.cumulative()]
        buckets.append(("+Inf", histogram.count))
        family.add_metric([key] if label else [], buckets, histogram.sum_s)
    return family


def _bound(seconds: float) -> str:
    return f"{seconds:.3g}"


# --- HTTP ---------------------------------------------------------------------------------------


class MetricsServer:
    """``/metrics``, ``/healthz`` (it lives) and ``/readyz`` (it serves)."""

    def __init__(self, cache: Cache, ready: asyncio.Event) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(Collector(cache))
        ProcessCollector(namespace="forebay", registry=self._registry)
        self._runner: web.AppRunner | None = None
        self._ready = ready

    async def start(self, address: str) -> None:
        """Listen on ``host:port``. Raises ConfigError."""
        application = web.Application()
        application.router.add_get("/metrics", self._metrics)
        application.router.add_get("/healthz", self._healthz)
        application.router.add_get("/readyz", self._readyz)
        self._runner = web.AppRunner(application, access_log=None)
        await self._runner.setup()
        host, _, port = address.rpartition(":")
        try:
            await web.TCPSite(self._runner, host.strip("[]"), int(port)).start()
        except OSError as error:
            await self.stop()
            raise ConfigError(
                f"metrics_listen: cannot listen on {address}: {error.strerror or error}"
            ) from error

    async def stop(self) -> None:
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    async def _metrics(self, request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        # Here and not in a thread: what it walks changes in this loop.
        body = encode(self._registry)
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, _: web.Request) -> web.Response:
        if self._ready.is_set():
            return web.Response(text="ready\n")
        return web.Response(text="starting or stopping\n", status=503)
