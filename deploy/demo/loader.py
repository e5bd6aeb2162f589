"""A loader without torch: worker processes that read photos and decode them."""

from __future__ import annotations

import io
import multiprocessing
import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.synchronize import Barrier
    from types import TracebackType

_START_S = 120.0  # for all workers to be there

_read: Callable[[str], bytes]  # of this worker, set when it starts


class Reader(Protocol):
    """Makes what a worker reads with, inside the worker; is pickled on the way to it."""

    def open(self) -> Callable[[str], bytes]: ...


@dataclass(frozen=True, slots=True)
class ThroughForebay:
    """Reads by the daemon's cache: paths as if the data set lay on the local disk."""

    address: str
    path_mapping: dict[str, str]

    def open(self) -> Callable[[str], bytes]:
        import forebay

        return forebay.Client(self.address, path_mapping=self.path_mapping).get


@dataclass(frozen=True, slots=True)
class FromOrigin:
    """Reads each photo from S3 by s3fs, every time."""

    path_mapping: dict[str, str]

    def open(self) -> Callable[[str], bytes]:
        from s3fs import S3FileSystem  # type: ignore[import-untyped]  # ships no stubs

        file_system: Any = S3FileSystem()
        ((local, remote),) = self.path_mapping.items()

        def read(path: str) -> bytes:
            return bytes(file_system.cat_file(remote + path.removeprefix(local)))

        return read


@dataclass(frozen=True, slots=True)
class Epoch:
    """What one pass over the data set took."""

    photos: int
    pixels: int
    seconds: float
    reading_s: float  # of all workers together


class Loader:
    """Worker processes that are started once, and run epochs."""

    def __init__(self, reader: Reader, workers: int) -> None:
        self._workers = workers
        # The progress bar is a thread of ours, and threads do not survive a fork.
        context = multiprocessing.get_context("spawn")
        ready = context.Barrier(workers + 1)
        self._pool = context.Pool(workers, _start_worker, (reader, ready))
        ready.wait(_START_S)

    def __enter__(self) -> Loader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._pool.terminate()
        self._pool.join()

    def epoch(self, paths: list[str], seed: int, advance: Callable[[], object]) -> Epoch:
        """Read and decode every photo once, in an order of its own."""
        order = random.Random(seed).sample(paths, len(paths))  # noqa: S311  # shuffles, hides nothing
        pixels, reading_s = 0, 0.0
        started = time.perf_counter()
        for photo_pixels, photo_s in self._pool.imap_unordered(_load, order, chunksize=4):
            pixels += photo_pixels
            reading_s += photo_s
            advance()
        return Epoch(len(order), pixels, time.perf_counter() - started, reading_s)


def _start_worker(reader: Reader, ready: Barrier) -> None:
    global _read
    _read = reader.open()
    ready.wait(_START_S)


def _load(path: str) -> tuple[int, float]:
    started = time.perf_counter()
    data = _read(path)
    reading_s = time.perf_counter() - started
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        return image.width * image.height, reading_s
