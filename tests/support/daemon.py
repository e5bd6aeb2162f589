"""The real daemon as a process, started by its command line and killed at will."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_START_S = 60.0  # a machine that is busy with other tests; usually it takes one
_STOP_S = 60.0  # likewise; the grace for uploads is 10 of them
_OPTIONS = (
    ("grpc.use_local_subchannel_pool", 1),  # share no connection with the client under test
    ("grpc.initial_reconnect_backoff_ms", 20),
    ("grpc.min_reconnect_backoff_ms", 20),
    ("grpc.max_reconnect_backoff_ms", 100),
)


class DaemonFailedError(Exception):
    """The daemon ended, or did not answer, when it should serve; the text has its log."""


class DaemonProcess:
    """``forebay serve`` with its cache folder, address and log."""

    def __init__(
        self,
        *,
        cache_dir: Path,
        address: str,
        log_file: Path,
        arguments: tuple[str, ...] = (),
        env: Mapping[str, str] | None = None,
        prefix: tuple[str, ...] = (),
    ) -> None:
        """*prefix* is a command that runs the daemon's: ``("setpriv", "--regid", "1000")``."""
        self.cache_dir = cache_dir
        self.address = address
        self._log_file = log_file
        self._arguments = arguments
        # Many daemons, one default port of metrics.
        self._env = {**os.environ, "FOREBAY_METRICS_LISTEN": "off", **(env or {})}
        self._prefix = prefix
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None, "the daemon was never started"
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> str:
        """What it has written so far, earlier runs included."""
        return self._log_file.read_text(errors="replace") if self._log_file.exists() else ""

    def start(self, *, wait: bool = True) -> None:
        """Start it, and wait until its health service says SERVING."""
        assert not self.is_running, "the daemon runs already"
        command = [*self._prefix, sys.executable, "-m", "forebay", "serve"]
        command += ["--cache-dir", str(self.cache_dir), "--listen", self.address]
        with self._log_file.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603  # the command under test
                [*command, *self._arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._env,
                start_new_session=True,
            )
        if wait:
            try:
                self.wait_until_serving()
            except BaseException:
                self.kill9()
                raise

    def set_arguments(self, arguments: tuple[str, ...]) -> None:
        """Start it with other *arguments* from the next time on."""
        self._arguments = arguments

    def wait_until_serving(self, timeout_s: float = _START_S) -> None:
        deadline = time.monotonic() + timeout_s
        with grpc.insecure_channel(self.address, options=_OPTIONS) as channel:
            health: Any = health_pb2_grpc.HealthStub(channel)  # its methods are not in the types
            while True:
                with contextlib.suppress(grpc.RpcError):
                    reply = health.Check(
                        health_pb2.HealthCheckRequest(), timeout=0.2, wait_for_ready=True
                    )
                    if reply.status == health_pb2.HealthCheckResponse.SERVING:
                        return
                if not self.is_running:
                    raise DaemonFailedError(f"the daemon ended at its start:\n{self.log}")
                if time.monotonic() > deadline:
                    raise DaemonFailedError(f"not serving after {timeout_s:g} s:\n{self.log}")

    def wait(self, timeout_s: float = _STOP_S) -> int:
        """Wait for its end and return its exit code."""
        assert self._process is not None, "the daemon was never started"
        return self._process.wait(timeout_s)

    def stop(self) -> int:
        """End it as an init system does (SIGTERM) and return its exit code."""
        assert self._process is not None, "the daemon was never started"
        self._process.terminate()
        try:
            return self.wait()
        except subprocess.TimeoutExpired as error:
            self.kill9()
            raise DaemonFailedError(
                f"SIGTERM did not end it in {_STOP_S:g} s:\n{self.log}"
            ) from error

    def kill9(self) -> None:
        """End it as a crash does; nothing if it has ended already."""
        if self.is_running:
            os.kill(self.pid, signal.SIGKILL)
            self.wait()

    def restart(self) -> None:
        """Stop it if it runs, and start it again with the same settings."""
        if self.is_running:
            self.stop()
        self.start()
