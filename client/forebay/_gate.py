"""Keeps forks and gRPC apart.

A process that is forked while another thread is inside gRPC inherits locks that nobody will ever
release; gRPC's own fork handlers give up in that case, and with many threads some one in a hundred
children hung. So before a fork the calls that are under way are cut, and the fork waits until every
thread is out, gRPC's own included: they end when the last channel is closed, and a child starts
gRPC anew. Whoever wants in waits until the fork is over.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_LONGEST_WAIT_S = 5.0  # for threads to leave; then the fork goes on at its own risk
_LONGEST_QUIET_S = 0.5  # for gRPC's threads, which go on if others use it in this process too
_PAUSE_S = 0.002
_GRPC_THREADS = ("event_engine", "grpc_", "lifeguard")


class ForkGate:
    """One for the process, closed during a fork."""

    def __init__(self) -> None:
        self._turn = threading.Lock()  # of one fork at a time; taken before _lock
        # Taken as a lock, which an exception of a signal handler cannot leave half taken.
        self._lock = threading.Lock()  # guards what follows
        self._changed = threading.Condition(self._lock)
        self._inside = 0
        self._forking: int | None = None  # the thread that forks

    @contextlib.contextmanager
    def passed(self) -> Iterator[None]:
        """Be where no fork happens. The code inside must end when its channel is closed."""
        with self._lock:
            # The forking thread may get here through a finalizer, and must not wait for itself.
            while self._forking not in (None, threading.get_ident()):
                self._changed.wait()
            self._inside += 1
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                if self._forking is not None:
                    self._changed.notify_all()

    def shut(self, cut: Callable[[], bool]) -> None:
        """Let nobody in and wait until everybody is out; *cut* ends the calls under way.

        *cut* is called until it returns True with nobody inside: who was just coming in may have
        started another call.
        """
        self._turn.acquire()
        with self._lock:
            self._forking = threading.get_ident()
        deadline = time.monotonic() + _LONGEST_WAIT_S
        while time.monotonic() < deadline:
            is_cut = cut()
            with self._lock:
                if is_cut and not self._inside:
                    break
                self._changed.wait(_PAUSE_S)
        deadline = time.monotonic() + _LONGEST_QUIET_S
        while _has_grpc_threads() and time.monotonic() < deadline:
            time.sleep(_PAUSE_S)

    def open(self) -> None:
        """Let everybody in again, after the fork, in the parent."""
        with self._lock:
            self._forking = None
            self._changed.notify_all()
        self._turn.release()


def _has_grpc_threads() -> bool:
    for thread in os.listdir("/proc/self/task"):  # noqa: PTH208  # names alone
        with (
            contextlib.suppress(OSError),  # it has just ended
            open(f"/proc/self/task/{thread}/comm") as name,  # noqa: PTH123  # cheaper
        ):
            if name.read().startswith(_GRPC_THREADS):
                return True
    return False
