"""A daemon in front of files that may be written, and clients of both kinds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import forebay

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from conftest import StartDaemon
    from e2e.conftest import FileOrigin, StartLocal
    from support.daemon import DaemonProcess
    from support.proxy import FaultProxy


PART = 5 << 20


@pytest.fixture
def daemon(start_daemon: StartDaemon, proxy: FaultProxy) -> DaemonProcess:
    """A daemon whose origin can be made to fail, with small parts and little patience."""
    return start_daemon(
        endpoint_url=proxy.url, max_attempts=2, upload_part_bytes=PART, shutdown_grace_s="0.2"
    )


def _origin(prefix: str) -> str:
    return f'[[origin]]\nprefix = "{prefix}"\nwrite_mode = "write_back"\n'


@pytest.fixture
def other_origin(tmp_path: Path) -> Path:
    """A second origin of the same daemon."""
    folder = tmp_path / "other-origin"
    folder.mkdir()
    return folder


@pytest.fixture
def writable(start_local: StartLocal, files: FileOrigin, other_origin: Path) -> DaemonProcess:
    config = _origin(files.url().rstrip("/")) + _origin(other_origin.as_uri())
    return start_local(config=config, max_bytes="600MB")


@pytest.fixture
def shared(writable: DaemonProcess) -> Iterator[forebay.Client]:
    """A client that shares the cache folder."""
    with forebay.Client(writable.address) as client:
        yield client
        assert client.check().problems == ()


@pytest.fixture
def unshared(
    writable: DaemonProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[forebay.Client]:
    """A client that does not: everything goes through gRPC."""
    monkeypatch.setenv("FOREBAY_CACHE_DIR", str(tmp_path / "nowhere"))
    client = forebay.Client(writable.address)
    monkeypatch.delenv("FOREBAY_CACHE_DIR")
    with client:
        assert client._node.folder() is None
        yield client
        assert client.check().problems == ()


@pytest.fixture(params=["shared", "unshared"])
def either(request: pytest.FixtureRequest) -> forebay.Client:
    """A client of each kind in turn."""
    client: forebay.Client = request.getfixturevalue(request.param)
    return client
