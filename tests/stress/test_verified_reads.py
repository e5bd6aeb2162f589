"""No wrong byte: readers in several processes, while everything they read is evicted, filled again
and overwritten as fast as it goes.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from typing import TYPE_CHECKING

import pytest

import forebay
from support.readers import Board, Sealed, Tally, hold_and_verify, verify_reads
from support.remote import RemoteClient
from support.remote_work import pid
from support.rounds import rounds
from support.sealed import Shelf, shelf_in, shelf_of_files
from support.serving import serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from conftest import StartDaemon
    from support.ceph import Bucket
    from support.daemon import DaemonProcess

MIB = 1 << 20
READERS = 4
STALL_S = 120.0
# Sizes of the objects; the packing limit is 1 MiB.
PACKED = (4_096, 30_001, 100_000, 100_032, 500_000, 1_000_000)
BLOBS = (1_100_000, 2_500_001, 9_000_000)


class Churn:
    """Evicts, refills and overwrites sealed objects, and says so on a board."""

    def __init__(
        self, client: forebay.Client, shelf: Shelf, sizes: tuple[int, ...], board_path: Path
    ) -> None:
        self.client = client
        self.shelf = shelf
        self.objects = [
            Sealed(f"{size}/{number}", shelf.put(f"{size}/{number}", 1, size), size)
            for number, size in enumerate(sizes)
        ]
        self.board_path = str(board_path)
        self.board = Board(board_path, len(sizes))
        self.versions = [1] * len(sizes)
        self.random = random.Random(1)  # the same again

    def overwrite(self, number: int) -> None:
        """Store a new version; readers may see it from now on, and must after an eviction."""
        self.versions[number] += 1
        sealed = self.objects[number]
        # Another size, too: the end of one version must not be taken from another.
        size = sealed.least_bytes + self.random.randrange(5_000)
        self.shelf.put(sealed.key, self.versions[number], size)

    def evict(self, number: int) -> None:
        version = self.versions[number]
        self.client.evict(self.objects[number].url)
        self.board.floors[number] = version
        self.board.evictions[number] += 1

    def evict_everything(self) -> None:
        self.client.evict(everything=True)
        for number, version in enumerate(self.versions):
            self.board.floors[number] = version
            self.board.evictions[number] += 1

    def refill(self, number: int) -> None:
        with contextlib.suppress(forebay.StaleFileError):
            self.client.get(self.objects[number].url)

    def step(self) -> None:
        number = self.random.randrange(len(self.objects))
        chance = self.random.random()
        if chance < 0.01:
            self.evict_everything()
        elif chance < 0.4:
            self.overwrite(number)
            self.evict(number)
        elif chance < 0.8:
            self.evict(number)
        else:
            self.refill(number)


@pytest.fixture
def daemon() -> Iterator[DaemonProcess]:
    """A daemon that needs no S3; there is room for all objects."""
    with serving(max_bytes="256MB") as running:
        yield running


@pytest.fixture
def client(daemon: DaemonProcess) -> Iterator[forebay.Client]:
    with forebay.Client(daemon.address) as connected:
        yield connected


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return shelf_of_files(tmp_path / "origin")


def read_while_churning(
    daemon: DaemonProcess, churn: Churn, reads: int, *, stops: bool
) -> tuple[Tally, int]:
    """Return what the readers saw, and how often one of them was stopped in its middle."""
    total, stopped_count = Tally(), 0
    with contextlib.ExitStack() as stack:
        readers = [stack.enter_context(RemoteClient(daemon.address)) for _ in range(READERS)]
        pids = [reader.do(pid) for reader in readers]
        for number, reader in enumerate(readers):
            reader.start(
                verify_reads,
                churn.objects,
                churn.board_path,
                reads // READERS,
                seed=number,
                evictions=reads // 50 + 1,  # there was something to be wrong about
            )
        stopped: int | None = None
        deadline = time.monotonic() + STALL_S + reads / 20
        while not all(reader.is_done() for reader in readers):
            assert time.monotonic() < deadline, "the readers do not come to an end"
            churn.step()
            if stops and stopped is not None:
                os.kill(stopped, signal.SIGCONT)
                stopped = None
            elif stops and churn.random.random() < 0.3:
                stopped = churn.random.choice(pids)  # wherever it is: often in a copy
                os.kill(stopped, signal.SIGSTOP)
                stopped_count += 1
        if stopped is not None:
            os.kill(stopped, signal.SIGCONT)
        for reader in readers:
            total.add(reader.result())
    return total, stopped_count


@rounds("reads", 20_000, 500_000)
def test_no_wrong_byte_while_objects_are_evicted_refilled_and_overwritten(
    daemon: DaemonProcess, client: forebay.Client, shelf: Shelf, tmp_path: Path, reads: int
) -> None:
    churn = Churn(client, shelf, PACKED * 3 + BLOBS, tmp_path / "board")

    seen, stops = read_while_churning(daemon, churn, reads, stops=True)

    assert seen.wrong == []
    assert seen.outdated == {}
    assert seen.reads >= reads
    assert churn.board.evictions.sum() > reads / 50
    assert stops > reads / 500
    assert client.stats().hits > reads / 10
    assert client.check().problems == ()


@rounds("reads", 2_000, 50_000)
def test_no_wrong_byte_over_ceph(
    start_daemon: StartDaemon, bucket: Bucket, tmp_path: Path, reads: int
) -> None:
    daemon = start_daemon(max_bytes="256MB")
    with forebay.Client(daemon.address) as client:
        churn = Churn(client, shelf_in(bucket), PACKED + BLOBS, tmp_path / "board")

        seen, _ = read_while_churning(daemon, churn, reads, stops=False)

        assert (seen.wrong, seen.outdated) == ([], {})
        assert seen.reads >= reads
        assert churn.board.evictions.sum() > reads / 50
        assert client.check().problems == ()


@rounds("reads", 4_000, 100_000)
def test_no_wrong_byte_in_a_cache_that_is_too_small(
    shelf: Shelf, tmp_path: Path, reads: int
) -> None:
    """Every fill evicts something that somebody may be reading."""
    with serving(max_bytes="32MB") as daemon, forebay.Client(daemon.address) as client:
        churn = Churn(client, shelf, PACKED * 5 + BLOBS * 3, tmp_path / "board")

        seen = Tally()
        for _ in range(10):  # where readers are slow, what is evicted on request leaves room
            seen.add(read_while_churning(daemon, churn, reads, stops=False)[0])
            evicted = client.stats().raw["evictions"]["space"]["objects"]
            if evicted > reads / 50:
                break

        assert (seen.wrong, seen.outdated) == ([], {})
        assert seen.reads >= reads
        assert evicted > reads / 50
        assert client.check().problems == ()


@pytest.mark.parametrize("size", [100_000, 2_500_001], ids=["packed", "blob"])
@rounds("count", 20, 500)
def test_slow_function_is_run_again_when_the_object_was_evicted_meanwhile(
    daemon: DaemonProcess,
    client: forebay.Client,
    shelf: Shelf,
    tmp_path: Path,
    size: int,
    count: int,
) -> None:
    """The reader is held between look-up and comparison until its object is another."""
    churn = Churn(client, shelf, (size, size + 1), tmp_path / "board")
    with RemoteClient(daemon.address) as reader:
        for number in range(count):
            churn.refill(0)
            held = churn.board.held
            reader.start(
                hold_and_verify, churn.objects, 0, churn.board_path, 1 + number % 3, holds=1
            )
            wait_until_held(churn.board, held + 1)
            for _ in range(1 + number % 3):
                churn.overwrite(0)
                churn.evict(0)
                churn.refill(1)  # takes the place, if anything does
                churn.refill(0)
            seen: Tally = reader.result()

            assert (seen.wrong, seen.outdated) == ([], {})
            assert seen.slow == 1


@pytest.mark.parametrize("size", [100_000, 2_500_001], ids=["packed", "blob"])
def test_function_that_is_always_too_slow_gets_right_bytes_in_the_end(
    daemon: DaemonProcess, client: forebay.Client, shelf: Shelf, tmp_path: Path, size: int
) -> None:
    churn = Churn(client, shelf, (size,), tmp_path / "board")
    churn.refill(0)
    with RemoteClient(daemon.address) as reader:
        reader.start(hold_and_verify, churn.objects, 0, churn.board_path, 2, holds=1000)
        wait_until_held(churn.board, 1)
        while not reader.is_done():
            churn.overwrite(0)
            churn.evict(0)
            churn.refill(0)
        seen: Tally = reader.result()

    assert (seen.wrong, seen.outdated) == ([], {})
    assert seen.slow >= 1


def wait_until_held(board: Board, count: int) -> None:
    deadline = time.monotonic() + 60
    while board.held < count:
        assert time.monotonic() < deadline, "the reader does not hold the object"
        time.sleep(0.0005)
