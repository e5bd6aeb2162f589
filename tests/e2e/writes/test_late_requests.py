"""Requests that had no answer, and arrive at the origin after later writes of their key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import forebay
from support.sealed import seal
from support.spooled import wait_until

if TYPE_CHECKING:
    from conftest import StartDaemon
    from support.ceph import Bucket
    from support.daemon import DaemonProcess
    from support.proxy import FaultProxy, Gate, Request

MIB = 1 << 20


def _is_conditional_on_a_version(request: Request) -> bool:
    return request.names("k") and "if-match" in request.headers


def _completes(request: Request) -> bool:
    return request.names("k") and "uploadId" in request.query


LATE = {
    "of a new object": (None, b"late", "k", "PUT"),
    "over an object": (b"old", b"late", _is_conditional_on_a_version, "PUT"),
    "end of parts": (None, seal("k", 1, 11 * MIB), _completes, "POST"),
    "end of parts over an object": (b"old", seal("k", 1, 11 * MIB), _completes, "POST"),
}


@pytest.mark.parametrize("late", LATE.values(), ids=LATE)
@pytest.mark.parametrize("is_killed", [False, True], ids=["", "killed"])
def test_put_that_arrives_after_its_successor_does_not_win(
    start_daemon: StartDaemon, proxy: FaultProxy, bucket: Bucket, late: Any, is_killed: bool
) -> None:
    before, data, match, method = late
    daemon = start_daemon(
        endpoint_url=proxy.url, request_timeout_s=1, max_attempts=2, upload_part_bytes="5MiB"
    )
    if before is not None:
        bucket.put("k", before)
    gate = proxy.gate(match, method=method, times=1)
    with forebay.Client(daemon.address) as client:
        client.put(bucket.url("k"), data)
        gate.wait_for(1)
        if is_killed:
            daemon.kill9()
            daemon.start()
        client.flush()  # the same again went through
        assert bucket.get("k") == data
        client.put(bucket.url("k"), b"successor")
        client.flush()
        assert bucket.get("k") == b"successor"
        assert gate.waiting == 1

        gate.release()
        settle(gate)

        assert bucket.get("k") == b"successor"
        client.put(bucket.url("k"), b"last")
        client.flush()
    assert bucket.get("k") == b"last"


@pytest.fixture
def lingering(start_daemon: StartDaemon, proxy: FaultProxy) -> DaemonProcess:
    """A daemon that knows how long a request may linger: long enough for these tests."""
    return start_daemon(
        endpoint_url=proxy.url, request_timeout_s=1, max_attempts=2, request_lingers_s=12
    )


def test_delete_that_arrives_after_its_successor_does_not_win(
    lingering: DaemonProcess, proxy: FaultProxy, bucket: Bucket
) -> None:
    bucket.put("k", b"old")
    gate = proxy.gate("k", method="DELETE", times=1)
    with forebay.Client(lingering.address) as client:
        client.remove(bucket.url("k"))
        gate.wait_for(1)
        client.put(bucket.url("k"), b"successor")
        wait_until(lambda: bucket.find("k") == b"successor", "the successor")
        gate.release()
        wait_until(lambda: bucket.keys() == [], "what the late request does")

        client.flush()

        assert bucket.get("k") == b"successor"
        assert client.get(bucket.url("k")) == b"successor"


def test_put_that_arrives_after_a_remove_does_not_win(
    lingering: DaemonProcess, proxy: FaultProxy, bucket: Bucket
) -> None:
    gate = proxy.gate("k", method="PUT", times=1)
    with forebay.Client(lingering.address) as client:
        client.put(bucket.url("k"), b"late")
        gate.wait_for(1)
        wait_until(lambda: bucket.keys() == ["k"], "the second attempt")
        client.remove(bucket.url("k"))
        wait_until(lambda: bucket.keys() == [], "the removal")
        gate.release()
        wait_until(lambda: bucket.keys() == ["k"], "what the late request does")

        client.flush()

        assert bucket.keys() == []
        assert not client.exists(bucket.url("k"))


def test_content_that_was_there_before_does_not_let_a_late_put_in(
    lingering: DaemonProcess, proxy: FaultProxy, bucket: Bucket
) -> None:
    """Versions are digests: the same content again is the same version again."""
    bucket.put("k", b"one")
    with forebay.Client(lingering.address) as client:
        client.get(bucket.url("k"))
        gate = proxy.gate(_is_conditional_on_a_version, method="PUT", times=1)
        client.put(bucket.url("k"), b"other")
        gate.wait_for(1)
        wait_until(lambda: bucket.get("k") == b"other", "the second attempt")
        client.put(bucket.url("k"), b"one")
        wait_until(lambda: bucket.get("k") == b"one", "the first content again")
        gate.release()
        wait_until(lambda: bucket.get("k") == b"other", "what the late request does")

        client.flush()

    assert bucket.get("k") == b"one"


def settle(gate: Gate) -> None:
    """Wait until the origin has taken what was held."""
    wait_until(lambda: gate.answered == 1, "the late request's end")
