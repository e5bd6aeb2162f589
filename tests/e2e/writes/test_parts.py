"""Uploads in parts: they go on after a crash, are seen whole or not at all, and all are ended."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

import forebay
from support.sizes import some_bytes
from support.spooled import unfinished, wait_until, wait_until_empty

if TYPE_CHECKING:
    from support.ceph import Bucket
    from support.daemon import DaemonProcess
    from support.proxy import FaultProxy, Request

MIB = 1 << 20
PART = 5 * MIB


def part_of(request: Request) -> int:
    """Return which part of an upload is sent, 0 if none is."""
    found = re.search(r"partNumber=(\d+)", request.query)
    return int(found[1]) if found and request.method == "PUT" else 0


def parts_sent(proxy: FaultProxy) -> list[int]:
    return sorted(filter(None, map(part_of, proxy.requests)))


@pytest.mark.parametrize("end", ["kill9", "stop"])
def test_interrupted_upload_in_parts_goes_on_where_it_was(
    daemon: DaemonProcess, proxy: FaultProxy, bucket: Bucket, end: str
) -> None:
    data = some_bytes(4 * PART + 1000)
    gate = proxy.gate(lambda request: part_of(request) >= 4, method="PUT")
    with forebay.Client(daemon.address) as client:
        client.put(bucket.url("k"), data)
        wait_until(lambda: client.uploads()[0].uploaded_bytes == 3 * PART, "three parts")
        gate.wait_for(2)  # or they would be counted when they are forgotten
        getattr(daemon, end)()
        assert unfinished(bucket) == ["k"]
        gate.remove()  # what is held stays so
        proxy.forget()
        daemon.start()
        assert client.get(bucket.url("k")) == data
        client.flush()

        assert parts_sent(proxy) == [4, 5]
        assert bucket.get("k") == data
        gate.release()
        assert unfinished(bucket) == []
        assert client.get(bucket.url("k")) == data
        assert client.check().problems == ()
    wait_until_empty(daemon.cache_dir)


def test_parts_that_failed_are_sent_again_and_no_others(
    daemon: DaemonProcess, proxy: FaultProxy, bucket: Bucket
) -> None:
    data = some_bytes(4 * PART)
    gate = proxy.gate(lambda request: part_of(request) == 4, method="PUT", times=1)
    with forebay.Client(daemon.address) as client:
        client.put(bucket.url("k"), data)
        wait_until(lambda: client.uploads()[0].uploaded_bytes == 3 * PART, "three parts")
        gate.wait_for(1)  # or it would come, and be counted, after what follows
        proxy.forget()
        proxy.reset(lambda request: part_of(request) == 4, method="PUT", times=2)
        daemon.kill9()
        daemon.start()
        client.flush()

    assert parts_sent(proxy) == [4, 4, 4]
    assert bucket.get("k") == data
    gate.release()


def test_nothing_is_to_be_seen_of_an_upload_before_its_end(
    daemon: DaemonProcess, proxy: FaultProxy, bucket: Bucket
) -> None:
    bucket.put("k", b"old")
    gate = proxy.gate(lambda request: "uploadId" in request.query, method="POST")
    with forebay.Client(daemon.address) as client:
        client.put(bucket.url("k"), some_bytes(3 * PART))
        gate.wait_for(1)
        assert bucket.get("k") == b"old"
        gate.release()
        client.flush()
    assert bucket.get("k") == some_bytes(3 * PART)


@pytest.mark.parametrize("is_running", [True, False], ids=["running", "waiting"])
def test_discard_ends_the_upload_in_parts(
    daemon: DaemonProcess, proxy: FaultProxy, bucket: Bucket, is_running: bool
) -> None:
    if is_running:
        gate = proxy.gate(lambda request: part_of(request) == 2, method="PUT")
    else:
        proxy.reset(lambda request: part_of(request) == 2, method="PUT", times=None)
    with forebay.Client(daemon.address) as client:
        client.put(bucket.url("k"), some_bytes(3 * PART))
        if is_running:
            gate.wait_for(1)
        else:
            wait_until(lambda: client.uploads()[0].last_error, "a failure")
        assert unfinished(bucket) == ["k"]

        client.settle_uploads([client.uploads()[0].id], discard=True)
        proxy.clear()

        wait_until(lambda: unfinished(bucket) == [], "the end of the upload in parts")
        assert bucket.keys() == []
        assert client.uploads() == []
        with pytest.raises(FileNotFoundError):
            client.get(bucket.url("k"))
    wait_until_empty(daemon.cache_dir)


def test_upload_in_parts_that_was_skipped_for_a_later_write_is_ended(
    daemon: DaemonProcess, proxy: FaultProxy, bucket: Bucket
) -> None:
    proxy.reset(lambda request: part_of(request) == 2, method="PUT", times=None)
    with forebay.Client(daemon.address) as client:
        client.put(bucket.url("k"), some_bytes(3 * PART))
        wait_until(
            lambda: client.uploads()[0].last_error and client.uploads()[0].state == "waiting",
            "a failure",
        )
        client.put(bucket.url("k"), b"later")
        client.flush()

        assert bucket.get("k") == b"later"
        wait_until(lambda: unfinished(bucket) == [], "the end of the upload in parts")
    wait_until_empty(daemon.cache_dir)


def test_upload_in_parts_that_somebody_ended_is_begun_anew(
    daemon: DaemonProcess, proxy: FaultProxy, bucket: Bucket
) -> None:
    data = some_bytes(3 * PART)
    gate = proxy.gate(lambda request: part_of(request) == 2, method="PUT", times=1)
    with forebay.Client(daemon.address) as client:
        client.put(bucket.url("k"), data)
        gate.wait_for(1)
        daemon.kill9()
        reply: Any = bucket.client.list_multipart_uploads(Bucket=bucket.name)
        for upload in reply["Uploads"]:
            bucket.client.abort_multipart_upload(
                Bucket=bucket.name, Key="k", UploadId=upload["UploadId"]
            )
        gate.release()
        daemon.start()
        client.flush()

    assert bucket.get("k") == data
    assert unfinished(bucket) == []


def test_upload_whose_begin_was_not_answered_is_ended(
    daemon: DaemonProcess, proxy: FaultProxy, bucket: Bucket
) -> None:
    """The origin has begun one that nobody knows by its id."""
    stall = proxy.stall_body(
        lambda request: "uploads" in request.query, method="POST", after_bytes=10
    )
    data = some_bytes(3 * PART)
    with forebay.Client(daemon.address) as client:
        client.put(bucket.url("k"), data)
        stall.wait_for(1)
        assert unfinished(bucket) == ["k"]
        daemon.kill9()
        stall.release()
        daemon.start()
        client.flush()
        wait_until(lambda: unfinished(bucket) == [], "the end of the unknown one")
    assert bucket.get("k") == data
    wait_until_empty(daemon.cache_dir)
