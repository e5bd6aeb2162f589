"""The command ``forebay`` as a shell runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

WAIT_S = 60


class Shell:
    """Runs ``forebay`` with the environment of a user."""

    def __init__(self, **env: str) -> None:
        self.env = {**os.environ, **env}

    def start(self, *arguments: str, stderr: int = subprocess.PIPE) -> subprocess.Popen[bytes]:
        return subprocess.Popen(  # noqa: S603  # the command under test
            [sys.executable, "-m", "forebay", *arguments],
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
        )

    def run(self, *arguments: str) -> tuple[int, bytes, str]:
        """Return (exit code, stdout, stderr)."""
        with self.start(*arguments) as process:
            try:
                out, err = process.communicate(timeout=WAIT_S)
            finally:
                process.kill()
        return process.returncode, out, err.decode()

    def out(self, *arguments: str) -> str:
        """Return the output of a command that must succeed."""
        code, out, err = self.run(*arguments)
        assert code == 0, err
        return out.decode()

    def json(self, *arguments: str) -> Any:
        return json.loads(self.out(*arguments, "--json"))

    def error(self, *arguments: str, code: int = 1) -> str:
        """Return the one line that a command that must fail so says."""
        returned, _, err = self.run(*arguments)
        assert returned == code, err
        assert "Traceback" not in err
        (line,) = err.splitlines()
        assert line.startswith("forebay: ")
        return line
