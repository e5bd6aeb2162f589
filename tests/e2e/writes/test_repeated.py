"""Calls that are made again, because the daemon died before it answered, do nothing twice."""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from typing import TYPE_CHECKING, Any

import grpc
import pytest

import forebay
from forebay_protos import cache_pb2 as pb
from forebay_protos import cache_pb2_grpc, spool
from support.spooled import journal, wait_until, wait_until_empty

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.ceph import Bucket
    from support.daemon import DaemonProcess
    from support.proxy import FaultProxy


class RawWriter:
    """A client of the protocol that repeats its calls."""

    def __init__(self, daemon: DaemonProcess) -> None:
        self._daemon = daemon
        self._fds: list[int] = []

    def _call(self, method: str, request: Any) -> Any:
        with grpc.insecure_channel(
            self._daemon.address, options=[("grpc.use_local_subchannel_pool", 1)]
        ) as channel:
            stub = cache_pb2_grpc.CacheStub(channel)
            return getattr(stub, method)(request, timeout=60, wait_for_ready=True)

    def stage(self, kind: str, uri: str, data: bytes, **words: Any) -> pb.CommitRequest:
        """Write a staged file, and return what commits it."""
        trailer = spool.Trailer(kind, uri, len(data), **words)
        whole = data + trailer.to_bytes()
        reply = self._call("Stage", pb.StageRequest(uri=uri, size_bytes=len(whole)))
        fd = os.open(self._daemon.cache_dir / reply.file, os.O_RDWR)
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._fds.append(fd)
        os.pwrite(fd, whole, 0)
        os.ftruncate(fd, len(whole))
        os.fsync(fd)
        return pb.CommitRequest(file=reply.file, operation=trailer.operation)

    def commit(self, request: pb.CommitRequest) -> str:
        return str(self._call("Commit", request).version)

    def change(self, request: pb.ChangeRequest) -> None:
        self._call("Change", request)

    def close(self) -> None:
        for fd in self._fds:
            os.close(fd)


@pytest.fixture
def raw(daemon: DaemonProcess) -> Iterator[RawWriter]:
    with contextlib.closing(RawWriter(daemon)) as writer:
        yield writer


def test_repeated_commit_of_a_pending_write_does_nothing_twice(
    daemon: DaemonProcess, raw: RawWriter, proxy: FaultProxy, bucket: Bucket
) -> None:
    gate = proxy.gate(None, method="PUT")
    with forebay.Client(daemon.address) as client:
        client.put(bucket.url("first"), b"first")
        gate.wait_for(1)
        client.put(bucket.url("barrier"), b"")
        request = raw.stage(spool.PUT, bucket.url("k"), b"once")
        raw.commit(request)
        raw.commit(request)
        assert [each.path for each in client.uploads()].count(bucket.url("k")) == 1
        gate.wait_for(3)
        daemon.kill9()
        raw_before = journal(daemon.cache_dir)
        gate.remove()  # what is held stays so
        daemon.start()
        raw.commit(request)
        client.flush()
        raw.commit(request)

        assert len(raw_before) == 3
        assert bucket.get("k") == b"once"
        assert proxy.count("PUT", "k") <= 2  # one that the kill cut, and the next
    wait_until_empty(daemon.cache_dir)


@pytest.mark.parametrize("is_killed", [False, True], ids=["", "killed"])
def test_repeated_commit_of_a_finished_write_does_not_undo_a_later_one(
    daemon: DaemonProcess, raw: RawWriter, proxy: FaultProxy, bucket: Bucket, is_killed: bool
) -> None:
    with forebay.Client(daemon.address) as client:
        request = raw.stage(spool.PUT, bucket.url("k"), b"first")
        raw.commit(request)
        client.flush()
        client.put(bucket.url("k"), b"later")
        client.flush()
        if is_killed:
            daemon.kill9()
            daemon.start()
        raw.commit(request)
        client.flush()

        assert bucket.get("k") == client.get(bucket.url("k")) == b"later"
        assert proxy.count("PUT", "k") == 2


@pytest.mark.parametrize("is_killed", [False, True], ids=["", "killed"])
def test_repeated_remove_does_not_remove_what_was_written_since(
    daemon: DaemonProcess, raw: RawWriter, bucket: Bucket, is_killed: bool
) -> None:
    bucket.put("k", b"old")
    request = pb.ChangeRequest(
        operation=spool.new_operation(), kind=pb.ChangeRequest.REMOVE, uri=bucket.url("k")
    )
    with forebay.Client(daemon.address) as client:
        raw.change(request)
        client.flush()
        client.put(bucket.url("k"), b"new")
        client.flush()
        if is_killed:
            daemon.kill9()
            daemon.start()
        raw.change(request)
        client.flush()

        assert bucket.get("k") == client.get(bucket.url("k")) == b"new"


def test_repeated_create_and_write_through_are_answered_as_the_first_time(
    daemon: DaemonProcess, raw: RawWriter, proxy: FaultProxy, bucket: Bucket
) -> None:
    create = raw.stage(spool.CREATE, bucket.url("created"), b"1")
    through = raw.stage(spool.PUT, bucket.url("through"), b"2", mode="write_through")
    first = raw.commit(create), raw.commit(through)

    assert (raw.commit(create), raw.commit(through)) == first
    assert all(first)
    assert (bucket.get("created"), bucket.get("through")) == (b"1", b"2")
    assert (proxy.count("PUT", "created"), proxy.count("PUT", "through")) == (1, 1)


def test_create_whose_daemon_died_before_the_answer_is_its_own(
    daemon: DaemonProcess, raw: RawWriter, proxy: FaultProxy, bucket: Bucket
) -> None:
    """The origin has it, the daemon that knew is gone: whoever repeats the call is the winner."""
    request = raw.stage(spool.CREATE, bucket.url("k"), b"mine")
    gate = proxy.gate("k", method="PUT", times=1)
    commit = threading.Thread(target=lambda: suppressed(raw, request))
    commit.start()
    gate.wait_for(1)
    daemon.kill9()
    commit.join()
    gate.release()
    wait_until(lambda: bucket.keys() == ["k"], "the object")
    daemon.start()

    raw.commit(request)

    assert bucket.get("k") == b"mine"


def suppressed(raw: RawWriter, request: pb.CommitRequest) -> None:
    with contextlib.suppress(grpc.RpcError):
        raw.commit(request)
