"""What the commands share: options, the client, and sizes for people."""

from __future__ import annotations

import contextlib
import json
import math
import re
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

import forebay

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_LOOK_S = 3.0  # a daemon that is restarted is back by then
_FILE_WIDTH = 1000
_ESCAPED = re.compile("[\udc80-\udcff]")  # as os.fsdecode has bytes that are not UTF-8
_UNITS = ("KiB", "MiB", "GiB", "TiB", "PiB")


class NotTextError(click.ClickException):
    """An argument that cannot be sent to the daemon, or be the name of an object."""

    exit_code = 2

    def __init__(self, text: str) -> None:
        super().__init__(f"{readable(text)} is not UTF-8, as names of objects are")


def readable(text: str) -> str:
    r"""Return *text* with bytes that are not UTF-8 as ``\xff``."""
    return _ESCAPED.sub(lambda match: f"\\x{ord(match[0]) - 0xDC00:02x}", text)


def check_text(text: str) -> None:
    """Raise NotTextError for what holds bytes that are not UTF-8."""
    if not is_text(text):
        raise NotTextError(text)


def is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class _Text(click.types.StringParamType):
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text: str = super().convert(value, param, ctx)
        check_text(text)
        return text


class _Seconds(click.FloatRange):
    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        seconds: float = super().convert(value, param, ctx)
        if math.isnan(seconds):  # which no comparison refuses
            self.fail(f"{value} is not a number of seconds.", param, ctx)
        return seconds


TEXT = _Text()
SECONDS = _Seconds(min=0, min_open=True, max=1e8)  # three years; clocks overflow later


def client_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--address`` and ``--timeout-s``."""
    command = click.option(
        "--timeout-s",
        default=60.0,
        show_default=True,
        type=SECONDS,
        metavar="SECONDS",
        help="How long the daemon may take for one thing.",
    )(command)
    return address_option(command)


address_option = click.option(
    "--address",
    type=TEXT,
    help="unix:/path/to.sock or host:port. [default: $FOREBAY_ADDRESS or the default socket]",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")


@contextlib.contextmanager
def connected(address: str | None, timeout_s: float) -> Iterator[forebay.Client]:
    """Give a client of a daemon that answers. Raises DaemonUnavailableError soon, not late."""
    with forebay.Client(address, timeout_s=timeout_s) as client:
        with (
            forebay.Client(address, timeout_s=min(timeout_s, _LOOK_S)) as looking,
            contextlib.suppress(forebay.DeadlineExceededError),  # it is there, and busy
        ):
            looking.stats()
        yield client


def progress_bar(*columns: ProgressColumn) -> Progress:
    """Return a bar on stderr with these columns and the time that is left; none in a log file."""
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        *columns,
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )


def table_console(*, stderr: bool = False) -> Console:
    """Return where tables are printed; in a pipe or a file each row is a line."""
    console = Console(stderr=stderr, soft_wrap=True)
    if not console.is_terminal:
        console.width = _FILE_WIDTH
    return console


class ObjectsColumn(ProgressColumn):
    """Objects done and objects per second; fields ``objects_done`` and ``objects_total``."""

    def __init__(self, noun: str = "objects") -> None:
        super().__init__()
        self._noun = noun

    def render(self, task: Task) -> Text:
        done = task.fields["objects_done"]
        elapsed = task.elapsed or 0.0
        rate = done / elapsed if elapsed else 0.0
        text = f"{done:,}/{task.fields['objects_total']:,} {self._noun}, {rate:,.0f}/s"
        return Text(text, no_wrap=True)


def print_json(value: Any, *, one_line: bool = False) -> None:
    click.echo(json.dumps(value, indent=None if one_line else 1, sort_keys=True))


def size_text(size_bytes: int) -> str:
    """Return a size for people: ``532 B``, ``97.7 KiB``, ``1.50 TiB``."""
    if size_bytes < 1024:
        return f"{size_bytes} B"
    value = float(size_bytes)
    for unit in _UNITS:
        value /= 1024
        if value < 1023.95 or unit == _UNITS[-1]:
            break
    return f"{value:.1f} {unit}"


def duration_text(seconds: float) -> str:
    """Return a duration for people: ``0.35 ms``, ``12 s``, ``3 h 20 min``."""
    if seconds < 1:
        return f"{seconds * 1000:.3g} ms"
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes = int(seconds // 60)
    if minutes < 60:
        return f"{minutes} min {int(seconds % 60)} s"
    hours = minutes // 60
    return f"{hours} h {minutes % 60} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def ratio_text(ratio: float | None) -> str:
    return "-" if ratio is None else f"{100 * ratio:.1f} %"
