"""Names: ``stat``, ``list``, ``exists``; paths, mappings, odd keys, other origins."""

from __future__ import annotations

import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import pytest

import forebay
from support.serving import serving
from support.sizes import some_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.ceph import Bucket, Ceph
    from support.daemon import DaemonProcess


# --- names ------------------------------------------------------------------------------------


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
        with pytest.raises(forebay.InvalidPathError, match=re.escape(path or "empty")):
            _use(method, path)


def _use(method: Callable[[str], Any], path: str) -> None:
    result = method(path)
    if hasattr(result, "__enter__"):
        with result:
            pass


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
