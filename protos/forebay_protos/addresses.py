"""Where daemon and clients meet when nobody says where: the default socket and cache folder.

An address is ``unix:/path/to.sock`` or ``host:port``, in flags, in ``FOREBAY_ADDRESS`` and in TOML.
"""

from __future__ import annotations

import os
from pathlib import Path

MAX_SOCKET_PATH_BYTES = 107  # sun_path holds 108 with the closing NUL
_UNIX = "unix:"


def default_address() -> str:
    """Return the address that a daemon listens at, and a client calls, by default.

    Raises ValueError if somebody else owns its folder, who could put any socket there.
    """
    folder = _runtime_dir()
    if folder.exists() and folder.stat().st_uid not in (0, os.geteuid()):
        raise ValueError(
            f"the default socket's folder {folder} belongs to uid {folder.stat().st_uid}: "
            "set FOREBAY_ADDRESS (and --listen) to a socket elsewhere"
        )
    return f"{_UNIX}{_runtime_dir() / 'forebay.sock'}"


def is_default(address: str) -> bool:
    """Tell whether *address* is the default one."""
    try:
        return address == default_address()
    except ValueError:
        return False


def default_cache_dir() -> Path:
    """Return where a daemon caches, and a client that finds no daemon looks, by default."""
    told = os.environ.get("FOREBAY_CACHE_DIR")
    if told:
        return Path(told).absolute()
    if os.geteuid() == 0:
        return Path("/var/cache/forebay")
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "forebay"


def socket_path(address: str) -> Path | None:
    """Return the path of a ``unix:`` address, None for ``host:port``. Raises ValueError.

    The text of the error says what is wrong with the address and how one is written.
    """
    if address.startswith(_UNIX):
        path = address.removeprefix(_UNIX)
        if path.startswith("//"):  # unix:///path, as gRPC writes it too
            path = path[2:]
        if not path.startswith("/"):
            raise ValueError(f"address {address!r}: the path is not absolute: unix:/run/x.sock")
        if len(os.fsencode(path)) > MAX_SOCKET_PATH_BYTES:
            raise ValueError(
                f"address {address!r}: a socket's path has at most {MAX_SOCKET_PATH_BYTES} bytes, "
                f"this one has {len(os.fsencode(path))}: choose a shorter one"
            )
        return Path(path)
    host, port = _host_and_port(address)
    if not host or "/" in host or not port.isdecimal() or not port.isascii() or int(port) > 65535:
        raise ValueError(f"address {address!r} is neither unix:/path/to.sock nor host:port")
    return None


def is_loopback(address: str) -> bool:
    """Tell whether a ``host:port`` can be reached from this machine alone."""
    host, _ = _host_and_port(address)
    return host in ("localhost", "::1") or (
        host.startswith("127.") and host.replace(".", "").isdecimal()
    )


def _host_and_port(address: str) -> tuple[str, str]:
    host, _, port = address.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), port


def _runtime_dir() -> Path:
    uid = os.geteuid()
    base = os.environ.get("XDG_RUNTIME_DIR")
    if base:
        return Path(base) / "forebay"
    # S108: the fallback of those who have no runtime folder; the daemon makes it for its own user.
    return Path("/run/forebay") if uid == 0 else Path(f"/tmp/forebay-{uid}")  # noqa: S108
