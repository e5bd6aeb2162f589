"""The limit of the cache, and what goes when it is reached."""

from __future__ import annotations

import contextlib
import itertools
import random
from typing import TYPE_CHECKING

import pytest

import forebay
from support.disk_usage import allocated_below, watched
from support.readers import Sealed, read_each_once
from support.remote import RemoteClient
from support.rounds import rounds
from support.sealed import Shelf, seal, shelf_of_files, version_in
from support.serving import serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.daemon import DaemonProcess

MIB = 1 << 20
LIMIT = 64 * MIB
READERS = 4


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return shelf_of_files(tmp_path / "origin")


@pytest.fixture
def daemon() -> Iterator[DaemonProcess]:
    with serving(max_bytes=LIMIT) as running:
        yield running


@pytest.fixture
def client(daemon: DaemonProcess) -> Iterator[forebay.Client]:
    with forebay.Client(daemon.address) as connected:
        yield connected


def make(shelf: Shelf, folder: str, sizes: list[int]) -> list[Sealed]:
    keys = [f"{folder}/{number}" for number in range(len(sizes))]
    return [
        Sealed(key, shelf.put(key, 1, size), size) for key, size in zip(keys, sizes, strict=True)
    ]


def cached(client: forebay.Client, objects: list[Sealed]) -> list[Sealed]:
    """Return those that are cached as a whole; does not count as a use."""
    return [
        sealed for sealed in objects if client.stat(sealed.url).cached_bytes == sealed.least_bytes
    ]


# --- the disk usage ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["small", "large", "mixed"])
@rounds("times", 4, 40)
def test_disk_usage_never_exceeds_the_limit_while_readers_stream_through(
    daemon: DaemonProcess, client: forebay.Client, shelf: Shelf, kind: str, times: int
) -> None:
    chance = random.Random(kind)  # the same again
    share = 4 * LIMIT // READERS
    with contextlib.ExitStack() as stack:
        readers = [stack.enter_context(RemoteClient(daemon.address)) for _ in range(READERS)]
        usage = stack.enter_context(watched(daemon))
        sizes: list[int] = []
        while sum(sizes) < share:
            small, large = chance.randrange(100, 400_000), chance.randrange(MIB, 20 * MIB)
            is_small = kind == "small" or (kind == "mixed" and chance.random() < 0.9)
            sizes.append(small if is_small else large)
        plans = [make(shelf, f"{kind}/{number}", sizes) for number in range(READERS)]
        for number in itertools.count():
            # As often as it takes to look ten times: a machine that is busy looks seldom.
            if number >= times // 4 and usage.samples > 10:
                break
            assert number < 10 * times, f"{usage.samples} looks"
            for reader, plan in zip(readers, plans, strict=True):
                reader.start(read_each_once, plan)
            assert [reader.result() for reader in readers] == [sum(sizes)] * READERS

    assert usage.most_bytes <= LIMIT
    assert usage.most_bytes > LIMIT // 2  # it was used
    stats = client.stats()
    assert stats.raw["evictions"]["space"]["bytes"] > LIMIT
    assert stats.used_bytes + stats.raw["overhead_bytes"] <= LIMIT
    assert allocated_below(daemon.cache_dir) <= LIMIT
    assert client.check().problems == ()


def test_disk_usage_stays_within_the_limit_with_leases_and_a_smaller_limit_after_a_restart(
    shelf: Shelf, tmp_path: Path
) -> None:
    objects = make(shelf, "mixed", [3 * MIB, 700_000] * 20)
    with serving(max_bytes=LIMIT) as daemon, forebay.Client(daemon.address) as client:
        with watched(daemon) as usage, contextlib.ExitStack() as leases:
            for sealed in objects[:8]:
                leases.enter_context(client.local_path(sealed.url))
            read_each_once(client, objects)
        assert LIMIT // 2 < usage.most_bytes <= LIMIT

        daemon.kill9()
        daemon.set_arguments(("--max-bytes", str(LIMIT // 2)))
        daemon.start()

        with watched(daemon) as usage:
            read_each_once(client, objects)
        assert LIMIT // 4 < usage.most_bytes <= LIMIT // 2
        assert client.check().problems == ()


# --- what does not fit ------------------------------------------------------------------------


def test_object_larger_than_the_cache_is_served_and_not_cached(
    daemon: DaemonProcess, client: forebay.Client, shelf: Shelf
) -> None:
    small = make(shelf, "small", [100_000] * 5)
    read_each_once(client, small)
    size = LIMIT + 5 * MIB + 1
    url = shelf.put("huge", 1, size)

    with watched(daemon) as usage:
        data = client.get(url)
        assert data == seal("huge", 1, size)
        assert client.get(url, size - 64, None) == data[-64:]
        assert client.get(url, -64) == data[-64:]
        assert client.get_many([url, small[0].url])[0] == data
        assert client.apply(url, len) == size
        with client.open(url) as file:
            assert file.read(MIB) == data[:MIB]
            file.seek(LIMIT)
            assert file.read() == data[LIMIT:]
        with pytest.raises(forebay.CacheFullError, match="max-bytes"), client.local_path(url):
            pass

    assert usage.most_bytes <= LIMIT
    assert client.stat(url).cached_bytes == 0
    assert client.stats().objects == len(small)
    assert cached(client, small) == small
    assert client.check().problems == ()


def test_when_everything_is_pinned_objects_are_served_uncached(
    daemon: DaemonProcess, client: forebay.Client, shelf: Shelf
) -> None:
    pinned = make(shelf, "pinned", [8 * MIB] * 6 + [500_000] * 20)
    client.pin(shelf.url("pinned"))
    read_each_once(client, pinned)
    assert cached(client, pinned) == pinned
    filler = make(shelf, "pinned/more", [MIB] * 8)
    read_each_once(client, filler)  # until nothing fits any more
    others = make(shelf, "others", [3 * MIB, 9 * MIB, 900_000])

    for sealed in others * 2:
        assert version_in(sealed.key, client.get(sealed.url)) == 1
        assert version_in(sealed.key, client.get_many([sealed.url])[0]) == 1
        with client.open(sealed.url) as file:
            assert version_in(sealed.key, file.read()) == 1

    assert cached(client, others) == []
    assert cached(client, pinned) == pinned
    assert client.stats().raw["since_start"]["uncached_reads"] > 0
    assert allocated_below(daemon.cache_dir) <= LIMIT

    client.unpin(shelf.url("pinned"))
    read_each_once(client, others)

    assert cached(client, others) == others
    assert client.check().problems == ()


# --- what goes --------------------------------------------------------------------------------


def test_with_room_for_three_objects_the_least_recently_used_goes(
    client: forebay.Client, shelf: Shelf
) -> None:
    a, b, c, d = objects = make(shelf, "equal", [16 * MIB] * 4)

    for sealed in (a, b, c, a, d):
        client.get(sealed.url)

    assert cached(client, objects) == [a, c, d]


@pytest.mark.parametrize("size", [MIB, 6 * MIB], ids=["packed", "blob"])
@rounds("steps", 100, 1000)
def test_what_is_cached_is_always_the_most_recently_used(
    daemon: DaemonProcess, client: forebay.Client, shelf: Shelf, size: int, steps: int
) -> None:
    objects = make(shelf, "equal", [size] * (80 * MIB // size))
    used: list[Sealed] = []  # latest last
    chance = random.Random(size)  # the same again
    evicted = 0
    with RemoteClient(daemon.address) as other:
        for step in range(len(objects) + steps):
            # First all in order, then at random, by two processes in turn.
            sealed = chance.choice(objects) if step >= len(objects) else objects[step]
            if step % 2:
                client.get(sealed.url)
            else:
                other.do(read_each_once, [sealed])
            if sealed in used:
                used.remove(sealed)
            used.append(sealed)

            if step % 10 == 9:
                there = cached(client, objects)
                expected = used[len(used) - len(there) :]
                assert {each.key for each in there} == {each.key for each in expected}
                evicted += len(there) < len(used)
    assert evicted > steps / 20


def test_pinned_objects_survive_pressure(client: forebay.Client, shelf: Shelf) -> None:
    pinned = make(shelf, "pinned", [100_000] * 20 + [5 * MIB] * 2)
    first, later = pinned[:10], pinned[10:]
    read_each_once(client, first)
    assert client.pin(shelf.url("pinned")) == len(first)
    read_each_once(client, later)  # a pin holds for what is filled later, too

    read_each_once(client, make(shelf, "stream", [3 * MIB, 300_000] * 40))

    assert cached(client, pinned) == pinned
    requests = client.stats().origin_requests
    read_each_once(client, pinned)
    assert client.stats().origin_requests == requests

    assert client.unpin(shelf.url("pinned")) == len(pinned)
    read_each_once(client, make(shelf, "again", [3 * MIB, 300_000] * 40))
    assert cached(client, pinned) == []


def test_pin_of_a_prefix_holds_whole_components_only(client: forebay.Client, shelf: Shelf) -> None:
    inside = make(shelf, "data/coco", [100_000] * 3)
    beside = make(shelf, "data/coco2", [100_000] * 3)
    client.pin(shelf.url("data/coco"))
    read_each_once(client, inside + beside)

    read_each_once(client, make(shelf, "stream", [3 * MIB] * 40))

    assert cached(client, inside + beside) == inside


def test_evicted_objects_go_at_once_and_their_space_comes_back(
    daemon: DaemonProcess, client: forebay.Client, shelf: Shelf
) -> None:
    one = make(shelf, "data/one", [100_000] * 30 + [5 * MIB])
    two = make(shelf, "data/two", [100_000] * 30 + [5 * MIB])
    read_each_once(client, one + two)
    client.pin(shelf.url("data/one"))
    before = allocated_below(daemon.cache_dir)

    evicted = client.evict(shelf.url("data/one"))  # by hand: pins do not keep from that

    assert evicted.objects == len(one)
    assert evicted.size_bytes == 30 * 102_400 + 5 * MIB
    assert cached(client, one + two) == two
    assert allocated_below(daemon.cache_dir) <= before - evicted.size_bytes + MIB
    assert client.evict(everything=True).objects == len(two)
    assert client.stats().used_bytes == 0
    assert client.check().problems == ()


def test_pins_outlive_the_daemon(
    daemon: DaemonProcess, client: forebay.Client, shelf: Shelf
) -> None:
    pinned = make(shelf, "pinned", [100_000, 2 * MIB])
    client.pin(shelf.url("pinned"))
    read_each_once(client, pinned)

    daemon.kill9()
    daemon.start()
    read_each_once(client, make(shelf, "stream", [3 * MIB] * 40))

    assert cached(client, pinned) == pinned
