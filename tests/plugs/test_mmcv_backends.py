"""mmcv 1.x over Forebay: what upstream's ``tests/test_fileclient.py`` and its like promise.

Each test names in its docstring the upstream test whose promises it states.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mmcv
import numpy as np
import pytest
from mmcv.fileio.file_client import HardDiskBackend, LmdbBackend

import forebay
import forebay.mmcv as plug
from support.lmdbs import make_lmdb
from support.spooled import wait_until

if TYPE_CHECKING:
    from support.ceph import Bucket
    from support.daemon import DaemonProcess

pytestmark = pytest.mark.usefixtures("plugged")

PETREL = pytest.mark.parametrize(
    "how",
    [
        {"backend": "petrel"},
        {"backend": "ceph"},
        {"backend": "s3"},
        {"backend": "forebay"},
        {"backend": "aws"},
        {"prefix": "s3"},
    ],
    ids=lambda how: "-".join(*how.items()),
)


def fill(bucket: Bucket) -> None:
    """Make upstream's little tree."""
    for name in ("dir1/text3.txt", "dir2/dir3/text4.txt", "dir2/img.jpg", "text1.txt", "text2.txt"):
        bucket.put(f"tree/{name}", name.encode())


# --- reading and writing: test_petrel_backend, test_aws_backend ----------------------------------


@PETREL
def test_what_is_put_is_read_as_a_memoryview(bucket: Bucket, how: dict[str, str]) -> None:
    """test_petrel_backend, test_aws_backend: put and get."""
    client = mmcv.FileClient(**how)

    client.put(b"bytes", bucket.url("dir/img.jpg"))

    data = client.get(bucket.url("dir/img.jpg"))
    assert isinstance(data, memoryview)
    assert data.tobytes() == b"bytes"


@PETREL
def test_texts_have_an_encoding(bucket: Bucket, how: dict[str, str]) -> None:
    """test_petrel_backend: put_text and get_text."""
    client = mmcv.FileClient(**how)

    client.put_text("é", bucket.url("utf8.txt"))
    client.client.put_text("é", bucket.url("latin.txt"), "latin-1")

    assert client.get_text(bucket.url("utf8.txt")) == "é"
    assert client.get_text(bucket.url("latin.txt"), "latin-1") == "é"
    assert client.get(bucket.url("latin.txt")).tobytes() == b"\xe9"


@PETREL
def test_names_are_known(bucket: Bucket, how: dict[str, str]) -> None:
    """test_petrel_backend: exists, isdir, isfile."""
    fill(bucket)
    client = mmcv.FileClient(**how)

    told = {
        name: (client.exists(url), client.isdir(url), client.isfile(url))
        for name in ("dir1", "dir1/", "text1.txt", "none", "text")
        for url in [bucket.url(f"tree/{name}")]
    }

    assert told == {
        "dir1": (True, True, False),
        "dir1/": (True, True, False),
        "text1.txt": (True, False, True),
        "none": (False, False, False),
        "text": (False, False, False),
    }


@PETREL
def test_removed_objects_are_gone_and_missing_ones_are_no_error(
    bucket: Bucket, how: dict[str, str]
) -> None:
    """test_petrel_backend: remove."""
    bucket.put("k", b"x")
    client = mmcv.FileClient(**how)

    client.remove(bucket.url("k"))
    client.remove(bucket.url("k"))

    assert not client.exists(bucket.url("k"))


@PETREL
def test_missing_object_is_a_file_not_found(bucket: Bucket, how: dict[str, str]) -> None:
    client = mmcv.FileClient(**how)

    with pytest.raises(FileNotFoundError, match="none"):
        client.get(bucket.url("none"))


@PETREL
def test_local_path_has_the_bytes_and_is_gone_afterwards(
    bucket: Bucket, how: dict[str, str]
) -> None:
    """test_petrel_backend: get_local_path."""
    bucket.put("dir/img.jpg", b"bytes")

    with mmcv.FileClient(**how).get_local_path(bucket.url("dir/img.jpg")) as path:
        assert Path(path).read_bytes() == b"bytes"
        assert path.endswith("img.jpg")
    # At once, but a busy daemon is not waited for; it looks for what was left after a minute only.
    wait_until(lambda: not Path(path).exists(), "the end of the local file", longest_s=30)


@PETREL
def test_paths_are_joined(how: dict[str, str]) -> None:
    """test_petrel_backend: join_path."""
    client = mmcv.FileClient(**how)

    assert client.join_path("s3://b/dir", "file") == "s3://b/dir/file"
    assert client.join_path("s3://b/dir/", "file") == "s3://b/dir/file"
    assert client.join_path("s3://b/dir", "dir", "file") == "s3://b/dir/dir/file"


# --- listing: test_list_dir_or_file ------------------------------------------------------------

TOP = {"dir1", "dir2", "text1.txt", "text2.txt"}
ALL = TOP | {"dir1/text3.txt", "dir2/dir3", "dir2/dir3/text4.txt", "dir2/img.jpg"}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, TOP),
        ({"recursive": True}, ALL),
        ({"list_file": False}, {"dir1", "dir2"}),
        ({"list_file": False, "recursive": True}, {"dir1", "dir2", "dir2/dir3"}),
        ({"list_dir": False}, {"text1.txt", "text2.txt"}),
        ({"list_dir": False, "suffix": ".txt"}, {"text1.txt", "text2.txt"}),
        (
            {"list_dir": False, "suffix": (".txt", ".jpg"), "recursive": True},
            {name for name in ALL if "." in name},
        ),
        ({"list_dir": False, "suffix": ".jpg"}, set()),
    ],
)
@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize("backend", ["petrel", "aws"])
def test_listings(
    bucket: Bucket, backend: str, slash: str, arguments: dict[str, Any], expected: set[str]
) -> None:
    """test_list_dir_or_file: folders of ``aws`` end with a slash, those of ``petrel`` do not."""
    fill(bucket)
    client = mmcv.FileClient(backend=backend)

    found = list(client.list_dir_or_file(bucket.url("tree") + slash, **arguments))

    mark = "/" if backend == "aws" else ""
    marked = {name if "." in name else name + mark for name in expected}
    assert sorted(found) == sorted(marked)


def test_arguments_of_listings_are_checked_before_the_first_name(bucket: Bucket) -> None:
    """test_list_dir_or_file: TypeErrors."""
    client = mmcv.FileClient("petrel")

    with pytest.raises(TypeError, match="`list_dir` should be False when `suffix` is not None"):
        client.client.list_dir_or_file(bucket.url(), suffix=".txt")
    with pytest.raises(TypeError, match="`suffix` must be a string or tuple of strings"):
        client.client.list_dir_or_file(bucket.url(), list_dir=False, suffix=[".txt"])


def test_listing_of_nothing_is_empty_and_of_a_bucket_whole(bucket: Bucket) -> None:
    fill(bucket)
    client = mmcv.FileClient("petrel")

    assert list(client.list_dir_or_file(bucket.url("none"))) == []
    assert list(client.list_dir_or_file(f"s3://{bucket.name}")) == ["tree"]


def test_markers_of_folders_are_folders(bucket: Bucket) -> None:
    bucket.put("tree/", b"")
    bucket.put("tree/empty/", b"")
    client = mmcv.FileClient("aws")

    assert list(client.list_dir_or_file(bucket.url("tree"))) == ["empty/"]
    assert list(client.list_dir_or_file(bucket.url("tree"), recursive=True)) == ["empty/"]
    assert not client.isfile(bucket.url("tree/empty/"))


# --- path mapping: test_petrel_backend ----------------------------------------------------------


def test_mapped_paths_are_objects(bucket: Bucket) -> None:
    """test_petrel_backend: path_mapping, of str and Path, with and without "./"."""
    bucket.put("coco/train/1.jpg", b"one")
    client = mmcv.FileClient(
        backend="petrel",
        path_mapping={"./data/coco/": bucket.url("coco/"), "data/coco/": bucket.url("coco/")},
    )

    paths = "data/coco/train/1.jpg", "./data/coco/train/1.jpg", Path("data/coco/train/1.jpg")
    assert [client.get(path).tobytes() for path in paths] == [b"one"] * 3
    assert client.client._map_path(paths[0]) == bucket.url("coco/train/1.jpg")
    assert client.client._map_path("elsewhere/1.jpg") == "elsewhere/1.jpg"


def test_a_mapping_is_used_once_and_at_the_start(bucket: Bucket) -> None:
    """Where upstream replaces in the middle, and again in what it has replaced."""
    bucket.put("data/coco/1.jpg", b"one")
    mapping = {"data/coco": bucket.url("data/coco"), "data": "s3://never"}
    client = mmcv.FileClient(backend="petrel", path_mapping=mapping)

    assert client.get("data/coco/1.jpg").tobytes() == b"one"
    assert client.client._map_path("data/coco2/1.jpg") == "s3://never/coco2/1.jpg"


def test_wrong_mappings_are_refused() -> None:
    """test_petrel_backend: path_mapping must be a dict."""
    with pytest.raises(AssertionError):
        mmcv.FileClient(backend="petrel", path_mapping=1)
    with pytest.raises(forebay.InvalidPathError, match="no URI"):
        mmcv.FileClient(backend="petrel", path_mapping={"data": "elsewhere"})


def test_paths_of_windows_are_formatted(bucket: Bucket) -> None:
    """test_petrel_backend: _format_path."""
    client = mmcv.FileClient("petrel")
    client.put(b"x", bucket.url("dir") + "\\img.jpg")

    assert client.client._format_path("s3://path\\of\\your\\\\file") == "s3://path/of/your/file"
    assert client.get(bucket.url("dir/img.jpg")).tobytes() == b"x"


def test_clusters_are_the_daemons(bucket: Bucket) -> None:
    bucket.put("tree/k", b"x")
    client = mmcv.FileClient("petrel")

    assert client.get(f"cluster:{bucket.url('tree/k')}").tobytes() == b"x"
    assert list(client.list_dir_or_file(f"cluster:{bucket.url('tree')}")) == ["k"]


def test_default_cluster_of_a_configuration_file_is_used(
    plugged: DaemonProcess, bucket: Bucket, tmp_path: Path
) -> None:
    conf = tmp_path / "petreloss.conf"
    conf.write_text("[DEFAULT]\ndefault_cluster = north\n[north]\naccess_key = ignored\n")
    bucket.put("k", b"x")

    client = mmcv.FileClient("petrel", conf_path=str(conf))

    assert client.client._object("s3://b/k") == "north:s3://b/k"
    assert client.client._object("south:s3://b/k") == "south:s3://b/k"
    assert client.get(bucket.url("k")).tobytes() == b"x"


# --- FileClient: test_infer_client, test_register_backend, test_parse_uri_prefix -----------------


def test_clients_are_inferred_and_shared() -> None:
    """test_infer_client."""
    client = mmcv.FileClient.infer_client(uri="s3://bucket/k")

    assert isinstance(client.client, plug.PetrelBackend)
    assert mmcv.FileClient.infer_client(uri="cluster:s3://other/k") is client
    assert isinstance(mmcv.FileClient.infer_client({"backend": "aws"}).client, plug.AWSBackend)
    assert isinstance(mmcv.FileClient.infer_client(uri="a/file").client, HardDiskBackend)
    assert client.allow_symlink is False
    assert client.name == "PetrelBackend"


def test_other_backends_can_still_be_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """test_register_backend."""
    monkeypatch.setattr(mmcv.FileClient, "_backends", dict(mmcv.FileClient._backends))

    class Other(mmcv.BaseStorageBackend):
        def get(self, filepath: str) -> str:
            return filepath

        get_text = get

    mmcv.FileClient.register_backend("other", Other)

    assert mmcv.FileClient("other").get("x") == "x"
    with pytest.raises(KeyError, match="already registered"):
        mmcv.FileClient.register_backend("petrel", Other)


def test_plain_files_are_untouched(tmp_path: Path) -> None:
    """test_disk_backend."""
    client = mmcv.FileClient()

    client.put(b"x", tmp_path / "new" / "file")

    assert client.get(tmp_path / "new" / "file") == b"x"
    assert type(client.client) is HardDiskBackend


# --- functions of mmcv: test_fileio.py, test_image/test_io.py ----------------------------------


@pytest.mark.parametrize("ending", ["json", "pkl", "yaml"])
def test_load_and_dump(bucket: Bucket, ending: str) -> None:
    """test_fileio.py: dump and load."""
    value = {"a": [1, 2], "b": {"c": "d"}}
    url = bucket.url(f"value.{ending}")

    mmcv.dump(value, url)

    assert mmcv.load(url) == value
    assert mmcv.load(url, file_client_args={"backend": "petrel"}) == value


def test_lists_and_dicts_of_lines(bucket: Bucket) -> None:
    """test_fileio.py: list_from_file, dict_from_file."""
    bucket.put("list.txt", b"a\nb\n")
    bucket.put("dict.txt", b"1 cat\n2 dog cow\n")

    assert mmcv.list_from_file(bucket.url("list.txt")) == ["a", "b"]
    assert mmcv.dict_from_file(bucket.url("dict.txt"), key_type=int) == {
        1: "cat",
        2: ["dog", "cow"],
    }


def test_images_are_written_and_read(bucket: Bucket) -> None:
    """test_image/test_io.py: imread and imwrite."""
    image = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)

    assert mmcv.imwrite(image, bucket.url("a.png"))

    assert (mmcv.imread(bucket.url("a.png")) == image).all()
    client_args = {"backend": "aws", "path_mapping": {"data/": bucket.url()}}
    assert (mmcv.imread("data/a.png", file_client_args=client_args) == image).all()


def test_checkpoints_are_saved_and_loaded(bucket: Bucket) -> None:
    """test_runner/test_checkpoint.py: save_checkpoint and load_from_ceph."""
    import torch
    from mmcv.runner import CheckpointLoader, load_checkpoint, save_checkpoint

    model = torch.nn.Linear(2, 3)
    save_checkpoint(model, bucket.url("epoch_1.pth"), meta={"epoch": 1})
    other = torch.nn.Linear(2, 3)

    checkpoint = load_checkpoint(other, bucket.url("epoch_1.pth"))

    assert checkpoint["meta"]["epoch"] == 1
    assert torch.equal(other.weight, model.weight)
    assert "state_dict" in CheckpointLoader.load_checkpoint(f"north:{bucket.url('epoch_1.pth')}")


def test_seed_of_how_to_use_s3(bucket: Bucket) -> None:
    """The tutorial's program."""
    buffer = os.urandom(1000)
    path = bucket.url("demo/img.jpg")
    for client in (
        mmcv.FileClient.infer_client(uri=path),
        mmcv.FileClient(backend="aws"),
        mmcv.FileClient(prefix="s3"),
    ):
        client.put(buffer, path)
        assert client.get(path).tobytes() == buffer
        assert next(client.list_dir_or_file(f"s3://{bucket.name}")).rstrip("/") == "demo"
        client.remove(path)
        assert list(client.list_dir_or_file(f"s3://{bucket.name}")) == []


# --- memcached and LMDB ------------------------------------------------------------------------


def test_memcached_reads_objects_mapped_paths_and_plain_files(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.put("k", b"object")
    (tmp_path / "plain").write_bytes(b"plain")
    monkeypatch.setenv("FOREBAY_PATH_MAPPING", f"data/={bucket.url()}")
    client = mmcv.FileClient("memcached", server_list_cfg="x.conf", client_cfg="y.conf")

    assert client.get(bucket.url("k")).tobytes() == b"object"
    assert client.get("data/k").tobytes() == b"object"
    assert client.get(str(tmp_path / "plain")).tobytes() == b"plain"


def test_lmdb_in_ceph_is_read_by_mmcv(bucket: Bucket, tmp_path: Path) -> None:
    """test_lmdb_backend, and two of them at once."""
    for name in ("one", "two"):
        make_lmdb(tmp_path / name, {f"key-{name}": name.encode()})
        bucket.put(f"{name}.lmdb/data.mdb", (tmp_path / name / "data.mdb").read_bytes())
    clients = [
        mmcv.FileClient("lmdb", db_path=bucket.url("one.lmdb")),
        mmcv.FileClient("lmdb", db_path=bucket.url("two.lmdb/")),
        mmcv.FileClient("lmdb", db_path=str(tmp_path / "one")),
    ]

    assert clients[0].get("key-one") == b"one"
    assert clients[1].get("key-two") == b"two"
    assert clients[2].get("key-one") == b"one"
    assert clients[0].get("none") is None
    assert isinstance(clients[0].client, LmdbBackend)


def test_lmdb_in_ceph_cannot_be_written(bucket: Bucket) -> None:
    client = mmcv.FileClient("lmdb", db_path=bucket.url("x.lmdb"), readonly=False)

    with pytest.raises(ValueError, match="readonly=True"):
        client.get("key")
