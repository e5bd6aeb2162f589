"""Hits on a cache folder whose daemon is down: every answer here comes without a message."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

import pytest

import forebay
from forebay import _hits
from forebay_protos import layout, table
from support.folders import PREFIX, FolderWriter

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

DATA = bytes(range(256)) * 40
S = 1_000_000_000
# What a miss comes to here: on a busy machine the client's time is over before it finds nobody.
NOBODY = (forebay.DaemonUnavailableError, forebay.DeadlineExceededError)


def uri(name: str) -> str:
    return f"{PREFIX}/{name}"


def read_by_get(client: forebay.Client, name: str) -> bytes:
    return client.get(uri(name))


def read_by_get_many(client: forebay.Client, name: str) -> bytes:
    return client.get_many([uri(name)])[0]


def read_by_apply(client: forebay.Client, name: str) -> bytes:
    return client.apply(uri(name), bytes)


def read_by_open(client: forebay.Client, name: str) -> bytes:
    with client.open(uri(name)) as file:
        return file.read()


reading = pytest.mark.parametrize(
    "read", [read_by_get, read_by_get_many, read_by_apply, read_by_open]
)
if TYPE_CHECKING:
    Read = Callable[[forebay.Client, str], bytes]


@reading
@pytest.mark.parametrize("size", [0, 1, 4096, 10_240])
def test_a_cached_object_is_read_again_and_again(
    folder: FolderWriter, client: forebay.Client, read: Read, size: int
) -> None:
    folder.put("before", b"x" * 5000)
    folder.put("a", DATA[:size])
    for _ in range(3):
        assert read(client, "a") == DATA[:size]


@reading
def test_a_cached_blob_is_read_again_and_again(
    folder: FolderWriter, client: forebay.Client, read: Read
) -> None:
    data = random.Random(1).randbytes(300_000)
    folder.put_blob("a", data)
    for _ in range(3):
        assert read(client, "a") == data


@pytest.mark.parametrize("first_touch", [True, False])
@pytest.mark.parametrize("start", [None, 0, 1, 9999, 10_240, 20_000, -1, -10_240, -20_000])
@pytest.mark.parametrize("end", [None, 0, 2, 10_239, 10_240, 20_000, -1, -10_240, -20_000])
def test_ranges_are_those_of_a_slice(
    folder: FolderWriter,
    client: forebay.Client,
    start: int | None,
    end: int | None,
    first_touch: bool,
) -> None:
    folder.put("packed", DATA)
    folder.put_blob("blob", DATA)
    for name in ("packed", "blob"):
        if not first_touch:
            assert client.get(uri(name)) == DATA
            assert client.get(uri(name)) == DATA
        assert client.get(uri(name), start, end) == DATA[start:end]


def test_what_is_not_cached_waits_for_the_daemon(
    folder: FolderWriter, short_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.put("a", DATA)
    monkeypatch.setenv("FOREBAY_CACHE_DIR", str(folder.path))
    with (
        forebay.Client(f"unix:{short_dir}/down.sock", timeout_s=1) as client,
        pytest.raises(forebay.DaemonUnavailableError, match="forebay serve"),
    ):
        client.get(uri("b"))


@reading
def test_a_cleared_record_is_a_miss(
    folder: FolderWriter, client: forebay.Client, read: Read
) -> None:
    folder.put("a", DATA)
    assert read(client, "a") == DATA
    folder.clear("a")
    with pytest.raises(NOBODY):
        read(client, "a")


@reading
def test_a_refilled_object_is_read_at_its_new_place(
    folder: FolderWriter, client: forebay.Client, read: Read
) -> None:
    old = folder.put("a", DATA)
    assert read(client, "a") == DATA
    assert read(client, "a") == DATA
    folder.clear("a")
    folder.overwrite(old.segment, old.offset, b"z" * len(DATA))
    folder.put("a", b"new" * 999)
    assert read(client, "a") == b"new" * 999


@reading
def test_a_torn_record_is_a_miss(folder: FolderWriter, client: forebay.Client, read: Read) -> None:
    record = folder.put("a", DATA)
    slot = folder.slot_of(record.fingerprint)
    assert slot is not None
    torn = bytearray(table.pack_record(record))
    torn[30] ^= 1
    folder.write_slot(slot, bytes(torn))
    with pytest.raises(NOBODY):
        read(client, "a")


@reading
def test_a_record_past_its_time_is_a_miss(
    folder: FolderWriter, client: forebay.Client, read: Read
) -> None:
    record = folder.put("a", DATA, stale_after_ns=time.time_ns() + 1000 * S)
    assert read(client, "a") == DATA
    folder.publish(record._replace(stale_after_ns=time.time_ns() - S))
    with pytest.raises(NOBODY):
        read(client, "a")
    folder.publish(record._replace(stale_after_ns=time.time_ns() + 1000 * S))
    assert read(client, "a") == DATA


def test_a_blob_is_a_hit_where_its_blocks_are_present(
    folder: FolderWriter, client: forebay.Client
) -> None:
    data = random.Random(2).randbytes(200_000)
    record = folder.put_blob("a", data, block_shift=16, blocks={0, 2})
    assert client.get(uri("a"), 10, 65_536) == data[10:65_536]
    assert client.get(uri("a"), 131_072, 196_608) == data[131_072:196_608]
    for start, end in ((0, 65_537), (65_536, 65_537), (196_608, None)):
        with pytest.raises(NOBODY):
            client.get(uri("a"), start, end)
    with (folder.path / layout.blob_name(record.generation)).open("r+b") as file:
        file.write(data)
    folder.publish(record._replace(place=0b1111))
    assert client.get(uri("a")) == data


def test_a_place_that_is_used_again_during_the_function_runs_it_again(
    folder: FolderWriter, client: forebay.Client
) -> None:
    old = folder.put("a", DATA)
    seen = []

    def function(view: memoryview) -> bytes:
        seen.append(bytes(view[:3]))
        if len(seen) == 1:
            folder.clear("a")
            folder.overwrite(old.segment, old.offset, b"bad" * 100)
            folder.put("a", b"new" * 100)
        return bytes(view)

    assert client.apply(uri("a"), function) == b"new" * 100
    assert seen == [DATA[:3], b"new"]


def test_an_exception_of_the_function_counts_only_if_it_saw_the_right_bytes(
    folder: FolderWriter, client: forebay.Client
) -> None:
    folder.put("a", DATA)
    calls = []

    def function(view: memoryview) -> int:
        calls.append(1)
        if len(calls) == 1:
            folder.clear("a")
            folder.put("a", b"new")
            raise ValueError("from bytes that changed")
        return len(view)

    assert client.apply(uri("a"), function) == 3
    with pytest.raises(ValueError, match="from the right bytes"):
        client.apply(uri("a"), lambda _: (_ for _ in ()).throw(ValueError("from the right bytes")))


@pytest.mark.parametrize("put", [FolderWriter.put, FolderWriter.put_blob])
@pytest.mark.parametrize(
    "alias",
    [
        pytest.param(lambda view: view, id="the view itself"),
        pytest.param(memoryview, id="another view"),
        pytest.param(lambda view: view[1:], id="a slice"),
        pytest.param(lambda view: {"deep": [view[1:].cast("b")]}, id="a slice in a dict"),
    ],
)
def test_a_result_that_is_still_the_cached_bytes_is_refused(
    folder: FolderWriter,
    client: forebay.Client,
    put: Callable[[FolderWriter, str, bytes], table.Record],
    alias: Callable[[memoryview], object],
) -> None:
    put(folder, "a", DATA)
    with pytest.raises(BufferError, match="copy"):
        client.apply(uri("a"), alias)


def test_an_array_of_the_cached_bytes_is_refused(
    folder: FolderWriter, client: forebay.Client
) -> None:
    numpy = pytest.importorskip("numpy")
    folder.put("a", DATA)
    with pytest.raises(BufferError, match="copy"):
        client.apply(uri("a"), lambda view: {"image": numpy.frombuffer(view, "u1")[1:]})
    copied = client.apply(uri("a"), lambda view: numpy.frombuffer(view, "u1").copy())
    assert copied.tobytes() == DATA


def test_the_function_cannot_write_into_the_cache(
    folder: FolderWriter, client: forebay.Client
) -> None:
    folder.put("a", DATA)

    def write(view: memoryview) -> None:
        view[0] = 1

    with pytest.raises(TypeError, match="read-only"):
        client.apply(uri("a"), write)


def test_a_new_table_is_noticed(folder: FolderWriter, client: forebay.Client) -> None:
    folder.put("a", b"old")
    assert client.get(uri("a")) == b"old"
    folder.new_table()
    folder.put("a", b"new")
    assert client.get(uri("a")) == b"new"


def test_another_origin_under_the_same_prefix_is_never_mistaken_for_the_old_one(
    folder: FolderWriter, client: forebay.Client
) -> None:
    folder.put("a", b"old")
    assert client.get(uri("a")) == b"old"
    folder.announce("another endpoint")
    time.sleep(layout.LEASE_S)  # what a daemon waits for, twice, before it answers anybody
    with pytest.raises(NOBODY):
        client.get(uri("a"))


def test_a_folder_that_is_wiped_is_left(folder: FolderWriter, client: forebay.Client) -> None:
    folder.put("a", b"old")
    assert client.get(uri("a")) == b"old"
    (folder.path / layout.ATTACH).unlink()
    time.sleep(layout.LEASE_S)
    with pytest.raises(NOBODY):
        client.get(uri("a"))


def test_each_access_leaves_its_time(folder: FolderWriter, client: forebay.Client) -> None:
    folder.put("a", DATA)
    folder.put_blob("b", DATA)
    for name in ("a", "b"):
        for read in (read_by_get, read_by_get, read_by_apply):
            folder.set_recency(name, 10.0)
            before = time.time_ns()
            read(client, name)
            assert before <= folder.recency(name) <= time.time_ns()


def test_hits_are_counted_and_stay_when_the_client_is_gone(
    folder: FolderWriter, client: forebay.Client
) -> None:
    folder.put("a", DATA)
    for _ in range(3):
        client.get(uri("a"))
    client.get(uri("a"), 0, 10)
    client.apply(uri("a"), len)
    with pytest.raises(NOBODY):
        client.get(uri("b"))
    client.close()
    hits, hit_bytes, table_misses, _, *rest = folder.counted()
    assert (hits, hit_bytes, table_misses) == (5, 4 * len(DATA) + 10, 1)
    assert not any(rest)


def test_the_memory_of_paths_is_bounded(
    folder: FolderWriter, client: forebay.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_hits, "_MEMO_PATHS", 4)
    names = [f"n{number}" for number in range(20)]
    for number, name in enumerate(names):
        folder.put(name, bytes([number]) * 10)
    for _ in range(3):
        for number, name in enumerate(names):
            assert client.get(uri(name)) == bytes([number]) * 10
    view = client._hits._view
    assert view is not None
    assert len(view.young) <= 4
    assert len(view.old) <= 4


@pytest.mark.parametrize("seconds_ago", [1.0, 3600.0])
def test_pages_that_may_be_cold_are_read_right(
    folder: FolderWriter, client: forebay.Client, seconds_ago: float
) -> None:
    folder.put("a", DATA)
    for _ in range(3):
        folder.set_recency("a", seconds_ago)
        assert client.get(uri("a"), 5, 500) == DATA[5:500]
        folder.set_recency("a", seconds_ago)
        assert client.apply(uri("a"), bytes) == DATA


def test_neighbours_in_a_folder_are_found_whatever_their_names(
    folder: FolderWriter, client: forebay.Client
) -> None:
    names = ["d/a", "d/b", "d/", "d/..", "d/.", "d//x", "d/ü %+", "e", "d/e/f", "d"]
    for name in names:
        folder.put(name, name.encode())
    for _ in range(2):
        for name in names:
            assert client.get(uri(name)) == name.encode()


def test_the_mapping_of_the_folder_is_used(
    tmp_path: Path, short_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = FolderWriter(tmp_path / "mapped", mapping={"data/": f"{PREFIX}/d/"})
    monkeypatch.setenv("FOREBAY_CACHE_DIR", str(folder.path))
    folder.put("d/a", b"daemon's")
    folder.put("own/a", b"client's")
    address = f"unix:{short_dir}/down.sock"
    with forebay.Client(address) as plain:
        assert plain.get("./data/a") == b"daemon's"
    with forebay.Client(address, {"data": f"{PREFIX}/own"}) as mapped:
        assert mapped.get("data/a") == b"client's"


def test_existing_objects_are_known_without_the_daemon(
    folder: FolderWriter, client: forebay.Client
) -> None:
    folder.put("a", DATA)
    assert client.exists(uri("a"))
    assert client.isfile(uri("a"))


def test_a_table_of_another_format_is_not_read(
    folder: FolderWriter, client: forebay.Client
) -> None:
    folder.put("a", DATA)
    text = (folder.path / layout.ATTACH).read_text()
    (folder.path / layout.ATTACH).write_text(text.replace('"format": 1', '"format": 99'))
    with pytest.raises(NOBODY):
        client.get(uri("a"))


def test_a_lost_segment_is_a_miss(folder: FolderWriter, client: forebay.Client) -> None:
    record = folder.put("a", DATA)
    (folder.path / layout.segment_name(record.segment)).unlink()
    for read in (read_by_get, read_by_apply):
        with pytest.raises(NOBODY):
            read(client, "a")
