"""The environment of programs that use a framework on a daemon."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from support.daemon import DaemonProcess

STAND_INS = Path(__file__).parents[1] / "plugs" / "stand_ins"  # torchvision, which mmcv imports


def environment_below(daemon: DaemonProcess, **more: str) -> dict[str, str]:
    """Return the environment of a program that uses *daemon* and mmcv."""
    path = os.pathsep.join(
        [str(STAND_INS), more.pop("PYTHONPATH", os.environ.get("PYTHONPATH", ""))]
    )
    return {**os.environ, "FOREBAY_ADDRESS": daemon.address, "PYTHONPATH": path, **more}
