"""What a crash leaves in the journal is done again, and undoes nothing that came after it."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

import forebay
from support.sizes import some_bytes
from support.spooled import journal, unfinished, wait_until, wait_until_empty

if TYPE_CHECKING:
    from conftest import StartDaemon
    from support.ceph import Bucket
    from support.daemon import DaemonProcess
    from support.proxy import FaultProxy

MIB = 1 << 20


def append(client: forebay.Client, path: str, data: bytes) -> None:
    with client.open(path, "ab") as file:
        file.write(data)


def test_write_through_is_not_undone_by_an_earlier_write_of_its_key(
    daemon: DaemonProcess, bucket: Bucket
) -> None:
    with forebay.Client(daemon.address) as client:
        for number in range(5):
            key = bucket.url(f"{number}")
            client.put(key, b"earlier")
            client.put(key, b"later", mode="write_through")
            daemon.kill9()
            daemon.start()
            client.flush()
            assert client.get(key) == b"later"
            assert bucket.get(f"{number}") == b"later"


def test_create_is_not_undone_by_an_earlier_remove_of_its_key(
    daemon: DaemonProcess, bucket: Bucket
) -> None:
    with forebay.Client(daemon.address) as client:
        for number in range(5):
            bucket.put(f"{number}", b"old")
            client.remove(bucket.url(f"{number}"))
            with client.open(bucket.url(f"{number}"), "xb") as file:
                file.write(b"new")
            daemon.kill9()
            daemon.start()
            client.flush()
            assert bucket.get(f"{number}") == b"new"


def test_append_that_arrived_before_the_daemon_was_killed_is_not_doubled(
    daemon: DaemonProcess, proxy: FaultProxy, bucket: Bucket
) -> None:
    bucket.put("log", b"base\n")
    with forebay.Client(daemon.address) as client:
        answer = proxy.hold_answer("log", method="PUT")
        append(client, bucket.url("log"), b"line\n")
        answer.wait_for(1)
        assert bucket.get("log") == b"base\nline\n"
        daemon.kill9()
        answer.release()
        daemon.start()
        client.flush()
        assert bucket.get("log") == client.get(bucket.url("log")) == b"base\nline\n"


def test_append_of_what_is_there_already_is_not_taken_for_done(
    daemon: DaemonProcess, proxy: FaultProxy, bucket: Bucket
) -> None:
    bucket.put("log", b"beat\n")
    with forebay.Client(daemon.address) as client:
        fault = proxy.fail("log", method="PUT", status=500, times=2)
        append(client, bucket.url("log"), b"beat\n")
        client.flush()
        assert fault.hits == 2
    assert bucket.get("log") == b"beat\nbeat\n"


def test_append_to_what_others_wrote_shows_what_the_origin_has(
    daemon: DaemonProcess, proxy: FaultProxy, bucket: Bucket
) -> None:
    """Of the same size, so that nothing but the bytes tells it from what this node had."""
    bucket.put("log", b"ours\n")
    with forebay.Client(daemon.address) as client, proxy.gate("log", method="PUT") as gate:
        append(client, bucket.url("log"), b"line\n")
        gate.wait_for(1)
        bucket.put("log", b"them\n")
        gate.release()
        client.flush()

        assert bucket.get("log") == b"them\nline\n"
        assert client.get(bucket.url("log")) == b"them\nline\n"


def test_listings_know_at_once_what_was_written_and_removed(
    daemon: DaemonProcess, bucket: Bucket
) -> None:
    with forebay.Client(daemon.address) as client:
        for number in range(30):
            path = bucket.url(f"folder/{number}")
            client.put(path, b"data")
            list(client.list(bucket.url("folder")))
            client.flush()
            names = [
                each.uri for each in client.list(bucket.url("folder")) if not isinstance(each, str)
            ]
            assert names == [path]
            client.remove(path)
            client.flush()
            assert not client.exists(path)


def test_cut_file_of_the_spool_fails_its_upload_and_nothing_else(
    daemon: DaemonProcess, proxy: FaultProxy, bucket: Bucket
) -> None:
    """A writer may keep its descriptor, and a disk lose what it has."""
    with forebay.Client(daemon.address) as client:
        down = proxy.reset(None, method=None, times=None)
        client.put(bucket.url("k"), some_bytes(11 * MIB))
        (name,) = journal(daemon.cache_dir)
        os.truncate(daemon.cache_dir / "spool" / name, 6 * MIB)
        down.remove()
        with pytest.raises(forebay.UploadFailedError, match="ends before"):
            client.flush()
        client.put(bucket.url("other"), b"other")
        client.flush(bucket.url("other"))
        client.settle_uploads(discard=True)
    assert bucket.keys() == ["other"]
    wait_until_empty(daemon.cache_dir)
    wait_until(lambda: unfinished(bucket) == [], "the end of the upload in parts")


def test_waiting_move_can_be_discarded(
    daemon: DaemonProcess, proxy: FaultProxy, bucket: Bucket
) -> None:
    bucket.put("from", b"data")
    with forebay.Client(daemon.address) as client, ThreadPoolExecutor() as pool:
        down = proxy.reset(None, method=None, times=None)
        moving = pool.submit(client.move, bucket.url("from"), bucket.url("to"))
        wait_until(client.uploads, "the move")
        client.settle_uploads([upload.id for upload in client.uploads()], discard=True)
        with pytest.raises(forebay.UploadFailedError, match="discarded"):
            moving.result(60)
        down.remove()
        client.remove(bucket.url("from"))
        client.flush()
    assert bucket.keys() == []


def test_create_of_a_file_larger_than_the_spool_loses_against_who_was_faster(
    start_daemon: StartDaemon, bucket: Bucket
) -> None:
    daemon = start_daemon(max_bytes=64 * MIB, spool_max_bytes=24 * MIB)
    with forebay.Client(daemon.address) as client:
        file = client.open(bucket.url("k"), "xb")
        for _ in range(40):
            file.write(bytes(MIB))
        bucket.put("k", b"faster")
        with pytest.raises(FileExistsError):
            file.close()
    assert bucket.get("k") == b"faster"
    wait_until(lambda: unfinished(bucket) == [], "the end of the upload in parts")


def test_eight_writers_share_a_small_spool(start_daemon: StartDaemon, bucket: Bucket) -> None:
    """Each needs more than its share of it: all get through, since parts of them may go ahead."""
    daemon = start_daemon(max_bytes=200 * MIB, spool_max_bytes=64 * MIB)
    together = threading.Barrier(8)

    def write(number: int) -> None:
        with client.open(bucket.url(f"{number}"), "wb") as file:
            for _ in range(12):
                file.write(some_bytes(MIB))
                together.wait(60)

    with forebay.Client(daemon.address) as client, ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
        client.flush()
    assert all(bucket.get(f"{number}") == some_bytes(MIB) * 12 for number in range(8))


def test_only_the_daemon_makes_files_in_the_spool(daemon: DaemonProcess) -> None:
    for folder in ("spool", "spool/staging"):
        assert (daemon.cache_dir / folder).stat().st_mode & 0o022 == 0
