"""Unusual names, workers that are spawned, and a daemon that is not there."""

from __future__ import annotations

import pickle
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import fsspec
import mmcv
import pandas as pd
import pytest
from mmengine.fileio import FileClient as MMEngineFileClient
from mmengine.fileio import get_file_backend

import forebay
from forebay.torch import IterableObjectDataset
from support.below import environment_below

if TYPE_CHECKING:
    from pathlib import Path

    from support.ceph import Bucket
    from support.daemon import DaemonProcess

SPAWNED = """
import sys
import mmcv
from mmengine.fileio import get_file_backend
from torch.utils.data import DataLoader, Dataset

class Files(Dataset):
    def __init__(self):
        self.disk, self.petrel = mmcv.FileClient("disk"), mmcv.FileClient("petrel")
        self.lmdb = mmcv.FileClient("lmdb", db_path="never opened")
        self.local = get_file_backend("a/file")
    def __len__(self):
        return 1
    def __getitem__(self, _):
        return [bytes(c.get(p)) for c, p in (
            (self.disk, "plain.txt"), (self.petrel, sys.argv[1]), (self.local, "plain.txt"),
            (self.disk, "data/k"))]

if __name__ == "__main__":
    for context in ("fork", "spawn"):
        loader = DataLoader(Files(), num_workers=1, multiprocessing_context=context)
        print([item[0] for item in next(iter(loader))])
"""


def test_file_clients_travel_to_spawned_workers(
    plugged: DaemonProcess, bucket: Bucket, tmp_path: Path
) -> None:
    bucket.put("k", b"object")
    (tmp_path / "plain.txt").write_bytes(b"plain")
    (tmp_path / "program.py").write_text(SPAWNED)
    mapping = f"data/={bucket.url()}"

    done = subprocess.run(  # noqa: S603  # our own command
        [
            *(sys.executable, "-m", "forebay", "exec", "--path-mapping", mapping, "--"),
            *(sys.executable, "-W", "ignore", "program.py", bucket.url("k")),
        ],
        cwd=tmp_path,
        env=environment_below(plugged, PYTHONWARNINGS="ignore"),
        capture_output=True,
        text=True,
        check=False,
    )

    expected = [b"plain", b"object", b"plain", b"object"]
    assert done.stdout.splitlines() == [str(expected)] * 2, done.stderr


@pytest.mark.parametrize(
    "file_client", [mmcv.FileClient, MMEngineFileClient], ids=["mmcv", "mmengine"]
)
def test_pickled_file_clients_do_not_become_others(
    plugged: DaemonProcess, file_client: Any
) -> None:
    disk, petrel = file_client("disk"), file_client("petrel")

    again = pickle.loads(pickle.dumps(petrel))  # noqa: S301

    assert type(again.client) is type(petrel.client)
    assert file_client("disk") is disk
    assert type(disk.client) is not type(petrel.client)


# --- a daemon that is not there -----------------------------------------------------------------


def test_plain_files_need_no_daemon(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FOREBAY_ADDRESS", f"unix:{tmp_path}/none.sock")
    (tmp_path / "plain").write_bytes(b"plain")
    program = (
        "import forebay.mmengine as plug; plug.register(local_paths=True)\n"
        "import time\n"
        "from mmengine import fileio\n"
        "began = time.monotonic()\n"
        f"print(fileio.get({str(tmp_path / 'plain')!r}))\n"
        "assert time.monotonic() - began < 50"  # a minute is how long a client waits for its daemon
    )

    done = subprocess.run(  # noqa: S603  # our own program
        [sys.executable, "-W", "ignore", "-c", program],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stdout) == (0, "b'plain'\n"), done.stderr


# --- unusual names -----------------------------------------------------------------------------


def test_keys_that_lead_elsewhere_are_not_copied_to_the_disk(
    plugged: DaemonProcess, bucket: Bucket, tmp_path: Path
) -> None:
    bucket.put("dir/../../escaped", b"x")
    backend = get_file_backend(bucket.url())

    with pytest.raises(forebay.InvalidPathError, match=r"'\.\.' cannot be a file name"):
        backend.copytree_to_local(bucket.url("dir"), tmp_path / "a" / "b")

    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_keys_with_double_slashes_are_copied_as_they_are(
    plugged: DaemonProcess, bucket: Bucket
) -> None:
    bucket.put("dir//x", b"one")
    bucket.put("dir/x", b"two")
    backend = get_file_backend(bucket.url())

    backend.copytree(bucket.url("dir"), bucket.url("copy"))

    forebay.Client().flush()
    assert bucket.get("copy//x") == b"one"
    assert bucket.get("copy/x") == b"two"


def test_other_protocols_are_no_buckets(plugged: DaemonProcess, bucket: Bucket) -> None:
    bucket.put("k", b"x")
    fs = fsspec.filesystem("forebay")

    assert fs.cat(f"s3://{bucket.name}/k") == b"x"
    assert fs.exists(bucket.url("k"))
    with pytest.raises(ValueError, match="another protocol"):
        fs.pipe("gs://bucket/k", b"x")
    with pytest.raises(forebay.InvalidPathError, match="names no bucket"):
        forebay.Client().put("s3://s3://bucket/k", b"x")


# --- fsspec ------------------------------------------------------------------------------------


def test_buckets_are_made_and_are_there_while_empty(
    plugged: DaemonProcess, ceph_client: Any
) -> None:
    fs = fsspec.filesystem("forebay")
    assert not fs.exists("made-by-fsspec")

    fs.mkdir("made-by-fsspec")

    assert fs.isdir("made-by-fsspec")
    assert fs.ls("made-by-fsspec") == []
    assert fs.exists("")
    with pytest.raises(NotImplementedError, match="give bucket/key"):
        fs.ls("")
    ceph_client.delete_bucket(Bucket="made-by-fsspec")


def test_what_others_wrote_is_seen_when_it_is_asked_for(
    plugged: DaemonProcess, bucket: Bucket
) -> None:
    fs = fsspec.filesystem("forebay")
    bucket.put("dir/1", b"1")
    dir_name = f"{bucket.name}/dir"
    assert len(fs.ls(dir_name)) == len(fs.find(dir_name)) == 1
    bucket.put("dir/1", b"four")
    bucket.put("dir/2", b"2")

    assert len(fs.ls(dir_name)) == 1  # within max_age
    assert len(fs.ls(dir_name, refresh=True)) == 2
    assert fs.info(f"{dir_name}/1", refresh=True)["size"] == 4
    bucket.put("dir/3", b"3")
    fs.invalidate_cache()
    assert len(fs.ls(dir_name)) == len(fs.find(dir_name)) == 3


def test_entries_tell_what_s3fs_tells(plugged: DaemonProcess, bucket: Bucket) -> None:
    tag = bucket.put("a/x1", b"x")
    bucket.put("a/y", b"y")
    fs = fsspec.filesystem("forebay")

    info = fs.info(f"{bucket.name}/a/x1")

    assert info["ETag"] == f'"{tag}"'
    assert info["LastModified"] == fs.modified(f"{bucket.name}/a/x1")
    assert fs.find(f"{bucket.name}/a", prefix="x") == [f"{bucket.name}/a/x1"]
    with pytest.raises(IsADirectoryError):
        fs.checksum(f"{bucket.name}/a")


class _Bad:
    def __str__(self) -> str:
        raise RuntimeError("a value that cannot be written")


def test_a_table_that_fails_half_way_is_not_written(plugged: DaemonProcess, bucket: Bucket) -> None:
    table = pd.DataFrame({"a": [*range(300_000), _Bad()]}, dtype=object)

    with pytest.raises(RuntimeError, match="cannot be written"):
        table.to_csv(f"forebay://{bucket.name}/part.csv")

    assert not forebay.Client().exists(bucket.url("part.csv"))


def test_what_a_with_saves_because_of_an_exception_is_saved(
    plugged: DaemonProcess, bucket: Bucket
) -> None:
    fs = fsspec.filesystem("forebay")

    class Rescue:
        def __enter__(self) -> None: ...

        def __exit__(self, *_: object) -> None:
            with fs.open(f"{bucket.name}/rescued", "wb") as file:
                file.write(b"state")

    with pytest.raises(KeyError), Rescue():
        raise KeyError

    assert fs.cat(f"{bucket.name}/rescued") == b"state"


# --- bad input ---------------------------------------------------------------------------------


def test_wrong_arguments_are_named(plugged: DaemonProcess, bucket: Bucket) -> None:
    client = forebay.Client()

    for seconds in (0, -1, 1.5, 10**9):
        with pytest.raises(ValueError, match="expires after 1 to 604800 seconds"):
            client.presign(bucket.url("k"), expires_s=seconds)  # type: ignore[arg-type]
    with pytest.raises(forebay.InvalidPathError, match="a form is for one key"):
        client.presign_form(bucket.url("${filename}"))
    with pytest.raises(ValueError, match="read_ahead must be 1"):
        IterableObjectDataset([bucket.url("k")], read_ahead=0)
