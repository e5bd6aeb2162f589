"""A real Prometheus (Debian's) on loopback, and what it says."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from typing import TYPE_CHECKING, Any

from support.ports import free_address

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_BINARIES = ("prometheus", "promtool")
_START_S = 60.0


class QueryError(Exception):
    """Prometheus refused a query; the text says why."""


def missing_binaries() -> list[str]:
    """Return which of Prometheus's programs are not installed."""
    return [name for name in _BINARIES if shutil.which(name) is None]


def promtool(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run promtool and return how it ended, with all that it said."""
    return subprocess.run(  # noqa: S603  # Debian's
        ["promtool", *arguments],  # noqa: S607
        input=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


class Prometheus:
    """The HTTP API of a running one."""

    def __init__(self, address: str) -> None:
        self._url = f"http://{address}/api/v1/"

    def ask(self, path: str, **parameters: str) -> Any:
        """Return the data of the answer. Raises QueryError, naming what was wrong."""
        url = f"{self._url}{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url) as reply:
                return json.load(reply)["data"]
        except urllib.error.HTTPError as error:
            with error:
                raise QueryError(f"{parameters}: {error.read().decode()}") from error

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """Return (labels, value) of each series that *expression* has now."""
        found = self.ask("query", query=expression)
        assert found["resultType"] == "vector", found
        return [(each["metric"], float(each["value"][1])) for each in found["result"]]

    def rules(self) -> list[dict[str, Any]]:
        return [rule for group in self.ask("rules")["groups"] for rule in group["rules"]]


@contextlib.contextmanager
def running_prometheus(config_file: Path, data_dir: Path) -> Iterator[Prometheus]:
    """Run one on *config_file* until the block ends."""
    address = free_address()
    log_file = data_dir.with_suffix(".log")
    with log_file.open("wb") as log:
        process = subprocess.Popen(  # noqa: S603  # Debian's
            [  # noqa: S607
                "prometheus",
                f"--config.file={config_file}",
                f"--storage.tsdb.path={data_dir}",
                f"--web.listen-address={address}",
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _wait_until_ready(address, process, log_file)
        yield Prometheus(address)
    finally:
        process.kill()
        process.wait()


def _wait_until_ready(address: str, process: subprocess.Popen[bytes], log_file: Path) -> None:
    deadline = time.monotonic() + _START_S
    while True:
        try:
            with urllib.request.urlopen(f"http://{address}/-/ready"):
                return
        except urllib.error.HTTPError as error:  # it listens, and is not ready
            error.close()
        except OSError:
            pass
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"Prometheus does not start:\n{log_file.read_text()}")
        time.sleep(0.1)
