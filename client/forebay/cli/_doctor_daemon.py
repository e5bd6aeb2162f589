"""``forebay doctor``: a daemon that answers, and whether its folder is shared from here."""

from __future__ import annotations

import os
import resource
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import forebay
from forebay._folder import Folder
from forebay.cli._common import duration_text, size_text
from forebay_protos import addresses, layout
from forebay_protos.findings import Finding, ok, problem, skipped, warning

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

LOOK_S = 3.0  # a daemon that is restarted is back by then
_HARMLESS = (  # answers like any other, to what was asked for
    "object_not_found",
    "invalid_path",
    "already_exists",
    "version_changed",
    "cancelled",
)
_LEAST_FILES = 1024


@dataclass(frozen=True, slots=True)
class Daemon:
    """What a daemon says of itself."""

    address: str
    stats: dict[str, Any]
    path_mapping: Mapping[str, str]

    @property
    def is_here(self) -> bool:
        """Tell whether it runs on this machine."""
        return self.address.startswith("unix:") or addresses.is_loopback(self.address)


def ask(client: forebay.Client) -> Daemon:
    """Return what the daemon says. Raises ForebayError."""
    attachment = client._node.attachment(LOOK_S)
    stats = client.stats().raw
    return Daemon(client._node.channel.address, stats, attachment.path_mapping)


def check_daemon(daemon: Daemon) -> Iterator[Finding]:
    """Look at its version, its uploads and its errors."""
    stats = daemon.stats
    yield ok(
        "daemon",
        f"pid {stats['pid']} answers at {daemon.address}, up {duration_text(stats['uptime_s'])}",
    )
    # Its attach.json was read, so both know the same protocol.
    if stats["version"] == forebay.__version__:
        yield ok("version", f"client and daemon are {forebay.__version__}")
    else:
        yield warning(
            "version",
            f"the daemon is {stats['version']}, this client {forebay.__version__}",
            "install the same version on both sides, and restart the daemon",
        )
    yield _uploads(stats["spool"])
    yield _errors(stats)


def _uploads(spool: dict[str, Any]) -> Finding:
    waiting = (
        f"{spool['backlog_uploads']:,} wait ({size_text(spool['backlog_bytes'])}), the oldest for "
        f"{duration_text(spool['oldest_age_s'])}"
    )
    if spool["uploads_failed"]:
        return problem(
            "uploads",
            f"{spool['uploads_failed']:,} have failed for good; {waiting}",
            "see `forebay uploads`, then --retry or --discard",
        )
    if spool["overdue"]:
        return problem("uploads", waiting, "see `forebay uploads` for what keeps them")
    return ok("uploads", waiting if spool["backlog_uploads"] else "none wait")


def _errors(stats: dict[str, Any]) -> Finding:
    bad = {kind: count for kind, count in stats["errors"].items() if kind.lower() not in _HARMLESS}
    if not bad:
        return ok("errors", "none since its start")
    text = ", ".join(f"{kind.lower()} {count:,}" for kind, count in sorted(bad.items()))
    return warning("errors", f"since its start: {text}", "see its log, and docs/troubleshooting.md")


def check_sharing(client: forebay.Client, daemon: Daemon) -> Finding:
    """Look at whether hits from here go past the daemon, and if not, why."""
    node = client._node
    folder = node.folder()
    if folder is not None:
        if os.statvfs(folder.path).f_flag & os.ST_RDONLY:
            return warning(
                "shared folder",
                f"{folder.path} is mounted read-only here: hits are fast, but not counted, what "
                "only this client uses may be evicted, and writes go through the daemon",
                "mount it writable",
            )
        return ok("shared folder", f"reads of what is cached come straight from {folder.path}")
    if not daemon.is_here:
        return skipped("shared folder", "the daemon is on another machine: all goes through gRPC")
    path = os.environ.get("FOREBAY_CACHE_DIR") or daemon.stats["cache_dir"]
    reason, todo = _why_not_shared(path, daemon.stats["cache_id"])
    return warning("shared folder", f"all reads go through gRPC, which is slower: {reason}", todo)


def _why_not_shared(path: str, cache_id: str) -> tuple[str, str]:
    try:
        folder = Folder(path)
    except PermissionError as error:
        return (
            f"uid {os.geteuid()} (groups {', '.join(map(str, _groups()))}) may not read "
            f"{error.filename}",
            "run as a member of the daemon's group",
        )
    except FileNotFoundError:
        return (
            f"{path} is not there, seen from here",
            "mount the cache folder here, under another path with FOREBAY_CACHE_DIR",
        )
    except (OSError, ValueError) as error:
        return str(error), "install the same version on both sides"
    folder.counters.close()
    if folder.attachment.cache_id != cache_id:
        return f"{path} is another daemon's", "set FOREBAY_CACHE_DIR to this daemon's folder"
    return f"{path} could not be opened a moment ago", "look again"


def _groups() -> list[int]:
    return sorted({os.getegid(), *os.getgroups()})


def check_open_files(daemon: Daemon) -> Finding:
    """Look at how many files the daemon may have open."""
    name, pid = "open files", daemon.stats["pid"]
    try:
        # Of another pid namespace it would be somebody else's number.
        if b"serve" not in Path(f"/proc/{pid}/cmdline").read_bytes():
            return skipped(name, "the daemon's limit cannot be seen from here")
        soft, _ = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    except OSError:
        return skipped(name, "the daemon's limit cannot be seen from here")
    return open_files(name, "the daemon", soft)


def open_files(name: str, who: str, soft: int) -> Finding:
    if 0 <= soft < _LEAST_FILES:
        return warning(
            name,
            f"{who} may have {soft:,} open, for cached files, connections and clients",
            f"raise it to {_LEAST_FILES:,} or more: ulimit -n, or LimitNOFILE of the unit",
        )
    return ok(name, f"{who} may have {soft:,} open" if soft >= 0 else f"{who} has no limit")


def cache_folder(daemon: Daemon) -> Path | None:
    """Return the daemon's folder as it is seen from here, None if it is not."""
    path = Path(os.environ.get("FOREBAY_CACHE_DIR") or daemon.stats["cache_dir"])
    try:
        cache_id = (path / layout.ID).read_text()
    except OSError:
        return None
    return path if cache_id == daemon.stats["cache_id"] else None
