"""Daemon and writers are killed at random moments while the origin fails half of the time: what was
acknowledged arrives, what was not is not there in part.
"""

from __future__ import annotations

import contextlib
import itertools
import operator
import os
import random
import signal
import threading
import time
from collections import defaultdict
from typing import TYPE_CHECKING

import forebay
from support.remote import RemoteClient
from support.remote_work import pid
from support.rounds import rounds
from support.sealed import seal, version_in
from support.spooled import contents, journal, unfinished, wait_until, wait_until_empty
from support.write_work import Note, write_on

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from conftest import StartDaemon
    from support.ceph import Bucket
    from support.daemon import DaemonProcess
    from support.proxy import FaultProxy, Request

WRITERS = 3
KEYS = 5  # of each writer: so few that they are overwritten while they are uploaded
LONGEST_ROUND_S = 1.0


class Trouble:
    """Half of the requests fail: some get an error, some a reset connection."""

    def __init__(self, proxy: FaultProxy, seed: int) -> None:
        self._proxy = proxy
        self._dice = random.Random(seed)
        self._lock = threading.Lock()
        self._faults = [
            proxy.fail(self._hits(0.25), method=None, status=500, times=None),
            proxy.reset(self._hits(0.33), method=None, times=None),  # of the rest
        ]

    def _hits(self, chance: float) -> Callable[[Request], bool]:
        def decide(_: Request) -> bool:
            with self._lock:
                return self._dice.random() < chance

        return decide

    def end(self) -> int:
        """Let the origin work; returns how many requests have failed."""
        for fault in self._faults:
            fault.remove()
        return sum(fault.hits for fault in self._faults)


class Writers:
    """Processes that write until they are stopped or killed, and note what they were told."""

    def __init__(self, daemon: DaemonProcess, root: str, folder: Path, seed: int) -> None:
        folder.mkdir()
        self._stop_file = folder / "stop"
        self._notes = [folder / f"notes-{number}" for number in range(WRITERS)]
        self._stack = contextlib.ExitStack()
        self._writers = [
            self._stack.enter_context(RemoteClient(daemon.address)) for _ in range(WRITERS)
        ]
        self._pids = [writer.do(pid) for writer in self._writers]
        self._killed: set[int] = set()
        for number, writer in enumerate(self._writers):
            keys = [f"{number}/{key}" for key in range(KEYS)]
            writer.start(
                write_on,
                keys,
                root,
                str(self._notes[number]),
                str(self._stop_file),
                seed * WRITERS + number + 1,
            )

    def wait_until_all_write(self) -> None:
        wait_until(
            lambda: all(file.exists() and file.stat().st_size for file in self._notes),
            "a note of each writer",
        )

    def kill9(self, number: int) -> None:
        os.kill(self._pids[number], signal.SIGKILL)
        self._killed.add(number)

    def stop(self) -> None:
        """Let those that live end; raises what went wrong in them."""
        self._stop_file.touch()
        for number, writer in enumerate(self._writers):
            if number not in self._killed:
                assert writer.result() > 0

    def close(self) -> None:
        self._stop_file.touch()
        self._stack.close()

    def notes(self) -> Iterator[list[Note]]:
        """Yield what each writer has noted."""
        for file in self._notes:
            text = file.read_text() if file.exists() else ""
            yield [Note.from_line(line) for line in text.splitlines()]


def allowed_after(notes: list[Note], known: dict[str, int]) -> tuple[dict[str, set[int]], int]:
    """Return which versions each key may have (0: none) after what a writer noted, and how many
    writes were acknowledged. *known* is what there was before.
    """
    done = {note.number for note in notes if note.is_done}
    allowed: dict[str, set[int]] = {key: {version} for key, version in known.items()}
    for note in notes:
        if note.is_done:
            continue
        if note.number in done:
            allowed[note.key] = {note.version}
        else:  # the last of a writer that was killed: whole, or not at all
            allowed.setdefault(note.key, {0}).add(note.version)
    return allowed, len(done)


def versions_at(bucket: Bucket) -> dict[str, int]:
    """Return the version of each object; raises WrongBytesError if one is not whole."""
    found: defaultdict[str, int] = defaultdict(int)
    for key, data in contents(bucket).items():
        found[key] = version_in(key, data)
    return found


def version_seen(client: forebay.Client, root: str, key: str) -> int:
    try:
        return version_in(key, client.get(root + key))
    except FileNotFoundError:
        return 0


@rounds("count", 4, 100)
def test_what_was_acknowledged_arrives_and_nothing_in_part(
    start_daemon: StartDaemon, proxy: FaultProxy, bucket: Bucket, tmp_path: Path, count: int
) -> None:
    moment = random.Random(count)
    daemon = start_daemon(
        endpoint_url=proxy.url, max_attempts=2, upload_part_bytes="5MiB", max_bytes="2GB"
    )
    root = bucket.url()
    known: dict[str, int] = {}
    acknowledged = failures = kills_with_work = 0
    for number in itertools.count():
        # As many rounds as it takes: a machine that is busy does little in each.
        reached = (acknowledged, failures, kills_with_work)
        wanted = (5 * count, 5 * count, count / 2)
        if number >= count and all(map(operator.gt, reached, wanted)):
            break
        assert number < 10 * count, f"{reached} of {wanted}"
        trouble = Trouble(proxy, number)
        writers = Writers(daemon, root, tmp_path / f"round-{number}", number)
        with contextlib.closing(writers):
            writers.wait_until_all_write()
            for _ in range(moment.choice((1, 1, 2, 3))):
                time.sleep(moment.random() * LONGEST_ROUND_S)
                if moment.random() < 0.3:
                    with contextlib.suppress(ProcessLookupError):
                        writers.kill9(moment.randrange(WRITERS))
                daemon.kill9()
                kills_with_work += bool(journal(daemon.cache_dir))
                # A remove that a killed daemon has asked for may undo what the next one writes.
                wait_until(lambda: proxy.connections == 0, "the end of its requests")
                daemon.start()
            if moment.random() < 0.5:
                time.sleep(moment.random() * LONGEST_ROUND_S)
                writers.kill9(moment.randrange(WRITERS))
            writers.stop()
            failures += trouble.end()
            notes = list(writers.notes())
        # What the node's readers see is what will be, and what will be is what was acknowledged.
        allowed: dict[str, set[int]] = {}
        for each in notes:
            own, told = allowed_after(each, known)
            acknowledged += told
            for key, versions in own.items():
                if key not in allowed or any(note.key == key for note in each):
                    allowed[key] = versions
        daemon.kill9()
        wait_until(lambda: proxy.connections == 0, "the end of its requests")
        daemon.start()
        with forebay.Client(daemon.address) as client:
            seen = {key: version_seen(client, root, key) for key in allowed}
            client.flush()

            there = versions_at(bucket)
            wrong = {
                key: (there[key], seen[key], versions)
                for key, versions in allowed.items()
                if there[key] not in versions or seen[key] != there[key]
            }
            assert wrong == {}, "key: (at the origin, seen on the node, allowed)"
            assert set(there) <= set(allowed)
            assert client.uploads() == []
            assert client.check().problems == ()
            for key in allowed:
                if there[key]:
                    assert version_in(key, client.get(root + key)) == there[key]
        wait_until_empty(daemon.cache_dir)
        known = {key: there[key] for key in allowed}
    assert unfinished(bucket) == []
    nothing_is_charged(daemon)


def nothing_is_charged(daemon: DaemonProcess) -> None:
    """The spool's ledger must come to nothing once all writers are gone."""
    with forebay.Client(daemon.address) as client:
        wait_until(lambda: client.stats().raw["spool"]["spool_used_bytes"] == 0, "an empty ledger")


def test_the_seal_of_the_last_write_is_told_from_a_torn_one() -> None:
    """Of the test itself: bytes of two versions are no version."""
    one, other = seal("0/1", 1, 100_000), seal("0/1", 2, 100_000)
    assert version_in("0/1", other) == 2
    try:
        version_in("0/1", one[:50_016] + other[50_016:])
    except AssertionError:
        return
    raise AssertionError("a mix of versions was not seen")
