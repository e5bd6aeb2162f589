"""What listings and stats say while writes and removes are under way."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

import forebay

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import StartDaemon
    from support.ceph import Bucket
    from support.proxy import FaultProxy


@pytest.fixture
def held(start_daemon: StartDaemon, proxy: FaultProxy) -> Iterator[forebay.Client]:
    """A client whose writes stay on the node: the origin answers only what is asked of it."""
    daemon = start_daemon(endpoint_url=proxy.url, request_timeout_s=60)
    with forebay.Client(daemon.address) as client:
        yield client


def below(client: forebay.Client, url: str, *, recursive: bool = False) -> list[str]:
    entries = client.list(url, recursive=recursive)
    return [(entry if isinstance(entry, str) else entry.uri).removeprefix(url) for entry in entries]


def test_prefix_is_gone_once_all_below_it_is_removed(
    held: forebay.Client, proxy: FaultProxy, bucket: Bucket
) -> None:
    for key in ("dir/sub/a", "dir/sub/b", "dir/c", "dir2/d"):
        bucket.put(key, b"x")
    gates = [proxy.gate(key, method="DELETE") for key in ("dir/sub/a", "dir/sub/b", "dir/c")]

    held.remove(bucket.url("dir/sub/a"))
    assert below(held, bucket.url("dir/")) == ["sub/", "c"]
    held.remove(bucket.url("dir/sub/b"))
    assert below(held, bucket.url("dir/")) == ["c"]
    assert not held.exists(bucket.url("dir/sub"))
    assert held.exists(bucket.url("dir"))
    held.remove(bucket.url("dir/c"))
    assert not held.exists(bucket.url("dir"))
    assert not held.isdir(bucket.url("dir"))
    assert below(held, bucket.url()) == ["dir2/"]
    with pytest.raises(forebay.ObjectNotFoundError):
        held.stat(bucket.url("dir"))

    held.put(bucket.url("dir/sub/new"), b"x")
    assert held.exists(bucket.url("dir"))
    assert below(held, bucket.url()) == ["dir/", "dir2/"]
    for gate in gates:
        gate.release()


def test_prefix_is_gone_once_its_tree_is_removed(
    held: forebay.Client, proxy: FaultProxy, bucket: Bucket
) -> None:
    bucket.put("dir/sub/a", b"x")
    assert held.exists(bucket.url("dir"))
    gate = proxy.gate("dir/sub/a", method="DELETE")

    held.remove_tree(bucket.url("dir"))

    assert not held.exists(bucket.url("dir"))
    assert not held.exists(bucket.url("dir/sub"))
    gate.release()
    held.flush()
    assert not held.exists(bucket.url("dir"))


def test_names_come_in_order_wherever_the_objects_are(
    held: forebay.Client, proxy: FaultProxy, bucket: Bucket
) -> None:
    for key in ("dir/b", "dir/d", "dir/f"):
        bucket.put(key, b"x")
    gate = proxy.gate(lambda request: "/dir/" in request.path, method="PUT")
    for key in ("dir/e", "dir/a", "dir/g", "dir/d", "dir/c/1"):
        held.put(bucket.url(key), b"y")

    assert below(held, bucket.url("dir/"), recursive=True) == [*"ab", "c/1", *"defg"]
    assert below(held, bucket.url("dir/")) == ["c/", *"abdefg"]
    gate.release()
    held.flush()
    assert below(held, bucket.url("dir/"), recursive=True) == [*"ab", "c/1", *"defg"]


def test_prefix_is_there_while_its_first_object_arrives(
    held: forebay.Client, proxy: FaultProxy, bucket: Bucket
) -> None:
    write = proxy.gate("dir/sub/a", method="PUT")
    held.put(bucket.url("dir/sub/a"), b"x")
    answer = proxy.stall_body(lambda request: "prefix=" in request.query)

    with ThreadPoolExecutor(1) as pool:
        is_prefix = pool.submit(held.isdir, bucket.url("dir/sub"))
        answer.wait_for(1)  # "nothing", said before the write arrives
        write.release()
        held.flush()
        answer.release()

        assert is_prefix.result(60)
