"""Processes made from one that has used its client: fork, spawn, forkserver, threads under way.

Every object tells its number, every worker reads objects that nobody has read (misses) and ones
that everybody has (hits), and the parent goes on meanwhile.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import threading
from typing import TYPE_CHECKING, Any

import pytest

import forebay
from support import forks
from support.rounds import rounds
from support.spooled import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import StartDaemon
    from support.ceph import Bucket
    from support.proxy import FaultProxy

    from .conftest import FileOrigin, StartLocal

_OBJECTS = 400
_METHODS = ("fork", "spawn", "forkserver")

pytestmark = pytest.mark.filterwarnings(
    # Python 3.12 and later: that this goes well is what is tested here.
    "ignore:This process .* is multi-threaded, use of fork:DeprecationWarning"
)


@pytest.fixture
def prefix(files: FileOrigin) -> str:
    for number in range(_OBJECTS):
        files.put(f"{number}", forks.expected(number))
    return files.url()


@pytest.fixture
def client(start_local: StartLocal) -> Iterator[forebay.Client]:
    """A client whose objects are packed (5 kB) and blobs (300 kB)."""
    daemon = start_local(packing_limit_bytes="64KiB")
    with forebay.Client(daemon.address) as connected:
        yield connected


def _shares(round_number: int, workers: int = 8) -> list[list[int]]:
    """Return what each worker reads: two objects of its own, and two that all read."""
    common = [0, 1 + round_number % 30]
    return [
        [*common, (40 + round_number * workers + worker) % _OBJECTS, 39 - worker]
        for worker in range(workers)
    ]


@rounds("count", few=5, full=100)
def test_forked_workers_hit_and_miss_while_the_parent_goes_on(
    client: forebay.Client, prefix: str, count: int
) -> None:
    forks.read_some(client, prefix, range(10))
    context = multiprocessing.get_context("fork")
    with forks.BusyThreads(client, prefix, count=3, objects=_OBJECTS) as parent:
        for number in range(count):
            forks.run_workers(context, client, prefix, _shares(number))
            forks.read_some(client, prefix, [number, 399 - number])
        wait_until(lambda: min(parent.rounds) > 0, "a round of each thread")
    assert client.check().problems == ()


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
@rounds("count", few=1, full=100)
def test_started_workers_hit_and_miss(
    client: forebay.Client, prefix: str, method: str, count: int
) -> None:
    """They get the client pickled."""
    forks.read_some(client, prefix, range(10))
    context = multiprocessing.get_context(method)
    for number in range(count):
        forks.run_workers(context, client, prefix, _shares(number))
        forks.read_some(client, prefix, [number, 399 - number])


@rounds("depth", few=4, full=20)
def test_forked_process_forks_in_turn(client: forebay.Client, prefix: str, depth: int) -> None:
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    forks.read_some(client, prefix, range(3))

    forks.nested(client, prefix, depth, answers)

    told = sorted(answers.get() for _ in range(depth + 1))
    assert told == [(generation, "") for generation in range(depth + 1)]


def test_client_that_was_never_used_before_the_fork(start_local: StartLocal, prefix: str) -> None:
    daemon = start_local(packing_limit_bytes="64KiB")
    with forebay.Client(daemon.address) as client:
        forks.run_workers(multiprocessing.get_context("fork"), client, prefix, _shares(0))
        forks.read_some(client, prefix, range(5))


def test_parent_without_a_daemon_forks_workers_that_hit(
    start_local: StartLocal, prefix: str
) -> None:
    daemon = start_local(packing_limit_bytes="64KiB")
    with forebay.Client(daemon.address) as client:
        forks.read_some(client, prefix, range(20))
        daemon.kill9()
        shares = [[number, number + 10] for number in range(8)]
        forks.run_workers(multiprocessing.get_context("fork"), client, prefix, shares)


def test_every_forked_worker_has_counters_of_its_own(client: forebay.Client, prefix: str) -> None:
    forks.read_some(client, prefix, range(10))
    before = client.stats()

    forks.run_workers(multiprocessing.get_context("fork"), client, prefix, [list(range(10))] * 8)

    after = client.stats()
    assert after.hits - before.hits == 8 * 10 * 2
    assert after.misses == before.misses
    assert after.raw["attached_clients"] == 1


def test_fork_in_the_middle_of_a_fill_disturbs_neither_side(
    start_daemon: StartDaemon, proxy: FaultProxy, bucket: Bucket
) -> None:
    """A thread of the parent waits for the origin while another one forks."""
    bucket.put("held", b"late")
    bucket.put("cached", b"cached")
    bucket.put("fresh", b"fresh")
    daemon = start_daemon(endpoint_url=proxy.url)
    gate = proxy.gate("held")
    with forebay.Client(daemon.address) as client:
        assert client.get(bucket.url("cached")) == b"cached"
        results: list[bytes] = []
        waiting = threading.Thread(target=lambda: results.append(client.get(bucket.url("held"))))
        waiting.start()
        gate.wait_for(1)

        for _ in range(3):
            assert _forked_reads(client, [bucket.url("cached"), bucket.url("fresh")]) == (
                [b"cached", b"fresh"]
            )
        assert results == []
        gate.release()

        waiting.join(60)
        assert results == [b"late"]


def test_fork_in_the_middle_of_a_stream_disturbs_neither_side(
    start_local: StartLocal, files: FileOrigin
) -> None:
    """The object is larger than the cache, so an open file is a stream of the daemon's."""
    data = bytes(range(256)) * (96 << 12)
    path = files.put("larger-than-the-cache", data)
    small = files.put("small", b"small")
    daemon = start_local(max_bytes="32MB")
    with forebay.Client(daemon.address) as client, client.open(path) as file:
        pieces = [file.read(1 << 20)]
        for number in range(8):
            assert _forked_reads(client, [small]) == [b"small"]
            file.seek(0 if number == 7 else (number + 1) << 20)
            pieces.append(file.read(1 << 20))
        assert pieces[:8] == [data[at << 20 : (at + 1) << 20] for at in range(8)]
        assert pieces[8] == data[: 1 << 20]
        assert file.read() == data[1 << 20 :]


def test_file_that_was_open_at_the_fork_is_readable_on_both_sides(
    client: forebay.Client, files: FileOrigin
) -> None:
    data = bytes(range(256)) * (24 << 12)
    path = files.put("large", data)
    with client.open(path) as file:
        assert file.read(1000) == data[:1000]
        read_end, write_end = os.pipe()
        child = _fork()
        if child == 0:
            code = 1
            try:
                right = file.read() == data[1000:]
                os.write(write_end, b"1" if right else b"0")
                code = 0
            finally:
                os._exit(code)
        os.close(write_end)
        assert file.read() == data[1000:]
        assert os.read(read_end, 1) == b"1"
        os.close(read_end)
        assert os.waitpid(child, 0)[1] == 0


def test_pickled_client_is_the_same_client(client: forebay.Client, prefix: str) -> None:
    mapped = forebay.Client(
        repr(client)[len("forebay.Client('") : -2], path_mapping={"data": prefix}, timeout_s=70
    )
    with mapped:
        assert mapped.get("data/3") == forks.expected(3)
        with pickle.loads(pickle.dumps(mapped)) as copy:  # noqa: S301  # our own
            assert copy.get("data/3") == forks.expected(3)
            assert repr(copy) == repr(mapped)
        assert mapped.get("data/4") == forks.expected(4), "closing the copy closes no other"
    assert client.get(f"{prefix}5") == forks.expected(5)


def test_pickled_client_keeps_the_environment_of_who_made_it(
    client: forebay.Client, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fork server's may be older."""
    monkeypatch.setenv("FOREBAY_ADDRESS", repr(client)[len("forebay.Client('") : -2])
    monkeypatch.setenv("FOREBAY_PATH_MAPPING", f"data={prefix}")
    with forebay.Client() as made_here:
        pickled = pickle.dumps(made_here)
    monkeypatch.setenv("FOREBAY_ADDRESS", "unix:/nonexistent/forebay.sock")
    monkeypatch.delenv("FOREBAY_PATH_MAPPING")

    with pickle.loads(pickled) as restored:  # noqa: S301  # our own
        assert restored.get("data/3") == forks.expected(3)


def test_closed_client_in_a_child_leaves_the_parents_open(
    client: forebay.Client, prefix: str
) -> None:
    assert client.get(f"{prefix}3") == forks.expected(3)
    child = _fork()
    if child == 0:
        code = 1
        try:
            client.close()
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert client.get(f"{prefix}3") == forks.expected(3)
    assert client.get(f"{prefix}77") == forks.expected(77)
    assert client.stats().raw["attached_clients"] == 1


# --- torch ------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")  # on few cores
@pytest.mark.filterwarnings("ignore:Failed to initialize NumPy:UserWarning")
@pytest.mark.parametrize("method", _METHODS)
@rounds("epochs", few=2, full=20)
def test_torch_loader_with_persistent_workers(
    client: forebay.Client, prefix: str, method: str, epochs: int
) -> None:
    _ = pytest.importorskip("torch")
    from support.loader import Photos, make_loader

    forks.read_some(client, prefix, range(10))
    photos = Photos(client, prefix, 64)
    loader = make_loader(photos, method, workers=4)
    for _ in range(epochs):
        seen = sorted(number for batch in loader for number in batch)
        assert seen == list(range(64))
        forks.read_some(client, prefix, [70, 71])
    assert client.stats().misses <= 64 + 10 + 4


def _fork() -> int:
    return os.fork()


def _forked_reads(client: forebay.Client, paths: list[str]) -> list[bytes]:
    """Return what a forked process reads. Raises TimeoutError if it hangs."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()

    def read(connection: Any) -> None:
        connection.send([client.get(path) for path in paths])

    child = context.Process(target=read, args=(theirs,))
    child.start()
    try:
        if not ours.poll(60):
            raise TimeoutError("the forked process hangs")
        result: list[bytes] = ours.recv()
        child.join(60)
        assert child.exitcode == 0
        return result
    finally:
        ours.close()
        theirs.close()
        if child.exitcode is None:
            child.kill()
            child.join()
        child.close()
