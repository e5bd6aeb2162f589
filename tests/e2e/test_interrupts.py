"""Signals whose handler raises, in the middle of whatever the client does; the program's end."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

from support.interrupted import OBJECTS
from support.remote import python_path
from support.rounds import rounds

if TYPE_CHECKING:
    from support.daemon import DaemonProcess

    from .conftest import FileOrigin, StartLocal

_PROGRAM_ENDS_S = 120


@rounds("interrupts", 100, 2000)
def test_interrupted_program_goes_on_and_ends(
    start_local: StartLocal, files: FileOrigin, interrupts: int
) -> None:
    daemon = start_local()
    for number in range(OBJECTS):
        files.put(f"{number}", f"{number}".encode())

    done = run(daemon, "support.interrupted", files.url(), str(interrupts))

    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{interrupts}\n"


def test_program_may_ask_at_its_very_end(start_local: StartLocal, files: FileOrigin) -> None:
    daemon = start_local()
    files.put("k", b"12345")

    done = run(daemon, "support.last_words", files.url("k"))

    assert done.returncode == 0, done.stderr
    assert done.stdout == "exit handler: 5\nfinalizer: 5\n", done.stderr


def run(daemon: DaemonProcess, module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run one of our programs to its end, or fail when that does not come."""
    return subprocess.run(  # noqa: S603  # ours
        [sys.executable, "-m", module, *arguments],
        env={**os.environ, **python_path(), "FOREBAY_ADDRESS": daemon.address},
        capture_output=True,
        text=True,
        timeout=_PROGRAM_ENDS_S,
        check=False,
    )
