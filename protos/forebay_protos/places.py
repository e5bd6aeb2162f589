"""Where a daemon and its clients meet when nobody tells them, and how an address is written."""

from __future__ import annotations

import os
from pathlib import Path

MAX_SOCKET_PATH_BYTES = 107


def default_cache_dir() -> Path:
    """Return the cache folder of a daemon that was told none."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "forebay"


def default_address() -> str:
    """Return the address of a daemon that was told none: a unix socket of this user."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    folder = Path(runtime) if runtime else Path("/tmp") / f"forebay-{os.getuid()}"  # noqa: S108
    return f"unix:{folder / 'forebay.sock'}"


def check_address(address: str) -> str:
    """Return *address* in the one form of its kind: ``unix:/path/to.sock`` or ``host:port``.

    Raises ValueError, with what to write instead.
    """
    if address.startswith("unix:"):
        path = "/" + address.removeprefix("unix:").lstrip("/")
        if not address.removeprefix("unix:").startswith("/"):
            raise ValueError(f"{address!r}: the path of a socket must be absolute: unix:/path/to.sock")
        if len(os.fsencode(path)) > MAX_SOCKET_PATH_BYTES:
            raise ValueError(
                f"{address!r}: the path of a socket has at most {MAX_SOCKET_PATH_BYTES} bytes"
            )
        return f"unix:{path}"
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536 or "/" in host:
        raise ValueError(f"{address!r} is no address: write unix:/path/to.sock or host:port")
    return address
