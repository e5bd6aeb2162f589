"""A command on a real terminal: a pty that controls its session, drawn by an emulator."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from typing import TYPE_CHECKING, Any

import pyte

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

_WAIT_S = 150.0  # a machine that is busy with other tests


class Terminal:
    """Runs a command; a context manager that ends it."""

    def __init__(
        self, *command: str, env: Mapping[str, str], columns: int = 80, lines: int = 24
    ) -> None:
        self._ours, self._theirs = pty.openpty()  # theirs is kept: its modes are looked at
        self._screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self._screen)
        self.raw = b""
        self.resize(columns, lines)
        self.modes_before = self.modes
        self._process = subprocess.Popen(  # noqa: S603  # the command under test
            ["setsid", "--ctty", *command],  # noqa: S607
            stdin=self._theirs,
            stdout=self._theirs,
            stderr=self._theirs,
            env=env,
        )

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._theirs)
        os.close(self._ours)

    @property
    def modes(self) -> list[Any]:
        """Whether it echoes, waits for whole lines, and so on."""
        return termios.tcgetattr(self._theirs)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def display(self) -> list[str]:
        """What is on the screen."""
        return [line.rstrip() for line in self._screen.display]

    @property
    def text(self) -> str:
        return "\n".join(self.display)

    def is_cursor_hidden(self) -> bool:
        return bool(self._screen.cursor.hidden)

    def resize(self, columns: int, lines: int) -> None:
        self._screen.resize(lines, columns)
        size = struct.pack("HHHH", lines, columns, 0, 0)
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, size)

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode())

    def _read(self, timeout_s: float) -> bool:
        """Take what was written; tells whether anything was."""
        if not select.select([self._ours], [], [], timeout_s)[0]:
            return False
        data = os.read(self._ours, 1 << 16)
        self.raw += data
        self._stream.feed(data)
        return True

    def wait_until(self, condition: Callable[[], object], what: str) -> None:
        """Read until *condition* holds. Raises AssertionError, with the screen, if it never does"""
        deadline = time.monotonic() + _WAIT_S
        while not condition():
            assert time.monotonic() < deadline, f"never came: {what}\n{self.text}"
            assert self._process.poll() is None, f"it ended:\n{self.text}"
            self._read(0.1)

    def wait_for(self, *patterns: str) -> None:
        """Read until all these are on the screen at once; regular expressions."""
        self.wait_until(
            lambda: all(re.search(pattern, self.text) for pattern in patterns), str(patterns)
        )

    def end(self) -> int:
        """Wait until the command has ended, and all is read; returns its exit code."""
        code = None
        deadline = time.monotonic() + _WAIT_S
        while code is None:
            assert time.monotonic() < deadline, f"it does not end:\n{self.text}"
            code = self._process.poll()
            with contextlib.suppress(OSError):
                while self._read(0.05):
                    pass
        return code
