"""Processes under another user, with no capabilities but those that they are given."""

from __future__ import annotations

import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def with_capabilities(names: Sequence[str]) -> tuple[str, ...]:
    """Return a command that runs another with no more than these: ``["CHOWN"]``."""
    kept = "".join(f",+{name.lower()}" for name in names)
    return "setpriv", f"--bounding-set=-all{kept}", "--inh-caps=-all", "--no-new-privs"


def as_user(uid: int, gid: int) -> tuple[str, ...]:
    """Return a command that runs another under this user, in this group alone."""
    return *with_capabilities([]), f"--reuid={uid}", f"--regid={gid}", "--clear-groups"


def can_serve(prefix: Sequence[str]) -> bool:
    """Tell whether a daemon can be run by *prefix*: we are root, and our Python is not hidden."""
    if shutil.which(prefix[0]) is None:
        return False
    command = [*prefix, sys.executable, "-c", "import forebay, forebayd.server"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0  # noqa: S603
