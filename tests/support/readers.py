"""Readers in processes of their own, which verify every byte that they get.

Work for a ``RemoteClient``: everything here is importable by both sides. What the processes tell
each other goes through a :class:`Board`, a few shared numbers.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import forebay
from support.sealed import WORD, WrongBytesError, version_in

if TYPE_CHECKING:
    from collections.abc import Sequence

_WAIT_S = 60.0
_PAUSE_S = 0.001


@dataclass(frozen=True, slots=True)
class Sealed:
    """A sealed object that is read: no version of it is smaller than *least_bytes*."""

    key: str
    url: str
    least_bytes: int


class Board:
    """Numbers that several processes see; each is written by one of them."""

    def __init__(self, path: Path | str, objects: int) -> None:
        size = (8 + 2 * objects) * 8
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.posix_fallocate(fd, 0, size)
        os.close(fd)
        words = np.memmap(path, dtype="<u8", mode="r+", shape=(8 + 2 * objects,))
        self._words = words
        self.floors = words[8 : 8 + objects]  # what was read after this was set is no older version
        self.evictions = words[8 + objects :]  # of each object

    @property
    def stopped(self) -> bool:
        return bool(self._words[0])

    def stop(self) -> None:
        """Let the readers end."""
        self._words[0] = 1

    @property
    def held(self) -> int:
        """How often a slow reader has begun to hold an object."""
        return int(self._words[1])

    def hold(self) -> None:
        self._words[1] += 1


@dataclass(slots=True)
class Tally:
    """What a reader saw."""

    reads: int = 0
    wrong: list[str] = field(default_factory=list)  # the first few
    outdated: dict[str, int] = field(default_factory=dict)  # by way: versions older than one that
    # was evicted before the read began
    replaced: int = 0  # StaleFileError: the object was replaced faster than it was read
    slow: int = 0  # function runs of slow applies beyond the first
    by_way: dict[str, int] = field(default_factory=dict)

    def add(self, other: Tally) -> None:
        self.reads += other.reads
        self.wrong += other.wrong
        self.replaced += other.replaced
        self.slow += other.slow
        for mine, others in ((self.by_way, other.by_way), (self.outdated, other.outdated)):
            for way, count in others.items():
                mine[way] = mine.get(way, 0) + count


class _Reader:
    """Reads objects in random ways and order."""

    def __init__(
        self, client: forebay.Client, objects: Sequence[Sealed], board: Board, seed: int
    ) -> None:
        self.client = client
        self.objects = objects
        self.board = board
        self.random = random.Random(seed)  # the same again with the same seed
        self.tally = Tally()
        self.way = ""

    def read(self) -> None:
        """Read once, or a few objects at once."""
        way = self.random.choices(
            (self.get, self.get_range, self.get_many, self.apply, self.open, self.seek),
            (40, 20, 10, 20, 5, 5),
        )[0]
        number = self.random.randrange(len(self.objects))
        self.way = way.__name__
        try:
            way(number)
        except WrongBytesError as error:
            if len(self.tally.wrong) < 5:
                self.tally.wrong.append(f"{self.way}: {error}")
            else:
                self.tally.wrong.append("…")
        except forebay.StaleFileError:
            self.tally.replaced += 1
        self.tally.by_way[self.way] = self.tally.by_way.get(self.way, 0) + 1

    def judge(self, floor: int, version: int) -> None:
        self.tally.reads += 1
        if version < floor:
            self.tally.outdated[self.way] = self.tally.outdated.get(self.way, 0) + 1

    def get(self, number: int) -> None:
        floor, sealed = int(self.board.floors[number]), self.objects[number]
        self.judge(floor, version_in(sealed.key, self.client.get(sealed.url)))

    def get_range(self, number: int) -> None:
        floor, sealed = int(self.board.floors[number]), self.objects[number]
        start = self.random.randrange(0, sealed.least_bytes - 2 * WORD, WORD)
        end = self.random.randrange(start + WORD, sealed.least_bytes)
        data = self.client.get(sealed.url, start, end)
        self.judge(floor, version_in(sealed.key, data, start, end))

    def get_many(self, number: int) -> None:
        numbers = [number, *(self.random.randrange(len(self.objects)) for _ in range(3))]
        floors = [int(self.board.floors[each]) for each in numbers]
        sealed = [self.objects[each] for each in numbers]
        for floor, each, data in zip(
            floors, sealed, self.client.get_many([each.url for each in sealed]), strict=True
        ):
            self.judge(floor, version_in(each.key, data))

    def apply(self, number: int) -> None:
        floor, sealed = int(self.board.floors[number]), self.objects[number]
        version = self.client.apply(sealed.url, lambda view: version_in(sealed.key, view))
        self.judge(floor, version)

    def open(self, number: int) -> None:
        floor, sealed = int(self.board.floors[number]), self.objects[number]
        with self.client.open(sealed.url) as file:
            self.judge(floor, version_in(sealed.key, file.read()))

    def seek(self, number: int) -> None:
        """Read two ranges of one open file: they are of one version."""
        floor, sealed = int(self.board.floors[number]), self.objects[number]
        versions = set()
        with self.client.open(sealed.url) as file:
            for _ in range(2):
                start = self.random.randrange(0, sealed.least_bytes - 2 * WORD, WORD)
                end = self.random.randrange(start + WORD, sealed.least_bytes)
                file.seek(start)
                data = file.read(end - start)
                versions.add(version_in(sealed.key, data, start, end))
        if len(versions) > 1:
            raise WrongBytesError(f"{sealed.key}: an open file has versions {versions}")
        self.judge(floor, versions.pop())


def verify_reads(
    client: forebay.Client,
    objects: Sequence[Sealed],
    board_path: str,
    count: int,
    seed: int,
    evictions: int = 0,
) -> Tally:
    """Read *count* objects, more until there were *evictions*, or until the board says stop."""
    board = Board(board_path, len(objects))
    reader = _Reader(client, objects, board, seed)
    while not board.stopped and (reader.tally.reads < count or board.evictions.sum() < evictions):
        reader.read()
    return reader.tally


def hold_and_verify(
    client: forebay.Client,
    objects: Sequence[Sealed],
    number: int,
    board_path: str,
    evictions: int,
    holds: int,
) -> Tally:
    """Apply a slow function to an object: its first *holds* runs look at a byte, wait until the
    object was evicted *evictions* times more, and only then read the bytes."""
    board = Board(board_path, len(objects))
    sealed = objects[number]
    runs = 0

    def slow(view: memoryview) -> int:
        nonlocal runs
        runs += 1
        assert view[0] is not None
        if runs <= holds:
            wanted = int(board.evictions[number]) + evictions
            board.hold()
            deadline = time.monotonic() + _WAIT_S
            while board.evictions[number] < wanted:
                if time.monotonic() > deadline:
                    raise TimeoutError("nobody evicts the object that is held")
                time.sleep(_PAUSE_S)
        return version_in(sealed.key, view)

    tally = Tally()
    floor = int(board.floors[number])
    try:
        version = client.apply(sealed.url, slow)
    except WrongBytesError as error:
        tally.wrong.append(str(error))
    else:
        tally.outdated = {"apply": 1} if version < floor else {}
    tally.reads, tally.slow = 1, runs - 1
    return tally


def read_at_once(
    client: forebay.Client, sealed: Sealed, ways: Sequence[str], version: int
) -> list[str]:
    """Read one object in one thread for each of *ways*; return what is wrong."""
    barrier = threading.Barrier(len(ways))

    def read(way: str) -> str | None:
        barrier.wait(_WAIT_S)
        try:
            if way == "get":
                seen = version_in(sealed.key, client.get(sealed.url))
            elif way == "get_many":
                seen = version_in(sealed.key, client.get_many([sealed.url])[0])
            elif way == "apply":
                seen = client.apply(sealed.url, lambda view: version_in(sealed.key, view))
            else:
                with client.open(sealed.url) as file:
                    seen = version_in(sealed.key, file.read())
        except Exception as error:  # it is the test's to judge
            return f"{way}: {error!r}"
        return None if seen == version else f"{way}: version {seen}, not {version}"

    with ThreadPoolExecutor(len(ways)) as pool:
        return [wrong for wrong in pool.map(read, ways) if wrong is not None]


def read_each_once(client: forebay.Client, objects: Sequence[Sealed]) -> int:
    """Read all *objects* one after the other; return how many bytes they have."""
    size = 0
    for sealed in objects:
        data = client.get(sealed.url)
        version_in(sealed.key, data)
        size += len(data)
    return size


def lease_and_warm(
    client: forebay.Client, objects: Sequence[Sealed], prefix: str, board_path: str
) -> Tally:
    """Warm everything and hold objects by path, in turns, until the board says stop."""
    board = Board(board_path, len(objects))
    tally = Tally()
    for sealed in itertools.cycle(objects):
        if board.stopped:
            return tally
        with contextlib.suppress(forebay.CacheFullError, forebay.StaleFileError):
            if sealed is objects[0]:
                client.warm(prefix)
            with client.local_path(sealed.url) as name:
                try:
                    version_in(sealed.key, Path(name).read_bytes())
                except WrongBytesError as error:
                    tally.wrong.append(f"local_path: {error}")
                tally.reads += 1
    return tally
