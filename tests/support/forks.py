"""Worker processes of a parent that has used its client, as data loaders start them.

The functions are at the top of a module, because spawn and forkserver import what they run.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from multiprocessing.context import BaseContext

    import forebay

_WORKER_S = 90.0


class WorkerFailedError(Exception):
    """A worker did not answer, or said what went wrong."""


def expected(number: int) -> bytes:
    """Return the bytes of the object of this number: any mix-up shows."""
    size = 300_000 if number % 7 == 0 else 5_000
    return (b"%08d" % number) * (size // 8)


def read_some(client: forebay.Client, prefix: str, numbers: Sequence[int]) -> int:
    """Read objects one by one, then together; return how many. Raises if one is wrong."""
    for number in numbers:
        if client.get(f"{prefix}{number}") != expected(number):
            raise WorkerFailedError(f"object {number} is wrong")
    together = client.get_many([f"{prefix}{number}" for number in numbers])
    if together != [expected(number) for number in numbers]:
        raise WorkerFailedError(f"get_many of {numbers} is wrong")
    return len(numbers)


def _work(client: forebay.Client, prefix: str, numbers: Sequence[int], answers: Any) -> None:
    try:
        answers.put((os.getpid(), read_some(client, prefix, numbers), ""))
    except BaseException as error:
        answers.put((os.getpid(), 0, f"{type(error).__name__}: {error}"))
        raise


def run_workers(
    context: BaseContext, client: forebay.Client, prefix: str, shares: Sequence[Sequence[int]]
) -> None:
    """Start a worker for each share and wait for all. Raises WorkerFailedError."""
    answers = context.SimpleQueue()
    workers = [
        context.Process(target=_work, args=(client, prefix, share, answers))  # type: ignore[attr-defined]  # of every context
        for share in shares
    ]
    for worker in workers:
        worker.start()
    try:
        for worker in workers:
            worker.join(_WORKER_S)
            if worker.exitcode is None:
                raise WorkerFailedError(f"worker {worker.pid} hangs")
        told = [answers.get() for _ in workers]
        failures = [message for _, _, message in told if message]
        if failures or any(worker.exitcode for worker in workers):
            raise WorkerFailedError(f"{failures}, {[worker.exitcode for worker in workers]}")
        if sum(count for _, count, _ in told) != sum(map(len, shares)):
            raise WorkerFailedError(f"not everything was read: {told}")
    finally:
        for worker in workers:
            if worker.exitcode is None:
                worker.kill()
                worker.join()
            worker.close()


def nested(client: forebay.Client, prefix: str, depth: int, answers: Any) -> None:
    """Read, fork, and let the child do the same, *depth* generations deep."""
    message = ""
    try:
        read_some(client, prefix, [depth, depth + 100])
        if depth:
            context = multiprocessing.get_context("fork")
            child = context.Process(target=nested, args=(client, prefix, depth - 1, answers))
            child.start()
            read_some(client, prefix, [depth + 50, depth + 150])
            child.join(_WORKER_S)
            if child.exitcode != 0:
                message = f"generation {depth - 1} ended with {child.exitcode}"
        read_some(client, prefix, [depth, depth + 200])
    except BaseException as error:
        message = f"{type(error).__name__}: {error}"
    answers.put((depth, message))


class BusyThreads:
    """Threads of the parent that go on reading, hits and misses, while it forks."""

    def __init__(self, client: forebay.Client, prefix: str, count: int, objects: int) -> None:
        self._client = client
        self._prefix = prefix
        self._objects = objects
        self._is_over = threading.Event()
        self._failures: queue.SimpleQueue[BaseException] = queue.SimpleQueue()
        self.rounds = [0] * count
        self._threads = [
            threading.Thread(target=self._read, args=(index,), daemon=True)
            for index in range(count)
        ]

    def _read(self, index: int) -> None:
        number = index
        try:
            while not self._is_over.is_set():
                read_some(self._client, self._prefix, [number % self._objects])
                if number % 3 == 0:
                    self._client.evict(f"{self._prefix}{number % self._objects}")
                number += len(self.rounds)
                self.rounds[index] += 1
        except BaseException as error:
            self._failures.put(error)

    def __enter__(self) -> BusyThreads:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join(_WORKER_S)
        if not self._failures.empty():
            raise self._failures.get()
        if any(thread.is_alive() for thread in self._threads):
            raise WorkerFailedError("a thread of the parent hangs")
