"""``put`` and ``put_file``: any buffer, from any client, is read back at once and arrives."""

from __future__ import annotations

import array
import mmap
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import forebay
from support.sizes import some_bytes

if TYPE_CHECKING:
    from e2e.conftest import FileOrigin

MIB = 1 << 20


def anonymous_map() -> mmap.mmap:
    mapped = mmap.mmap(-1, 5000)
    mapped[:] = b"m" * 5000
    return mapped


BUFFERS = {
    "bytes": b"some bytes",
    "empty": b"",
    "bytearray": bytearray(b"some bytes"),
    "items of 4 bytes": memoryview(bytes(range(16))).cast("I"),
    "two dimensions": memoryview(bytes(range(16))).cast("B", (4, 4)),
    "array": array.array("d", [1.5, 2.5]),
    "numpy": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "another byte order": np.arange(7, dtype=">i4"),
    "a view of another byte order": np.arange(7, dtype=">i4").data,
    "a view of no rows": np.zeros((0, 3)).data,
    "records": np.zeros(3, dtype=[("a", "i4"), ("b", "f8")]),
    "no rows": np.zeros((0, 3)),
    "a number": np.array(7.5),
    "mapped": anonymous_map(),
    "one message": some_bytes(MIB),
    "some messages": some_bytes(3 * MIB + 1),
}


@pytest.mark.parametrize("name", BUFFERS)
def test_any_buffer_is_written_as_its_bytes(
    either: forebay.Client, files: FileOrigin, name: str
) -> None:
    data: Any = BUFFERS[name]
    path = files.url("folder/a key")
    expected = data.tobytes() if hasattr(data, "tobytes") else bytes(data)

    either.put(path, data)

    assert either.get(path) == expected
    assert either.stat(path).size_bytes == len(expected)
    assert [entry.uri for entry in either.list(files.url("folder")) if hasattr(entry, "uri")] == [
        path
    ]
    either.flush()
    assert (files.folder / "folder/a key").read_bytes() == expected


def test_text_is_written_as_utf_8(either: forebay.Client, files: FileOrigin) -> None:
    either.put(files.url("a"), "häßlich ✓")

    assert either.get(files.url("a")).decode() == "häßlich ✓"


def test_large_array_is_written(either: forebay.Client, files: FileOrigin) -> None:
    data: Any = np.random.default_rng(1).integers(0, 1 << 62, (133 * MIB + 80) // 8)

    either.put(files.url("a"), data)

    with either.open(files.url("a")) as file:
        assert file.read() == data.tobytes()


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (memoryview(b"abcdef")[::2], BufferError),
        (np.zeros((4, 4)).T[1:], BufferError),
        (17, TypeError),
        (None, TypeError),
        (["a"], TypeError),
    ],
)
def test_what_is_no_row_of_bytes_is_refused(
    either: forebay.Client, files: FileOrigin, data: Any, error: type[Exception]
) -> None:
    with pytest.raises(error):
        either.put(files.url("a"), data)

    assert not either.exists(files.url("a"))


def test_unknown_mode_is_refused(shared: forebay.Client, files: FileOrigin) -> None:
    with pytest.raises(ValueError, match="write_through"):
        shared.put(files.url("a"), b"", mode="through")
    with pytest.raises(ValueError, match="write_through"):
        shared.put_file(files.url("a"), __file__, mode="through")


def test_later_put_replaces_the_earlier(either: forebay.Client, files: FileOrigin) -> None:
    for number in range(20):
        either.put(files.url("a"), b"%d" % number * 1000)
        assert either.get(files.url("a")) == b"%d" % number * 1000
    either.flush()

    assert (files.folder / "a").read_bytes() == b"19" * 1000


def test_write_through_is_in_the_origin_at_once(either: forebay.Client, files: FileOrigin) -> None:
    local = files.folder / "a"
    for number in range(5):
        either.put(files.url("a"), b"%d" % number, mode="write_through")
        assert local.read_bytes() == b"%d" % number
        assert either.get(files.url("a")) == b"%d" % number
        either.put_file(files.url("b"), local, mode="write_through")
        assert (files.folder / "b").read_bytes() == b"%d" % number


@pytest.mark.parametrize("size", [0, 1, 100_000, 9 * MIB + 5, 70 * MIB])
def test_local_file_is_put(
    either: forebay.Client, files: FileOrigin, tmp_path: Path, size: int
) -> None:
    local = tmp_path / "local"
    local.write_bytes(some_bytes(size))

    either.put_file(files.url("a"), local)

    with either.open(files.url("a")) as file:
        assert file.read() == some_bytes(size)


def test_file_that_does_not_know_its_size_is_put(either: forebay.Client, files: FileOrigin) -> None:
    assert Path("/proc/version").stat().st_size == 0

    either.put_file(files.url("a"), "/proc/version")

    assert either.get(files.url("a")) == Path("/proc/version").read_bytes()


def test_file_of_another_file_system_is_put(either: forebay.Client, files: FileOrigin) -> None:
    with tempfile.NamedTemporaryFile(prefix="fb-", dir="/dev/shm") as local:  # another file system
        local.write(some_bytes(3 * MIB))
        local.flush()
        either.put_file(files.url("a"), local.name)

    assert either.get(files.url("a")) == some_bytes(3 * MIB)


def test_folder_and_absent_file_cannot_be_put(
    shared: forebay.Client, files: FileOrigin, tmp_path: Path
) -> None:
    with pytest.raises(IsADirectoryError, match=str(tmp_path)):
        shared.put_file(files.url("a"), tmp_path)
    with pytest.raises(FileNotFoundError, match="absent"):
        shared.put_file(files.url("a"), tmp_path / "absent")

    assert not shared.exists(files.url("a"))


def test_origin_that_nobody_may_write_says_so(
    either: forebay.Client, tmp_path: Path, files: FileOrigin
) -> None:
    with pytest.raises(PermissionError, match="read-only"):
        either.put((tmp_path / "elsewhere" / "a").as_uri(), b"")
    with pytest.raises(forebay.InvalidPathError):
        either.put(files.url("folder/"), b"")


def test_many_threads_write_at_once(either: forebay.Client, files: FileOrigin) -> None:
    def write(number: int) -> None:
        size = (100, 20_000, 300_000, 2 * MIB)[number % 4]
        either.put(files.url(f"{number}"), some_bytes(size + number))
        assert either.get(files.url(f"{number}")) == some_bytes(size + number)

    with ThreadPoolExecutor(12) as pool:
        list(pool.map(write, range(120)))
    either.flush()

    for number in range(120):
        size = (100, 20_000, 300_000, 2 * MIB)[number % 4]
        assert (files.folder / f"{number}").read_bytes() == some_bytes(size + number)


def test_mapped_path_is_written(writable: Any, files: FileOrigin) -> None:
    mapping = {"data": files.url("set")}
    with forebay.Client(writable.address, path_mapping=mapping) as client:
        client.put("data/a", b"bytes")
        with client.open("data/b", "w") as file:
            file.write("text")

        assert client.get(files.url("set/a")) == b"bytes"
        assert client.get("data/b") == b"text"
