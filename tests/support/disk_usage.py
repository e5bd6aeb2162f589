"""What a cache folder occupies on the disk, as ``du`` counts it."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.daemon import DaemonProcess

_PAUSE_S = 0.01


def allocated_below(folder: Path) -> int:
    """Return the bytes of the disk blocks of everything in *folder*, each file once."""
    status = folder.stat()
    seen = {(status.st_dev, status.st_ino): status.st_blocks}
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            with contextlib.suppress(FileNotFoundError):
                status = os.lstat(f"{parent}/{name}")
                seen[status.st_dev, status.st_ino] = status.st_blocks
    return 512 * sum(seen.values())


@dataclass(slots=True)
class Usage:
    """What was seen."""

    most_bytes: int = 0
    samples: int = 0


@contextlib.contextmanager
def watched(daemon: DaemonProcess) -> Iterator[Usage]:
    """Sample the disk usage of the daemon's folder again and again.

    The daemon is stopped for each sample. Otherwise it would not be of one moment: what was counted
    could be evicted, and what took its place be counted too.
    """
    usage = Usage()
    ended = threading.Event()

    def sample() -> None:
        while not ended.wait(_PAUSE_S):
            os.kill(daemon.pid, signal.SIGSTOP)
            try:
                os.waitid(os.P_PID, daemon.pid, os.WSTOPPED)
                usage.most_bytes = max(usage.most_bytes, allocated_below(daemon.cache_dir))
                usage.samples += 1
            finally:
                os.kill(daemon.pid, signal.SIGCONT)

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield usage
    finally:
        ended.set()
        thread.join()
