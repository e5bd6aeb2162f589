"""The spool keeps its limit; what is larger passes through it."""

from __future__ import annotations

import contextlib
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

import forebay
from support import remote_work, write_work
from support.disk_usage import watched
from support.remote import RemoteClient
from support.sizes import some_bytes
from support.spooled import contents, journal, spool_used, unfinished, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import StartDaemon
    from support.ceph import Bucket
    from support.daemon import DaemonProcess
    from support.proxy import FaultProxy

MIB = 1 << 20


# --- the spool's limit -------------------------------------------------------------------------

SPOOL = 8 * MIB
WHOLE = 48 * MIB


@pytest.fixture
def small(start_daemon: StartDaemon, proxy: FaultProxy) -> DaemonProcess:
    """A daemon with a small spool, whose origin can be made to fail."""
    return start_daemon(
        endpoint_url=proxy.url, max_attempts=2, max_bytes=WHOLE, spool_max_bytes=SPOOL
    )


def test_writer_waits_for_room_and_is_told_when_none_comes(
    small: DaemonProcess, proxy: FaultProxy, bucket: Bucket
) -> None:
    down = proxy.reset(None, method=None, times=None)
    written: dict[str, bytes] = {}
    with watched(small) as usage, forebay.Client(small.address, timeout_s=8) as client:

        def write_all() -> None:
            for number in range(20):
                data = some_bytes(MIB + number)
                client.put(bucket.url(f"{number}"), data)
                written[f"{number}"] = data

        with pytest.raises(forebay.SpoolFullError, match=r"spool|uploads"):
            write_all()
        assert 3 <= len(written) <= 7
        # What is there is served, and what was not acknowledged is not.
        for key, data in written.items():
            assert client.get(bucket.url(key)) == data
        assert not client.uploads() or len(client.uploads()) == len(written)
        assert len(journal(small.cache_dir)) == len(written)

        with ThreadPoolExecutor() as pool, forebay.Client(small.address) as patient:
            waiting = pool.submit(patient.put, bucket.url("late"), some_bytes(2 * MIB))
            with pytest.raises(TimeoutError):
                waiting.result(1)
            down.remove()
            client.settle_uploads([upload.id for upload in client.uploads()])
            waiting.result(60)
            patient.flush()
    written["late"] = some_bytes(2 * MIB)
    assert contents(bucket) == written
    assert usage.samples > 10
    assert usage.most_bytes <= WHOLE


def test_many_writers_over_the_limit_all_get_through(
    small: DaemonProcess, proxy: FaultProxy, bucket: Bucket
) -> None:
    """More at once than fits, each a file that grows: nobody waits for the others for ever."""

    def write(number: int) -> None:
        with client.open(bucket.url(f"{number}"), "wb") as file:
            for start in range(0, 3 * MIB, 300_000):
                file.write(some_bytes(3 * MIB)[start : start + 300_000])

    with (
        watched(small) as usage,
        forebay.Client(small.address) as client,
        ThreadPoolExecutor(8) as pool,
    ):
        list(pool.map(write, range(16)))
        client.flush()
    assert all(bucket.get(f"{number}") == some_bytes(3 * MIB) for number in range(16))
    assert usage.most_bytes <= WHOLE


def test_spool_takes_its_room_from_the_cache(
    small: DaemonProcess, proxy: FaultProxy, bucket: Bucket
) -> None:
    """A cache that is full gives way to writes, and together they keep the limit."""
    for number in range(14):
        bucket.put(f"read/{number}", some_bytes(4 * MIB))
    with watched(small) as usage, forebay.Client(small.address) as client:
        for number in range(14):
            client.get(bucket.url(f"read/{number}"))
        assert client.stats().used_bytes > WHOLE // 2
        for number in range(30):
            client.put(bucket.url(f"{number}"), some_bytes(2 * MIB))
            client.get(bucket.url(f"read/{number % 14}"))
        client.flush()
        assert client.check().problems == ()
    assert all(bucket.get(f"{number}") == some_bytes(2 * MIB) for number in range(30))
    assert usage.most_bytes <= WHOLE


def test_room_of_a_killed_writer_comes_back(
    small: DaemonProcess, proxy: FaultProxy, bucket: Bucket, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    writers = [RemoteClient(small.address) for _ in range(2)]
    with contextlib.ExitStack() as stack, forebay.Client(small.address) as client:
        pids = []
        for number, writer in enumerate(writers):
            stack.callback(writer.close)
            pids.append(writer.do(remote_work.pid))
            writer.start(
                write_work.write_half, bucket.url(f"half-{number}"), 2 * MIB, f"{mark}{number}"
            )
        for number in range(2):
            path = tmp_path / f"mark{number}"
            wait_until(path.exists, "half a file")
        held = spool_used(client)
        assert held >= 4 * MIB
        for pid in pids:
            os.kill(pid, signal.SIGKILL)

        wait_until(lambda: spool_used(client) <= held - 4 * MIB, "the room of the killed")
        client.put(bucket.url("k"), some_bytes(3 * MIB))
        client.flush()
    assert bucket.keys() == ["k"], "nothing is published of what was not finished"
    with forebay.Client(small.address) as client:
        wait_until(lambda: spool_used(client) == 0, "an empty ledger")


# --- larger than the spool ---------------------------------------------------------------------

STREAMING = 48 * MIB  # parts of 6 MiB


@pytest.fixture
def streaming(start_daemon: StartDaemon, proxy: FaultProxy) -> DaemonProcess:
    return start_daemon(
        endpoint_url=proxy.url, max_attempts=2, max_bytes=64 * MIB, spool_max_bytes=STREAMING
    )


def _by_open(client: forebay.Client, path: str, data: bytes, _: Path) -> None:
    with client.open(path, "wb") as file:
        for start in range(0, len(data), 1_000_000):
            file.write(data[start : start + 1_000_000])


def _by_put(client: forebay.Client, path: str, data: bytes, _: Path) -> None:
    client.put(path, data)


def _by_put_file(client: forebay.Client, path: str, data: bytes, folder: Path) -> None:
    local = folder / "local"
    local.write_bytes(data)
    client.put_file(path, str(local))


LARGE_WAYS = [_by_open, _by_put, _by_put_file]


@pytest.mark.parametrize("write", LARGE_WAYS)
@pytest.mark.parametrize("is_shared", [True, False], ids=["shared", "grpc"])
def test_file_larger_than_the_spool_is_at_the_origin_when_it_is_closed(
    streaming: DaemonProcess,
    bucket: Bucket,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    write: Callable[..., None],
    is_shared: bool,
) -> None:
    if not is_shared:
        monkeypatch.setenv("FOREBAY_CACHE_DIR", str(tmp_path))
    data = some_bytes(100 * MIB + 12_345)
    with watched(streaming) as usage, forebay.Client(streaming.address) as client:
        write(client, bucket.url("large"), data, tmp_path)
        assert bucket.get("large") == data
        assert client.uploads() == []
        assert (
            client.get(bucket.url("large"), 50 * MIB, 50 * MIB + 99)
            == (data[50 * MIB : 50 * MIB + 99])
        )
    assert usage.samples > 10
    assert usage.most_bytes <= 64 * MIB
    assert unfinished(bucket) == []
    with forebay.Client(streaming.address) as client:
        wait_until(lambda: spool_used(client) == 0, "an empty ledger")


def test_it_gets_there_over_a_bad_origin(
    streaming: DaemonProcess, proxy: FaultProxy, bucket: Bucket, tmp_path: Path
) -> None:
    counts = {"all": 0}

    def every_third(_: object) -> bool:
        counts["all"] += 1
        return counts["all"] % 3 == 0

    proxy.fail(every_third, method="PUT", status=500, times=None)
    proxy.reset(lambda request: "uploadId" in request.query, method="POST")
    data = some_bytes(80 * MIB)
    with forebay.Client(streaming.address) as client:
        _by_open(client, bucket.url("large"), data, tmp_path)

    assert bucket.get("large") == data
    assert unfinished(bucket) == []


def test_what_is_left_with_an_exception_is_not_published_and_its_upload_is_ended(
    streaming: DaemonProcess, bucket: Bucket
) -> None:
    bucket.put("large", b"old")

    def fail() -> None:
        with client.open(bucket.url("large"), "wb") as file:
            for _ in range(80):
                file.write(bytes(MIB))
            assert unfinished(bucket) == ["large"]
            raise ZeroDivisionError

    with forebay.Client(streaming.address) as client, pytest.raises(ZeroDivisionError):
        fail()
    wait_until(lambda: unfinished(bucket) == [], "the end of the upload in parts")
    assert bucket.get("large") == b"old"


def test_upload_of_a_writer_that_was_killed_is_ended(
    streaming: DaemonProcess, bucket: Bucket, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    with RemoteClient(streaming.address) as writer:
        pid = writer.do(remote_work.pid)
        writer.start(write_work.write_half, bucket.url("large"), 80 * MIB, str(mark))
        wait_until(mark.exists, "half a file")
        assert unfinished(bucket) == ["large"]
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: unfinished(bucket) == [], "the end of the upload in parts")
    assert bucket.keys() == []


def test_upload_of_a_large_file_whose_daemon_was_killed_is_ended(
    streaming: DaemonProcess, bucket: Bucket, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    with RemoteClient(streaming.address) as writer:
        pid = writer.do(remote_work.pid)
        writer.start(write_work.write_half, bucket.url("large"), 80 * MIB, str(mark))
        wait_until(mark.exists, "half a file")
        assert unfinished(bucket) == ["large"]
        streaming.kill9()
        os.kill(pid, signal.SIGKILL)
        streaming.start()
        wait_until(lambda: unfinished(bucket) == [], "the end of the upload in parts")
    assert bucket.keys() == []
    with forebay.Client(streaming.address) as client:
        wait_until(lambda: spool_used(client) == 0, "an empty ledger")
