"""Progress bars on a terminal: of a pass over the data with its loss, and of a test.

A test is told of in a log, too; a training's own lines are enough of it.
"""

from __future__ import annotations

import contextlib
import datetime
import logging
import sys
import time
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from forebay_trainer.engine import distributed
from forebay_trainer.engine.hook import Hook

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from forebay_trainer.engine.runner import Runner


_log = logging.getLogger(__name__)

TELL_EVERY_S = 30.0


class _Screen:
    """The one live display that a terminal can have; bars inside bars are further rows of it."""

    def __init__(self) -> None:
        self._progress: Progress | None = None
        self._bars = 0

    @contextlib.contextmanager
    def bar(self, title: str, total: int) -> Iterator[Callable[..., None]]:
        if self._progress is None:
            self._progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("eta"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[values]}"),
                console=Console(stderr=True),
                transient=True,
            )
            self._progress.start()
        progress = self._progress
        self._bars += 1
        task = progress.add_task(title, total=total, values="")

        def advance(values: str = "") -> None:
            progress.update(task, advance=1, values=values)

        try:
            yield advance
        finally:
            if self._progress is progress:  # and not cleared after an error
                progress.remove_task(task)
                self._bars -= 1
                if not self._bars:
                    self.clear()

    def clear(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
            self._bars = 0


_screen = _Screen()


def clear_screen() -> None:
    """Take off what an error has left on the terminal, and give the cursor back."""
    _screen.clear()


@contextlib.contextmanager
def progress_bar(title: str, total: int) -> Iterator[Callable[..., None]]:
    """Show a bar; gives what is called after each step, perhaps with a text to show beside it.

    Nothing is shown where no person looks, or by any process but the first.
    """
    if distributed.rank() or not sys.stderr.isatty():
        yield lambda *_: None
        return
    with _screen.bar(title, total) as advance:
        yield advance


@contextlib.contextmanager
def told_progress(title: str, total: int) -> Iterator[Callable[[], None]]:
    """Show a bar as ``progress_bar``; where there is no terminal, log a line now and then."""
    with progress_bar(title, total) as advance:
        yield advance if sys.stderr.isatty() else _teller(title, total)


def _teller(title: str, total: int) -> Callable[[], None]:
    done, started_s = 0, time.monotonic()
    told_s = started_s

    def advance() -> None:
        nonlocal done, told_s
        done += 1
        now_s = time.monotonic()
        if now_s - told_s >= TELL_EVERY_S:
            told_s = now_s
            left = datetime.timedelta(seconds=int((now_s - started_s) / done * (total - done)))
            _log.info("%s: %d of %d, eta %s", title, done, total, left)

    return advance


class ProgressHook(Hook):
    """A bar for each pass over the data, with the last batch's loss and its wait for data."""

    def __init__(self) -> None:
        self._bar = contextlib.ExitStack()
        self._advance: Callable[..., None]

    def before_epoch(self, runner: Runner) -> None:
        title = f"epoch {runner.epoch + 1}/{runner.max_epochs}"
        bar = progress_bar(title, len(runner.data_loader))
        self._advance = self._bar.enter_context(bar)

    def after_iter(self, runner: Runner) -> None:
        latest = {name: runner.log_buffer.latest(name) for name in ("data_time", "loss")}
        told = (f"{name} {value:.3f}" for name, value in latest.items() if value is not None)
        self._advance(" ".join(told))

    def after_epoch(self, runner: Runner) -> None:
        self._bar.close()
