"""TCP ports for servers of tests."""

from __future__ import annotations

import socket


def free_port() -> int:
    """Return a port of loopback where nobody listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def free_address() -> str:
    return f"127.0.0.1:{free_port()}"
