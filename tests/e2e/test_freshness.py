"""How old what is served may be, by an origin's policy, over a real Ceph."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

import forebay
from support.sealed import seal, shelf_in, version_in

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import StartDaemon
    from support.ceph import Bucket
    from support.proxy import FaultProxy, Request

MIB = 1 << 20
SIZES = pytest.mark.parametrize("size", [100_000, 9 * MIB], ids=["packed", "blob"])
# A second: the shortest that the table tells apart is one.
YOUNG: dict[str, Any] = {"freshness": "max_age", "max_age_s": 1, "max_stale_s": 3600}
# Of an origin that is down at once: none that is only slow is to be taken for it.
QUICK: dict[str, Any] = {"max_attempts": 2}


def wait_until(condition: Callable[[], bool], what: str, timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not in {timeout_s:g} s"
        time.sleep(0.01)


def lists(proxy: FaultProxy) -> int:
    return sum(is_list(request) for request in proxy.requests)


def is_list(request: Request) -> bool:
    return request.method == "GET" and "list-type=2" in request.query


# --- max_age ----------------------------------------------------------------------------------


@SIZES
def test_changed_object_is_seen_after_max_age(
    start_daemon: StartDaemon, bucket: Bucket, size: int
) -> None:
    shelf = shelf_in(bucket)
    url = shelf.put("object", 1, size)
    daemon = start_daemon(**YOUNG)
    with forebay.Client(daemon.address) as client:
        assert version_in("object", client.get(url)) == 1
        shelf.put("object", 2, size + 32)

        seen = [1]

        def is_new() -> bool:
            seen.append(version_in("object", client.get(url)))
            return seen[-1] == 2

        wait_until(is_new, "the new version is served")

        assert seen == sorted(seen)  # never back
        assert version_in("object", client.get_many([url])[0]) == 2
        assert client.apply(url, lambda view: version_in("object", view)) == 2
        assert client.stat(url).size_bytes == size + 32
        assert client.check().problems == ()


def test_hits_cost_no_request_however_old_the_entry_is(
    start_daemon: StartDaemon, bucket: Bucket, proxy: FaultProxy
) -> None:
    url = shelf_in(bucket).put("object", 1, 100_000)
    daemon = start_daemon(endpoint_url=proxy.url, **YOUNG)
    with forebay.Client(daemon.address) as client, proxy.gate("object", method="HEAD") as gate:
        client.get(url)

        def has_asked() -> bool:
            client.get(url)  # in use, or nobody would ask
            return gate.waiting > 0

        wait_until(has_asked, "the daemon looks the entry up")
        # It is past max_age, and the answer is not there: served all the same, by hits.
        hits = client.stats().hits
        for _ in range(1000):
            assert version_in("object", client.get(url)) == 1
        assert client.stats().hits == hits + 1000
        assert client.stats().misses == 1
        assert proxy.count("HEAD") == 1
        assert proxy.gets("object") == 1


def test_unused_entries_are_not_looked_up(
    start_daemon: StartDaemon, bucket: Bucket, proxy: FaultProxy
) -> None:
    shelf = shelf_in(bucket)
    used, unused = shelf.put("used/1", 1, 1000), shelf.put("unused/1", 1, 1000)
    daemon = start_daemon(endpoint_url=proxy.url, **YOUNG)
    with forebay.Client(daemon.address) as client:
        client.get(unused)
        client.get(used)

        def was_looked_up_thrice() -> bool:
            client.get(used)
            return proxy.count("HEAD", "used/1") >= 3

        wait_until(was_looked_up_thrice, "the entry in use is kept fresh")
        # Once: its own fill was a use.
        assert proxy.count("HEAD", "unused/1") <= 1


def two_origins(bucket: Bucket, proxy: FaultProxy, policies: dict[str, str]) -> str:
    """Return a configuration with a policy for each of two folders."""
    return "".join(
        f'[[origin]]\nprefix = "{bucket.url(prefix)}"\nendpoint_url = "{proxy.url}"\n{policy}\n'
        for prefix, policy in policies.items()
    )


def test_entry_that_was_long_unused_is_served_and_then_looked_up(
    start_daemon: StartDaemon, bucket: Bucket, proxy: FaultProxy
) -> None:
    shelf = shelf_in(bucket)
    clock, url = shelf.put("clock/1", 1, 1000), shelf.put("unused/1", 1, 1000)
    config = two_origins(bucket, proxy, {"clock/": "max_age_s = 1", "unused/": "max_age_s = 1"})
    daemon = start_daemon(config=config)
    with (
        forebay.Client(daemon.address) as client,
        proxy.gate("unused/1", method="HEAD") as gate,
    ):
        client.get(url)

        def has_time_passed() -> bool:
            client.get(clock)
            return proxy.count("HEAD", "clock/1") >= 3

        # An origin that does not answer keeps nobody else's entries from being looked up.
        wait_until(has_time_passed, "time passes")
        shelf.put("unused/1", 2, 1000)
        misses = client.stats().misses
        assert version_in("unused/1", client.get(url)) == 1  # within max_stale
        assert client.stats().misses == misses
        gate.wait_for(1)
        gate.release()
        wait_until(
            lambda: version_in("unused/1", client.get(url)) == 2, "the new version is served"
        )


def test_many_entries_of_a_folder_are_looked_up_by_one_list(
    start_daemon: StartDaemon, bucket: Bucket, proxy: FaultProxy
) -> None:
    shelf = shelf_in(bucket)
    urls = [shelf.put(f"folder/{number:03}", 1, 1000) for number in range(60)]
    daemon = start_daemon(endpoint_url=proxy.url, **YOUNG)
    with forebay.Client(daemon.address) as client:
        client.get_many(urls)
        proxy.forget()

        def was_listed_thrice() -> bool:
            client.get_many(urls)
            return lists(proxy) >= 3

        wait_until(was_listed_thrice, "the folder is listed")
        # Those that were not due when the others were are few, and asked one by one.
        assert proxy.count("HEAD") < 3 * 8
        assert sum(proxy.gets(f"folder/{number:03}") for number in range(60)) == 0

        shelf.put("folder/007", 2, 2000)
        shelf.delete("folder/050")

        def is_settled() -> bool:
            try:
                client.get_many(urls)
            except FileNotFoundError:
                return version_in("folder/007", client.get(urls[7])) == 2
            return False

        wait_until(is_settled, "the changed and the deleted object are seen")
        filled = {n: proxy.gets(f"folder/{n:03}") for n in range(60)}
        assert {n: count for n, count in filled.items() if count and n != 50} == {7: 1}
        assert client.check().problems == ()


@SIZES
def test_deleted_object_goes_away(start_daemon: StartDaemon, bucket: Bucket, size: int) -> None:
    shelf = shelf_in(bucket)
    url = shelf.put("object", 1, size)
    daemon = start_daemon(**YOUNG)
    with forebay.Client(daemon.address) as client:
        client.get(url)
        shelf.delete("object")

        def is_gone() -> bool:
            try:
                assert version_in("object", client.get(url)) == 1
            except forebay.ObjectNotFoundError:
                return True
            return False

        wait_until(is_gone, "the deleted object is gone")

        assert is_gone()
        assert client.stats().objects == 0
        with pytest.raises(FileNotFoundError):
            client.open(url)


# --- the origin is down -----------------------------------------------------------------------


def test_entries_past_max_age_are_served_while_the_origin_is_down(
    start_daemon: StartDaemon, bucket: Bucket, proxy: FaultProxy
) -> None:
    shelf = shelf_in(bucket)
    url = shelf.put("object", 1, 100_000)
    daemon = start_daemon(endpoint_url=proxy.url, **YOUNG, **QUICK)
    with forebay.Client(daemon.address) as client:
        client.get(url)
        down = proxy.reset(method=None, times=None)

        def was_tried_in_vain() -> bool:
            assert version_in("object", client.get(url)) == 1
            return down.hits >= 3

        wait_until(was_tried_in_vain, "the daemon tries to look the entry up")

        stats = client.stats()
        assert stats.misses == 1
        assert stats.raw["errors"]["refresh"] >= 1
        assert stats.raw["since_start"]["stale_served"] >= 1
        shelf.put("object", 2, 100_000)
        down.remove()
        wait_until(
            lambda: version_in("object", client.get(url)) == 2, "it recovers with the origin"
        )


@SIZES
def test_past_max_stale_nothing_is_served_unasked(
    start_daemon: StartDaemon, bucket: Bucket, proxy: FaultProxy, size: int
) -> None:
    shelf = shelf_in(bucket)
    url = shelf.put("object", 1, size)
    daemon = start_daemon(endpoint_url=proxy.url, **{**YOUNG, **QUICK, "max_stale_s": 1})
    with forebay.Client(daemon.address) as client:
        client.get(url)
        down = proxy.reset(method=None, times=None)

        def is_refused() -> bool:
            try:
                assert version_in("object", client.get(url)) == 1
            except forebay.OriginUnavailableError:
                return True
            return False

        wait_until(is_refused, "it is not served any more")

        # In no way, and not later either.
        assert is_refused()
        reads: tuple[Callable[[], object], ...] = (
            lambda: client.get_many([url]),
            lambda: client.apply(url, len),
            lambda: client.open(url),
            lambda: client.get(url, 5, 10),
        )
        for read in reads:
            with pytest.raises(forebay.OriginUnavailableError):
                read()
        down.remove()
        assert version_in("object", client.get(url)) == 1
        assert proxy.gets("object") == down_gets(size)  # it was still there: one HEAD brought it


def down_gets(size: int) -> int:
    return -(-size // (8 * MIB))


# --- always -----------------------------------------------------------------------------------


@SIZES
def test_always_never_serves_an_unchecked_version(
    start_daemon: StartDaemon, bucket: Bucket, proxy: FaultProxy, size: int
) -> None:
    shelf = shelf_in(bucket)
    daemon = start_daemon(endpoint_url=proxy.url, freshness="always")
    with forebay.Client(daemon.address) as client:
        ways: list[Callable[[str], int]] = [
            lambda url: version_in("object", client.get(url)),
            lambda url: version_in("object", client.get(url, 320, 1000), 320, 1000),
            lambda url: version_in("object", client.get_many([url])[0]),
            lambda url: client.apply(url, lambda view: version_in("object", view)),
            lambda url: version_in("object", client.open(url).read()),
            lambda url: int(client.stat(url).size_bytes - size),
        ]
        version = 0
        for _ in range(3):
            for way in ways:
                version += 1
                url = shelf.put("object", version, size + version)
                assert way(url) == version


def test_always_asks_the_origin_for_each_read_but_sends_no_bytes_again(
    start_daemon: StartDaemon, bucket: Bucket, proxy: FaultProxy
) -> None:
    url = shelf_in(bucket).put("object", 1, 100_000)
    daemon = start_daemon(endpoint_url=proxy.url, freshness="always")
    with forebay.Client(daemon.address) as client:
        for _ in range(10):
            client.get(url)

    assert proxy.gets("object") == 1
    assert proxy.count("HEAD", "object") == 9


def test_always_serves_nothing_while_the_origin_is_down(
    start_daemon: StartDaemon, bucket: Bucket, proxy: FaultProxy
) -> None:
    url = shelf_in(bucket).put("object", 1, 100_000)
    daemon = start_daemon(endpoint_url=proxy.url, freshness="always", **QUICK)
    with forebay.Client(daemon.address) as client:
        client.get(url)
        with_fault = proxy.reset(method=None, times=None)

        with pytest.raises(forebay.OriginUnavailableError):
            client.get(url)

        with_fault.remove()
        assert version_in("object", client.get(url)) == 1


# --- immutable --------------------------------------------------------------------------------


def test_immutable_is_never_looked_up_again(
    start_daemon: StartDaemon, bucket: Bucket, proxy: FaultProxy
) -> None:
    shelf = shelf_in(bucket)
    fixed, other = shelf.put("fixed/1", 1, 1000), shelf.put("other/1", 1, 1000)
    policies = {"fixed/": 'freshness = "immutable"', "other/": "max_age_s = 1"}
    config = two_origins(bucket, proxy, policies)
    daemon = start_daemon(config=config)
    with forebay.Client(daemon.address) as client:
        client.get(fixed)
        shelf.put("fixed/1", 2, 1000)

        def was_the_other_looked_up() -> bool:
            client.get(other)
            assert version_in("fixed/1", client.get(fixed)) == 1
            return proxy.count("HEAD", "other/1") >= 3

        wait_until(was_the_other_looked_up, "the refresher runs")
        assert proxy.count(key="fixed/1") == 1

        client.evict(fixed)
        assert version_in("fixed/1", client.get(fixed)) == 2


# --- open files -------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["always", "max_age"])
def test_open_file_reads_one_version_to_its_end_or_is_stale(
    start_daemon: StartDaemon, bucket: Bucket, policy: str
) -> None:
    shelf, size = shelf_in(bucket), 40 * MIB
    url = shelf.put("object", 1, size)
    daemon = start_daemon(freshness=policy)
    with forebay.Client(daemon.address) as client:
        with client.open(url) as file:
            first = file.read(MIB)
            shelf.put("object", 2, size)
            client.evict(url)

            with pytest.raises(forebay.StaleFileError, match="object"):
                file.read()

        assert first == seal("object", 1, size)[:MIB]
        with client.open(url) as file:
            assert version_in("object", file.read()) == 2


def test_open_file_goes_on_when_its_version_only_left_the_cache(
    start_daemon: StartDaemon, bucket: Bucket
) -> None:
    shelf, size = shelf_in(bucket), 40 * MIB
    url = shelf.put("object", 1, size)
    daemon = start_daemon()
    with forebay.Client(daemon.address) as client, client.open(url) as file:
        pieces = []
        while piece := file.read(4 * MIB):
            pieces.append(piece)
            client.evict(url)

    assert b"".join(pieces) == seal("object", 1, size)


def test_cached_file_that_is_open_reads_its_version_while_the_object_changes(
    start_daemon: StartDaemon, bucket: Bucket
) -> None:
    shelf, size = shelf_in(bucket), 20 * MIB
    url = shelf.put("object", 1, size)
    daemon = start_daemon()
    with forebay.Client(daemon.address) as client:
        client.get(url)
        with client.open(url) as file:
            first = file.read(MIB)
            shelf.put("object", 2, size)

            assert first + file.read() == seal("object", 1, size)


def test_local_path_keeps_its_version_while_the_object_changes(
    start_daemon: StartDaemon, bucket: Bucket
) -> None:
    shelf, size = shelf_in(bucket), 9 * MIB
    url = shelf.put("object", 1, size)
    daemon = start_daemon()
    with forebay.Client(daemon.address) as client:
        with client.local_path(url) as name, open(name, "rb") as file:  # noqa: PTH123  # a text
            shelf.put("object", 2, size)
            client.evict(url)
            assert version_in("object", client.get(url)) == 2

            assert version_in("object", file.read()) == 1
        assert client.check().problems == ()


# --- names ------------------------------------------------------------------------------------


def test_after_an_evict_names_are_asked_for_again(
    start_daemon: StartDaemon, bucket: Bucket
) -> None:
    shelf = shelf_in(bucket)
    one = shelf.put("folder/1", 1, 1000)
    daemon = start_daemon()
    with forebay.Client(daemon.address) as client:
        assert len(list(client.list(bucket.url("folder")))) == 1
        assert client.stat(one).size_bytes == 1000
        shelf.put("folder/1", 2, 2000)
        shelf.put("folder/2", 1, 1000)

        client.evict(bucket.url("folder"))

        assert len(list(client.list(bucket.url("folder")))) == 2
        assert client.stat(one).size_bytes == 2000
