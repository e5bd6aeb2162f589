"""Objects whose bytes tell by themselves whose they are: every 32 of them hold the key's hash, the
version, their own place and the object's size. Any mix of objects, versions or places is seen.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from typing_extensions import Buffer

    from support.ceph import Bucket

WORD = 32


class WrongBytesError(AssertionError):
    """Bytes that no version of the object has; the text says which."""


def seal(key: str, version: int, size_bytes: int) -> bytes:
    """Return the content of a version of an object."""
    words = np.empty((-(-size_bytes // WORD), 4), dtype="<u8")
    words[:, 0] = _hash(key)
    words[:, 1] = version
    words[:, 2] = np.arange(len(words), dtype="<u8")
    words[:, 3] = size_bytes
    return words.tobytes()[:size_bytes]


def version_in(key: str, data: Buffer, start: int = 0, end: int | None = None) -> int:
    """Return the version whose bytes [start:end] are *data*; *start* is a multiple of 32.

    Raises WrongBytesError. There must be a whole word in the range.
    """
    view = memoryview(data).cast("B")
    count = len(view) // WORD
    if not count or start % WORD:
        raise WrongBytesError(f"{key}[{start}:{end}]: {len(view)} bytes cannot be told")
    words = np.frombuffer(view[: count * WORD], dtype="<u8").reshape(-1, 4)
    version, size = int(words[0, 1]), int(words[0, 3])
    where = f"{key}[{start}:{end}] of {size} bytes, version {version}"
    expected = min(size, size if end is None else end) - start
    if len(view) != expected:
        raise WrongBytesError(f"{where}: {len(view)} bytes, not {expected}")
    first = start // WORD
    right = (
        (words[:, 0] == _hash(key))
        & (words[:, 1] == version)
        & (words[:, 2] == np.arange(first, first + count, dtype="<u8"))
        & (words[:, 3] == size)
    )
    if not right.all():
        at = int(np.flatnonzero(~right)[0])
        raise WrongBytesError(f"{where}: {int((~right).sum())} words are wrong, first {words[at]}")
    tail = np.array([_hash(key), version, first + count, size], dtype="<u8").tobytes()
    if bytes(view[count * WORD :]) != tail[: len(view) - count * WORD]:
        raise WrongBytesError(f"{where}: its last bytes are wrong")
    return version


def _hash(key: str) -> int:
    return int.from_bytes(blake2b(key.encode(), digest_size=8).digest(), "little")


@dataclass(frozen=True, slots=True)
class Shelf:
    """An origin of sealed objects, written to without any code of ours."""

    url: Callable[[str], str]
    store: Callable[[str, bytes], object]
    delete: Callable[[str], None]

    def put(self, key: str, version: int, size_bytes: int) -> str:
        """Store a version of an object and return its URL."""
        self.store(key, seal(key, version, size_bytes))
        return self.url(key)


def shelf_of_files(folder: Path) -> Shelf:
    """Return an origin below ``file://``."""
    folder.mkdir(exist_ok=True)
    scratch_folder = folder.with_name(f"{folder.name}.new")  # beside it, so that no listing sees it
    scratch_folder.mkdir(exist_ok=True)

    def store(key: str, data: bytes) -> None:
        path = folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = scratch_folder / key.replace("/", "_")
        scratch.write_bytes(data)
        # Not the time of the kernel's last tick: within 4 ms the version would be the same.
        now = time.time_ns()
        os.utime(scratch, ns=(now, now))
        scratch.rename(path)  # a reader sees the old or the new file

    return Shelf(lambda key: f"file://{folder}/{key}", store, lambda key: (folder / key).unlink())


def shelf_in(bucket: Bucket) -> Shelf:
    """Return an origin in a bucket."""
    return Shelf(bucket.url, bucket.put, bucket.delete)
