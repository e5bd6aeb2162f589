"""Reading: ``get``, ``get_many``, ``apply`` and ``open``, against the bytes that boto3 stored."""

from __future__ import annotations

import io
import os
import random
import re
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import forebay
from support.sizes import MIB, SIZES, some_bytes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from support.ceph import Bucket
    from support.proxy import FaultProxy


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
        lambda view: kept.append(view[1:]),
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


def _comes_true(condition: Callable[[], bool], timeout_s: float = 60.0) -> bool:
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


def test_open_updates_nothing_and_finds_nothing_absent(
    client: forebay.Client, sized: Bucket
) -> None:
    for mode in ("r+b", "w+", "rw", "b", "rbt", ""):
        with pytest.raises(ValueError, match=re.escape(repr(mode))):
            client.open(sized.url("1"), mode)
    with pytest.raises(FileNotFoundError):
        client.open(sized.url("absent"))
