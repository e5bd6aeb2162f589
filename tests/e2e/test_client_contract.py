"""What every public method of ``forebay.Client`` promises, against the bytes that boto3 stored."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import pickle
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import lmdb  # type: ignore[import-untyped]  # ships no stubs
import numpy as np
import pytest

import forebay
from support.proxy import FaultProxy
from support.serving import serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.ceph import Bucket, Ceph
    from support.daemon import DaemonProcess

KIB, MIB = 1 << 10, 1 << 20
SIZES = {
    "0": 0,
    "1": 1,
    "4095": 4095,
    "4096": 4096,
    "4097": 4097,
    "1MiB-1": MIB - 1,  # the last that is packed, and the first that is not
    "1MiB": MIB,
    "1MiB+1": MIB + 1,
    "8MiB-1": 8 * MIB - 1,  # one block, and two
    "8MiB": 8 * MIB,
    "8MiB+1": 8 * MIB + 1,
    "20MiB": 20 * MIB,
}
_numbers = itertools.count()


def some_bytes(size: int) -> bytes:
    return random.Random(size).randbytes(size)


@pytest.fixture(scope="module")
def origin(ceph: Ceph) -> Iterator[FaultProxy]:
    """Ceph, seen through a proxy that counts."""
    with FaultProxy(ceph.endpoint_url) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def daemon(ceph: Ceph, origin: FaultProxy) -> Iterator[DaemonProcess]:
    with serving(endpoint_url=origin.url, env=ceph.env(), max_bytes="600MB") as running:
        yield running


@pytest.fixture
def client(daemon: DaemonProcess, origin: FaultProxy) -> Iterator[forebay.Client]:
    """A client of a daemon that has cached nothing."""
    with forebay.Client(daemon.address) as connected:
        connected.evict(everything=True)
        origin.forget()
        yield connected
        assert connected.check().problems == ()
        assert connected.stats().raw["reserved_bytes"] == 0


@pytest.fixture(scope="module")
def sized(ceph_client: Any) -> Iterator[Bucket]:
    """A bucket with an object of each size."""
    from support.ceph import Bucket

    bucket = Bucket(f"sizes-{next(_numbers)}", ceph_client)
    ceph_client.create_bucket(Bucket=bucket.name)
    for name, size in SIZES.items():
        bucket.put(name, some_bytes(size))
    yield bucket
    bucket.delete_all()
    ceph_client.delete_bucket(Bucket=bucket.name)


# --- get --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SIZES)
def test_every_size_is_read_whole_cold_and_warm(
    client: forebay.Client, sized: Bucket, name: str
) -> None:
    data = some_bytes(SIZES[name])

    assert client.get(sized.url(name)) == data
    assert client.get(sized.url(name)) == data
    assert client.apply(sized.url(name), bytes) == data
    assert client.get_many([sized.url(name)]) == [data]
    with client.open(sized.url(name)) as file:
        assert file.read() == data
    stat = client.stat(sized.url(name))
    assert (stat.size_bytes, stat.cached_bytes) == (len(data), len(data))


@pytest.mark.parametrize("name", SIZES)
def test_every_size_is_opened_cold(client: forebay.Client, sized: Bucket, name: str) -> None:
    with client.open(sized.url(name)) as file:
        assert file.read() == some_bytes(SIZES[name])


@pytest.mark.parametrize("state", ["cold", "warm"])
@pytest.mark.parametrize("name", ["0", "1", "4097", "1MiB+1", "8MiB+1"])
def test_ranges_are_python_slices(
    client: forebay.Client, sized: Bucket, name: str, state: str
) -> None:
    size = SIZES[name]
    data = some_bytes(size)
    if state == "warm":
        client.get(sized.url(name))
    ranges = [
        (None, None), (0, 0), (0, 1), (1, None), (None, -1), (-1, None), (-10, -3), (size, None),
        (size - 1, size + 5), (size + 1, size + 9), (5, 2), (-(2**70), 2**70), (2**70, None),
        (size // 2, size // 2 + 100), (-size, None), (None, size), (None, -size - 1),
    ]  # fmt: skip
    for start, end in ranges:
        if state == "cold":
            client.evict(sized.url(name))
        assert client.get(sized.url(name), start, end) == data[start:end], (start, end)
        assert client.get(sized.url(name), start=start, end=end) == data[start:end]


def test_range_of_a_large_object_fetches_its_block_only(
    client: forebay.Client, sized: Bucket, origin: FaultProxy
) -> None:
    data = some_bytes(SIZES["20MiB"])
    client.get(sized.url("20MiB"), 0, 10)
    origin.forget()

    assert client.get(sized.url("20MiB"), 17 * MIB, 18 * MIB) == data[17 * MIB : 18 * MIB]

    assert origin.gets("20MiB") == 1
    assert client.stat(sized.url("20MiB")).cached_bytes == 12 * MIB


@pytest.mark.parametrize("wrong", ["1", 1.5, object()])
def test_range_of_a_wrong_type_is_a_type_error(
    client: forebay.Client, sized: Bucket, wrong: Any
) -> None:
    for _ in range(2):
        with pytest.raises(TypeError):
            client.get(sized.url("4096"), wrong)
        client.get(sized.url("4096"))


# --- get_many ---------------------------------------------------------------------------------


def test_get_many_keeps_order_and_duplicates(
    client: forebay.Client, bucket: Bucket, origin: FaultProxy
) -> None:
    for number in range(30):
        bucket.put(f"k{number}", f"{number}".encode() * 100)
    client.get(bucket.url("k3"))
    origin.forget()
    order = [3, 29, 3, 0, 7, 29, *range(30)]

    assert client.get_many(bucket.url(f"k{number}") for number in order) == [
        f"{number}".encode() * 100 for number in order
    ]

    assert {origin.gets(f"k{number}") for number in range(30) if number != 3} == {1}
    assert origin.gets("k3") == 0
    assert client.get_many([]) == []


def test_get_many_raises_the_first_error_and_fills_the_rest(
    client: forebay.Client, bucket: Bucket
) -> None:
    for key in ("a", "b"):
        bucket.put(key, b"x")

    with pytest.raises(FileNotFoundError, match="absent-1"):
        client.get_many(
            [bucket.url(key) for key in ("a", "absent-1", "b", "absent-2")] + ["no scheme"]
        )

    assert client.stat(bucket.url("b")).cached_bytes == 1
    with pytest.raises(forebay.InvalidPathError):
        client.get_many([bucket.url("a"), "no scheme", bucket.url("absent-1")])


# --- apply ------------------------------------------------------------------------------------


def test_apply_returns_the_result_or_the_exception(client: forebay.Client, sized: Bucket) -> None:
    def fail(view: memoryview) -> None:
        raise LookupError(f"{len(view)} bytes")

    for _ in ("cold", "warm"):
        assert client.apply(sized.url("4097"), len) == 4097
        assert client.apply(sized.url("0"), bytes) == b""
        assert client.apply(sized.url("4097"), lambda view: None) is None
        with pytest.raises(LookupError, match="4097 bytes"):
            client.apply(sized.url("4097"), fail)
        client.evict(sized.url())


@pytest.mark.parametrize("name", ["4097", "1MiB+1"])
def test_apply_refuses_results_that_alias_the_cache(
    client: forebay.Client, sized: Bucket, name: str
) -> None:
    kept: list[object] = []
    aliases: list[Callable[[memoryview], object]] = [
        lambda view: view,
        lambda view: view[10:20],
        lambda view: np.frombuffer(view, np.uint8),
        lambda view: {"deep": [np.frombuffer(view, np.uint8).reshape(-1, 1)]},
        kept.append,
    ]
    for _ in ("cold", "warm"):
        for alias in aliases:
            with pytest.raises(BufferError, match="return a copy"):
                client.apply(sized.url(name), alias)
            kept.clear()
        copied = client.apply(sized.url(name), lambda view: np.frombuffer(view, np.uint8).copy())
        assert copied.tobytes() == some_bytes(SIZES[name])


def test_apply_cannot_write_into_the_cache(client: forebay.Client, sized: Bucket) -> None:
    def scribble(view: memoryview) -> None:
        view[0] = 1

    client.get(sized.url("4096"))

    with pytest.raises(TypeError):
        client.apply(sized.url("4096"), scribble)
    assert client.get(sized.url("4096")) == some_bytes(4096)


# --- open -------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["cold", "warm"])
@pytest.mark.parametrize("name", ["0", "1", "4097", "1MiB+1", "20MiB"])
def test_open_file_behaves_as_a_local_one(
    client: forebay.Client, sized: Bucket, tmp_path: Path, name: str, state: str
) -> None:
    data = some_bytes(SIZES[name])
    (tmp_path / "local").write_bytes(data)
    if state == "warm":
        client.get(sized.url(name))
    chance = random.Random(name + state)
    with client.open(sized.url(name)) as ours, (tmp_path / "local").open("rb") as local:
        assert isinstance(ours, io.BufferedReader)
        assert (ours.readable(), ours.writable(), ours.seekable()) == (True, False, True)
        for _ in range(200):
            step = chance.randrange(8)
            count = chance.choice([0, 1, 100, 5000, 300_000])
            if step == 0:
                offset = chance.randint(0, len(data) + 10)
                assert ours.seek(offset) == local.seek(offset)
            elif step == 1:
                assert ours.seek(0, os.SEEK_END) == local.seek(0, os.SEEK_END)
            elif step == 2:
                back = -min(count, local.tell())
                assert ours.seek(back, os.SEEK_CUR) == local.seek(back, os.SEEK_CUR)
            elif step == 3:
                mine, theirs = bytearray(count), bytearray(count)
                assert ours.readinto(mine) == local.readinto(theirs)
                assert mine == theirs
            elif step == 4:
                assert ours.readline(5000) == local.readline(5000)
            elif step == 5:
                # Both may return less: what is peeked must be what comes.
                assert local.read(1)[:0] == b""
                assert ours.read(1)[:0] == b""
            else:
                assert ours.read(count) == local.read(count)
            assert ours.tell() == local.tell()
        ours.seek(0)
        assert b"".join(ours) == data
    assert ours.closed
    with pytest.raises(ValueError, match="closed"):
        ours.read()


def test_open_file_is_iterated_by_lines(client: forebay.Client, bucket: Bucket) -> None:
    lines = [b"%d\n" % number for number in range(400_000)]
    bucket.put("lines", b"".join(lines))  # 2.7 MB: not packed

    with client.open(bucket.url("lines")) as file:
        assert list(file) == lines
    with client.open(bucket.url("lines")) as file, io.TextIOWrapper(file) as text:
        assert text.readline() == "0\n"


def test_sequential_reader_is_filled_ahead(
    client: forebay.Client, sized: Bucket, origin: FaultProxy
) -> None:
    with client.open(sized.url("20MiB")) as file:
        file.read(MIB)
        last = partial(_asked_for, origin, "20MiB", 16 * MIB)
        assert _comes_true(last)
        assert file.tell() == MIB
        file.seek(0)
        assert file.read() == some_bytes(SIZES["20MiB"])

    assert set(origin.by_range().values()) == {1}


def _asked_for(origin: FaultProxy, key: str, start: int) -> bool:
    return any(
        request.names(key) and (request.range or "").startswith(f"bytes={start}-")
        for request in origin.requests
    )


def _comes_true(condition: Callable[[], bool], timeout_s: float = 30.0) -> bool:
    wait = threading.Event()
    for _ in range(int(timeout_s / 0.02)):
        if condition():
            return True
        wait.wait(0.02)
    return False


def test_open_file_stays_readable_when_evicted(client: forebay.Client, sized: Bucket) -> None:
    for name in ("4097", "20MiB"):
        data = some_bytes(SIZES[name])
        with client.open(sized.url(name)) as file:
            first = file.read(1000)
            client.evict(sized.url(name))
            assert first + file.read() == data


def test_open_takes_rb_only(client: forebay.Client, sized: Bucket) -> None:
    for mode in ("r", "wb", "ab", "r+b"):
        with pytest.raises(ValueError, match="rb"):
            client.open(sized.url("1"), mode)
    with pytest.raises(FileNotFoundError):
        client.open(sized.url("absent"))


# --- names ------------------------------------------------------------------------------------


@pytest.fixture
def tree(bucket: Bucket) -> Bucket:
    for key in ("a/1", "a/2", "a/b/3", "a/b/c/4", "ab/5", "top", "both", "both/inside"):
        bucket.put(key, key.encode())
    return bucket


def listed(client: forebay.Client, path: str, **how: bool) -> list[str]:
    return sorted(e if isinstance(e, str) else e.uri for e in client.list(path, **how))


@pytest.mark.parametrize("slash", ["", "/"])
def test_list_stops_at_the_next_component_unless_recursive(
    client: forebay.Client, tree: Bucket, slash: str
) -> None:
    for _ in ("asked", "remembered"):
        assert listed(client, tree.url("a" + slash)) == [
            tree.url(k) for k in ("a/1", "a/2", "a/b/")
        ]
        assert listed(client, tree.url("a" + slash), recursive=True) == [
            tree.url(key) for key in ("a/1", "a/2", "a/b/3", "a/b/c/4")
        ]
        assert listed(client, tree.url("both" + slash)) == [tree.url("both/inside")]
    assert listed(client, tree.url().rstrip("/") + slash) == [
        tree.url(key) for key in ("a/", "ab/", "both", "both/", "top")
    ]
    assert listed(client, tree.url("absent")) == []


def test_list_yields_stats_with_what_is_cached(client: forebay.Client, tree: Bucket) -> None:
    client.get(tree.url("a/1"))

    stats = {entry.uri: entry for entry in client.list(tree.url("a")) if not isinstance(entry, str)}

    one, two = stats[tree.url("a/1")], stats[tree.url("a/2")]
    assert (one.size_bytes, one.cached_bytes, two.cached_bytes) == (3, 3, 0)
    assert one.version == client.stat(tree.url("a/1")).version
    assert one.modified == pytest.approx(client.stat(tree.url("a/1")).modified, abs=1)


def test_long_listing_is_complete(client: forebay.Client, bucket: Bucket) -> None:
    keys = [f"many/{number:05}" for number in range(1100)]  # more than one page of S3
    for key in keys:
        bucket.put(key, b"")

    assert listed(client, bucket.url("many")) == [bucket.url(key) for key in keys]


def test_stat_tells_size_version_time_and_cached_bytes(
    client: forebay.Client, bucket: Bucket
) -> None:
    etag = bucket.put("k", b"12345")

    stat = client.stat(bucket.url("k"))

    head = bucket.client.head_object(Bucket=bucket.name, Key="k")
    assert stat == forebay.Stat(
        bucket.url("k"), 5, etag, head["LastModified"].timestamp(), 0, is_pinned=False
    )
    client.get(bucket.url("k"))
    assert client.stat(bucket.url("k")).cached_bytes == 5


@pytest.mark.parametrize("state", ["cold", "warm"])
def test_objects_and_prefixes_are_told_apart(
    client: forebay.Client, tree: Bucket, state: str
) -> None:
    if state == "warm":
        client.warm(tree.url())
    facts = {
        path: (
            client.exists(tree.url(path)),
            client.isfile(tree.url(path)),
            client.isdir(tree.url(path)),
        )
        for path in ("a", "a/", "a/1", "a/1/", "both", "both/", "top", "absent", "absent/", "a/b")
    }

    assert facts == {
        "a": (True, False, True),
        "a/": (True, False, True),
        "a/1": (True, True, False),
        "a/1/": (False, False, False),
        "both": (True, True, True),
        "both/": (True, False, True),
        "top": (True, True, False),
        "absent": (False, False, False),
        "absent/": (False, False, False),
        "a/b": (True, False, True),
    }
    for path in ("a", "a/", "absent"):
        with pytest.raises(FileNotFoundError):
            client.stat(tree.url(path))


def test_bucket_itself_is_a_folder_or_missing(client: forebay.Client, tree: Bucket) -> None:
    name = f"s3://{tree.name}"

    assert client.exists(name)
    assert client.isdir(name)
    assert not client.isfile(name)
    assert not client.exists("s3://no-such-bucket")
    assert not client.isdir("s3://no-such-bucket")


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
    with lmdb.open(str(tmp_path / "db"), map_size=64 * MIB) as database:
        with database.begin(write=True) as transaction:
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


# --- paths ------------------------------------------------------------------------------------


class UsersPath(PurePosixPath):
    """A path of somebody's own class."""


def test_path_mapping_by_tiers_components_and_longest_prefix(
    ceph: Ceph, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in ("client/x", "long/y", "env/x", "daemon/x"):
        bucket.put(key, key.encode())
    monkeypatch.setenv(
        "FOREBAY_PATH_MAPPING", f"data={bucket.url('env')},data/env={bucket.url('env')}"
    )
    mapping = {"data": bucket.url("daemon"), "only/daemon": bucket.url("daemon/")}
    with serving(endpoint_url=ceph.endpoint_url, env=ceph.env(), path_mapping=mapping) as daemon:
        own = {"data/coco": bucket.url("client"), "data/coco/long": bucket.url("long/")}
        with forebay.Client(daemon.address, own) as client:
            for _ in ("cold", "warm"):
                assert client.get("data/coco/x") == b"client/x"
                assert client.get("./data/coco/x") == b"client/x"
                assert client.get("data//coco/./x") == b"client/x"
                assert client.get(Path("data/coco/long/y")) == b"long/y"
                assert client.get(UsersPath("data/x")) == b"env/x"
                assert client.get("only/daemon/x") == b"daemon/x"
                assert client.get_many(["data/coco/x", Path("data/x")]) == [b"client/x", b"env/x"]
            with pytest.raises(FileNotFoundError, match="env/coco2/x"):
                client.get("data/coco2/x")  # whole components only
            with pytest.raises(forebay.InvalidPathError, match="elsewhere"):
                client.get("elsewhere/data/coco/x")  # at the start only
            assert client.stat("data/coco/x").uri == bucket.url("client/x")
            assert [entry.uri for entry in client.list("data/coco")] == [  # type: ignore[union-attr]
                bucket.url("client/x")
            ]


def test_mapping_written_with_dots_and_slashes_is_the_same(
    client: forebay.Client, daemon: DaemonProcess, bucket: Bucket
) -> None:
    bucket.put("x", b"1")
    for prefix in ("./data/x/", "data/x/", "data/x", "./data//x"):
        with forebay.Client(daemon.address, {prefix: bucket.url()}) as mapped:
            assert mapped.get("data/x/x") == b"1"
            assert mapped.get("./data/x/x") == b"1"


def test_uris_are_keys_of_a_mapping(daemon: DaemonProcess, bucket: Bucket) -> None:
    bucket.put("mmdet/r50.pth", b"weights")
    mapping = {"http://download.openmmlab.com/": bucket.url()}
    with forebay.Client(daemon.address, mapping) as client:
        assert client.get("http://download.openmmlab.com/mmdet/r50.pth") == b"weights"
        assert client.get("HTTP://download.openmmlab.com/mmdet/r50.pth") == b"weights"
        assert client.stats().misses > 0


def test_cluster_names_as_petrel_writes_them(client: forebay.Client, bucket: Bucket) -> None:
    bucket.put("x", b"1")

    assert client.get(f"cluster:s3://{bucket.name}/x") == b"1"
    assert client.isfile(f"cluster:s3://{bucket.name}/x")


@pytest.mark.parametrize(
    "key", ["a b", "ä/ö", "100%", "a+b", "a//b", "a/../b", "q?x=1#f", "k" * 1024, "%2F", "'\"<>"]
)
def test_keys_of_odd_characters_are_read_exactly(
    client: forebay.Client, bucket: Bucket, key: str
) -> None:
    bucket.put(key, key.encode())

    assert client.get(bucket.url(key)) == key.encode()
    assert client.get(bucket.url(key)) == key.encode()
    assert client.stat(bucket.url(key)).cached_bytes == len(key.encode())
    assert [e.uri for e in client.list(bucket.url(), recursive=True)] == [bucket.url(key)]  # type: ignore[union-attr]


@pytest.mark.parametrize("path", ["", "x", "data/x", "/data/x", "nosuch://x/y", "s3://", "s3:///k"])
def test_path_that_leads_nowhere_is_explained(client: forebay.Client, path: str) -> None:
    for method in (client.get, client.stat, client.open, client.exists, client.local_path):
        with pytest.raises(forebay.InvalidPathError) as caught, contextlib.ExitStack() as stack:
            result: Any = method(path)
            stack.enter_context(result)
        assert (path or "empty") in str(caught.value)


@pytest.mark.parametrize("path", [None, 1, b"s3://b/k"])
def test_path_of_a_wrong_type_is_a_type_error(client: forebay.Client, path: Any) -> None:
    for method in (client.get, client.stat, client.open, client.evict, client.local_path):
        with pytest.raises((TypeError, ValueError)) as caught:
            method(path)
        assert path is None or caught.type is TypeError


# --- another origin ---------------------------------------------------------------------------


@pytest.fixture
def web() -> Iterator[tuple[str, list[str]]]:
    """A web server with one file; gives its URL and what it was asked."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def _answer(self, *, with_body: bool) -> None:
            asked.append(f"{self.command} {self.path}")
            if self.path != "/file":
                self.send_error(404)
                return
            data, first = some_bytes(70_000), 0
            if ranged := self.headers.get("Range"):
                first, last = (int(part) for part in ranged.removeprefix("bytes=").split("-"))
                total, data = len(data), data[first : last + 1]
                self.send_response(206)
                last = first + len(data) - 1
                self.send_header("Content-Range", f"bytes {first}-{last}/{total}")
            else:
                self.send_response(200)
            self.send_header("ETag", '"one"')
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if with_body:
                self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
        server.shutdown()
        thread.join()


def test_web_origin_is_cached_like_any_other(
    client: forebay.Client, web: tuple[str, list[str]]
) -> None:
    url, asked = web

    assert client.get(f"{url}/file") == some_bytes(70_000)
    requests = len(asked)
    assert client.get(f"{url}/file") == some_bytes(70_000)
    assert client.get(f"{url}/file", 100, 200) == some_bytes(70_000)[100:200]
    with client.open(f"{url}/file") as file:
        assert file.read() == some_bytes(70_000)

    assert len(asked) == requests
    with pytest.raises(FileNotFoundError, match=f"{url}/absent"):
        client.get(f"{url}/absent")


# --- the client itself ------------------------------------------------------------------------


def test_client_is_pickled_with_its_arguments(daemon: DaemonProcess, bucket: Bucket) -> None:
    bucket.put("x", b"1")
    with forebay.Client(daemon.address, {"data": bucket.url()}, timeout_s=7) as client:
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
