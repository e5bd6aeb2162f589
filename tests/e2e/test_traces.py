"""OpenTelemetry: what a collector gets of fills and uploads, and what it is configured by."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import forebay
from support.collector import Collector
from support.daemon import DaemonFailedError
from support.ports import closed_port

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opentelemetry.proto.trace.v1.trace_pb2 import Span

    from conftest import StartDaemon
    from support.ceph import Bucket


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as running:
        yield running


def traced(endpoint_url: str) -> dict[str, str]:
    """Return the environment of a daemon whose spans are sent at once."""
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint_url, "OTEL_BSP_SCHEDULE_DELAY": "100"}


def named(spans: list[Span], name: str) -> list[Span]:
    return [span for span in spans if span.name == name]


def attributes(span: Span) -> dict[str, str | int]:
    return {
        each.key.removeprefix("forebay."): each.value.string_value or each.value.int_value
        for each in span.attributes
    }


def test_fill_and_its_request_are_a_trace(
    start_daemon: StartDaemon, bucket: Bucket, collector: Collector
) -> None:
    bucket.put("k", b"x" * 1000)
    daemon = start_daemon(env=traced(collector.url))

    with forebay.Client(daemon.address) as client:
        client.get(bucket.url("k"))
        client.get(bucket.url("k"))  # a hit, of which the daemon knows nothing
    daemon.stop()

    (fill,) = named(collector.wait_for(lambda spans: bool(named(spans, "fill"))), "fill")
    (request,) = named(collector.spans, "origin get")
    assert attributes(fill) == {"uri": bucket.url("k")}
    assert request.parent_span_id == fill.span_id
    assert request.trace_id == fill.trace_id
    assert collector.services == {"forebay"}


def test_spans_go_by_grpc(start_daemon: StartDaemon, bucket: Bucket, collector: Collector) -> None:
    bucket.put("k", b"x")
    by_grpc = {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
    daemon = start_daemon(env=traced(collector.grpc_url) | by_grpc)

    with forebay.Client(daemon.address) as client:
        client.get(bucket.url("k"))

    collector.wait_for(lambda spans: bool(named(spans, "fill")))


def test_upload_and_its_requests_are_a_trace(
    start_daemon: StartDaemon, bucket: Bucket, collector: Collector
) -> None:
    daemon = start_daemon(
        env=traced(collector.url) | {"OTEL_SERVICE_NAME": "cache"},
        upload_part_bytes="5MiB",
    )

    with forebay.Client(daemon.address) as client:
        client.put(bucket.url("large"), b"x" * (6 << 20))
        client.flush()

    spans = collector.wait_for(lambda spans: bool(named(spans, "upload")))
    (upload,) = named(spans, "upload")
    told = {"uri": bucket.url("large"), "kind": "put", "bytes": 6 << 20, "attempt": 1}
    assert attributes(upload) == told
    below = [span.name for span in spans if span.parent_span_id == upload.span_id]
    assert sorted(below) == ["origin begin", "origin complete", *["origin put_part"] * 2]
    assert collector.services == {"cache"}


def test_failed_request_is_marked(
    start_daemon: StartDaemon, bucket: Bucket, collector: Collector
) -> None:
    daemon = start_daemon(env=traced(collector.url))

    with (
        forebay.Client(daemon.address) as client,
        pytest.raises(forebay.ObjectNotFoundError),
    ):
        client.get(bucket.url("absent"))

    (fill,) = named(collector.wait_for(lambda spans: bool(named(spans, "fill"))), "fill")
    assert fill.status.code == fill.status.STATUS_CODE_ERROR
    assert bucket.url("absent") in fill.status.message


def test_daemon_serves_and_ends_without_its_collector(
    start_daemon: StartDaemon, bucket: Bucket
) -> None:
    bucket.put("k", b"x")
    with closed_port() as port:
        daemon = start_daemon(env=traced(f"http://127.0.0.1:{port}"))

        with forebay.Client(daemon.address) as client:
            assert client.get(bucket.url("k")) == b"x"

        assert daemon.stop() == 0


def test_unknown_protocol_is_refused(start_daemon: StartDaemon) -> None:
    env = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "udp",
    }

    with pytest.raises(DaemonFailedError, match="'udp': grpc or http/protobuf"):
        start_daemon(env=env)
