"""The origins' contract, run by every origin that needs no service beyond this process."""

from __future__ import annotations

import functools
import http.server
import os
import threading
from typing import TYPE_CHECKING
from urllib.parse import quote

import fsspec
import pytest

from contract.origin_contract import ODD_KEYS, OriginContract, Place
from forebayd.config import OriginConfig
from forebayd.errors import InvalidPathError
from forebayd.origin.build import fallback

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def _file_writer(folder: Path, key: str, data: bytes) -> None:
    path = folder / key
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


class TestMemory(OriginContract):
    @pytest.fixture
    def place(self) -> Iterator[Place]:
        memory = fsspec.filesystem("memory")
        yield Place(OriginConfig("memory://", driver="fsspec"), "memory://top/", memory_put)
        memory.store.clear()
        memory.pseudo_dirs[:] = [""]


def memory_put(key: str, data: bytes) -> None:
    fsspec.filesystem("memory").pipe_file(f"/top/{key}", data)


class TestFile(OriginContract):
    @pytest.fixture
    def place(self, tmp_path: Path) -> Place:
        put = functools.partial(_file_writer, tmp_path)
        return Place(OriginConfig("file://", driver="fsspec"), f"file://{tmp_path}/", put)

    def test_same_size_written_at_once_again_has_another_version(
        self, place: Place, tmp_path: Path
    ) -> None:
        place.put("k", b"old")
        version = place.head("k").version
        path = place.root.removeprefix("file://") + "k"
        # Before Linux 6.13 a file's time is that of the last tick, every 4 ms.
        scratch, written = tmp_path / "scratch", os.stat(path).st_mtime_ns  # noqa: PTH116
        while not scratch.exists() or scratch.stat().st_mtime_ns == written:
            scratch.write_bytes(b"")
        with open(path, "r+b") as file:  # noqa: PTH123  # in place, the same inode
            file.write(b"new")

        assert place.head("k").version != version

    def test_dots_cannot_leave_the_prefix(self, place: Place) -> None:
        with pytest.raises(InvalidPathError, match=r"'\.\.'"):
            place.head("../k")

    def test_links_in_a_circle_end(self, place: Place, tmp_path: Path) -> None:
        place.put("folder/k", b"1")
        (tmp_path / "folder" / "up").symlink_to(tmp_path)

        assert place.names("", recursive=True) == {"folder/k"}


class _Quiet(http.server.SimpleHTTPRequestHandler):
    """A plain file server: no ranges, no ETag, Last-Modified to the second."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass


class TestHttp(OriginContract):
    @pytest.fixture
    def place(self, tmp_path: Path) -> Iterator[Place]:
        handler = functools.partial(_Quiet, directory=str(tmp_path))
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        root = f"http://127.0.0.1:{server.server_port}/"

        def put(key: str, data: bytes) -> None:
            _file_writer(tmp_path, key, data)

        yield Place(OriginConfig("http://", driver="fsspec"), root, put)
        server.shutdown()
        server.server_close()
        thread.join()

    def test_folder_is_no_object(self, place: Place) -> None:
        """Nothing tells a folder's page from an object."""
        place.put("folder/k", b"1")

        assert b"k</a>" in place.get("folder")

    def test_odd_keys_are_read_and_listed(self, place: Place) -> None:
        """A URL is percent-encoded by its nature: "a b" is read, and listed, as "a%20b"."""
        for key in ODD_KEYS:
            place.put(f"odd/{key}", key.encode())

            assert place.get("odd/" + quote(key)) == key.encode()
        assert len(place.names("odd", recursive=True)) == len(ODD_KEYS)


def test_scheme_that_nobody_configured_is_served_by_fsspec() -> None:
    assert fallback("memory://top/k") == OriginConfig("memory://", driver="fsspec")


def test_scheme_that_nobody_knows_is_named() -> None:
    with pytest.raises(InvalidPathError, match="'nonsense'"):
        fallback("nonsense://top/k")
