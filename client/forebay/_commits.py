"""Commits over the spool's own socket, which costs a third of a gRPC call.

A socket carries one commit at a time and is kept for the next.
"""

from __future__ import annotations

import os
import socket
import struct
import threading
import weakref
from typing import TYPE_CHECKING

from forebay._errors import from_reply
from forebay_protos import cache_pb2 as pb
from forebay_protos import layout, spool

if TYPE_CHECKING:
    from forebay._folder import Folder

_KEPT = 8
_READ_BYTES = 4096
_TIMEVAL = struct.Struct("@ll")


class Commits:
    """The sockets of one cache folder in this process. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards _kept
        self._kept: list[tuple[str, socket.socket]] = []
        _alive.add(self)

    def commit(
        self, folder: Folder, request: pb.CommitRequest, timeout_s: float
    ) -> pb.CommitReply | None:
        """Return the daemon's answer; None if there is none to be had this way.

        Raises ForebayError.
        """
        request.is_synced_by_writer = True
        try:
            body = self._ask(folder.path, request.SerializeToString(), timeout_s)
        except OSError:
            request.is_synced_by_writer = False
            return None
        if body[0]:
            raise from_reply(pb.Error.FromString(body[1:]))
        # Here rather than in the daemon, which has one thread for all: its rename, to last.
        folder.sync_spool()
        return pb.CommitReply.FromString(body[1:])

    def _ask(self, folder: str, body: bytes, timeout_s: float) -> bytes:
        """Return the answer's body. Raises OSError."""
        connection = self._take(folder, timeout_s)
        try:
            connection.sendall(spool.framed(body))
            received = b""
            while (answer := spool.unframed(received)) is None:
                data = connection.recv(_READ_BYTES)  # BlockingIOError at the deadline
                if not data:
                    raise ConnectionResetError
                received += data
        except BaseException:
            connection.close()
            raise
        self._keep(folder, connection)
        return answer

    def _take(self, folder: str, timeout_s: float) -> socket.socket:
        with self._lock:
            for index, (path, connection) in enumerate(self._kept):
                if path == folder:
                    del self._kept[index]
                    _limit(connection, timeout_s)
                    return connection
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            _limit(connection, timeout_s)
            connection.connect(f"{folder}/{layout.COMMIT_SOCKET}")
        except BaseException:
            connection.close()
            raise
        return connection

    def _keep(self, folder: str, connection: socket.socket) -> None:
        with self._lock:
            if len(self._kept) < _KEPT:
                self._kept.append((folder, connection))
                return
        connection.close()

    def close(self) -> None:
        """Close what is kept; a closed one that is used again opens what it needs."""
        with self._lock:
            kept, self._kept = self._kept, []
        for _, connection in kept:
            connection.close()

    def after_fork_in_child(self) -> None:
        # The parent's: an answer would reach whichever of the two reads first.
        self._lock = threading.Lock()
        self.close()


def _limit(connection: socket.socket, timeout_s: float) -> None:
    """Bound the wait for an answer in the kernel: Python's timeouts are a poll for each call."""
    limit = _TIMEVAL.pack(int(timeout_s), int(timeout_s % 1 * 1e6) or 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)


_alive: weakref.WeakSet[Commits] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for commits in list(_alive):
        commits.after_fork_in_child()


os.register_at_fork(after_in_child=_after_fork_in_child)
