"""Some files as the origin, a daemon for each module, and a shell with the command ``forebay``."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import forebay
from support.serving import serving
from support.shell import Shell, Store
from support.some_files import FILES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.daemon import DaemonProcess


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("origin")
    for name, data in FILES.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    return folder


@pytest.fixture(scope="module")
def shared_daemon() -> Iterator[DaemonProcess]:
    with serving() as running:
        yield running


@pytest.fixture
def daemon(shared_daemon: DaemonProcess) -> DaemonProcess:
    """A daemon with nothing cached or pinned."""
    with forebay.Client(shared_daemon.address) as client:
        for prefix in client.stats().raw["pinned_prefixes"]:
            client.unpin(prefix)
        client.evict(everything=True)
    return shared_daemon


@pytest.fixture
def shell(daemon: DaemonProcess) -> Shell:
    return Shell(FOREBAY_ADDRESS=daemon.address)


@pytest.fixture
def uri(origin: Path) -> str:
    return origin.as_uri()


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[DaemonProcess, Path]]:
    folder = tmp_path_factory.mktemp("stores")
    with serving(config=f'[[origin]]\nprefix = "{folder.as_uri()}"\n') as running:
        yield running, folder


@pytest.fixture
def store(stores: tuple[DaemonProcess, Path]) -> Store:
    daemon, folder = stores
    return Store(
        Shell(FOREBAY_ADDRESS=daemon.address), Path(tempfile.mkdtemp(prefix="store-", dir=folder))
    )
