"""Writes arrive at the origin in order, whoever made them, whatever is killed meanwhile."""

from __future__ import annotations

import contextlib
import itertools
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError  # type: ignore[import-untyped]  # ships no stubs

import forebay
from support import write_work as work
from support.remote import RemoteClient
from support.sealed import seal, version_in
from support.spooled import journal, unfinished, wait_until, wait_until_empty

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conftest import StartDaemon
    from support.ceph import Bucket
    from support.daemon import DaemonProcess
    from support.proxy import FaultProxy, Request

MIB = 1 << 20


@pytest.fixture
def daemon(start_daemon: StartDaemon, proxy: FaultProxy) -> DaemonProcess:
    return start_daemon(endpoint_url=proxy.url, max_attempts=2, upload_part_bytes="5MiB")


def change_of(uploads: list[forebay.Upload], path: str) -> forebay.Upload:
    (found,) = (upload for upload in uploads if upload.path == path)
    return found


def puts_and_deletes(proxy: FaultProxy) -> list[tuple[str, str]]:
    """Return (method, key) of what changes objects, in the order of arrival."""
    return [
        (request.method, request.path.partition("/")[2])
        for request in proxy.requests
        if request.method in ("PUT", "DELETE")
    ]


# --- a checkpoint hook ------------------------------------------------------------------------


class Watch:
    """Looks at the origin all the time: is there a checkpoint?"""

    def __init__(self, bucket: Bucket, old: str, new: str, new_bytes: int) -> None:
        self._bucket = bucket
        self._old, self._new, self._new_bytes = old, new, new_bytes
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self.looks = 0
        self.moments_without: list[float] = []

    def _size(self, key: str) -> int | None:
        try:
            reply: Any = self._bucket.client.head_object(Bucket=self._bucket.name, Key=key)
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:
                raise
            return None
        return int(reply["ContentLength"])

    def _look(self) -> None:
        while not self._ended.is_set():
            # The old one first: if it is gone, the new one is there already.
            if self._size(self._old) is None and self._size(self._new) != self._new_bytes:
                self.moments_without.append(time.monotonic())
            self.looks += 1

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


@contextlib.contextmanager
def one_client(address: str) -> Iterator[tuple[Callable[..., Any], Callable[..., Any]]]:
    with forebay.Client(address) as client:
        yield client.put, client.remove


@contextlib.contextmanager
def two_clients(address: str) -> Iterator[tuple[Callable[..., Any], Callable[..., Any]]]:
    with forebay.Client(address) as one, forebay.Client(address) as other:
        yield one.put, other.remove


@contextlib.contextmanager
def two_processes(address: str) -> Iterator[tuple[Callable[..., Any], Callable[..., Any]]]:
    with RemoteClient(address) as one, RemoteClient(address) as other:
        yield (
            lambda path, data: one.do(work.put, path, data),
            lambda path: other.do(work.remove, path),
        )


@pytest.mark.parametrize("writers", [one_client, two_clients, two_processes])
def test_hook_saves_and_removes_while_the_origin_is_down_and_the_daemon_is_killed(
    daemon: DaemonProcess,
    proxy: FaultProxy,
    bucket: Bucket,
    writers: Callable[[str], contextlib.AbstractContextManager[Any]],
) -> None:
    old, new = "run/epoch_1", "run/epoch_3"
    data = seal(new, 3, 20 * MIB + 7)
    bucket.put(old, b"old")
    moment = random.Random(1)
    with Watch(bucket, old, new, len(data)) as watch:
        down = proxy.reset(None, method=None, times=None)
        with writers(daemon.address) as (save, remove):
            save(bucket.url(new), data)
            remove(bucket.url(old))
        daemon.kill9()
        assert len(journal(daemon.cache_dir)) == 2

        daemon.start()
        with forebay.Client(daemon.address) as client:
            # What the hook did is what the node sees, from the journal alone.
            assert client.get(bucket.url(new)) == data
            with pytest.raises(FileNotFoundError):
                client.get(bucket.url(old))

        proxy.forget()
        down.remove()
        proxy.fail(new, method="POST", status=500)
        # Killed in the middle of its parts, more than once.
        for _ in range(3):
            seen = proxy.count("PUT", new)
            wait_until(
                lambda seen=seen: (  # type: ignore[misc]
                    proxy.count("PUT", new) > seen or journal(daemon.cache_dir) == []
                ),
                "a part, or the end",
            )
            time.sleep(moment.random() * 0.1)
            daemon.kill9()
            daemon.start()
            if journal(daemon.cache_dir) == []:
                break
        with forebay.Client(daemon.address) as client:
            client.flush()
        looks = watch.looks
        wait_until(lambda: watch.looks > looks + 3, "looks at the end")

    assert watch.moments_without == []
    assert bucket.get(new) == data
    assert bucket.keys() == [new]
    changes = [
        (request.method, request.path.partition("/")[2])
        for request in proxy.requests
        if request.method in ("POST", "DELETE") and "uploads" not in request.query
    ]
    assert changes.index(("DELETE", old)) > changes.index(("POST", new)), "removed too early"
    wait_until_empty(daemon.cache_dir)


# --- what fails for good ----------------------------------------------------------------------


@pytest.fixture
def blocked(client: forebay.Client, proxy: FaultProxy, bucket: Bucket) -> forebay.Client:
    """A client after a put that was refused for good, and a remove that waits for it."""
    bucket.put("old", b"old")
    proxy.fail("new", method="PUT", status=403, times=None)
    client.put(bucket.url("new"), b"new")
    client.remove(bucket.url("old"))
    client.put(bucket.url("other"), b"other")
    wait_until(
        lambda: change_of(client.uploads(), bucket.url("new")).state == "failed", "the refusal"
    )
    return client


def test_what_was_refused_blocks_a_later_remove_and_nothing_else(
    blocked: forebay.Client, proxy: FaultProxy, bucket: Bucket
) -> None:
    blocked.flush(bucket.url("other"))
    assert bucket.get("other") == b"other"

    refused, remove = blocked.uploads()
    assert (refused.path, refused.kind, refused.state) == (bucket.url("new"), "put", "failed")
    assert (refused.size_bytes, refused.blocked_by) == (3, "")
    assert refused.attempts >= 1
    assert "403" in refused.last_error or "denied" in refused.last_error.lower()
    assert (remove.path, remove.kind, remove.state) == (bucket.url("old"), "remove", "blocked")
    assert remove.blocked_by == refused.id
    with pytest.raises(forebay.UploadFailedError, match=bucket.url("new")) as caught:
        blocked.flush()
    assert [upload.id for upload in caught.value.uploads] == [refused.id, remove.id]
    assert bucket.get("old") == b"old"
    assert blocked.get(bucket.url("new")) == b"new"
    with pytest.raises(FileNotFoundError):
        blocked.get(bucket.url("old"))


def test_copies_and_moves_behind_it_fail_at_once_and_are_not_done_later(
    blocked: forebay.Client, bucket: Bucket
) -> None:
    bucket.put("source", b"source")
    refused = change_of(blocked.uploads(), bucket.url("new"))

    for change in (blocked.copy, blocked.move):
        with pytest.raises(forebay.UploadFailedError, match="new, which failed for good"):
            change(bucket.url("source"), bucket.url("target"))

    blocked.settle_uploads([refused.id], discard=True)
    blocked.flush()
    assert bucket.find("target") is None
    assert bucket.get("source") == b"source"


def test_retry_releases_it(blocked: forebay.Client, proxy: FaultProxy, bucket: Bucket) -> None:
    proxy.clear()

    blocked.settle_uploads()
    blocked.flush()

    assert (bucket.get("new"), sorted(bucket.keys())) == (b"new", ["new", "other"])
    assert blocked.uploads() == []


def test_retry_that_is_refused_again_blocks_again(
    blocked: forebay.Client, proxy: FaultProxy, bucket: Bucket
) -> None:
    refused, _remove = (
        upload for upload in blocked.uploads() if upload.path != bucket.url("other")
    )
    blocked.settle_uploads([refused.id])

    with pytest.raises(forebay.UploadFailedError):
        blocked.flush()
    assert change_of(blocked.uploads(), refused.path).attempts > refused.attempts
    assert bucket.get("old") == b"old"


def test_discard_of_the_refused_one_lets_the_remove_go(
    daemon: DaemonProcess, blocked: forebay.Client, bucket: Bucket
) -> None:
    refused = change_of(blocked.uploads(), bucket.url("new"))

    blocked.settle_uploads([refused.id], discard=True)
    blocked.flush()

    assert bucket.keys() == ["other"]
    with pytest.raises(FileNotFoundError):
        blocked.get(bucket.url("new"))
    wait_until_empty(daemon.cache_dir)


def test_discard_of_the_blocked_remove_shows_the_object_again(
    blocked: forebay.Client, proxy: FaultProxy, bucket: Bucket
) -> None:
    remove = change_of(blocked.uploads(), bucket.url("old"))

    blocked.settle_uploads([remove.id], discard=True)

    assert blocked.get(bucket.url("old")) == b"old"
    proxy.clear()
    blocked.settle_uploads()
    blocked.flush()
    assert sorted(bucket.keys()) == ["new", "old", "other"]


def test_what_was_discarded_stays_so_after_a_crash(
    daemon: DaemonProcess, blocked: forebay.Client, proxy: FaultProxy, bucket: Bucket
) -> None:
    blocked.settle_uploads([upload.id for upload in blocked.uploads()], discard=True)
    wait_until_empty(daemon.cache_dir)
    proxy.clear()
    daemon.kill9()
    daemon.start()

    blocked.flush()
    assert sorted(bucket.keys()) in (["old"], ["old", "other"])
    assert bucket.get("old") == b"old"


# --- one key ----------------------------------------------------------------------------------


def test_of_quick_rewrites_the_last_wins_and_those_between_are_skipped(
    client: forebay.Client, proxy: FaultProxy, bucket: Bucket
) -> None:
    gate = proxy.gate("k", method="PUT", times=1)
    client.put(bucket.url("k"), b"0")
    gate.wait_for(1)
    for number in range(1, 20):
        client.put(bucket.url("k"), b"%d" % number)
        assert client.get(bucket.url("k")) == b"%d" % number
    gate.release()
    client.flush()

    assert bucket.get("k") == b"19"
    assert proxy.count("PUT", "k") == 2


@pytest.mark.parametrize("removed", ["k", "other"], ids=["its own", "another's"])
def test_no_put_is_skipped_over_a_remove(
    client: forebay.Client, proxy: FaultProxy, bucket: Bucket, removed: str
) -> None:
    """A hook may overwrite what it has saved: what it removed in between must wait for the save."""
    bucket.put("other", b"other")
    gate = proxy.gate("k", method="PUT")
    client.put(bucket.url("k"), b"0")
    gate.wait_for(1)
    client.put(bucket.url("k"), b"1")
    client.remove(bucket.url(removed))
    for number in (2, 3):
        client.put(bucket.url("k"), b"%d" % number)
    assert client.get(bucket.url("k")) == b"3"
    assert len([upload for upload in client.uploads() if upload.kind == "put"]) == 3
    gate.release()
    client.flush()

    assert bucket.get("k") == b"3"
    changes = [change for change in puts_and_deletes(proxy) if change[1] in ("k", removed)]
    remove = changes.index(("DELETE", removed))
    assert changes.count(("PUT", "k")) >= 3  # a condition that fails is one more
    assert changes[:remove].count(("PUT", "k")) >= 2
    if removed == "k":
        assert changes[remove:] == [("DELETE", "k"), ("PUT", "k")]


@pytest.mark.parametrize("kind", ["copy", "move"])
def test_copy_and_move_take_what_was_written_before_them(
    client: forebay.Client, proxy: FaultProxy, bucket: Bucket, kind: str
) -> None:
    gate = proxy.gate("source", method="PUT", times=1)
    client.put(bucket.url("source"), b"before")
    gate.wait_for(1)
    with ThreadPoolExecutor() as pool:
        change = pool.submit(getattr(client, kind), bucket.url("source"), bucket.url("target"))
        wait_until(lambda: any(each.kind == kind for each in client.uploads()), kind)
        client.put(bucket.url("source"), b"after")
        assert not change.done()
        gate.release()
        change.result()
    assert client.get(bucket.url("target")) == b"before"
    client.flush()

    assert (bucket.get("target"), bucket.get("source")) == (b"before", b"after")
    assert client.get(bucket.url("source")) == b"after"


def test_tree_goes_with_what_was_written_before_and_not_after(
    client: forebay.Client, proxy: FaultProxy, bucket: Bucket
) -> None:
    bucket.put("tree/old", b"old")
    bucket.put("trees", b"another")
    gate = proxy.gate("tree/a", method="PUT", times=1)
    client.put(bucket.url("tree/a"), b"before")
    gate.wait_for(1)
    client.put(bucket.url("tree/b"), b"before")
    client.remove_tree(bucket.url("tree"))
    (left,) = client.list(bucket.url(), recursive=True)
    assert isinstance(left, forebay.Stat)
    assert left.uri == bucket.url("trees")
    client.put(bucket.url("tree/b"), b"after")
    assert client.get(bucket.url("tree/b")) == b"after"
    gate.release()
    client.flush()

    assert sorted(bucket.keys()) == ["tree/b", "trees"]
    assert bucket.get("tree/b") == b"after"


def test_versions_of_a_key_arrive_in_order_from_many_clients_at_a_bad_origin(
    daemon: DaemonProcess, proxy: FaultProxy, bucket: Bucket
) -> None:
    dice, lock = random.Random(3), threading.Lock()

    def is_unlucky(_: Request) -> bool:
        with lock:
            return dice.random() < 0.3

    proxy.fail(is_unlucky, method=None, status=500, times=None)
    versions = itertools.count(1)
    seen: list[int] = []
    ended = threading.Event()

    def look() -> None:
        while not ended.is_set():
            with contextlib.suppress(bucket.client.exceptions.NoSuchKey):
                seen.append(version_in("k", bucket.get("k")))

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(forebay.Client(daemon.address)) for _ in range(3)]
            for number in range(60):
                version = next(versions)
                size = 6 * MIB if number % 20 == 7 else 1000 + number
                clients[number % 3].put(bucket.url("k"), seal("k", version, size))
                if number % 10 == 0:
                    clients[0].flush()
                    wait_until(lambda version=version: version in seen, "a look at it")  # type: ignore[misc]
            clients[0].flush()
    finally:
        ended.set()
        watcher.join()

    assert version_in("k", bucket.get("k")) == 60
    assert seen == sorted(seen)
    assert len(set(seen)) > 3
    wait_until(lambda: unfinished(bucket) == [], "the end of all uploads in parts")
