"""A training program as a process, watched and killed by what it says."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from support.below import environment_below
from support.toy_training import parse_event

if TYPE_CHECKING:
    from support.ceph import Bucket
    from support.daemon import DaemonProcess

_TESTS = str(Path(__file__).parents[1])

UNDER_EXEC = (sys.executable, "-m", "forebay", "exec")


class Training:
    """``python -m support.train_…``, whose events are read as they come."""

    def __init__(
        self,
        program: str,
        *arguments: str,
        cwd: Path,
        daemon: DaemonProcess,
        under: tuple[str, ...] = (),
    ) -> None:
        """*under* is the command, with its options, that runs it: ``UNDER_EXEC``."""
        self.events: list[dict[str, Any]] = []
        self._log = cwd / f"{len(list(cwd.glob('*.stderr')))}.stderr"
        self._log.touch()
        command = [sys.executable, "-m", f"support.{program}", *arguments]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603  # our own program
                [*under, *(["--"] if under else []), *command],
                cwd=cwd,
                env=environment_below(daemon, PYTHONPATH=_TESTS, PYTHONWARNINGS="ignore"),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
                text=True,
            )

    def __enter__(self) -> Training:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill9()

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    @property
    def losses(self) -> list[tuple[int, int, str]]:
        """(epoch, step, loss to the last bit) of every step so far."""
        return [(e["epoch"], e["step"], e["loss"]) for e in self.events if "loss" in e]

    def told(self, what: str) -> list[Any]:
        """Return what all events so far say of *what*."""
        return [event[what] for event in self.events if what in event]

    @property
    def weights(self) -> dict[int, str]:
        """The digest of the weights after each epoch so far."""
        return {event["after"]: event["weights"] for event in self.events if "after" in event}

    @property
    def best_epoch(self) -> int:
        """The epoch whose evaluation gave the greatest score, of a training from its start."""
        scores = self.told("score")
        return int(scores.index(max(scores))) + 1

    def wait_until_paused(self) -> None:
        self._read(until="paused")

    def go_on(self) -> None:
        """Let it go on from where it paused."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    def finish(self) -> Training:
        """Wait for its good end."""
        self._read()
        assert self._process.wait() == 0, self.log
        return self

    def kill9(self) -> None:
        """End it and its workers as a crash does; nothing if it has ended."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()

    def _read(self, until: str | None = None) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            event = parse_event(line)
            if event is not None:
                self.events.append(event)
                if until is not None and until in event:
                    return
        assert until is None, f"it ended before it was {until}:\n{self.log}"


def names_below(bucket: Bucket, prefix: str) -> set[str]:
    """Return the names below *prefix* at the origin, the time in a log's name as TIME."""
    found = (key.removeprefix(prefix) for key in bucket.keys(prefix))
    return {re.sub(r"\d{8}_\d{6}", "TIME", name) for name in found}


def text_ending(bucket: Bucket, prefix: str, ending: str) -> str:
    """Return the text of the one object below *prefix* at the origin with this ending."""
    (key,) = (key for key in bucket.keys(prefix) if key.endswith(ending))
    return bucket.get(key).decode()


def local_files(folder: Path) -> set[str]:
    """Return the names of all files below a folder of this machine."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def upload_files(bucket: Bucket, folder: Path, prefix: str) -> None:
    """Put the files below *folder* below *prefix*."""
    for path in folder.rglob("*.*"):
        bucket.put(prefix + path.relative_to(folder).as_posix(), path.read_bytes())
