"""What happens where another process has not written yapf's cache to the end."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("mmengine")

if TYPE_CHECKING:
    from pathlib import Path

PROGRAM = (sys.executable, "-c", "import forebay_trainer.registry")
WAIT_S = 120.0


def test_a_cache_of_which_there_is_a_part_is_waited_for(tmp_path: Path) -> None:
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    subprocess.run(PROGRAM, env=environment, check=True, timeout=WAIT_S)  # noqa: S603  # our own
    (cache,) = tmp_path.rglob("PatternGrammar*.pickle")
    whole = cache.rename(tmp_path / "whole")
    os.mkfifo(cache)

    with subprocess.Popen(PROGRAM, env=environment) as process:  # noqa: S603  # our own
        part = os.open(cache, os.O_WRONLY)  # waits for who reads it
        whole.rename(cache)
        os.close(part)  # which is its end

        assert process.wait(WAIT_S) == 0
