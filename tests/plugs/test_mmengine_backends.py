"""mmengine over Forebay: what upstream's ``tests/test_fileio`` promises.

Each test names in its docstring the upstream test whose promises it states.
"""

from __future__ import annotations

import os
import shutil
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from mmengine import fileio
from mmengine.fileio import FileClient, LocalBackend, get_file_backend

import forebay
import forebay.mmengine as plug
from forebay_protos import layout
from support.lmdbs import make_lmdb
from support.spooled import wait_until

if TYPE_CHECKING:
    from support.ceph import Bucket
    from support.daemon import DaemonProcess

pytestmark = pytest.mark.usefixtures("plugged")

NAMES = ("petrel", "s3", "forebay", "aws")


@pytest.fixture
def local_tree(tmp_path: Path) -> Path:
    """Upstream's little tree."""
    tree = tmp_path / "tree"
    for name in ("img.jpg", "text1.txt", "dir1/text3.txt", "dir2/dir3/text4.txt", "dir2/img.jpg"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes(name.encode())
    return tree


# --- reading and writing: test_petrel_backend.py ------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_what_is_put_is_read_as_bytes(bucket: Bucket, name: str) -> None:
    """test_put, test_get, test_put_text, test_get_text."""
    backend = get_file_backend(backend_args={"backend": name})

    backend.put(b"bytes", bucket.url("a"))
    backend.put_text("é", bucket.url("b"))

    assert backend.get(bucket.url("a")) == b"bytes"
    assert type(backend.get(bucket.url("a"))) is bytes
    assert backend.get_text(bucket.url("b")) == "é"
    assert backend.get_text(bucket.url("b"), encoding="latin-1") == "\u00c3\u00a9"


@pytest.mark.parametrize("scheme", ["s3", "petrel", "cluster:s3", "cluster:petrel"])
def test_prefixes_of_uris_choose_the_backend(bucket: Bucket, scheme: str) -> None:
    """test_fileio/test_io.py: get_file_backend; test_replace_prefix."""
    bucket.put("k", b"x")
    uri = f"{scheme}://{bucket.name}/k"

    assert isinstance(get_file_backend(uri), plug.PetrelBackend)
    assert fileio.get(uri) == b"x"
    assert FileClient.infer_client(uri=uri).get(uri) == b"x"


def test_names_are_known(bucket: Bucket, local_tree: Path) -> None:
    """test_exists, test_isdir, test_isfile."""
    fileio.copytree_from_local(local_tree, bucket.url("tree"))
    told = {
        name: (fileio.exists(uri), fileio.isdir(uri), fileio.isfile(uri))
        for name in ("dir1", "img.jpg", "none")
        for uri in [bucket.url(f"tree/{name}")]
    }

    assert told == {
        "dir1": (True, True, False),
        "img.jpg": (True, False, True),
        "none": (False, False, False),
    }


def test_paths_are_joined() -> None:
    """test_join_path."""
    assert fileio.join_path("s3://b/dir", "file") == "s3://b/dir/file"
    assert fileio.join_path("petrel://b/dir/", "/dir", "file") == "petrel://b/dir/dir/file"


def test_local_path_is_gone_afterwards(bucket: Bucket) -> None:
    """test_get_local_path."""
    fileio.put(b"x", bucket.url("k"))

    with fileio.get_local_path(bucket.url("k")) as path:
        assert Path(path).read_bytes() == b"x"
    # At once, but a busy daemon is not waited for; it looks for what was left after a minute only.
    wait_until(lambda: not Path(path).exists(), "the end of the local file", longest_s=30)


def test_missing_objects_are_not_found(bucket: Bucket) -> None:
    with pytest.raises(FileNotFoundError):
        fileio.get(bucket.url("none"))


# --- copying ---------------------------------------------------------------------------------


def test_files_are_copied(bucket: Bucket) -> None:
    """test_copyfile: to a name, into a folder, over another, onto itself."""
    fileio.put(b"x", bucket.url("a"))
    fileio.put(b"y", bucket.url("dir/other"))

    assert fileio.copyfile(bucket.url("a"), bucket.url("b")) == bucket.url("b")
    assert fileio.copyfile(bucket.url("a"), bucket.url("dir")) == bucket.url("dir/a")
    assert fileio.copyfile(bucket.url("a"), bucket.url("dir/other")) == bucket.url("dir/other")

    assert [fileio.get(bucket.url(k)) for k in ("b", "dir/a", "dir/other")] == [b"x"] * 3
    with pytest.raises(shutil.SameFileError):
        fileio.copyfile(bucket.url("a"), bucket.url("a"))


def test_trees_are_copied(bucket: Bucket, local_tree: Path, tmp_path: Path) -> None:
    """test_copytree, test_copytree_from_local, test_copytree_to_local."""
    assert fileio.copytree_from_local(local_tree, bucket.url("tree")) == bucket.url("tree")
    assert fileio.copytree(bucket.url("tree"), bucket.url("copy")) == bucket.url("copy")
    get_file_backend(bucket.url()).copytree_to_local(bucket.url("copy"), tmp_path / "back")

    for file in local_tree.rglob("*.*"):
        name = file.relative_to(local_tree)
        assert (tmp_path / "back" / name).read_bytes() == file.read_bytes()
    assert len(list((tmp_path / "back").rglob("*.*"))) == 5
    with pytest.raises(FileExistsError):
        fileio.copytree(bucket.url("tree"), bucket.url("copy"))
    with pytest.raises(FileExistsError):
        fileio.copytree_from_local(local_tree, bucket.url("copy"))


def test_files_come_from_and_go_to_the_disk(bucket: Bucket, tmp_path: Path) -> None:
    """test_copyfile_from_local, test_copyfile_to_local."""
    local = tmp_path / "img.jpg"
    local.write_bytes(b"x")
    fileio.put(b"y", bucket.url("dir/other"))

    assert fileio.copyfile_from_local(local, bucket.url("a")) == bucket.url("a")
    assert fileio.copyfile_from_local(local, bucket.url("dir")) == bucket.url("dir/img.jpg")
    args = {"backend": "petrel"}  # since mmengine takes the target's backend otherwise
    to_file = fileio.copyfile_to_local(bucket.url("a"), tmp_path / "b.jpg", args)
    to_folder = fileio.copyfile_to_local(bucket.url("dir/img.jpg"), str(tmp_path), args)

    assert to_file == tmp_path / "b.jpg"
    assert to_folder == str(tmp_path / "img.jpg")
    assert Path(to_file).read_bytes() == Path(to_folder).read_bytes() == b"x"


def test_links_are_copies(bucket: Bucket, local_tree: Path) -> None:
    """test_copy_if_symlink_fails."""
    fileio.copytree_from_local(local_tree, bucket.url("tree"))

    assert fileio.copy_if_symlink_fails(bucket.url("tree/img.jpg"), bucket.url("a.jpg")) is False
    assert fileio.copy_if_symlink_fails(bucket.url("tree/dir1"), bucket.url("dir9")) is False

    assert fileio.get(bucket.url("a.jpg")) == b"img.jpg"
    assert fileio.get(bucket.url("dir9/text3.txt")) == b"dir1/text3.txt"


# --- removing ----------------------------------------------------------------------------------


def test_objects_are_removed(bucket: Bucket, local_tree: Path) -> None:
    """test_remove."""
    fileio.copytree_from_local(local_tree, bucket.url("tree"))

    fileio.remove(bucket.url("tree/img.jpg"))

    assert not fileio.exists(bucket.url("tree/img.jpg"))
    with pytest.raises(FileNotFoundError):
        fileio.remove(bucket.url("tree/img.jpg"))
    with pytest.raises(IsADirectoryError):
        fileio.remove(bucket.url("tree/dir1"))


def test_trees_are_removed(bucket: Bucket, local_tree: Path) -> None:
    """test_rmtree: gone at once, and in the origin in the end."""
    fileio.copytree_from_local(local_tree, bucket.url("tree"))
    fileio.put(b"x", bucket.url("tree2"))

    fileio.rmtree(bucket.url("tree"))

    assert not fileio.exists(bucket.url("tree"))
    assert not fileio.isdir(bucket.url("tree/dir2"))
    forebay.Client().flush()
    assert bucket.keys() == ["tree2"]


# --- listing ---------------------------------------------------------------------------------

TOP = {"dir1", "dir2", "img.jpg", "text1.txt"}
ALL = TOP | {"dir1/text3.txt", "dir2/dir3", "dir2/dir3/text4.txt", "dir2/img.jpg"}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, TOP),
        ({"recursive": True}, ALL),
        ({"list_dir": False}, {"img.jpg", "text1.txt"}),
        ({"list_dir": False, "recursive": True}, {name for name in ALL if "." in name}),
        ({"list_file": False}, {"dir1", "dir2"}),
        ({"list_file": False, "recursive": True}, {"dir1", "dir2", "dir2/dir3"}),
        ({"list_dir": False, "suffix": ".txt"}, {"text1.txt"}),
        (
            {"list_dir": False, "suffix": (".txt", ".jpg"), "recursive": True},
            {name for name in ALL if "." in name},
        ),
    ],
)
def test_listings(
    bucket: Bucket, local_tree: Path, arguments: dict[str, Any], expected: set[str]
) -> None:
    """test_list_dir_or_file, right after the tree was written."""
    fileio.copytree_from_local(local_tree, bucket.url("tree"))

    found = list(fileio.list_dir_or_file(bucket.url("tree"), **arguments))

    assert sorted(found) == sorted(expected)


def test_arguments_of_listings_are_checked_before_the_first_name(bucket: Bucket) -> None:
    backend = get_file_backend(bucket.url())

    with pytest.raises(TypeError, match="`list_dir` should be False when `suffix` is not None"):
        backend.list_dir_or_file(bucket.url(), suffix=".txt")
    with pytest.raises(TypeError, match="`suffix` must be a string or tuple of strings"):
        backend.list_dir_or_file(bucket.url(), list_dir=False, suffix=[".txt"])


# --- the rest ----------------------------------------------------------------------------------


def test_presigned_urls_work_without_keys(bucket: Bucket) -> None:
    """test_generate_presigned_url."""
    fileio.put(b"x", bucket.url("k"))
    forebay.Client().flush()

    url = fileio.generate_presigned_url(bucket.url("k"))

    with urllib.request.urlopen(url) as reply:  # Ceph's
        assert reply.read() == b"x"


def test_mapped_paths_are_objects(bucket: Bucket) -> None:
    """test_map_path, test_format_path."""
    bucket.put("coco/1.jpg", b"one")
    arguments = {"backend": "petrel", "path_mapping": {"data/coco/": bucket.url("coco/")}}

    assert fileio.get("data/coco/1.jpg", backend_args=arguments) == b"one"
    assert fileio.get(Path("data/coco/1.jpg"), backend_args=arguments) == b"one"
    assert fileio.get("data\\coco\\1.jpg", backend_args=arguments) == b"one"
    with pytest.raises(AssertionError):
        get_file_backend(backend_args={"backend": "petrel", "path_mapping": 1})


def test_targets_of_mappings_may_be_of_petrel(bucket: Bucket) -> None:
    bucket.put("coco/1.jpg", b"one")
    mapping = {"data/coco/": f"petrel://{bucket.name}/coco/"}
    backend = get_file_backend(backend_args={"backend": "petrel", "path_mapping": mapping})

    assert backend.get("data/coco/1.jpg") == b"one"


@pytest.mark.parametrize("ending", ["json", "pkl", "yaml"])
def test_load_and_dump(bucket: Bucket, ending: str) -> None:
    """test_fileio.py."""
    fileio.dump({"a": [1, 2]}, bucket.url(f"value.{ending}"))

    assert fileio.load(bucket.url(f"value.{ending}")) == {"a": [1, 2]}


def test_plain_files_are_untouched(tmp_path: Path) -> None:
    fileio.put(b"x", tmp_path / "new" / "file")

    assert (tmp_path / "new" / "file").read_bytes() == b"x"
    assert type(get_file_backend(str(tmp_path))) is LocalBackend


def test_memcached_reads_objects_and_plain_files(bucket: Bucket, tmp_path: Path) -> None:
    """test_memcached_backend.py."""
    bucket.put("k", b"object")
    (tmp_path / "plain").write_bytes(b"plain")
    backend = get_file_backend(
        backend_args={"backend": "memcached", "server_list_cfg": "x", "client_cfg": "y"}
    )

    assert backend.get(bucket.url("k")) == b"object"
    assert backend.get(tmp_path / "plain") == b"plain"


def test_lmdb_in_ceph_is_read(bucket: Bucket, tmp_path: Path) -> None:
    """test_lmdb_backend.py."""
    make_lmdb(tmp_path / "lmdb", {"key": b"value"})
    bucket.put("data.lmdb/data.mdb", (tmp_path / "lmdb" / "data.mdb").read_bytes())

    for path in (bucket.url("data.lmdb"), str(tmp_path / "lmdb")):
        backend = get_file_backend(backend_args={"backend": "lmdb", "db_path": path})
        assert backend.get("key") == b"value"


def test_lmdb_is_kept_only_while_it_is_used(
    plugged: DaemonProcess, bucket: Bucket, tmp_path: Path
) -> None:
    make_lmdb(tmp_path / "lmdb", {"key": os.urandom(100)})
    bucket.put("data.lmdb/data.mdb", (tmp_path / "lmdb" / "data.mdb").read_bytes())
    args = {"backend": "lmdb", "db_path": bucket.url("data.lmdb")}
    backend = get_file_backend(backend_args=args)
    folder = plugged.cache_dir / layout.LEASES
    others = {path.name for path in folder.iterdir()}  # of a program that ended, for a minute
    backend.get("key")
    (lease,) = {path.name for path in folder.iterdir()} - others

    forebay.Client().evict(bucket.url("data.lmdb"))
    assert len(backend.get("key")) == 100
    assert (folder / lease).exists()

    del backend
    wait_until(lambda: not (folder / lease).exists(), "the end of the lease", longest_s=30)
