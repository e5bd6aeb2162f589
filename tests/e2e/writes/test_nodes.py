"""Two nodes, each with its daemon and cache folder, that write and read the same keys."""

from __future__ import annotations

import contextlib
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

import forebay
from support import write_work as work
from support.remote import RemoteClient
from support.spooled import journal, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import StartDaemon
    from support.ceph import Bucket
    from support.daemon import DaemonProcess
    from support.proxy import FaultProxy

ROUNDS = 10


@pytest.fixture
def nodes(start_daemon: StartDaemon) -> list[DaemonProcess]:
    return [start_daemon(max_age_s=1) for _ in range(2)]


@pytest.fixture
def clients(nodes: list[DaemonProcess]) -> Iterator[list[forebay.Client]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(forebay.Client(daemon.address)) for daemon in nodes]


def test_each_sees_what_the_other_wrote_after_max_age(
    clients: list[forebay.Client], bucket: Bucket
) -> None:
    path = bucket.url("k")
    for number in range(4):
        writer, reader = clients[number % 2], clients[1 - number % 2]
        data = b"%d" % number * 1000
        writer.put(path, data)
        assert writer.get(path) == data
        writer.flush()
        wait_until(lambda data=data, reader=reader: reader.get(path) == data, "the other's write")  # type: ignore[misc]
        assert writer.get(path) == data
    assert [client.check().problems for client in clients] == [(), ()]


@pytest.mark.parametrize("size", [1000, 3 << 20], ids=["packed", "blob"])
def test_each_sees_what_the_other_wrote_at_once_where_it_always_looks(
    start_daemon: StartDaemon, bucket: Bucket, size: int
) -> None:
    path = bucket.url("k")
    with contextlib.ExitStack() as stack:
        clients = [
            stack.enter_context(forebay.Client(start_daemon(freshness="always").address))
            for _ in range(2)
        ]
        for number in range(6):
            writer, reader = clients[number % 2], clients[1 - number % 2]
            data = b"%d" % number * size
            writer.put(path, data)
            assert writer.get(path) == data
            writer.flush()
            assert reader.get(path) == data
            assert reader.stat(path).size_bytes == size
        clients[0].remove(path)
        clients[0].flush()
        for client in clients:
            with pytest.raises(FileNotFoundError):
                client.get(path)


def test_the_write_that_arrives_last_wins_and_both_nodes_see_it(
    start_daemon: StartDaemon, proxy: FaultProxy, bucket: Bucket
) -> None:
    """One node's write is held up while the other's goes through: it was not there to be seen."""
    path = bucket.url("k")
    slow = start_daemon(endpoint_url=proxy.url, max_age_s=1)
    fast = start_daemon(max_age_s=1)
    with forebay.Client(slow.address) as one, forebay.Client(fast.address) as other:
        gate = proxy.gate("k", method="PUT")
        one.put(path, b"slow")
        gate.wait_for(1)
        other.put(path, b"fast")
        other.flush()
        assert (one.get(path), other.get(path)) == (b"slow", b"fast")
        gate.release()
        one.flush()

        assert bucket.get("k") == b"slow"
        wait_until(lambda: other.get(path) == b"slow", "the other's write")
        assert one.get(path) == b"slow"


def test_of_two_that_create_at_once_exactly_one_wins(
    nodes: list[DaemonProcess], clients: list[forebay.Client], bucket: Bucket
) -> None:
    winners = set()
    with contextlib.ExitStack() as stack:
        writers = [stack.enter_context(RemoteClient(daemon.address)) for daemon in nodes]
        for number in range(ROUNDS):
            path = bucket.url(f"lock/{number}")
            start = time.time() + 0.2
            for writer, name in zip(writers, (b"one", b"two"), strict=True):
                writer.start(work.create, path, name, start)
            has_won = [writer.result() for writer in writers]

            assert sorted(has_won) == [False, True]
            winner = (b"one", b"two")[has_won.index(True)]
            winners.add(winner)
            assert bucket.get(f"lock/{number}") == winner
            assert [client.get(path) for client in clients] == [winner, winner]
    assert [journal(daemon.cache_dir) for daemon in nodes] == [[], []]


def test_of_two_that_create_on_one_node_exactly_one_wins(
    nodes: list[DaemonProcess], clients: list[forebay.Client], bucket: Bucket
) -> None:
    with contextlib.ExitStack() as stack:
        writers = [stack.enter_context(RemoteClient(nodes[0].address)) for _ in range(2)]
        for number in range(ROUNDS):
            path = bucket.url(f"lock/{number}")
            start = time.time() + 0.2
            for writer, name in zip(writers, (b"one", b"two"), strict=True):
                writer.start(work.create, path, name, start)
            has_won = [writer.result() for writer in writers]

            assert sorted(has_won) == [False, True]
            assert clients[1].get(path) == (b"one", b"two")[has_won.index(True)]


def test_lines_that_two_nodes_append_at_once_are_all_there(
    clients: list[forebay.Client], bucket: Bucket
) -> None:
    path = bucket.url("log")

    def append(number: int) -> None:
        for line in range(8):
            with clients[number].open(path, "ab") as file:
                file.write(b"%d-%d\n" % (number, line))

    with ThreadPoolExecutor() as pool:
        list(pool.map(append, range(2)))
    for client in clients:
        client.flush()

    lines = bucket.get("log").splitlines()
    assert sorted(lines) == sorted(b"%d-%d" % (n, line) for n in range(2) for line in range(8))
    for number in range(2):
        own = [line for line in lines if line.startswith(b"%d-" % number)]
        assert own == sorted(own), "each node's lines are in its order"
