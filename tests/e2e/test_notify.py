"""What a service manager is told by the daemon, over a real socket."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .conftest import StartLocal

_ANSWER_S = 60.0  # a machine that is busy with other tests


class Manager:
    """The service manager's end."""

    def __init__(self, name: str) -> None:
        """*name* is the socket's, as NOTIFY_SOCKET has it."""
        self.environment = {"NOTIFY_SOCKET": name}
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(name.replace("@", "\0", 1) if name.startswith("@") else name)

    def hears(self) -> str:
        """Return the next message, waiting for it."""
        self._socket.settimeout(_ANSWER_S)
        return self._socket.recv(4096).decode()

    def heard(self) -> list[str]:
        """Return the messages that are there."""
        self._socket.setblocking(False)
        messages = []
        with contextlib.suppress(BlockingIOError):
            while True:
                messages.append(self._socket.recv(4096).decode())
        return messages

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, short_dir: Path) -> Iterator[Manager]:
    """A service manager at either kind of socket."""
    is_path = request.param == "path"
    name = f"{short_dir}/notify" if is_path else f"@forebay-tests-{secrets.token_hex(8)}"
    with contextlib.closing(Manager(name)) as opened:
        yield opened


def test_daemon_that_says_ready_serves_and_says_when_it_stops(
    manager: Manager, start_local: StartLocal
) -> None:
    daemon = start_local(env=manager.environment, wait=False)

    assert manager.hears().split("\n")[0] == "READY=1"
    with grpc.insecure_channel(daemon.address) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)  # its methods are not in the types
        reply = health.Check(health_pb2.HealthCheckRequest(), timeout=_ANSWER_S)  # does not wait
    assert reply.status == health_pb2.HealthCheckResponse.SERVING
    assert manager.heard() == []
    assert daemon.stop() == 0
    (last,) = manager.heard()
    assert last.split("\n")[0] == "STOPPING=1"


def test_daemon_that_cannot_start_is_never_ready(manager: Manager, start_local: StartLocal) -> None:
    daemon = start_local()

    other = start_local(cache_dir=daemon.cache_dir, env=manager.environment, wait=False)

    assert other.wait() == 1
    assert manager.heard() == []


def test_watchdog_is_fed_while_the_event_loop_turns(
    manager: Manager, start_local: StartLocal
) -> None:
    environment = {**manager.environment, "WATCHDOG_USEC": "20000"}
    # Nobody may leave the messages unread: a queue holds ten by default, and the rest is lost.
    daemon = start_local(env=environment, wait=False)

    assert manager.hears().startswith("READY=1")
    assert [manager.hears() for _ in range(5)] == ["WATCHDOG=1"] * 5
    os.kill(daemon.pid, signal.SIGTERM)
    while not (message := manager.hears()).startswith("STOPPING=1"):
        assert message == "WATCHDOG=1"
    assert daemon.wait() == 0


def test_watchdog_of_another_process_is_left_alone(
    manager: Manager, start_local: StartLocal
) -> None:
    environment = {**manager.environment, "WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"}
    daemon = start_local(env=environment)

    assert daemon.stop() == 0

    assert [message.split("\n")[0] for message in manager.heard()] == ["READY=1", "STOPPING=1"]


def test_without_a_service_manager_nothing_is_sent(
    start_local: StartLocal,
) -> None:
    daemon = start_local(env={"WATCHDOG_USEC": "20000"})

    assert daemon.stop() == 0

    assert "service manager" not in daemon.log


def test_manager_that_is_gone_stops_nobody(start_local: StartLocal, short_dir: Path) -> None:
    daemon = start_local(env={"NOTIFY_SOCKET": f"{short_dir}/nobody"})

    assert daemon.stop() == 0

    assert "the service manager was not told" in daemon.log
