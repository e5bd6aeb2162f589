"""The command ``forebay`` as a shell runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

WAIT_S = 150  # a training on a machine that is busy with other tests; usually it takes seconds


class Shell:
    """Runs ``forebay`` with the environment of a user.

    ``prefix`` is a command that runs it: ``("setpriv", "--bounding-set", "-all")``.
    """

    def __init__(self, **env: str) -> None:
        self.env = {**os.environ, **env}
        self.prefix: tuple[str, ...] = ()

    def start(
        self, *arguments: str, stdin: int = subprocess.DEVNULL, stderr: int = subprocess.PIPE
    ) -> subprocess.Popen[bytes]:
        return subprocess.Popen(  # noqa: S603  # the command under test
            [*self.prefix, sys.executable, "-m", "forebay", *arguments],
            env=self.env,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=stderr,
        )

    def run(self, *arguments: str, typed: bytes = b"") -> tuple[int, bytes, str]:
        """Return (exit code, stdout, stderr); *typed* is what its standard input holds."""
        with self.start(*arguments, stdin=subprocess.PIPE) as process:
            try:
                out, err = process.communicate(typed, timeout=WAIT_S)
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

    def usage_error(self, *arguments: str) -> str:
        """Return what a command that is used wrongly says."""
        code, out, err = self.run(*arguments)
        assert (code, out) == (2, b""), err
        assert "Usage: forebay" in err
        assert "Traceback" not in err
        return err

    def error(self, *arguments: str, code: int = 1) -> str:
        """Return the one line that a command that must fail so says."""
        returned, _, err = self.run(*arguments)
        assert returned == code, err
        assert "Traceback" not in err
        (line,) = err.splitlines()
        assert line.startswith("forebay: ")
        return line


def tree(folder: Path) -> dict[str, bytes]:
    """Return the bytes of all files below a folder, by their paths in it."""
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file()
    }


@dataclass(frozen=True)
class Store:
    """An origin that is written to: a folder of its own, reached without any code of ours."""

    shell: Shell
    folder: Path

    def uri(self, name: str = "") -> str:
        return f"{self.folder.as_uri()}/{name}"

    def put(self, *names: str) -> None:
        """Make objects whose bytes are their names."""
        for name in names:
            file = self.folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(name.encode())

    def contents(self) -> dict[str, bytes]:
        """Return the bytes of every object, once all is uploaded."""
        self.shell.out("flush")
        return tree(self.folder)
