"""A terminal as a whole: its screen, its keys, its size; and as it was before, whatever happens."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import termios
import tty
from typing import TYPE_CHECKING, Any

from rich.console import Console

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from rich.text import Text

# The other screen, no cursor, no wrapping; and back.
_ENTER, _LEAVE = b"\x1b[?1049h\x1b[?25l\x1b[?7l", b"\x1b[?7h\x1b[?25h\x1b[?1049l"


def is_usable() -> bool:
    """Tell whether standard output is a terminal that can place text."""
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown")


class Screen:
    """The terminal of standard input and output, for the main thread; a context manager."""

    def __init__(self) -> None:
        self._out = sys.stdout.fileno()
        self._keys: int | None = sys.stdin.fileno() if sys.stdin.isatty() else None
        # Sixteen colours; NO_COLOR is heeded by Rich.
        self._console = Console(color_system="standard", force_terminal=True, highlight=False)
        self._size = os.terminal_size((0, 0))
        self._shown: list[str] = []
        self._modes: list[Any] = []
        self._woken, self._waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def __enter__(self) -> Screen:
        signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        signal.signal(signal.SIGWINCH, lambda *_: None)  # it wakes who waits for a key
        self._take()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGWINCH, signal.SIG_DFL)
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        with contextlib.suppress(OSError, termios.error):  # it may be gone
            self._give_back()
        os.close(self._woken)
        os.close(self._waker)

    def _take(self) -> None:
        signal.signal(signal.SIGTSTP, self._suspend)
        if self._keys is not None:
            self._modes = termios.tcgetattr(self._keys)
            tty.setcbreak(self._keys)
        self._write(_ENTER)
        self.forget()

    def _give_back(self) -> None:
        self._write(_LEAVE)
        if self._keys is not None:
            # Not what was typed meanwhile: it was meant for us.
            termios.tcsetattr(self._keys, termios.TCSAFLUSH, self._modes)

    def _suspend(self, *_: object) -> None:
        """Stop (Ctrl-Z) with the terminal as it was, and take it again when we go on."""
        self._give_back()
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        self._take()

    @property
    def size(self) -> os.terminal_size:
        columns, lines = os.get_terminal_size(self._out)
        return os.terminal_size((columns or 80, lines or 24))  # a serial line knows of none

    @property
    def encoding(self) -> str:
        return sys.stdout.encoding

    def forget(self) -> None:
        """Draw everything anew the next time."""
        self._size = os.terminal_size((0, 0))

    def draw(self, lines: Sequence[Text], size: os.terminal_size) -> None:
        """Show *lines*, made for a terminal of this *size*; only what differs is sent."""
        pieces = []
        if size != self._size:
            self._size, self._shown = size, []
            pieces.append("\x1b[0m\x1b[2J")
        wanted = [self._rendered(line) for line in lines[: size.lines]]
        wanted += [""] * (len(self._shown) - len(wanted))
        for row, text in enumerate(wanted):
            if self._shown[row : row + 1] != [text]:
                pieces.append(f"\x1b[{row + 1};1H\x1b[2K{text}")
        self._shown = wanted
        self._write("".join(pieces).encode(self.encoding, "replace"))

    def _rendered(self, line: Text) -> str:
        with self._console.capture() as capture:
            self._console.print(line, end="", soft_wrap=True)
        return capture.get().rstrip()

    def _write(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._out, data) :]

    def key(self, timeout_s: float) -> str | None:
        """Return what was typed; "" after *timeout_s* or when the size may be another, None when
        nobody can type any more."""
        wait_for = [self._woken] if self._keys is None else [self._woken, self._keys]
        ready, _, _ = select.select(wait_for, [], [], max(0.0, timeout_s))
        if self._woken in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(self._woken, 4096)
        if self._keys is None or self._keys not in ready:
            return ""
        return os.read(self._keys, 1024).decode(errors="replace") or None
