"""What the tests run on: a clean environment, a real Ceph, real daemons, and a summary for CI."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import platform
import signal
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    import forebay
    from support.ceph import Bucket, Ceph
    from support.daemon import DaemonProcess
    from support.proxy import FaultProxy

_NO_CEPH = "Ceph is not installed"

_numbers = itertools.count()


# --- the run as a whole ---------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--summary",
        default=".pytest_results/summary.json",
        help="where the counts of this run are written, Ceph's apart (default: %(default)s)",
    )


def pytest_configure(config: pytest.Config) -> None:
    _clean_environment()
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # started in the background by a shell
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if not hasattr(config, "workerinput"):  # pytest-xdist's workers report to the one that counts
        config.pluginmanager.register(_Summary(config), "forebay-summary")


@pytest.hookimpl(tryfirst=True)  # before -m selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "ceph" in getattr(item, "fixturenames", ()):
            item.add_marker("s3")


def _clean_environment() -> None:
    """Let nothing of the caller's shell decide what a test does."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "FOREBAY_")) or name.lower().endswith("_proxy"):
            del os.environ[name]
    # Nobody's keys, and no search for them in the network.
    nowhere = os.path.join(tempfile.gettempdir(), "forebay-tests-have-no-aws-files")  # noqa: PTH118
    os.environ["AWS_CONFIG_FILE"] = os.environ["AWS_SHARED_CREDENTIALS_FILE"] = nowhere
    os.environ["AWS_EC2_METADATA_DISABLED"] = "true"


class _Summary:
    """Counts outcomes, those of the Ceph tests apart, for a reader and for a program."""

    def __init__(self, config: pytest.Config) -> None:
        self._path = config.rootpath / str(config.getoption("--summary"))
        self._is_collecting_only = bool(config.getoption("--collect-only"))
        self._all: Counter[str] = Counter()
        self._ceph_ran = 0
        self._ceph_skipped = 0  # because there is no Ceph; other reasons do not count
        self._stress: dict[str, dict[str, object]] = {}  # what ran with full counts

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        outcome: str = report.outcome
        if report.when != "call":
            if outcome == "passed":
                return  # a set-up that went well is no result
            if outcome == "failed":
                outcome = "error"
        self._all[outcome] += 1
        if "stress" in report.keywords and report.when == "call":
            seconds = round(report.duration, 1)
            self._stress[report.nodeid] = {"outcome": outcome, "seconds": seconds}
        if "s3" in report.keywords:
            if outcome != "skipped":
                self._ceph_ran += 1
            elif isinstance(report.longrepr, tuple) and _NO_CEPH in report.longrepr[2]:
                self._ceph_skipped += 1

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        line = f"Ceph tests: {self._ceph_ran} ran"
        if self._ceph_skipped:
            line += (
                f", {self._ceph_skipped} SKIPPED, since {_NO_CEPH}; as root: deploy/ceph/install.sh"
            )
        terminalreporter.write_line(line, yellow=bool(self._ceph_skipped))

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        if self._is_collecting_only:
            return
        summary: dict[str, object] = {
            "python": platform.python_version(),
            "exit_status": int(exitstatus),
            "tests": dict(self._all),
            "ceph": {"ran": self._ceph_ran, "skipped": self._ceph_skipped},
        }
        if self._stress:
            summary["stress"] = self._stress
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_text(json.dumps(summary, indent=2) + "\n")


# --- the origin -----------------------------------------------------------------------------


@pytest.fixture(scope="session")
def ceph() -> Iterator[Ceph]:
    """A real Ceph with its S3 gateway, alone for this run; skips where it is not installed."""
    from support.ceph import missing_binaries, running_ceph

    missing = missing_binaries()
    if missing:
        pytest.skip(f"{_NO_CEPH}: no {', '.join(missing)}")
    with running_ceph() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def ceph_client(ceph: Ceph) -> Any:
    """A boto3 client of the cluster."""
    return ceph.client()


@pytest.fixture
def bucket(ceph_client: Any) -> Iterator[Bucket]:
    """A fresh bucket, removed with all that is in it."""
    from support.ceph import Bucket

    fresh = Bucket(f"bucket-{next(_numbers)}", ceph_client)
    ceph_client.create_bucket(Bucket=fresh.name)
    yield fresh
    fresh.remove()


@pytest.fixture
def proxy(ceph: Ceph) -> Iterator[FaultProxy]:
    """A proxy in front of Ceph that counts requests and misbehaves on demand."""
    from support.proxy import FaultProxy

    with FaultProxy(ceph.endpoint_url) as fault_proxy:
        yield fault_proxy


# --- the daemon -----------------------------------------------------------------------------


class StartDaemon(Protocol):
    """Starts daemons; each is killed at the end of the test."""

    def __call__(
        self,
        *,
        cache_dir: Path | None = None,
        address: str | None = None,
        endpoint_url: str | None = None,
        max_bytes: int | str = "1GB",
        config: str | None = None,
        env: dict[str, str] | None = None,
        wait: bool = True,
        **settings: object,
    ) -> DaemonProcess: ...


@pytest.fixture
def short_dir() -> Iterator[Path]:
    """A folder with a path short enough for sockets in it; pytest's are not always."""
    with tempfile.TemporaryDirectory(prefix="fb-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest.fixture
def start_daemon(ceph: Ceph, tmp_path: Path, short_dir: Path) -> Iterator[StartDaemon]:
    """A function that starts a daemon in front of Ceph.

    *endpoint_url* replaces Ceph's (a proxy's, say). *config* is the text of a TOML file. All other
    settings are words of the configuration: ``start_daemon(block_bytes="64KiB")``.
    """
    from support.daemon import DaemonProcess

    started: list[DaemonProcess] = []

    def start(
        *,
        cache_dir: Path | None = None,
        address: str | None = None,
        endpoint_url: str | None = None,
        max_bytes: int | str = "1GB",
        config: str | None = None,
        env: dict[str, str] | None = None,
        wait: bool = True,
        **settings: object,
    ) -> DaemonProcess:
        number = len(started)
        arguments = ["--max-bytes", str(max_bytes)]
        if config is not None:
            config_file = tmp_path / f"forebay-{number}.toml"
            config_file.write_text(config)
            arguments += ["--config", str(config_file)]
        else:
            arguments += ["--endpoint-url", endpoint_url or ceph.endpoint_url]
        # Faults of the tests' proxies are over when they are answered.
        settings.setdefault("request_lingers_s", 0.05)
        words = {
            f"FOREBAY_{name.upper()}": json.dumps(value) if isinstance(value, dict) else str(value)
            for name, value in settings.items()
        }
        daemon = DaemonProcess(
            cache_dir=cache_dir or tmp_path / f"cache-{number}",
            address=address or f"unix:{short_dir}/{number}.sock",
            log_file=tmp_path / f"daemon-{number}.log",
            arguments=tuple(arguments),
            env={**ceph.env(), **words, **(env or {})},
        )
        started.append(daemon)
        daemon.start(wait=wait)
        return daemon

    yield start
    with contextlib.ExitStack() as stack:
        for daemon in started:
            stack.callback(daemon.kill9)


@pytest.fixture
def daemon(start_daemon: StartDaemon) -> DaemonProcess:
    """A daemon with the defaults, in front of Ceph."""
    return start_daemon()


@pytest.fixture
def client(daemon: DaemonProcess) -> Iterator[forebay.Client]:
    """A client of ``daemon``."""
    import forebay

    with forebay.Client(address=daemon.address) as connected:
        yield connected
