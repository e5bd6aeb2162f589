"""The fsspec file system, against a real daemon in front of the real Ceph."""

from __future__ import annotations

import datetime
import multiprocessing
import os
import pickle
import subprocess
import sys
import urllib.request
from typing import TYPE_CHECKING, Any

import fsspec
import pytest

import forebay
from support.serving import serving
from support.sizes import MIB, some_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.ceph import Bucket, Ceph
    from support.daemon import DaemonProcess


_PROGRAM_S = 150.0  # a machine that is busy with other tests


@pytest.fixture(scope="module")
def daemon(ceph: Ceph) -> Iterator[DaemonProcess]:
    with serving(endpoint_url=ceph.endpoint_url, env=ceph.env()) as running:
        yield running


@pytest.fixture
def fs(daemon: DaemonProcess, bucket: Bucket) -> Iterator[Any]:
    yield fsspec.filesystem("forebay", address=daemon.address)
    with forebay.Client(daemon.address) as client:
        client.flush(timeout_s=60)  # before the bucket is removed


@pytest.fixture
def tree(bucket: Bucket) -> str:
    """The name of a bucket with objects, among them what consoles make for an empty folder."""
    for key in ("top", "a/1", "a/22", "a/b/333", "ab/4444"):
        bucket.put(key, key.rpartition("/")[2].encode())
    bucket.put("a/", b"")
    bucket.put("a/empty/", b"")
    return bucket.name


# --- reading ----------------------------------------------------------------------------------


def test_cat_of_one_path_is_bytes_and_of_several_a_dict(fs: Any, tree: str) -> None:
    assert fs.cat(f"forebay://{tree}/a/22") == b"22"
    assert fs.cat([f"{tree}/a/22", f"{tree}/top"]) == {f"{tree}/a/22": b"22", f"{tree}/top": b"top"}
    assert fs.cat(f"{tree}/a/2*") == {f"{tree}/a/22": b"22"}
    assert fs.cat([f"{tree}/a/22", f"{tree}/top"], start=1) == {
        f"{tree}/a/22": b"2",
        f"{tree}/top": b"op",
    }
    assert fs.cat(f"{tree}/a", recursive=True) == {
        f"{tree}/a/1": b"1",
        f"{tree}/a/22": b"22",
        f"{tree}/a/b/333": b"333",
    }


def test_cat_raises_omits_or_returns_what_is_missing(fs: Any, tree: str) -> None:
    paths = [f"{tree}/top", f"{tree}/absent"]

    with pytest.raises(FileNotFoundError, match="absent"):
        fs.cat(paths)
    assert fs.cat(paths, on_error="omit") == {f"{tree}/top": b"top"}
    assert isinstance(fs.cat(paths, on_error="return")[f"{tree}/absent"], FileNotFoundError)


def test_ranges_are_slices(fs: Any, bucket: Bucket) -> None:
    data = some_bytes(2 * MIB)
    bucket.put("large", data)
    path = f"{bucket.name}/large"
    starts = [None, 0, 5, -10, -10, 2 * MIB, MIB]
    ends = [None, 10, None, None, -3, 3 * MIB, -MIB]

    assert fs.cat_ranges([path] * 7, starts, ends) == [
        data[start:end] for start, end in zip(starts, ends, strict=True)
    ]
    assert fs.cat_ranges([path, path], 0, 3) == [data[:3]] * 2
    assert fs.cat_ranges([], [], []) == []
    assert fs.cat_file(path, -7, -2) == data[-7:-2]
    assert (fs.head(path, 9), fs.tail(path, 9)) == (data[:9], data[-9:])


def test_ranges_return_or_raise_errors(fs: Any, tree: str) -> None:
    paths = [f"{tree}/top", f"{tree}/absent"]

    found, missing = fs.cat_ranges(paths, [1, 0], [None, 4])
    assert found == b"op"
    assert isinstance(missing, FileNotFoundError)
    with pytest.raises(FileNotFoundError):
        fs.cat_ranges(paths, 0, 1, on_error="raise")
    with pytest.raises(ValueError, match="2 paths, 1 starts"):
        fs.cat_ranges(paths, [0], [1])


@pytest.mark.parametrize("size", [0, 10, 9 * MIB])
def test_file_is_read_by_position(fs: Any, bucket: Bucket, size: int) -> None:
    data = some_bytes(size)
    bucket.put("object", data)

    with fs.open(f"{bucket.name}/object") as file:
        assert file.size == size
        file.seek(size // 2)
        assert file.read(100) == data[size // 2 :][:100]
        file.seek(0)
        assert file.read() == data


# --- names ------------------------------------------------------------------------------------


def test_names_are_listed_without_markers_of_folders(fs: Any, tree: str) -> None:
    below_a = [f"{tree}/a/1", f"{tree}/a/22", f"{tree}/a/b/333"]

    assert fs.find(tree) == [*below_a, f"{tree}/ab/4444", f"{tree}/top"]
    assert fs.find(f"{tree}/a/") == below_a
    assert fs.find(f"{tree}/a/1") == [f"{tree}/a/1"]
    assert fs.find(f"{tree}/a", maxdepth=1) == below_a[:2]
    assert fs.find(f"{tree}/absent") == []
    assert fs.ls(tree, detail=False) == [f"{tree}/a", f"{tree}/ab", f"{tree}/top"]
    assert fs.ls(f"{tree}/top", detail=False) == [f"{tree}/top"]
    assert fs.glob(f"{tree}/a/**") == [
        f"{tree}/a", f"{tree}/a/1", f"{tree}/a/22", f"{tree}/a/b", f"{tree}/a/b/333",
        f"{tree}/a/empty",
    ]  # fmt: skip
    assert fs.glob(f"{tree}/*/?") == [f"{tree}/a/1", f"{tree}/a/b"]
    assert next(iter(fs.walk(f"{tree}/a"))) == (f"{tree}/a", ["b", "empty"], ["1", "22"])
    assert fs.du(tree) == len("1" + "22" + "333" + "4444" + "top")
    assert fs.find(f"{tree}/a", detail=True)[f"{tree}/a/22"]["size"] == 2
    with pytest.raises(FileNotFoundError):
        fs.ls(f"{tree}/absent")


def test_info_tells_objects_from_prefixes(fs: Any, tree: str) -> None:
    info = fs.info(f"forebay://{tree}/a/22")

    assert (info["name"], info["size"], info["type"]) == (f"{tree}/a/22", 2, "file")
    assert fs.info(f"{tree}/a/") == {"name": f"{tree}/a", "size": 0, "type": "directory"}
    assert [fs.isdir(f"{tree}/{name}") for name in ("a", "top", "absent")] == [True, False, False]
    assert [fs.isfile(f"{tree}/{name}") for name in ("a", "top", "absent")] == [False, True, False]
    assert [fs.exists(f"{tree}/{name}") for name in ("a", "top", "absent")] == [True, True, False]
    with pytest.raises(FileNotFoundError):
        fs.info(f"{tree}/absent")
    assert fs.size(f"{tree}/a/22") == 2


def test_checksum_and_key_change_with_the_content_only(fs: Any, bucket: Bucket) -> None:
    path = f"{bucket.name}/object"
    fs.pipe(path, b"one")
    fs.flush(path)
    before = fs.checksum(path), fs.ukey(path)
    assert (fs.checksum(path), fs.ukey(path)) == before

    fs.pipe(path, b"two")
    fs.flush(path)

    assert fs.checksum(path) != before[0]
    assert fs.ukey(path) != before[1]
    age = datetime.datetime.now(datetime.timezone.utc) - fs.modified(path)
    assert abs(age) < datetime.timedelta(hours=1)


# --- changing ---------------------------------------------------------------------------------


def test_trees_are_copied_moved_and_removed(fs: Any, bucket: Bucket, tree: str) -> None:
    fs.copy(f"{tree}/a", f"{tree}/copy", recursive=True)
    assert fs.cat(f"{tree}/copy", recursive=True).keys() == {
        f"{tree}/copy/1",
        f"{tree}/copy/22",
        f"{tree}/copy/b/333",
    }
    fs.mv(f"{tree}/copy", f"{tree}/moved", recursive=True)
    assert fs.find(f"{tree}/copy") == []
    assert fs.cat(f"{tree}/moved/b/333") == b"333"
    fs.mv(f"{tree}/top", f"{tree}/new")
    assert (fs.exists(f"{tree}/top"), fs.cat(f"{tree}/new")) == (False, b"top")
    fs.mv(f"{tree}/new", f"{tree}/new")
    fs.rm([f"{tree}/new", f"{tree}/moved/1"])
    fs.rm(f"{tree}/moved/2*")

    fs.rm(f"{tree}/a", recursive=True)
    fs.flush()

    assert bucket.keys() == ["ab/4444", "moved/b/333"]
    for recursive in (False, True):
        with pytest.raises(FileNotFoundError):
            fs.rm(f"{tree}/a", recursive=recursive)
    for wrong in (fs.mv, fs.cp_file):
        with pytest.raises(FileNotFoundError):
            wrong(f"{tree}/a/1", f"{tree}/new")


def test_touch_makes_an_empty_object_or_empties_it(fs: Any, tree: str) -> None:
    fs.touch(f"{tree}/fresh")
    fs.touch(f"{tree}/top")

    assert fs.cat([f"{tree}/fresh", f"{tree}/top"]) == {f"{tree}/fresh": b"", f"{tree}/top": b""}
    with pytest.raises(NotImplementedError):
        fs.touch(f"{tree}/a/22", truncate=False)
    assert fs.cat(f"{tree}/a/22") == b"22"


def test_folders_are_there_when_something_is_below_them(fs: Any, tree: str) -> None:
    fs.mkdir(f"{tree}/new")
    fs.makedirs(f"{tree}/new/deep")
    assert not fs.exists(f"{tree}/new")
    with pytest.raises(FileExistsError):
        fs.makedirs(f"{tree}/a")
    fs.makedirs(f"{tree}/a", exist_ok=True)
    with pytest.raises(OSError, match="not empty"):
        fs.rmdir(f"{tree}/a")


def test_local_copy_has_its_name_once_it_is_whole(fs: Any, bucket: Bucket, tmp_path: Path) -> None:
    bucket.put("object", some_bytes(9 * MIB))
    target = tmp_path / ("n" * 255)  # as long as a name may be
    target.write_bytes(b"before")
    seen: list[tuple[bytes, int]] = []

    class Watch(fsspec.callbacks.Callback):
        def relative_update(self, inc: int = 1) -> None:
            seen.append((target.read_bytes(), inc))

    fs.get_file(f"{bucket.name}/object", target, callback=Watch())

    assert seen == [(b"before", 8 * MIB), (b"before", MIB)]
    assert target.read_bytes() == some_bytes(9 * MIB)
    with pytest.raises(FileNotFoundError):
        fs.get_file(f"{bucket.name}/absent", tmp_path / "absent")
    assert list(tmp_path.iterdir()) == [target]


def test_signed_url_is_read_by_anybody(fs: Any, bucket: Bucket) -> None:
    path = f"{bucket.name}/with space+ü"
    fs.pipe(path, b"signed")
    fs.flush(path)

    with urllib.request.urlopen(fs.sign(path, expiration=60), timeout=30) as reply:
        assert reply.read() == b"signed"


# --- processes --------------------------------------------------------------------------------


def _read(fs: Any, path: str, results: Any) -> None:
    with fs.open(path) as file:
        results.put((fs.cat(path), file.read(), fs.ls(path, detail=False)))


@pytest.mark.filterwarnings(
    "ignore:This process .* is multi-threaded, use of fork:DeprecationWarning"
)
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_child_processes_read(fs: Any, tree: str, method: str) -> None:
    path = f"{tree}/top"
    assert fs.cat(path) == b"top"
    context: Any = multiprocessing.get_context(method)
    results = context.SimpleQueue()
    child = context.Process(target=_read, args=(fs, path, results))

    child.start()
    child.join(_PROGRAM_S)

    assert child.exitcode == 0
    assert results.get() == (b"top", b"top", [path])
    assert fs.cat(path) == b"top"


def test_pickled_file_system_is_the_same(fs: Any, tree: str) -> None:
    again = pickle.loads(pickle.dumps(fs))  # noqa: S301  # our own

    assert again == fs
    assert again.fsid == fs.fsid
    assert again.cat(f"{tree}/top") == b"top"
    assert fsspec.AbstractFileSystem.from_json(fs.to_json()).cat(f"{tree}/top") == b"top"


_REPLACED = """
import sys, fsspec, forebay.fsspec
bucket, endpoint = sys.argv[1:]
forebay.fsspec.replace_s3()
options = {"key": "nobody", "secret": "nothing", "anon": False}
with fsspec.open(f"s3://{bucket}/top", **options) as file:
    assert file.read() == b"top"
fs = fsspec.filesystem("s3", client_kwargs={"endpoint_url": endpoint + "/"}, **options)
assert isinstance(fs, forebay.fsspec.ForebayFileSystem)
assert fs.cat(f"s3a://{bucket}/a/22") == b"22"
assert fsspec.filesystem("s3a", endpoint_url=endpoint).exists(f"s3://{bucket}/top")
assert fs.unstrip_protocol(f"{bucket}/top") == f"s3://{bucket}/top"
for other in ("http://elsewhere:7480", endpoint[:-1], "http://127.0.0.1"):
    for wrong in ({"endpoint_url": other}, {"client_kwargs": {"endpoint_url": other}}):
        try:
            fsspec.filesystem("s3", **wrong)
        except ValueError as error:
            assert "[[origin]]" in str(error), error
        else:
            raise AssertionError(other)
assert not any(name.startswith(("s3fs", "botocore")) for name in sys.modules)
"""


def test_replaced_s3_goes_through_the_daemon_and_refuses_other_endpoints(
    daemon: DaemonProcess, ceph: Ceph, tree: str
) -> None:
    subprocess.run(  # noqa: S603  # our own script
        [sys.executable, "-c", _REPLACED, tree, ceph.endpoint_url],
        env={**os.environ, "FOREBAY_ADDRESS": daemon.address},
        check=True,
        timeout=_PROGRAM_S,
    )
