"""Whose a row of the shared counters is: the processes of this machine that hold its lock.

The kernel knows; it tells who may look into the process: itself, its user, root.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from forebay_protos import layout
from forebay_protos.counters import ROW_SIZE

if TYPE_CHECKING:
    from collections.abc import Iterator

_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Process:
    """A client of this node."""

    pid: int
    command: str
    age_s: float


def holders(cache_dir: str) -> dict[int, Process]:
    """Return the processes that hold rows, by row; those that this user may look into."""
    try:
        counters = os.stat(os.path.join(cache_dir, layout.COUNTERS))  # noqa: PTH116, PTH118  # hot
    except OSError:  # the daemon is another machine's, or another container's
        return {}
    found = {}
    for folder in _PROC.iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):  # it has just ended
                for row in _rows(folder, counters):
                    found[row] = _process(folder)
    return found


def _rows(process: Path, counters: os.stat_result) -> Iterator[int]:
    for fd in os.listdir(process / "fd"):  # noqa: PTH208  # hot
        link = f"{process}/fd/{fd}"
        # By its name first: a look at each file of each process takes a while.
        if os.readlink(link).endswith(layout.COUNTERS) and os.path.samestat(  # noqa: PTH115
            os.stat(link),  # noqa: PTH116
            counters,
        ):
            for line in (process / "fdinfo" / fd).read_text().splitlines():
                if line.startswith("lock:"):
                    # lock: 1: OFDLCK ADVISORY WRITE -1 fe:01:12345 384 384
                    yield int(line.split()[-2]) // ROW_SIZE


def _process(process: Path) -> Process:
    command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    # After the name, which may hold anything, in parentheses; times in ticks since the boot.
    ticks = int((process / "stat").read_text().rpartition(")")[2].split()[19])
    up_s = float((_PROC / "uptime").read_text().split()[0])
    age_s = max(0.0, up_s - ticks / os.sysconf("SC_CLK_TCK"))
    return Process(int(process.name), command.strip(), age_s)
