"""What is cached: ``local_path``, ``warm``, ``evict``, ``pin``, ``stats``; the client itself."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lmdb
import pytest

import forebay
from support.serving import serving
from support.sizes import MIB, SIZES, some_bytes

if TYPE_CHECKING:
    from support.ceph import Bucket, Ceph
    from support.daemon import DaemonProcess
    from support.proxy import FaultProxy


# --- is_cached --------------------------------------------------------------------------------


def test_is_cached_is_said_of_whole_objects_without_asking(
    client: forebay.Client, sized: Bucket, origin: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    small, large = sized.url("4097"), sized.url("8MiB+1")
    assert not client.is_cached(small)

    client.get(small)
    client.get(large, 0, 10)
    assert client.is_cached(small)
    assert not client.is_cached(large)  # of its two blocks one is missing
    client.get(large)
    assert client.is_cached(large)

    client.evict(small)
    origin.forget()
    assert not client.is_cached(small)
    assert not client.is_cached(sized.url("absent"))
    assert origin.requests == []
    monkeypatch.setenv("FOREBAY_CACHE_DIR", "/nowhere")
    with forebay.Client(client._node.channel.address) as remote:
        assert not remote.is_cached(large)


# --- local_path -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["0", "4097", "8MiB+1"])
def test_local_path_of_an_object_stays_while_it_is_open(
    client: forebay.Client, sized: Bucket, name: str
) -> None:
    with client.local_path(sized.url(name)) as path:
        assert Path(path).name == name
        client.evict(everything=True)
        client.get(sized.url("1MiB"))
        assert Path(path).read_bytes() == some_bytes(SIZES[name])

    assert not Path(path).exists()
    assert client.stats().raw["leases"] == 0


def test_local_path_keeps_its_bytes_when_the_object_changes(
    client: forebay.Client, bucket: Bucket
) -> None:
    for key, size in {"packed": 1000, "blob": 2 * MIB}.items():
        bucket.put(key, b"1" * size)
        with client.local_path(bucket.url(key)) as path:
            bucket.put(key, b"2" * size)
            client.evict(bucket.url(key))
            assert client.get(bucket.url(key)) == b"2" * size
            assert Path(path).read_bytes() == b"1" * size


def test_local_path_of_a_prefix_is_an_lmdb_that_can_be_opened(
    client: forebay.Client, bucket: Bucket, tmp_path: Path
) -> None:
    with (
        lmdb.open(str(tmp_path / "db"), map_size=64 * MIB) as database,
        database.begin(write=True) as transaction,
    ):
        for number in range(500):
            transaction.put(b"%06d" % number, some_bytes(number * 13))
    for file in ("data.mdb", "lock.mdb"):
        bucket.put(f"sets/db.lmdb/{file}", (tmp_path / "db" / file).read_bytes())

    for slash in ("", "/"):
        with client.local_path(bucket.url("sets/db.lmdb") + slash) as path:
            client.evict(everything=True)
            with lmdb.open(path, readonly=True, lock=False) as database, database.begin() as reader:
                for number in range(500):
                    assert reader.get(b"%06d" % number) == some_bytes(number * 13)
        assert not Path(path).exists()


def test_local_path_of_a_prefix_is_its_tree(client: forebay.Client, tree: Bucket) -> None:
    with client.local_path(tree.url("a")) as path:
        assert sorted(
            str(file.relative_to(path)) for file in Path(path).rglob("*") if file.is_file()
        ) == ["1", "2", "b/3", "b/c/4"]
        assert Path(path, "b/c/4").read_bytes() == b"a/b/c/4"


def test_local_path_of_nothing_or_with_an_exception_leaves_nothing(
    client: forebay.Client, bucket: Bucket
) -> None:
    bucket.put("k", b"x")
    with pytest.raises(FileNotFoundError), client.local_path(bucket.url("absent")):
        pass
    with pytest.raises(ZeroDivisionError), client.local_path(bucket.url("k")):
        _ = 1 / 0

    assert client.stats().raw["leases"] == 0


# --- what is cached ---------------------------------------------------------------------------


def test_warm_reports_progress_and_failures(client: forebay.Client, tree: Bucket) -> None:
    seen: list[forebay.WarmProgress] = []

    result = client.warm(
        [tree.url("a/1"), tree.url("absent"), tree.url("top")], progress=seen.append
    )

    assert seen[-1] == result
    assert (result.objects_total, result.objects_done, result.objects_failed) == (3, 2, 1)
    assert result.bytes_done == len("a/1") + len("top")
    assert result.is_listing_done
    ((uri, reason),) = result.failures
    assert uri == tree.url("absent")
    assert "no such object" in reason


def test_warm_of_a_prefix_fills_it_once(
    client: forebay.Client, tree: Bucket, origin: FaultProxy
) -> None:
    for _ in range(2):
        result = client.warm(tree.url("a"))
        assert (result.objects_total, result.objects_done) == (4, 4)

    assert origin.gets("a/b/c/4") == 1


def test_evict_takes_an_object_and_what_is_below_and_nothing_else(
    client: forebay.Client, tree: Bucket
) -> None:
    client.warm(tree.url())

    assert client.evict(tree.url("both")) == (2, 2 * 4096)
    assert client.evict(tree.url("a")) == forebay.Evicted(4, 4 * 4096)
    assert client.evict(tree.url("a")) == (0, 0)
    assert client.stat(tree.url("ab/5")).cached_bytes == 4
    assert client.stats().objects == 2
    with pytest.raises(ValueError, match="everything"):
        client.evict()
    with pytest.raises(ValueError, match="everything"):
        client.evict(tree.url("a"), everything=True)
    with pytest.raises(forebay.InvalidPathError):
        client.evict("")


def test_pinned_prefix_is_kept_when_space_is_needed(ceph: Ceph, bucket: Bucket) -> None:
    with (
        serving(endpoint_url=ceph.endpoint_url, env=ceph.env(), max_bytes="24MB") as small,
        forebay.Client(small.address) as client,
    ):
        for number in range(12):
            bucket.put(f"k/{number}", some_bytes(2 * MIB))
        bucket.put("pinned/now", some_bytes(MIB))
        bucket.put("pinned/later", some_bytes(2 * MIB))
        client.get(bucket.url("pinned/now"))

        assert client.pin(bucket.url("pinned")) == 1
        client.get(bucket.url("pinned/later"))
        for number in range(12):
            assert client.get(bucket.url(f"k/{number}")) == some_bytes(2 * MIB)

        assert client.stat(bucket.url("pinned/now")).cached_bytes == MIB
        assert client.stat(bucket.url("pinned/later")).is_pinned
        assert client.stat(bucket.url("k/0")).cached_bytes == 0
        assert client.unpin(bucket.url("pinned")) == 2
        for number in range(12):
            client.get(bucket.url(f"k/{number}"))
        assert client.stat(bucket.url("pinned/now")).cached_bytes == 0
        assert client.check().problems == ()


def test_stats_count_objects_and_bytes(client: forebay.Client, bucket: Bucket) -> None:
    bucket.put("k", bytes(5000))
    before = client.stats()

    for _ in range(4):
        client.get(bucket.url("k"))

    after = client.stats()
    assert (after.misses - before.misses, after.hits - before.hits) == (1, 3)
    assert after.miss_bytes - before.miss_bytes == 5000
    assert after.hit_bytes - before.hit_bytes == 15000
    assert after.origin_bytes - before.origin_bytes == 5000
    assert (after.objects, after.max_bytes) == (1, 600_000_000)
    assert 8192 <= after.used_bytes < after.max_bytes
    assert after.hit_ratio is not None


# --- the client itself ------------------------------------------------------------------------


def test_client_is_pickled_with_its_arguments(daemon: DaemonProcess, bucket: Bucket) -> None:
    bucket.put("x", b"1")
    with forebay.Client(daemon.address, {"data": bucket.url()}, timeout_s=70) as client:
        copy: forebay.Client = pickle.loads(pickle.dumps(client))  # noqa: S301  # our own

        with copy:
            assert copy.get("data/x") == b"1"
        assert client.get("data/x") == b"1"


def test_closed_client_opens_again_what_it_needs(daemon: DaemonProcess, bucket: Bucket) -> None:
    bucket.put("x", b"1")
    with forebay.Client(daemon.address) as client:
        assert client.get(bucket.url("x")) == b"1"
    client.close()

    assert client.get(bucket.url("x")) == b"1"
    client.close()


def test_clients_of_one_process_are_one_attachment(daemon: DaemonProcess, bucket: Bucket) -> None:
    bucket.put("x", b"1")
    with forebay.Client(daemon.address) as first:
        first.get(bucket.url("x"))
        attached = first.stats().raw["attached_clients"]
        more = [forebay.Client(daemon.address) for _ in range(5)]
        for client in more:
            assert client.get(bucket.url("x")) == b"1"
        assert first.stats().raw["attached_clients"] == attached
        for client in more:
            client.close()
        assert first.get(bucket.url("x")) == b"1"


@pytest.mark.parametrize("address", ["nonsense", "unix:", "host:port", "http://h:1"])
def test_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(forebay.InvalidPathError):
        forebay.Client(address)


@pytest.mark.parametrize(
    ("mapping", "error"),
    [
        ({"": "s3://b/"}, ValueError),
        ({"data": "not a uri"}, ValueError),
        ({"data": 3}, TypeError),
        ([("a", "s3://b")], TypeError),
    ],
)
def test_mapping_that_leads_nowhere_is_refused(mapping: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        forebay.Client("unix:/tmp/none", mapping)


def test_many_threads_share_a_client(client: forebay.Client, bucket: Bucket) -> None:
    for number in range(40):
        bucket.put(f"k{number}", some_bytes(3000 + number))

    def read(number: int) -> bool:
        return client.get(bucket.url(f"k{number % 40}")) == some_bytes(3000 + number % 40)

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(read, range(400)))
