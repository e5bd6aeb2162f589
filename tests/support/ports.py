"""TCP ports for servers of tests."""

from __future__ import annotations

import contextlib
import random
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

# Below those that the kernel gives to whoever asks for any (32768 to 60999), and beside those of
# the tests' clusters: nobody takes one between the choice and the server's start.
_FIRST, _END = 30_000, 32_768

_claims: list[socket.socket] = []  # until this process ends


def free_port() -> int:
    """Return a port of loopback where nobody listens, and that no other test process chooses."""
    ports = list(range(_FIRST, _END))
    random.SystemRandom().shuffle(ports)
    for port in ports:
        if _claim(port) and _is_free(port):
            return port
    raise OSError("no port is free")


def _claim(port: int) -> bool:
    """Claim a port by the name of a socket that goes with its process; False if another has."""
    claim = socket.socket(socket.AF_UNIX)
    try:
        claim.bind(f"\0forebay-tests-port-{port}")
    except OSError:
        claim.close()
        return False
    _claims.append(claim)
    return True


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_address() -> str:
    return f"127.0.0.1:{free_port()}"


@contextlib.contextmanager
def closed_port() -> Iterator[int]:
    """Give a port of loopback that refuses connections, and that nobody else can listen at."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield int(bound.getsockname()[1])
