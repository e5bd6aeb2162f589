"""Any number of client processes share one cache folder, also without the daemon, and none is
left with bytes of a cache that is no more."""

from __future__ import annotations

import contextlib
import shutil
import threading
import time
from typing import TYPE_CHECKING

import pytest

import forebay
from support import remote_work as work
from support.remote import RemoteClient
from support.rounds import rounds

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import StartDaemon
    from support.ceph import Bucket
    from support.proxy import FaultProxy

    from .conftest import FileOrigin, StartLocal

_DEADLINE_S = 60.0


def _wait_until(is_so: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _DEADLINE_S
    while not is_so():
        assert time.monotonic() < deadline, f"not so after {_DEADLINE_S:g} s: {what}"
        time.sleep(0.01)


# --- many clients -----------------------------------------------------------------------------


@rounds("count", few=40, full=400)
def test_many_processes_hit_at_once_and_are_counted_after_their_end(
    start_local: StartLocal, files: FileOrigin, count: int
) -> None:
    daemon = start_local()
    paths = [files.put(f"{number}.bin", b"x" * 10_000) for number in range(8)]
    with forebay.Client(daemon.address) as client:
        client.get_many(paths)
        before = client.stats()
        with RemoteClient(daemon.address) as parent:
            assert parent.do(work.gather_crowd, daemon.address, count, paths, b"x" * 10_000) == (
                count
            )

            during = client.stats()
            assert during.raw["attached_clients"] - before.raw["attached_clients"] == count
            assert during.hits - before.hits == count * len(paths)
            assert during.misses == before.misses

            assert parent.do(work.release_crowd) == count

        after = client.stats()
    assert after.raw["attached_clients"] == before.raw["attached_clients"]
    assert after.hits == during.hits
    assert after.hit_bytes - before.hit_bytes == count * len(paths) * 10_000


def test_counters_of_clients_that_have_gone_are_used_again_and_add_up(
    start_local: StartLocal, files: FileOrigin
) -> None:
    daemon = start_local()
    path = files.put("a", b"bytes")
    with forebay.Client(daemon.address) as client, RemoteClient(daemon.address) as parent:
        client.get(path)
        for crowd in range(3):
            assert parent.do(work.gather_crowd, daemon.address, 40, [path], b"bytes") == 40
            parent.do(work.release_crowd)
            assert client.stats().hits == 40 * (crowd + 1)
    size = (daemon.cache_dir / "counters").stat().st_size
    assert size == 32 * 128 + 512 * 128, "the file grew once, and no further"


def test_attached_clients_go_on_hitting_when_the_table_has_grown(
    start_local: StartLocal, files: FileOrigin
) -> None:
    daemon = start_local(max_bytes="64MB")
    paths = [files.put(f"{number:05d}", b"%d" % number) for number in range(6000)]
    with forebay.Client(daemon.address) as client, RemoteClient(daemon.address) as other:
        assert other.do(work.get, paths[0]) == b"0"
        assert other.do(work.get, paths[0]) == b"0"
        before = {path.name for path in daemon.cache_dir.glob("table.*")}

        assert client.warm(files.url()).objects_done == 6000

        assert {path.name for path in daemon.cache_dir.glob("table.*")} != before
        misses = client.stats().misses
        assert other.do(work.get_many, paths) == [b"%d" % number for number in range(6000)]
        assert client.get_many(paths) == [b"%d" % number for number in range(6000)]
        assert client.stats().misses == misses
        assert client.check().problems == ()


# --- without the daemon -----------------------------------------------------------------------


def test_process_started_while_the_daemon_is_down_hits(
    start_local: StartLocal, files: FileOrigin
) -> None:
    daemon = start_local(path_mapping={"data/photos": files.url().rstrip("/")})
    files.put("a.jpg", b"pixels")
    files.put("large", b"l" * (3 << 20))
    with forebay.Client(daemon.address) as client:
        client.get_many(["data/photos/a.jpg", "data/photos/large"])
    daemon.kill9()

    environment = {"FOREBAY_CACHE_DIR": str(daemon.cache_dir)}
    with RemoteClient(daemon.address, env=environment, timeout_s=1) as late:
        assert late.do(work.get, files.url("a.jpg")) == b"pixels"
        assert late.do(work.get, "data/photos/a.jpg") == b"pixels"
        assert late.do(work.get, "./data/photos/a.jpg", 1, 3) == b"ix"
        assert late.do(work.get, "data/photos/large", -3) == b"lll"
        assert late.do(work.apply_bytes, "data/photos/large") == b"l" * (3 << 20)
        assert late.do(work.open_and_read, "data/photos/large") == b"l" * (3 << 20)
        assert late.do(work.get_many, ["data/photos/a.jpg"] * 3) == [b"pixels"] * 3

    daemon.start()
    with forebay.Client(daemon.address) as client:
        assert client.stats().raw["total"]["hits"] >= 8, "hits without a daemon are counted"


def test_miss_waits_for_the_daemon_and_succeeds_when_it_is_back(
    start_local: StartLocal, files: FileOrigin
) -> None:
    daemon = start_local()
    files.put("a", b"first")
    files.put("b", b"second")
    with RemoteClient(daemon.address) as client:
        assert client.do(work.get, files.url("a")) == b"first"
        daemon.kill9()
        client.start(work.get, files.url("b"))

        daemon.start()

        assert client.result() == b"second"


def test_miss_fails_after_its_timeout_with_what_to_do(
    start_local: StartLocal, files: FileOrigin
) -> None:
    daemon = start_local()
    files.put("a", b"cached")
    with forebay.Client(daemon.address, timeout_s=0.5) as client:

        def is_read() -> bool:
            with contextlib.suppress(TimeoutError, ConnectionError):
                return client.get(files.url("a")) == b"cached" and client._node.folder() is not None
            return False

        _wait_until(is_read, "half a second is enough")
        daemon.kill9()

        with pytest.raises(forebay.DaemonUnavailableError, match="forebay serve") as caught:
            client.get(files.url("b"))

        assert isinstance(caught.value, ConnectionError)
        assert daemon.address in str(caught.value)
        with pytest.raises(forebay.DaemonUnavailableError, match="forebay serve"):
            client.get_many([files.url("a"), files.url("b")])
        with pytest.raises(forebay.DaemonUnavailableError, match="forebay serve"):
            client.stats()
        assert client.get(files.url("a")) == b"cached", "hits go on after it"


def test_client_that_never_saw_its_daemon_says_how_to_start_one(shared_dir: Path) -> None:
    address = f"unix:{shared_dir}/nobody.sock"
    with (
        forebay.Client(address, timeout_s=0.3) as client,
        pytest.raises(forebay.DaemonUnavailableError, match="forebay serve"),
    ):
        client.get("s3://bucket/key")


# --- another cache, another origin ------------------------------------------------------------


@rounds("count", few=3, full=50)
def test_no_old_byte_after_the_folder_was_wiped_and_made_again(
    start_local: StartLocal, files: FileOrigin, tmp_path: Path, count: int
) -> None:
    daemon = start_local(freshness="immutable")
    keys = [f"{number}" for number in range(20)] + ["large"]
    old = bytes(1 << 21)

    def put_all(data: bytes) -> list[str]:
        return [files.put(key, data) for key in keys]

    with contextlib.ExitStack() as stack:
        readers = [stack.enter_context(RemoteClient(daemon.address)) for _ in range(3)]
        for number in range(count):
            new = bytes([number % 255 + 1]) * (1 << 21)
            paths = put_all(old)
            stop_file = tmp_path / f"stop-{number}"
            for reader in readers:
                assert reader.do(work.get_many, paths) == [old] * len(paths)
                assert reader.do(work.get_many, paths) == [old] * len(paths)
            daemon.kill9()
            for reader in readers:
                reader.start(work.read_until, paths, old, new, str(stop_file))

            shutil.rmtree(daemon.cache_dir)
            put_all(new)
            daemon.start()
            stop_file.touch()

            for reader in readers:
                counts = reader.result()
                assert counts["new"] > 0
                assert counts["other"] == counts["relapsed"] == 0
                assert reader.do(work.get_many, paths) == [new] * len(paths)
            old = new


def test_no_old_byte_from_the_moment_the_new_daemon_serves(
    start_local: StartLocal, files: FileOrigin
) -> None:
    """A client with everything in its memory, asked right after another process had an answer."""
    daemon = start_local(freshness="immutable")
    path = files.put("a", b"old")
    with forebay.Client(daemon.address) as client:
        for _ in range(3):
            assert client.get(path) == b"old"
        daemon.kill9()
        shutil.rmtree(daemon.cache_dir)
        files.put("a", b"new")
        is_reading = threading.Event()
        is_over = threading.Event()
        relapses = []

        def read() -> None:
            seen_new = False
            while not is_over.is_set():
                data = client.get(path)
                is_reading.set()
                seen_new = seen_new or data == b"new"
                if seen_new and data != b"new":
                    relapses.append(data)

        reader = threading.Thread(target=read)
        reader.start()
        try:
            daemon.start()
            assert client.get(path) == b"new"
            assert is_reading.wait(_DEADLINE_S)
        finally:
            is_over.set()
            reader.join()
    assert relapses == []


def test_no_old_byte_after_the_endpoint_has_changed(
    start_daemon: StartDaemon, proxy: FaultProxy, bucket: Bucket
) -> None:
    """Two endpoints with other bytes under the same URI."""
    daemon = start_daemon(freshness="immutable")
    keys = [f"{number}" for number in range(20)]
    for key in keys:
        bucket.put(key, b"of the first endpoint")
    paths = [bucket.url(key) for key in keys]
    with RemoteClient(daemon.address) as reader:
        for _ in range(2):
            assert reader.do(work.get_many, paths) == [b"of the first endpoint"] * 20
        daemon.kill9()
        for key in keys:
            bucket.put(key, b"of the second")

        second = start_daemon(
            cache_dir=daemon.cache_dir,
            address=daemon.address,
            endpoint_url=proxy.url,
            freshness="immutable",
        )

        assert reader.do(work.get_many, paths) == [b"of the second"] * 20
        assert sum(proxy.gets(key) for key in keys) == 20
        second.kill9()
        assert reader.do(work.get_many, paths) == [b"of the second"] * 20
        daemon.start()
        assert reader.do(work.get_many, paths) == [b"of the first endpoint"] * 20, (
            "what the first endpoint's cache held is still that endpoint's"
        )


def test_answering_daemon_has_waited_for_clients_to_notice_its_origins(
    start_daemon: StartDaemon, proxy: FaultProxy, bucket: Bucket
) -> None:
    """The client's memory of ``attach.json`` is refreshed right before each change."""
    bucket.put("a", b"first")
    daemon = start_daemon(freshness="immutable")
    path = bucket.url("a")
    with forebay.Client(daemon.address) as client:
        assert client.get(path) == b"first"
        assert client.get(path) == b"first"
        daemon.kill9()
        bucket.put("a", b"second")
        seen: list[bytes] = []
        is_over = threading.Event()

        def read() -> None:
            while not is_over.is_set():
                seen.append(client.get(path))

        reader = threading.Thread(target=read)
        reader.start()
        try:
            start_daemon(
                cache_dir=daemon.cache_dir,
                address=daemon.address,
                endpoint_url=proxy.url,
                freshness="immutable",
            )
            answered_at = len(seen)
            _wait_until(lambda: len(seen) > answered_at + 100, "the reader goes on")
        finally:
            is_over.set()
            reader.join()
    assert set(seen[answered_at + 1 :]) == {b"second"}
