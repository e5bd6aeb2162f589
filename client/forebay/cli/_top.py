"""``forebay top``: the node's cache, live."""

from __future__ import annotations

import json
import shutil
import sys
import time
from typing import TYPE_CHECKING

import click

import forebay
from forebay.cli import _top_screen
from forebay.cli._common import SECONDS, client_options, connected
from forebay.cli._top_history import History, Raw
from forebay.cli._top_processes import holders
from forebay.cli._top_view import SORTED_BY, View
from forebay_protos import cache_pb2 as pb

if TYPE_CHECKING:
    from rich.text import Text

_PATIENCE_S = 2.0  # for one answer: so long a key may have to wait
_PROCESSES_S = 5.0  # looking through all of them takes some milliseconds
_FULL_REDRAW = "\x0c"  # Ctrl-L
_PLAIN_SIZE = (120, 0)


@click.command()
@click.option(
    "--interval",
    default=1.0,
    show_default=True,
    type=SECONDS,
    metavar="SECONDS",
    help="How often to look.",
)
@click.option("--once", is_flag=True, help="Print one interval as text, and end.")
@client_options
def top(address: str | None, timeout_s: float, interval: float, once: bool) -> None:
    """Show live what the cache does: rates, latencies, fills, uploads, busiest prefixes, clients.

    Without a terminal it prints text, again and again. Keys: q quits, p pauses, 1 to 3 sort the
    prefixes, Ctrl-L draws everything anew.

    \b
    Example:
      forebay top
      forebay top --once > report.txt
    """
    with connected(address, timeout_s) as client:
        watch = _Watch(client, timeout_s, interval)
        if once:
            time.sleep(interval)
            watch.look()
            watch.print()
        elif not _top_screen.is_usable():
            while True:
                time.sleep(interval)
                watch.look()
                watch.print()
                click.echo()
        else:
            with _top_screen.Screen() as screen:
                watch.run(screen)


class _Watch:
    """Looks at one daemon again and again."""

    def __init__(self, client: forebay.Client, timeout_s: float, interval_s: float) -> None:
        self._channel = client._node.channel
        self._timeout_s = min(timeout_s, _PATIENCE_S)
        self._interval_s = interval_s
        self._history = History(interval_s)
        self._view = View(self._channel.address)
        self._processes_at = 0.0
        self._add(client.stats().raw)

    def _add(self, raw: Raw) -> None:
        if "histograms" not in raw:
            raise click.ClickException(
                f"the daemon is version {raw['version']} and does not tell enough: restart it with "
                f"this one, {forebay.__version__}"
            )
        self._history.add(raw)

    def look(self) -> None:
        """Ask the daemon; that it does not answer is shown, too."""
        view, now = self._view, time.monotonic()
        try:
            raw: Raw = json.loads(
                self._channel.call("Stats", pb.StatsRequest(), self._timeout_s, wait=False).json
            )
        except forebay.ForebayError as error:
            view.silence, view.silent_since = str(error), view.silent_since or now
            self._history.missed()
            return
        view.silence, view.silent_since = "", 0.0
        self._add(raw)
        if now >= self._processes_at:
            self._processes_at = now + _PROCESSES_S
            view.processes = holders(raw["cache_dir"])

    def print(self) -> None:
        """Print everything as text, in the width of the terminal if there is one."""
        width, _ = shutil.get_terminal_size(_PLAIN_SIZE)
        for line in self._lines(width, None):
            text = line.plain.rstrip().encode(sys.stdout.encoding, "replace")
            click.echo(text.decode(sys.stdout.encoding))

    def _lines(self, width: int, height: int | None) -> list[Text]:
        is_ascii = not sys.stdout.encoding.lower().startswith("utf")
        return self._view.lines(self._history, width, height, is_ascii=is_ascii)

    def run(self, screen: _top_screen.Screen) -> None:
        """Show it until somebody types q, or is gone."""
        view, look_at = self._view, 0.0
        while True:
            if not view.is_paused and time.monotonic() >= look_at:
                self.look()
                look_at = time.monotonic() + self._interval_s
            size = screen.size
            screen.draw(self._lines(size.columns, size.lines), size)
            wait_s = self._interval_s if view.is_paused else look_at - time.monotonic()
            typed = screen.key(wait_s)
            if typed is None:
                return
            if typed.startswith("\x1b"):  # an arrow, or the like
                continue
            for key in typed:
                if key in "qQ":
                    return
                if key == "p":
                    view.is_paused = not view.is_paused
                elif key == _FULL_REDRAW:
                    screen.forget()
                elif key in "123":
                    view.sort = SORTED_BY[int(key) - 1]
