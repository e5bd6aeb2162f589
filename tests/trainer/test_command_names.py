"""The trainer's commands are ``forebay``'s, and can be asked for help without torch."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize("name", ["browse", "config", "convert", "infer", "test", "train"])
def test_command_is_found_and_tells_its_use(name: str) -> None:
    program = "import sys; sys.modules['torch'] = None; import forebay.cli; forebay.cli.main()"

    done = subprocess.run(  # noqa: S603  # ours
        [sys.executable, "-c", program, name, "--help"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert f"Usage: forebay {name}" in done.stdout
