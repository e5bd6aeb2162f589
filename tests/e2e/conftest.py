"""Daemons in front of a folder of files: what needs no S3 is tested everywhere."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pytest

from support import ports
from support.daemon import DaemonProcess

if TYPE_CHECKING:
    from collections.abc import Iterator


class FileOrigin:
    """A folder whose files are the objects of ``file://`` URIs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def url(self, key: str = "") -> str:
        return f"file://{self.folder}/{key}"

    def put(self, key: str, data: bytes) -> str:
        """Store an object; returns its URL."""
        path = self.folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = self.folder / ".new"
        scratch.write_bytes(data)
        # Not the time of the kernel's last tick: within 4 ms the version would be the same.
        now = time.time_ns()
        os.utime(scratch, ns=(now, now))
        scratch.rename(path)
        return self.url(key)


class StartLocal(Protocol):
    """Starts daemons in front of files; each is killed at the end of the test."""

    def __call__(
        self,
        *,
        cache_dir: Path | None = None,
        address: str | None = None,
        tcp: str | None = None,
        max_bytes: int | str = "256MB",
        config: str | None = None,
        env: dict[str, str] | None = None,
        prefix: tuple[str, ...] = (),
        wait: bool = True,
        **settings: object,
    ) -> DaemonProcess: ...


@pytest.fixture
def shared_dir() -> Iterator[Path]:
    """A folder that other users may pass through; pytest's own they may not."""
    with tempfile.TemporaryDirectory(prefix="fb-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


@pytest.fixture
def files(tmp_path: Path) -> FileOrigin:
    """An origin of files."""
    folder = tmp_path / "origin"
    folder.mkdir()
    return FileOrigin(folder)


@pytest.fixture
def free_port() -> int:
    """A TCP port where nobody listens."""
    return ports.free_port()


@pytest.fixture
def start_local(shared_dir: Path, tmp_path: Path) -> Iterator[StartLocal]:
    """A function that starts a daemon which needs no S3.

    *tcp* is a second address to listen at. *settings* are words of the configuration.
    """
    started: list[DaemonProcess] = []

    def start(
        *,
        cache_dir: Path | None = None,
        address: str | None = None,
        tcp: str | None = None,
        max_bytes: int | str = "256MB",
        config: str | None = None,
        env: dict[str, str] | None = None,
        prefix: tuple[str, ...] = (),
        wait: bool = True,
        **settings: object,
    ) -> DaemonProcess:
        number = len(started)
        arguments = ["--max-bytes", str(max_bytes)]
        if tcp is not None:
            arguments += ["--listen", tcp]
        if config is not None:
            config_file = shared_dir / f"forebay-{number}.toml"
            config_file.write_text(config)
            arguments += ["--config", str(config_file)]
        words = {
            f"FOREBAY_{name.upper()}": json.dumps(value) if isinstance(value, dict) else str(value)
            for name, value in settings.items()
        }
        daemon = DaemonProcess(
            cache_dir=cache_dir or shared_dir / f"cache-{number}",
            address=address or f"unix:{shared_dir}/{number}.sock",
            log_file=tmp_path / f"local-daemon-{number}.log",
            arguments=tuple(arguments),
            env={**words, **(env or {})},
            prefix=prefix,
        )
        started.append(daemon)
        daemon.start(wait=wait)
        return daemon

    yield start
    with contextlib.ExitStack() as stack:
        for daemon in started:
            stack.callback(daemon.kill9)
