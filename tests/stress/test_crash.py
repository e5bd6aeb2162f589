"""The daemon is killed at random moments under load: nothing wrong is served, nothing that was
committed is lost, and it is usable at once.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import threading
import time
from typing import TYPE_CHECKING

import pytest

import forebay
from support.disk_usage import allocated_below
from support.readers import Board, Sealed, Tally, lease_and_warm, verify_reads
from support.remote import RemoteClient
from support.remote_work import get, pid
from support.rounds import rounds
from support.sealed import Shelf, seal, shelf_of_files, version_in
from support.serving import serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.daemon import DaemonProcess

MIB = 1 << 20
LIMIT = 96 * MIB
READERS = 2
# What is read, evicted and overwritten all the time: more than fits.
SIZES = (4_096, 30_001, 100_000, 500_000, 1_000_000) * 8 + (1_100_000, 5_000_000, 17_000_000) * 3
KEPT_SIZES = (4_096, 100_000, 1_100_000)
FEW_KEPT, MOST_KEPT = 60, 110  # pinned, so that they must leave room: 24 and 44 MB


@pytest.fixture
def daemon() -> Iterator[DaemonProcess]:
    with serving(max_bytes=LIMIT) as running:
        yield running


@pytest.fixture
def client(daemon: DaemonProcess) -> Iterator[forebay.Client]:
    with forebay.Client(daemon.address) as connected:
        yield connected


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return shelf_of_files(tmp_path / "origin")


class Load:
    """Readers in processes of their own, and here a thread that evicts and overwrites; all of them
    at work from ``begin`` to ``end``, as often as one likes."""

    def __init__(self, daemon: DaemonProcess, shelf: Shelf, folder: Path) -> None:
        self._shelf = shelf
        self._folder = folder
        self._rounds = 0
        self._objects = [
            Sealed(f"load/{number}", shelf.put(f"load/{number}", 1, size), size)
            for number, size in enumerate(SIZES)
        ]
        self._versions = [1] * len(SIZES)
        self._client = forebay.Client(daemon.address)
        self._processes = [RemoteClient(daemon.address) for _ in range(READERS + 1)]
        for process in self._processes:
            process.do(pid)  # it has started

    def begin(self) -> None:
        self._rounds += 1
        path = self._folder / f"board-{self._rounds}"
        self.board = Board(path, len(SIZES))
        for number in range(READERS):
            seed = self._rounds * READERS + number
            self._processes[number].start(
                verify_reads, self._objects, str(path), 1 << 60, seed=seed
            )
        prefix = self._shelf.url("load/")
        self._processes[-1].start(lease_and_warm, self._objects, prefix, str(path))
        self._thread = threading.Thread(target=self._churn)
        self._thread.start()

    def _churn(self) -> None:
        chance = random.Random(self._rounds)  # the same again
        while not self.board.stopped:
            number = chance.randrange(len(SIZES))
            sealed = self._objects[number]
            if chance.random() < 0.5:
                self._versions[number] += 1
                size = sealed.least_bytes + chance.randrange(5_000)
                self._shelf.put(sealed.key, self._versions[number], size)
            self._client.evict(sealed.url)  # waits while the daemon is down
            self.board.floors[number] = self._versions[number]
            self.board.evictions[number] += 1

    @property
    def evictions(self) -> int:
        """How many there were since the beginning."""
        return int(self.board.evictions.sum())

    def end(self) -> Tally:
        """Stop, and return what the readers saw."""
        self.board.stop()
        self._thread.join()
        total = Tally()
        for process in self._processes:
            total.add(process.result())
        return total

    def close(self) -> None:
        if self._rounds:
            self.board.stop()
        for process in self._processes:
            process.close()
        if self._rounds:
            self._thread.join()
        self._client.close()


class Kept:
    """Objects under a pin: what was read of them once must be cached from then on."""

    def __init__(self, client: forebay.Client, shelf: Shelf) -> None:
        self._client = client
        self._shelf = shelf
        self.objects: list[Sealed] = []
        client.pin(shelf.url("kept/"))

    def add(self, count: int, client: forebay.Client | None = None) -> None:
        for _ in range(count):
            number = len(self.objects)
            size = KEPT_SIZES[number % len(KEPT_SIZES)]
            key = f"kept/{number}"
            sealed = Sealed(key, self._shelf.put(key, 1, size), size)
            assert version_in(key, (client or self._client).get(sealed.url)) == 1
            self.objects.append(sealed)

    def add_up_to(self, most: int, client: forebay.Client | None = None) -> None:
        """Add one, or rest a moment where there are so many: others may be far slower."""
        if len(self.objects) < most:
            self.add(1, client)
        else:
            time.sleep(0.005)

    def forget(self) -> None:
        """Begin anew, before they fill the cache."""
        self._client.evict(self._shelf.url("kept/"))
        self.objects.clear()


@rounds("count", 5, 50)
def test_killed_at_any_moment_nothing_committed_is_lost_and_nothing_wrong_served(
    daemon: DaemonProcess, client: forebay.Client, shelf: Shelf, tmp_path: Path, count: int
) -> None:
    moment = random.Random(count)  # the same again
    kept = Kept(client, shelf)
    reads = evictions = 0
    with contextlib.closing(Load(daemon, shelf, tmp_path)) as load:
        for number in itertools.count():
            # As many rounds as it takes: a machine that is busy does little in each.
            if number >= count and reads > 100 * count and evictions > 20 * count:
                break
            assert number < 10 * count, f"{reads} reads, {evictions} evictions"
            hasty = forebay.Client(daemon.address, timeout_s=2)
            wanted = moment.randrange(10, 60)
            load.begin()
            while load.evictions < wanted:
                kept.add_up_to(FEW_KEPT)
            killer = threading.Timer(moment.random() * 0.2, daemon.kill9)
            killer.start()
            # On a busy machine the time may be over before the daemon is.
            gone = contextlib.suppress(
                forebay.DaemonUnavailableError, forebay.DeadlineExceededError
            )
            with gone, hasty:
                while daemon.is_running:
                    kept.add_up_to(MOST_KEPT, hasty)
            killer.join()

            # Down: hits go on.
            assert allocated_below(daemon.cache_dir) <= LIMIT
            for sealed in kept.objects:
                assert version_in(sealed.key, client.get(sealed.url)) == 1

            daemon.start()

            # Usable at once, under the same load.
            kept.add(3)
            seen = load.end()
            assert (seen.wrong, seen.outdated) == ([], {})
            reads += seen.reads
            evictions += load.evictions
            assert client.check().problems == ()
            assert_all_hit(client, kept.objects)
            assert allocated_below(daemon.cache_dir) <= LIMIT
            if len(kept.objects) > FEW_KEPT:
                kept.forget()


def assert_all_hit(client: forebay.Client, objects: list[Sealed]) -> None:
    before = client.stats()
    for sealed in objects:
        stat = client.stat(sealed.url)
        assert stat.cached_bytes == stat.size_bytes == sealed.least_bytes
        assert version_in(sealed.key, client.get(sealed.url)) == 1
    after = client.stats()
    assert after.misses == before.misses
    assert after.origin_requests == before.origin_requests


def test_hits_go_on_while_the_daemon_is_down(
    daemon: DaemonProcess, client: forebay.Client, shelf: Shelf
) -> None:
    objects = [
        Sealed(str(size), shelf.put(str(size), 1, size), size) for size in (5, 100_000, 17 * MIB)
    ]
    contents = [client.get(sealed.url) for sealed in objects]
    with RemoteClient(daemon.address, env={"FOREBAY_CACHE_DIR": str(daemon.cache_dir)}) as newcomer:
        daemon.kill9()

        assert [client.get(sealed.url) for sealed in objects] == contents
        assert client.get_many([sealed.url for sealed in objects]) == contents
        assert [newcomer.do(get, sealed.url) for sealed in objects] == contents


@pytest.mark.parametrize("size", [100_000, 17 * MIB], ids=["packed", "blob"])
def test_miss_waits_for_the_daemon_to_come_back(
    daemon: DaemonProcess, client: forebay.Client, shelf: Shelf, size: int
) -> None:
    client.get(shelf.put("warm", 1, 100))
    cold = shelf.put("cold", 1, size)
    with RemoteClient(daemon.address) as reader:
        reader.do(get, shelf.url("warm"))
        daemon.kill9()

        reader.start(get, cold)
        daemon.start()

        assert reader.result() == seal("cold", 1, size)


def test_miss_fails_after_its_time_and_says_how_to_start_a_daemon(
    daemon: DaemonProcess, client: forebay.Client, shelf: Shelf
) -> None:
    client.get(shelf.put("warm", 1, 100))
    cold = shelf.put("cold", 1, 100)
    daemon.kill9()

    with forebay.Client(daemon.address, timeout_s=1) as hasty:
        with pytest.raises(forebay.DaemonUnavailableError, match="forebay serve"):
            hasty.get(cold)
        with pytest.raises(forebay.DaemonUnavailableError, match="forebay serve"):
            hasty.get_many([cold, shelf.url("warm")])
        with pytest.raises(forebay.DaemonUnavailableError, match="forebay serve"):
            hasty.evict(cold)
        assert hasty.get(shelf.url("warm")) == seal("warm", 1, 100)


@rounds("count", 2, 20)
def test_sigterm_under_load_is_clean(
    daemon: DaemonProcess, client: forebay.Client, shelf: Shelf, tmp_path: Path, count: int
) -> None:
    kept = Kept(client, shelf)
    with contextlib.closing(Load(daemon, shelf, tmp_path)) as load:
        for _ in range(count):
            load.begin()
            while load.evictions < 30:
                kept.add_up_to(MOST_KEPT)

            assert daemon.stop() == 0
            assert (daemon.cache_dir / "BOOT").read_text() == "clean"

            assert allocated_below(daemon.cache_dir) <= LIMIT
            daemon.start()
            seen = load.end()
            assert (seen.wrong, seen.outdated) == ([], {})
            assert client.check().problems == ()
            assert_all_hit(client, kept.objects)
            kept.forget()


def test_killed_twice_in_a_row_before_anything_was_read(
    daemon: DaemonProcess, client: forebay.Client, shelf: Shelf
) -> None:
    kept = Kept(client, shelf)
    kept.add(9)
    for _ in range(2):
        daemon.kill9()
        daemon.start()

    assert_all_hit(client, kept.objects)
    assert client.check().problems == ()


@pytest.mark.parametrize("is_clean", [False, True], ids=["power lost", "shut down"])
def test_after_a_reboot_only_a_clean_cache_is_believed(
    daemon: DaemonProcess, client: forebay.Client, shelf: Shelf, is_clean: bool
) -> None:
    url = shelf.put("object", 1, 100_000)
    large = shelf.put("large", 1, 9 * MIB)
    cache_id = (daemon.cache_dir / "ID").read_text()
    with RemoteClient(daemon.address) as attached:
        assert version_in("object", attached.do(get, url)) == 1
        assert version_in("large", attached.do(get, large)) == 1

        if is_clean:
            daemon.stop()
        else:
            daemon.kill9()
            (daemon.cache_dir / "BOOT").write_text("6f1b9a36-0000-4000-8000-another-boot")
        shelf.put("object", 2, 100_000)
        shelf.put("large", 2, 9 * MIB)
        daemon.start()

        seen = {
            version_in("object", attached.do(get, url)),
            version_in("large", attached.do(get, large)),
        }
        objects = client.stats().objects
    if is_clean:
        assert (daemon.cache_dir / "ID").read_text() == cache_id
        assert (seen, objects) == ({1}, 2)  # within max_age, as before
    else:
        assert (daemon.cache_dir / "ID").read_text() != cache_id
        assert (seen, objects) == ({2}, 2)
    assert client.check().problems == ()


def test_nothing_old_is_served_in_the_moment_of_an_empty_start(
    daemon: DaemonProcess, shelf: Shelf, tmp_path: Path
) -> None:
    """Readers that never stop reading: from the first answer of the new daemon on, all is new."""
    objects = [Sealed(f"{n}", shelf.put(f"{n}", 1, 50_000), 50_000) for n in range(20)]
    board = Board(tmp_path / "board", len(objects))
    with contextlib.ExitStack() as stack:
        readers = [stack.enter_context(RemoteClient(daemon.address)) for _ in range(2)]
        for number, reader in enumerate(readers):
            reader.do(verify_reads, objects, str(tmp_path / "board"), 200, seed=number)
            reader.start(verify_reads, objects, str(tmp_path / "board"), 1 << 60, seed=number)
        daemon.kill9()
        (daemon.cache_dir / "BOOT").write_text("another boot")
        for sealed in objects:
            shelf.put(sealed.key, 2, 50_000)
        daemon.start()
        board.floors[:] = 2
        with forebay.Client(daemon.address) as client:
            reads = client.stats().hits
            deadline = time.monotonic() + 60
            while client.stats().hits < reads + 1000:
                assert time.monotonic() < deadline
                time.sleep(0.02)
        board.stop()
        seen = [reader.result() for reader in readers]

    assert [(each.wrong, each.outdated) for each in seen] == [([], {})] * 2


def test_leftovers_of_a_fill_that_was_cut_are_given_back(
    client: forebay.Client, daemon: DaemonProcess, shelf: Shelf
) -> None:
    urls = [shelf.put(f"large/{n}", 1, 17 * MIB) for n in range(4)]
    with RemoteClient(daemon.address) as reader:
        for url in urls:
            client.evict(everything=True)
            reader.start(get, url)
            is_done = False
            while not any(path.stat().st_blocks for path in (daemon.cache_dir / "blobs").iterdir()):
                assert not is_done, "it has read, and there is no blob"
                is_done = reader.is_done()  # what it has read by now is there at the next look
                os.sched_yield()
            daemon.kill9()
            daemon.start()
            assert version_in(url[-7:], reader.result()) == 1
    client.evict(everything=True)

    assert client.check().problems == ()
    assert list((daemon.cache_dir / "blobs").iterdir()) == []
    assert client.stats().used_bytes == 0
