"""Default places, and how an address is written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from forebay_protos import addresses


def test_socket_is_in_the_runtime_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")

    assert addresses.default_address() == "unix:/run/user/7/forebay/forebay.sock"


@pytest.mark.parametrize(
    ("uid", "socket", "cache"),
    [
        (0, "/run/forebay/forebay.sock", "/var/cache/forebay"),
        (7, "/tmp/forebay-7/forebay.sock", "/home/me/.cache/forebay"),  # noqa: S108  # as promised
    ],
)
def test_places_without_any_variable(
    monkeypatch: pytest.MonkeyPatch, uid: int, socket: str, cache: str
) -> None:
    for name in ("XDG_RUNTIME_DIR", "XDG_CACHE_HOME", "FOREBAY_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setattr(os, "geteuid", lambda: uid)

    assert addresses.default_address() == f"unix:{socket}"
    assert addresses.default_cache_dir() == Path(cache)


def test_cache_folder_of_the_environment_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOREBAY_CACHE_DIR", "/data/cache")

    assert addresses.default_cache_dir() == Path("/data/cache")


@pytest.mark.parametrize("address", ["unix:/run/x.sock", "unix:///run/x.sock"])
def test_unix_addresses(address: str) -> None:
    assert addresses.socket_path(address) == Path("/run/x.sock")


@pytest.mark.parametrize("address", ["localhost:1", "10.0.0.1:65535", "[::1]:70", "node-7:50051"])
def test_tcp_addresses(address: str) -> None:
    assert addresses.socket_path(address) is None


@pytest.mark.parametrize(
    "address", ["", "unix:", "unix:x", "host", "host:", ":70", "host:70000", "host:-1", "host:x"]
)
def test_what_is_no_address_is_told(address: str) -> None:
    with pytest.raises(ValueError, match="address"):
        addresses.socket_path(address)


def test_longest_path_of_a_socket() -> None:
    path = "/" + "x" * 106
    assert addresses.socket_path(f"unix:{path}") == Path(path)
    with pytest.raises(ValueError, match="at most 107 bytes, this one has 108"):
        addresses.socket_path(f"unix:{path}x")


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1:1", True),
        ("127.1.2.3:1", True),
        ("localhost:1", True),
        ("[::1]:1", True),
        ("0.0.0.0:1", False),
        ("127.example.org:1", False),
        ("10.0.0.1:1", False),
        ("[::]:1", False),
    ],
)
def test_loopback(address: str, expected: bool) -> None:
    assert addresses.is_loopback(address) is expected


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a folder somebody else's")
def test_a_default_folder_of_somebody_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    (tmp_path / "forebay").mkdir()
    os.chown(tmp_path / "forebay", 4711, 4711)

    with pytest.raises(ValueError, match=r"belongs to uid 4711: set FOREBAY_ADDRESS"):
        addresses.default_address()
    assert not addresses.is_default(f"unix:{tmp_path}/forebay/forebay.sock")
