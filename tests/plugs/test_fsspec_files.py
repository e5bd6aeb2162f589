"""Files and transactions of the fsspec file system: what is published, and what is not."""

from __future__ import annotations

import gc
import gzip
from typing import TYPE_CHECKING, Any

import fsspec
import pytest

import forebay
from support.serving import serving
from support.sizes import MIB, some_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support.ceph import Bucket, Ceph
    from support.daemon import DaemonProcess


@pytest.fixture(scope="module")
def daemon(ceph: Ceph) -> Iterator[DaemonProcess]:
    with serving(endpoint_url=ceph.endpoint_url, env=ceph.env()) as running:
        yield running


@pytest.fixture
def fs(daemon: DaemonProcess, bucket: Bucket) -> Iterator[Any]:
    yield fsspec.filesystem("forebay", address=daemon.address)
    with forebay.Client(daemon.address) as client:
        client.flush(timeout_s=60)  # before the bucket is removed


class BrokenError(Exception):
    """What goes wrong in the middle of a file."""


def test_file_is_written_created_and_appended_to(fs: Any, bucket: Bucket) -> None:
    path = f"{bucket.name}/file"
    with fs.open(path, "wb") as file:
        assert file.write(b"one") == 3
        assert file.tell() == 3
        assert not fs.exists(path)
    with fs.open(path, "ab") as file:
        file.write(b" two")
    with pytest.raises(FileExistsError), fs.open(path, "xb") as file:
        file.write(b"other")
    with fs.open(f"{path}2", "xb") as file:
        file.write(some_bytes(9 * MIB))

    assert fs.cat(path) == b"one two"
    fs.flush(bucket.name)
    assert bucket.get("file") == b"one two"
    assert bucket.get("file2") == some_bytes(9 * MIB)


@pytest.mark.parametrize("mode", ["r+b", "w+b", "rwb", "a+"])
def test_update_in_place_is_refused(fs: Any, bucket: Bucket, mode: str) -> None:
    bucket.put("file", b"before")
    with pytest.raises(NotImplementedError, match="as a whole"):
        fs.open(f"{bucket.name}/file", mode)
    assert fs.cat(f"{bucket.name}/file") == b"before"


def test_text_and_compression_are_written_and_read(fs: Any, bucket: Bucket) -> None:
    path = f"{bucket.name}/words.gz"
    with fs.open(path, "w", compression="infer", encoding="utf-16-le", newline="\r\n") as file:
        file.write("größer\n")
    assert gzip.decompress(fs.cat(path)) == "größer\r\n".encode("utf-16-le")
    with fs.open(path, "r", compression="gzip", encoding="utf-16-le", newline="") as file:
        assert file.read() == "größer\r\n"
    for method in ("gzip", "bz2", "xz"):
        with fs.open(path, "wb", compression=method) as file:
            file.write(b"some bytes" * 1000)
        with fs.open(path, "rb", compression=method) as file:
            assert file.read() == b"some bytes" * 1000


def _opened(fs: Any, path: str) -> list[Callable[[], Any]]:
    url, address = f"forebay://{path}", fs.storage_options["address"]
    return [
        lambda: fs.open(path, "wb"),
        lambda: fs.open(path, "ab"),
        lambda: fs.open(path, "w"),
        lambda: fs.open(path, "w", compression="gzip"),
        lambda: fs.open(path, "wb", compression="bz2"),
        lambda: fsspec.open(url, "wb", address=address),
        lambda: fsspec.open(url, "wt", address=address),
        lambda: fsspec.open(url, "wt", compression="gzip", address=address),
    ]


@pytest.mark.parametrize("way", range(8))
def test_file_left_by_an_exception_publishes_nothing(fs: Any, bucket: Bucket, way: int) -> None:
    path = f"{bucket.name}/file"
    bucket.put("file", b"before")
    with pytest.raises(BrokenError), _opened(fs, path)[way]() as file:  # noqa: PT012
        file.write("half" if hasattr(file, "encoding") else b"half")
        raise BrokenError

    assert fs.cat(path) == b"before"
    assert fs.client.uploads() == []


@pytest.mark.parametrize("way", range(8))
def test_file_that_is_written_while_an_exception_is_handled_is_published(
    fs: Any, bucket: Bucket, way: int
) -> None:
    try:
        raise BrokenError
    except BrokenError:
        with _opened(fs, f"{bucket.name}/file")[way]() as file:
            file.write("whole" if hasattr(file, "encoding") else b"whole")

    assert fs.exists(f"{bucket.name}/file")


@pytest.mark.parametrize("way", range(5))  # an OpenFile keeps its files
def test_file_that_is_dropped_publishes_nothing_and_warns(
    fs: Any, bucket: Bucket, way: int
) -> None:
    file = _opened(fs, f"{bucket.name}/file")[way]()
    file.write("half" if hasattr(file, "encoding") else b"half")

    with pytest.warns(ResourceWarning, match="nothing was written"):  # noqa: PT031
        del file
        gc.collect()

    assert not fs.exists(f"{bucket.name}/file")


def test_created_object_must_not_exist(fs: Any, bucket: Bucket, tmp_path: Path) -> None:
    path = f"{bucket.name}/object"
    (tmp_path / "local").write_bytes(b"local")
    fs.pipe_file(path, b"first", mode="create")

    with pytest.raises(FileExistsError):
        fs.pipe_file(path, b"second", mode="create")
    with pytest.raises(FileExistsError):
        fs.put_file(tmp_path / "local", path, mode="create")

    assert bucket.get("object") == b"first"  # a create is in the origin when it returns


def test_transaction_publishes_all_or_nothing(fs: Any, bucket: Bucket, tmp_path: Path) -> None:
    (tmp_path / "local").write_bytes(b"local")

    def write() -> None:
        with fs.open(f"{bucket.name}/a", "wb") as file:
            file.write(b"a")
        with fs.open(f"{bucket.name}/b", "w") as file:
            file.write("b")
        fs.pipe({f"{bucket.name}/c": b"c"})
        fs.put_file(tmp_path / "local", f"{bucket.name}/d")
        assert fs.find(bucket.name) == []

    with pytest.raises(BrokenError), fs.transaction:  # noqa: PT012
        write()
        raise BrokenError
    assert fs.find(bucket.name) == []
    with fs.transaction:
        write()
    assert fs.cat([f"{bucket.name}/{name}" for name in "abcd"]) == {
        f"{bucket.name}/a": b"a",
        f"{bucket.name}/b": b"b",
        f"{bucket.name}/c": b"c",
        f"{bucket.name}/d": b"local",
    }
