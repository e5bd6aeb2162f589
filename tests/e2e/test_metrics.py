"""Metrics and health over HTTP."""

from __future__ import annotations

import urllib.error
import urllib.request
from typing import TYPE_CHECKING

import pytest
from prometheus_client.parser import text_string_to_metric_families

import forebay
from support.daemon import DaemonFailedError
from support.ports import free_address

if TYPE_CHECKING:
    from conftest import StartDaemon
    from support.ceph import Bucket
    from support.daemon import DaemonProcess
    from support.proxy import FaultProxy


@pytest.fixture
def address() -> str:
    return free_address()


@pytest.fixture
def measured(start_daemon: StartDaemon, address: str) -> DaemonProcess:
    return start_daemon(metrics_listen=address)


Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def ask(address: str, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://{address}{path}") as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def scrape(address: str) -> Samples:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(ask(address, "/metrics")[1])
        for sample in family.samples
    }


def test_what_was_done_is_counted(measured: DaemonProcess, address: str, bucket: Bucket) -> None:
    bucket.put("k", b"x" * 1000)
    with forebay.Client(measured.address) as client:
        for _ in range(200):
            client.get(bucket.url("k"))
        client.put(bucket.url("new"), b"y" * 100)
        client.flush()
        told = client.stats()

    found = scrape(address)

    origin = ("origin", "s3://")
    assert found["forebay_reads_total", (("result", "hit"),)] == told.hits == 199
    assert found["forebay_reads_total", (("result", "miss"),)] == 1
    assert found["forebay_read_bytes_total", (("source", "cache"),)] == 199_000
    assert found["forebay_origin_received_bytes_total", (origin,)] == 1000
    assert found["forebay_origin_sent_bytes_total", (origin,)] == 100
    assert found["forebay_cache_objects", ()] == 2
    assert found["forebay_cache_max_bytes", ()] == 1_000_000_000
    assert found["forebay_backlog_uploads", ()] == 0
    assert found["forebay_uploads_total", ()] == 1
    assert found["forebay_disk_free_bytes", ()] > 0
    assert found["forebay_fill_seconds_count", ()] == 1
    assert found["forebay_upload_seconds_count", (origin,)] == 1
    assert found["forebay_hit_seconds_bucket", (("le", "+Inf"),)] == 199 // 64
    assert found["forebay_hit_seconds_sum", ()] > 0
    assert found["forebay_process_resident_memory_bytes", ()] > 0


def test_every_number_of_the_statistics_is_a_metric(
    measured: DaemonProcess, address: str, bucket: Bucket
) -> None:
    """A new word of ``forebay stats`` is either a metric or named here."""
    with forebay.Client(measured.address) as client:
        raw = client.stats().raw
    names = {name.removeprefix("forebay_") for name, _ in scrape(address)}

    assert {
        "uptime_seconds",
        "cache_used_bytes",
        "cache_max_bytes",
        "cache_overhead_bytes",
        "cache_objects",
        "disk_free_bytes",
        "disk_floor_bytes",
        "attached_clients",
        "fills_in_flight",
        "fills_joined_total",
        "leases",
        "pinned_prefixes",
        "backlog_bytes",
        "backlog_uploads",
        "backlog_age_seconds",
        "uploads_failed",
        "uploads_damaged",
        "spool_used_bytes",
        "spool_max_bytes",
    } <= names
    assert set(raw) == {
        *("since_start", "last_minute", "total", "origin_latency_s", "fill_latency_s"),
        *(
            "evictions",
            "errors",
            "attached_clients",
            "started_at",
            "uptime_s",
            "version",
            "pid",
            "cache_dir",
        ),
        *("cache_id", "used_bytes", "reserved_bytes", "overhead_bytes", "max_bytes"),
        *("disk_free_bytes", "min_free_bytes", "objects", "pinned_prefixes", "spool", "leases"),
        *("fills_in_flight", "deduplicated_fills", "origins"),
        *("prefixes", "fills", "clients", "histograms"),
    }


def test_errors_and_retries_are_those_of_their_origin(
    start_daemon: StartDaemon, address: str, proxy: FaultProxy, bucket: Bucket
) -> None:
    daemon = start_daemon(endpoint_url=proxy.url, metrics_listen=address)
    bucket.put("k", b"x")
    proxy.fail("k", times=2)
    with forebay.Client(daemon.address) as client:
        client.get(bucket.url("k"))
        with pytest.raises(forebay.ForebayError):
            client.get("nonsense://somewhere/k")

    found = scrape(address)

    origin = ("origin", "s3://")
    assert found["forebay_origin_retries_total", (origin,)] == 2
    failed = ("kind", "origin_unavailable")
    assert found["forebay_origin_errors_total", (failed, origin)] == 2
    assert found["forebay_errors_total", (failed,)] == 2
    assert found["forebay_origin_read_seconds_count", (origin,)] == 3
    labels = {dict(key).get("origin") for _, key in found} - {None}
    assert labels <= {"s3://", "file://", "http://", "https://", "other"}


def test_origins_that_nobody_configured_are_one(measured: DaemonProcess, address: str) -> None:
    with forebay.Client(measured.address) as client:
        for url in ("memory://nowhere/k", "zip://nowhere/k"):
            with pytest.raises(FileNotFoundError):
                client.get(url)

    found = scrape(address)

    other = ("origin", "other")
    assert found["forebay_origin_errors_total", (("kind", "object_not_found"), other)] == 2
    assert found["forebay_origin_read_seconds_count", (other,)] == 2
    assert found["forebay_origin_read_seconds_bucket", (("le", "+Inf"), other)] == 2


def test_counters_are_there_before_they_count(measured: DaemonProcess, address: str) -> None:
    """An alert on an increase would not see the first of a kind otherwise."""
    found = scrape(address)

    assert found["forebay_evictions_total", (("reason", "space"),)] == 0
    assert found["forebay_evicted_bytes_total", (("reason", "space"),)] == 0
    for kind in ("origin_unavailable", "cache_write", "disk_floor"):
        assert found["forebay_errors_total", (("kind", kind),)] == 0


def test_health_is_told(measured: DaemonProcess, address: str) -> None:
    assert ask(address, "/healthz") == (200, "ok\n")
    assert ask(address, "/readyz") == (200, "ready\n")
    assert ask(address, "/else")[0] == 404
    measured.stop()
    with pytest.raises(urllib.error.URLError):
        ask(address, "/healthz")


def test_a_port_that_is_taken_is_an_error_if_it_was_asked_for(
    measured: DaemonProcess, start_daemon: StartDaemon, address: str
) -> None:
    with pytest.raises(DaemonFailedError, match=f"metrics_listen: cannot listen on {address}"):
        start_daemon(metrics_listen=address)


def test_wrong_addresses_are_refused(start_daemon: StartDaemon) -> None:
    with pytest.raises(DaemonFailedError, match='give host:port, or "off"'):
        start_daemon(metrics_listen="9423")
