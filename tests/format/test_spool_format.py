"""Fixed bytes of the spool's files, which a later daemon must read, and what becomes of bad ones.

A change that makes one of these fail needs another ``layout.FORMAT_VERSION``.
"""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING

import pytest

import forebay
from forebay_protos import layout, spool
from support.serving import serving

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PUT = spool.Trailer(spool.PUT, "s3://bucket/ü", 5, operation="0123456789abcdef" * 2)
PUT_TEXT = (
    '{"base_bytes": 0, "base_version": "", "kind": "put", "mode": "", '
    '"operation": "0123456789abcdef0123456789abcdef", "size_bytes": 5, "target": "", '
    '"uri": "s3://bucket/\\u00fc"}'
)
# Length and crc32 of the text, little-endian, then the magic.
PUT_FOOT = "ad00000077403caa" + b"FBYspool".hex()


def test_a_trailer_has_these_bytes() -> None:
    data = PUT.to_bytes()

    assert layout.FORMAT_VERSION == 1
    assert data[:-16].decode() == PUT_TEXT
    assert data[-16:].hex() == PUT_FOOT


def test_a_trailer_of_every_word_has_these_bytes() -> None:
    trailer = spool.Trailer(
        spool.APPEND,
        "s3://b/k",
        7,
        mode="write_through",
        target="s3://b/t",
        base_version="etag",
        base_bytes=3,
        operation="f" * 32,
    )

    assert layout.FORMAT_VERSION == 1
    assert json.loads(trailer.to_bytes()[:-16]) == {
        "kind": "append",
        "uri": "s3://b/k",
        "size_bytes": 7,
        "mode": "write_through",
        "target": "s3://b/t",
        "base_version": "etag",
        "base_bytes": 3,
        "operation": "f" * 32,
    }
    assert trailer.to_bytes()[-12:-8].hex() == "822d25e8"


def test_words_of_the_journal() -> None:
    assert layout.FORMAT_VERSION == 1
    assert spool.KINDS == ("put", "create", "append", "remove", "remove_tree", "copy", "move")
    assert spool.MODES == ("", "write_back", "write_through")
    assert (layout.SPOOL, layout.STAGING, layout.COMMIT_SOCKET) == (
        "spool",
        "spool/staging",
        "spool/commit",
    )


def test_messages_of_the_commit_socket_are_framed_so() -> None:
    assert spool.framed(b"body").hex() == "04000000" + b"body".hex()
    assert spool.unframed(spool.framed(b"body")) == b"body"
    assert spool.unframed(spool.framed(b"body")[:-1]) is None


def _file(tmp_path: Path, data: bytes) -> int:
    path = tmp_path / "file"
    path.write_bytes(data)
    return os.open(path, os.O_RDONLY)


def test_a_file_is_its_bytes_then_the_trailer(tmp_path: Path) -> None:
    fd = _file(tmp_path, b"12345" + PUT_TEXT.encode() + bytes.fromhex(PUT_FOOT))

    assert spool.read_trailer(fd) == PUT
    os.close(fd)


WHOLE = b"12345" + PUT.to_bytes()


def whole(kind: str, uri: str, mode: str = "") -> bytes:
    return b"12345" + spool.Trailer(kind, uri, 5, mode, operation="0" * 32).to_bytes()


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "cut in the foot": lambda data: data[:-1],
    "cut in the text": lambda data: data[:60],
    "longer": lambda data: data + b"\0",
    "zeros at the end, as after a power loss": lambda data: data[:-100] + bytes(100),
    "all zeros": lambda data: bytes(len(data)),
    "a byte is missing before the trailer": lambda data: data[1:],
    "a byte too many before the trailer": lambda data: b"0" + data,
    "a bit of the text": lambda data: data[:40] + bytes([data[40] ^ 1]) + data[41:],
    "a bit of the length": lambda data: data[:-16] + bytes([data[-16] ^ 1]) + data[-15:],
    "a bit of the crc": lambda data: data[:-12] + bytes([data[-12] ^ 1]) + data[-11:],
    "a bit of the magic": lambda data: data[:-1] + bytes([data[-1] ^ 1]),
    "another kind": lambda _: whole("rename", "s3://b/k"),
    "another mode": lambda _: whole("put", "s3://b/k", "fast"),
    "no URI": lambda _: whole("put", ""),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_trailer_is_refused(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    fd = _file(tmp_path, damage(WHOLE))

    with pytest.raises(ValueError, match=r"."):
        spool.read_trailer(fd)
    os.close(fd)


def test_a_damaged_write_is_listed_and_blocks_removes_until_somebody_decides(
    tmp_path: Path,
) -> None:
    origin = tmp_path / "origin"
    origin.mkdir()
    (origin / "old").write_bytes(b"old")
    config = f'[[origin]]\nprefix = "file://{origin}"\n'
    with serving(config=config) as daemon:
        folder = daemon.cache_dir / layout.SPOOL
        daemon.stop()
        damaged = [folder / f"00000001-{number:012d}" for number in range(len(DAMAGES))]
        for path, damage in zip(damaged, DAMAGES.values(), strict=True):
            path.write_bytes(damage(WHOLE))
        good = spool.Trailer(spool.PUT, f"file://{origin}/good", 5)
        (folder / "00000001-000000000999").write_bytes(b"right" + good.to_bytes())

        daemon.start()

        with forebay.Client(daemon.address) as client:
            client.remove(f"file://{origin}/old")
            client.flush(f"file://{origin}/good")
            assert (origin / "good").read_bytes() == b"right"
            with pytest.raises(forebay.UploadFailedError, match="damaged"):
                client.flush()
            # One of them may have been what was saved before the old one was removed.
            assert (origin / "old").exists()
            stats = client.stats().raw["spool"]
            assert (stats["damaged"], stats["overdue"]) == (len(DAMAGES), True)
            assert len(re.findall("a spooled write is damaged", daemon.log)) == len(DAMAGES)

            daemon.restart()  # they stay, and stay loud

            listed = [upload for upload in client.uploads() if upload.kind == "damaged"]
            assert [upload.path for upload in listed] == [path.as_uri() for path in damaged]
            assert all(upload.state == "failed" and upload.last_error for upload in listed)
            assert [path.read_bytes() for path in damaged] == [
                damage(WHOLE) for damage in DAMAGES.values()
            ]
            client.settle_uploads([upload.id for upload in listed], discard=True)
            client.flush()
            assert not (origin / "old").exists()
            assert not any(path.exists() for path in damaged)
            assert not client.stats().raw["spool"]["overdue"]
