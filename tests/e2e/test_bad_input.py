"""What users get wrong is told to them: the right class, what it is about, and what to do."""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import pytest

import forebay
from support import remote_work as work
from support.remote import RemoteClient

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.ceph import Bucket
    from support.daemon import DaemonProcess

    from .conftest import FileOrigin, StartLocal

_LONGEST_KEY = "k" * 1024
_ODD_KEYS = (
    "with space",
    " leading and trailing space ",
    "ümläut/日本語/🎉.jpg",
    "per%cent",
    "per%20cent",
    "per cent",
    "a+b",
    "a%2Bb",
    "a b",
    "double//slash",
    "double/slash",
    "/leading slash",
    "leading slash",
    "//two leading",
    "trailing slash/",
    "trailing slash",
    "dots/../up",
    "up",
    "dots/./here",
    "dots/here",
    "..",
    ".",
    "../outside",
    "./inside",
    "inside",
    "question?mark",
    "question",
    "hash#mark",
    "hash",
    "star*[x]{y}",
    "quote'\"s",
    "back\\slash",
    "new\nline",
    "tab\there",
    "col:on://not-a-scheme",
    "equals=and&amp;",
    "~tilde|pipe^caret`",
    "e\u0301 combining",
    "\u00e9 combining",
)


@pytest.fixture
def local(start_local: StartLocal) -> Iterator[forebay.Client]:
    """A client that needs no S3."""
    with forebay.Client(start_local().address) as connected:
        yield connected


# --- paths ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("", "empty"),
        ("data/a.jpg", "path_mapping"),
        ("/data/a.jpg", "path_mapping"),
        ("s3://", "names no bucket"),
        ("s3:///key", "names no bucket"),
        ("file://relative/path", "file:///"),
        ("s3://bucket/" + "k" * 1025, "1024"),
        ("s3://bucket/" + "ü" * 513, "1024"),
        ("s3://bucket/a\0b", "NUL"),
        ("cluster:file:///a", "cluster"),
    ],
)
def test_path_that_cannot_be_served(local: forebay.Client, path: str, message: str) -> None:
    calls = (
        lambda: local.get(path),
        lambda: local.get(path, 0, 1),
        lambda: local.get_many([path]),
        lambda: local.apply(path, bytes),
        lambda: local.open(path),
        lambda: local.local_path(path).__enter__(),
        lambda: local.stat(path),
        lambda: local.exists(path),
        lambda: local.isfile(path),
        lambda: local.isdir(path),
        lambda: list(local.list(path)),
        lambda: local.pin(path),
        lambda: local.evict(path),
    )
    for call in calls:
        with pytest.raises(forebay.InvalidPathError, match=message) as caught:
            call()
        assert isinstance(caught.value, ValueError)


def test_unknown_scheme_is_named(local: forebay.Client) -> None:
    path = "no-such-scheme://bucket/key"
    calls = (local.get, local.open, local.stat, local.exists, local.isdir)
    for call in calls:
        with pytest.raises(forebay.InvalidPathError, match="no-such-scheme"):
            call(path)
    assert local.warm([path]).failures[0][0] == path


@pytest.mark.parametrize("path", [None, b"s3://bucket/key", 3, ["s3://bucket/key"], 1.5])
def test_what_is_no_path_is_a_type_error(local: forebay.Client, path: Any) -> None:
    calls = (
        lambda: local.get(path),
        lambda: local.get_many([path]),
        lambda: local.apply(path, bytes),
        lambda: local.open(path),
        lambda: local.local_path(path).__enter__(),
        lambda: local.stat(path),
        lambda: local.exists(path),
        lambda: list(local.list(path)),
        lambda: local.pin(path),
    )
    for call in calls:
        with pytest.raises(TypeError):
            call()


def test_paths_of_pathlib_are_paths(start_local: StartLocal, files: FileOrigin) -> None:
    files.put("a.jpg", b"pixels")
    mapping = {"data": files.url().rstrip("/")}
    with forebay.Client(start_local().address, path_mapping=mapping) as client:
        assert client.get(Path("data/a.jpg")) == b"pixels"
        assert client.get(PurePosixPath("./data/a.jpg")) == b"pixels"
        assert client.get_many([Path("data") / "a.jpg"]) == [b"pixels"]
        assert client.stat(Path("data/a.jpg")).size_bytes == 6


def test_missing_things_are_file_not_found_errors(client: forebay.Client, bucket: Bucket) -> None:
    bucket.put("folder/object", b"x")
    for url in (bucket.url("none"), bucket.url("folder"), "s3://no-such-bucket-here/key"):
        for call in (client.get, client.stat, client.open, lambda path: client.get(path, -3)):
            with pytest.raises(forebay.ObjectNotFoundError) as caught:
                call(url)
            assert isinstance(caught.value, FileNotFoundError)
            assert url in str(caught.value) or "no-such-bucket-here" in str(caught.value)
    assert not client.exists(bucket.url("none"))
    assert not client.isfile(bucket.url("folder"))
    assert client.isdir(bucket.url("folder"))


def test_one_bad_path_among_many_is_named_and_the_others_are_filled(
    local: forebay.Client, files: FileOrigin
) -> None:
    good = [files.put(f"{number}", b"good") for number in range(5)]
    with pytest.raises(FileNotFoundError, match="bad-one"):
        local.get_many([*good[:2], files.url("bad-one"), *good[2:], files.url("another")])
    misses = local.stats().misses
    assert local.get_many(good) == [b"good"] * 5
    assert local.stats().misses == misses == 5


@pytest.mark.parametrize("mode", ["r+b", "w+", "rw", "rbt", "b", "q", ""])
def test_mode_that_is_none(local: forebay.Client, mode: str) -> None:
    with pytest.raises(ValueError, match=re.escape(repr(mode))):
        local.open("s3://bucket/key", mode)


@pytest.mark.parametrize("words", [{"encoding": "utf-8"}, {"errors": "ignore"}, {"newline": ""}])
def test_words_for_text_with_a_binary_mode(local: forebay.Client, words: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="'wb' takes no encoding"):
        local.open("s3://bucket/key", "wb", **words)


@pytest.mark.parametrize("encoding", ["utf-16", "UTF-32"])
def test_encoding_that_would_lack_its_mark(local: forebay.Client, encoding: str) -> None:
    with pytest.raises(ValueError, match="begins with a mark"):
        local.open("s3://bucket/key", "w", encoding=encoding)


@pytest.mark.parametrize("path", ["s3://bucket/\udc80", "file:///tmp/\ud800"])
def test_name_that_is_not_unicode(local: forebay.Client, path: str) -> None:
    for call in (local.get, local.stat, local.exists, lambda path: local.put(path, b"")):
        with pytest.raises(forebay.InvalidPathError, match="not Unicode"):
            call(path)


def test_evict_of_nothing_in_particular(local: forebay.Client) -> None:
    with pytest.raises(ValueError, match="everything=True"):
        local.evict()


# --- keys -------------------------------------------------------------------------------------


def test_key_of_1024_bytes_is_read(client: forebay.Client, bucket: Bucket) -> None:
    bucket.put(_LONGEST_KEY, b"long")
    assert client.get(bucket.url(_LONGEST_KEY)) == b"long"
    assert client.get(bucket.url(_LONGEST_KEY), 1, 3) == b"on"
    assert client.stat(bucket.url(_LONGEST_KEY)).cached_bytes == 4
    assert [
        entry.uri for entry in client.list(bucket.url()) if isinstance(entry, forebay.Stat)
    ] == [bucket.url(_LONGEST_KEY)]
    assert client.evict(bucket.url(_LONGEST_KEY)).objects == 1
    with pytest.raises(forebay.InvalidPathError, match="1024"):
        client.get(bucket.url(_LONGEST_KEY + "k"))


def test_keys_that_differ_after_480_bytes_are_not_mixed_up(
    client: forebay.Client, bucket: Bucket
) -> None:
    keys = [f"{'k' * 600}/{number}" for number in range(5)]
    for key in keys:
        bucket.put(key, key.encode())
    paths = [bucket.url(key) for key in keys]
    assert client.get_many(paths) == [key.encode() for key in keys]
    assert client.evict(paths[2]).objects == 1
    assert [client.stat(path).cached_bytes for path in paths] == [602, 602, 0, 602, 602]
    assert client.evict(bucket.url("k" * 600)).objects == 4


def test_odd_keys_are_read_and_do_not_collide(client: forebay.Client, bucket: Bucket) -> None:
    contents = {key: f"bytes of {key!r}".encode() for key in _ODD_KEYS}
    for key, data in contents.items():
        bucket.put(key, data)
    assert sorted(bucket.keys()) == sorted(_ODD_KEYS), "the origin itself keeps them apart"

    for _ in range(2):  # misses, then hits
        for key, data in contents.items():
            assert client.get(bucket.url(key)) == data, key
    stats = client.stats()
    assert (stats.misses, stats.hits) == (len(contents), len(contents))

    for key, data in contents.items():
        assert client.stat(bucket.url(key)).size_bytes == len(data), key
        assert client.apply(bucket.url(key), bytes) == data, key
        with client.open(bucket.url(key)) as file:
            assert file.read() == data, key
    listed = [entry.uri for entry in client.list(bucket.url(), recursive=True)]  # type: ignore[union-attr]  # objects only
    assert sorted(listed) == sorted(bucket.url(key) for key in _ODD_KEYS)


@pytest.mark.parametrize("driver", ["s3fs"])
def test_odd_keys_through_another_driver(start_daemon: Any, bucket: Bucket, driver: str) -> None:
    contents = {key: f"bytes of {key!r}".encode() for key in _ODD_KEYS}
    for key, data in contents.items():
        bucket.put(key, data)
    daemon = start_daemon(driver=driver)
    with forebay.Client(daemon.address) as client:
        for key, data in contents.items():
            assert client.get(bucket.url(key)) == data, key


def test_odd_keys_below_a_mapped_prefix(daemon: DaemonProcess, bucket: Bucket) -> None:
    """A local path is normalised, a URI is not."""
    for key in ("x/with space%20+ü", "x/y", "x//y", "y"):
        bucket.put(key, key.encode())
    with forebay.Client(daemon.address, path_mapping={"data": bucket.url().rstrip("/")}) as client:
        assert client.get("data/x/with space%20+ü") == "x/with space%20+ü".encode()
        assert client.get("data/x//y") == b"x/y"
        assert client.get("data/x/../y") == b"y"
        assert client.get(bucket.url("x//y")) == b"x//y"


# --- ranges -----------------------------------------------------------------------------------

_SLICES = [
    (None, None),
    (0, 0),
    (0, 1),
    (3, 7),
    (9, 10),
    (10, 11),
    (9, 99),
    (99, 100),
    (5, 2),
    (-1, None),
    (-3, -1),
    (-99, 3),
    (-99, -98),
    (0, -99),
    (None, -2),
    (2, None),
    (99, None),
    (0, 2**63),
    (2**63, 2**64),
    (2**64, 2**65),
    (-(2**64), 2**64),
]


@pytest.mark.parametrize("packing_limit_bytes", [1, 1 << 20])
def test_ranges_are_those_of_a_python_slice(
    start_local: StartLocal, files: FileOrigin, packing_limit_bytes: int
) -> None:
    data = b"0123456789"
    daemon = start_local(packing_limit_bytes=packing_limit_bytes)
    with forebay.Client(daemon.address) as client:
        for number, (start, end) in enumerate(_SLICES):
            cold = files.put(f"{number}", data)
            assert client.get(cold, start, end) == data[start:end], ("a miss", start, end)
            assert client.get(cold, start, end) == data[start:end], ("a hit", start, end)
            assert client.get(cold) == data
        empty = files.put("empty", b"")
        for _ in range(2):
            assert [client.get(empty, start, end) for start, end in _SLICES] == (
                [b""] * len(_SLICES)
            )


def test_ranges_of_a_client_without_the_folder(
    start_local: StartLocal, files: FileOrigin, tmp_path: Path
) -> None:
    data = b"0123456789"
    daemon = start_local()
    environment = {"FOREBAY_CACHE_DIR": str(tmp_path / "not here")}
    with RemoteClient(daemon.address, env=environment) as client:
        for number, (start, end) in enumerate(_SLICES):
            path = files.put(f"{number}", data)
            assert client.do(work.get, path, start, end) == data[start:end], ("cold", start, end)
            assert client.do(work.get, path, start, end) == data[start:end], ("warm", start, end)


@pytest.mark.parametrize("bounds", [("1", 2), (1.0, 2), (0, b"3"), ([], None)])
def test_range_of_no_numbers_is_a_type_error(
    local: forebay.Client, files: FileOrigin, bounds: tuple[Any, Any]
) -> None:
    path = files.put("a", b"0123456789")
    for _ in range(2):
        with pytest.raises(TypeError):
            local.get(path, *bounds)
        assert local.get(path) == b"0123456789"


# --- settings ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mapping", "error", "message"),
    [
        ({"data": "nowhere"}, ValueError, "'data'.*nowhere"),
        ({"data": "s3://"}, ValueError, "'data'.*bucket"),
        ({"data": ""}, ValueError, "'data'"),
        ({"": "s3://bucket"}, ValueError, "empty"),
        ({"data": None}, TypeError, "None"),
        ({1: "s3://bucket"}, TypeError, "int"),
        ([("data", "s3://bucket")], TypeError, "path_mapping"),
        ("data=s3://bucket", TypeError, "path_mapping"),
    ],
)
def test_wrong_mapping_is_refused_at_once(
    mapping: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        forebay.Client("unix:/nobody.sock", path_mapping=mapping)


@pytest.mark.parametrize(
    "text", ["data", "data=", "=s3://bucket", "{", '{"data": 3}', '{"data": "nowhere"}', "a=b"]
)
def test_wrong_mapping_in_the_environment_is_refused(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("FOREBAY_PATH_MAPPING", text)
    with pytest.raises(forebay.InvalidPathError, match=r"(?i)path_mapping"):
        forebay.Client("unix:/nobody.sock")


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("nonsense", "unix:/path/to.sock"),
        ("unix:relative.sock", "absolute"),
        ("http://localhost:80", "host:port"),
        ("localhost:99999", "host:port"),
        ("localhost:", "host:port"),
        (":7000", "host:port"),
        ("unix:/" + "x" * 107, "107"),
    ],
)
def test_wrong_address_is_refused_at_once(
    monkeypatch: pytest.MonkeyPatch, address: str, message: str
) -> None:
    with pytest.raises(forebay.InvalidPathError, match=message):
        forebay.Client(address)
    monkeypatch.setenv("FOREBAY_ADDRESS", address)
    with pytest.raises(forebay.InvalidPathError, match=rf"FOREBAY_ADDRESS.*{message}"):
        forebay.Client()


def test_longest_address_works(
    start_local: StartLocal, files: FileOrigin, shared_dir: Path
) -> None:
    name = "s" * (107 - len(os.fsencode(shared_dir)) - 1)
    daemon = start_local(address=f"unix:{shared_dir}/{name}")
    with forebay.Client(daemon.address) as client:
        assert client.get(files.put("a", b"bytes")) == b"bytes"


@pytest.mark.parametrize("timeout_s", [0, -1, float("nan")])
def test_timeout_that_is_none_is_refused_at_once(timeout_s: float) -> None:
    with pytest.raises(ValueError, match="timeout_s must be more than 0"):
        forebay.Client("unix:/nobody.sock", timeout_s=timeout_s)


@pytest.mark.parametrize("timeout_s", ["5", None, [5]])
def test_timeout_that_is_no_number_is_a_type_error(timeout_s: Any) -> None:
    with pytest.raises(TypeError):
        forebay.Client("unix:/nobody.sock", timeout_s=timeout_s)


def test_client_may_wait_for_ever(start_local: StartLocal, files: FileOrigin) -> None:
    with forebay.Client(start_local().address, timeout_s=float("inf")) as client:
        assert client.get(files.put("a", b"bytes")) == b"bytes"
        assert client.get_many([files.put(f"{number}", b"x") for number in range(3)]) == [b"x"] * 3
        assert client.stats().misses == 4


def test_daemon_refuses_what_a_client_of_another_make_sends(
    start_local: StartLocal, files: FileOrigin
) -> None:
    """Whatever comes over the wire, an answer with its kind of error, and the daemon lives."""
    import grpc

    from forebay_protos import cache_pb2, cache_pb2_grpc

    daemon = start_local()
    good = files.put("a", b"bytes")
    options = (("grpc.use_local_subchannel_pool", 1),)
    with grpc.insecure_channel(daemon.address, options=options) as channel:
        stub = cache_pb2_grpc.CacheStub(channel)
        for uri in (
            "",
            "x",
            "s3://",
            "no-such-scheme://x",
            "file://a",
            "s3://b/" + "k" * 2000,
        ):
            with pytest.raises(grpc.RpcError) as caught:
                stub.Stat(cache_pb2.StatRequest(uri=uri), timeout=30)
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT, uri
            for message in stub.Fill(cache_pb2.FillRequest(ranges=[{"uri": uri}]), timeout=30):
                assert message.filled[0].error.kind == cache_pb2.INVALID_PATH, uri
        backwards = cache_pb2.Range(uri=good, start=4, end=2)
        (reply,) = stub.Fill(cache_pb2.FillRequest(ranges=[backwards], inline=True), timeout=30)
        assert reply.filled[0].data == b""
        assert (
            b"".join(
                piece.data
                for piece in stub.Read(cache_pb2.ReadRequest(range=backwards), timeout=30)
            )
            == b""
        )
        for lease in ("", "..", "../..", "/etc", "leases/../segments", "leases/none"):
            stub.Release(cache_pb2.ReleaseRequest(lease=lease), timeout=30)
    assert (daemon.cache_dir / "segments").is_dir()
    with forebay.Client(daemon.address) as client:
        assert client.get(good) == b"bytes"
