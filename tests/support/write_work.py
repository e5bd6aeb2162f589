"""What a ``RemoteClient`` can be asked to write. See ``remote_work``."""

from __future__ import annotations

import os
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from support.sealed import seal

if TYPE_CHECKING:
    from collections.abc import Sequence

    import forebay

MIB = 1 << 20
# A packed object's, a blob's, one in parts.
_SIZES = (100, 4_096, 100_000, 1_500_000, 7_000_000)


def put(client: forebay.Client, path: str, data: bytes) -> None:
    client.put(path, data)


def remove(client: forebay.Client, path: str) -> None:
    client.remove(path)


def create(client: forebay.Client, path: str, data: bytes, at: float = 0.0) -> bool:
    """Create an object at the time *at*; tells whether it was this process that did."""
    while time.time() < at:
        pass
    try:
        with client.open(path, "xb") as file:
            file.write(data)
    except FileExistsError:
        return False
    return True


def put_then_tell(client: forebay.Client, path: str, data: bytes, mark: str) -> None:
    """Write an object, then look for the file *mark*: a trace shows that it was acknowledged."""
    client.put(path, data)
    os.access(mark, os.F_OK)


def open_then_tell(client: forebay.Client, path: str, data: bytes, mark: str) -> None:
    with client.open(path, "wb") as file:
        file.write(data)
    os.access(mark, os.F_OK)


def remove_then_tell(client: forebay.Client, path: str, mark: str) -> None:
    client.remove(path, missing_ok=True)
    os.access(mark, os.F_OK)


def write_half(client: forebay.Client, path: str, size_bytes: int, mark: str) -> None:
    """Write into an open file, say so by the file *mark*, and hold it open for ever."""
    file = client.open(path, "wb")
    piece = b"half" * (MIB // 4)
    for _ in range(size_bytes // MIB):
        file.write(piece)
    file.flush()
    Path(mark).touch()
    while True:
        time.sleep(3600)


# --- writers that are killed ------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Note:
    """A line of a writer: what it is about to do, or has been told is done."""

    is_done: bool
    number: int  # of the write
    key: str
    version: int  # 0: removed

    def to_line(self) -> bytes:
        word = "done" if self.is_done else "begin"
        return f"{word} {self.number} {self.version} {self.key}\n".encode()

    @classmethod
    def from_line(cls, line: str) -> Note:
        word, number, version, key = line.split(" ", 3)
        return cls(word == "done", int(number), key, int(version))


def write_on(
    client: forebay.Client,
    keys: Sequence[str],
    root: str,
    notes_file: str,
    stop_file: str,
    seed: int,
) -> int:
    """Write and remove *keys* below *root* until *stop_file* is there; returns how often.

    Every write is noted before it begins and once it was acknowledged. Versions never come again.
    """
    dice = random.Random(seed)
    notes = os.open(notes_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    version, number = seed * 1_000_000, 0
    while not os.path.exists(stop_file):  # noqa: PTH110  # often
        key = dice.choice(keys)
        version += 1
        number += 1
        kind = dice.random()
        note = Note(False, number, key, 0 if kind < 0.2 else version)
        os.write(notes, note.to_line())
        os.fsync(notes)
        path = f"{root}{key}"
        if kind < 0.2:
            client.remove(path, missing_ok=True)
        else:
            data = seal(key, version, dice.choice(_SIZES) + dice.randrange(100))
            if kind < 0.7:
                client.put(path, data)
            else:
                with client.open(path, "wb") as file:
                    for start in range(0, len(data), 300_000):
                        file.write(data[start : start + 300_000])
        os.write(notes, Note(True, number, key, note.version).to_line())
        os.fsync(notes)
    os.close(notes)
    return number
