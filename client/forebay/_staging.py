"""Staged files: where a client that shares the cache folder puts the bytes that it writes.

The daemon makes a file in the spool, this process holds a flock on it while it writes, and Commit
makes it an acknowledged write. What nobody holds for some seconds the daemon takes back, so names
can be kept for the next write, and forgotten, without telling anybody.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import threading
import time
import weakref
from typing import TYPE_CHECKING

from forebay._commits import Commits
from forebay._errors import ForebayError, SpoolFullError
from forebay._uploads import patiently
from forebay_protos import cache_pb2 as pb
from forebay_protos.spool import foot_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from forebay._folder import Folder
    from forebay._node import Node
    from forebay_protos.spool import Trailer

PIECE_BYTES = 64 << 20  # for each of which timeout_s is allowed
ROUNDS = 3
_GROW_PIECES = 4
_FIRST_STEP_BYTES, _STEP_BYTES = 8 << 20, 64 << 20  # by which a file of unknown size grows
_WRITE_BYTES = 16 << 20  # at once, whereupon the kernel is told to bring them to the disk
_READ_BYTES = 1 << 20
_KEPT = 8  # as many threads as are likely to write small objects at once
_KEPT_BYTES = 4 << 20  # of larger files the extra call does not matter, and the space does
_KEPT_GRAIN = 16 << 10
_QUICK_TIMEOUT_S = 2.0
_SYNC_FILE_RANGE_WRITE = 2
_FULL = (errno.ENOSPC, errno.EDQUOT)
_MAY_NOT = (errno.EACCES, errno.EPERM, errno.EROFS)  # another user, a read-only mount
_CANNOT_COPY = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM)


def _load_sync_file_range() -> Callable[[int, int, int, int], int] | None:
    try:
        function = ctypes.CDLL(None, use_errno=True).sync_file_range
    except AttributeError:
        return None
    function.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
    function.restype = ctypes.c_int
    result: Callable[[int, int, int, int], int] = function
    return result


_sync_file_range = _load_sync_file_range()


class Staged:
    """A staged file that this process holds."""

    def __init__(self, fd: int, file: str, granted_bytes: int) -> None:
        self.fd = fd
        self.file = file
        self.granted_bytes = granted_bytes
        self.length = 0  # of the file, as the daemon has made it: the grant, or less
        self.is_parents = False  # in a forked child: the file is not its own

    def close(self) -> None:
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    __del__ = close


class Staging:
    """The staged files of one Node in this process. Thread-safe."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._lock = threading.Lock()  # guards _kept; no I/O while it is held
        self._commits = Commits()
        self._kept: list[tuple[str, int]] = []  # (file, granted bytes), held by nobody
        self._held: weakref.WeakSet[Staged] = weakref.WeakSet()
        self._refused: weakref.ref[Folder] | None = None  # in which this process may not write

    def folder(self) -> Folder | None:
        """Return the folder if this process can write into its spool, as far as it is known."""
        folder = self._node.folder()
        if folder is None or (self._refused is not None and self._refused() is folder):
            return None
        return folder

    # --- getting a file ----------------------------------------------------------------------

    def take_kept(self, size_bytes: int) -> Staged | None:
        """Return a file for *size_bytes* that was staged with an earlier commit, if there is one.

        It may have been staged for another origin, so it must not grow.
        """
        folder = self.folder()
        while folder is not None:
            with self._lock:
                fits = [kept for kept in self._kept if kept[1] >= size_bytes]
                if not fits:
                    return None
                self._kept.remove(fits[-1])
            with contextlib.suppress(OSError):
                staged = self._hold(folder, *fits[-1])
                if staged is not None:
                    return staged
        return None

    def take(self, uri: str, size_bytes: int, timeout_s: float) -> Staged | None:
        """Return a new file, None if this process cannot write into the spool itself."""
        for _ in range(ROUNDS):
            folder = self.folder()
            if folder is None:
                return None
            request = pb.StageRequest(uri=uri, size_bytes=size_bytes)
            reply = self._node.channel.call("Stage", request, timeout_s)
            try:
                staged = self._hold(folder, reply.file, reply.granted_bytes)
            except OSError as error:
                if error.errno not in _MAY_NOT:
                    self._abandon(reply.file)
                    raise
                self._refused = weakref.ref(folder)
                self._abandon(reply.file)
                return None
            if staged is not None:
                return staged
            self._node.doubt()  # is this the folder of the daemon that answered?
        folder = self.folder()
        self._refused = None if folder is None else weakref.ref(folder)
        return None

    def _hold(self, folder: Folder, file: str, granted_bytes: int) -> Staged | None:
        """Open and lock a staged file; None if it was taken back. Raises OSError."""
        try:
            fd = os.open(f"{folder.path}/{file}", os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        staged = Staged(fd, file, granted_bytes)
        self._held.add(staged)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # the daemon is taking it back
            staged.close()
            return None
        except OSError:
            staged.close()
            raise
        status = os.fstat(fd)
        if status.st_nlink == 0:
            staged.close()
            return None
        staged.length = status.st_size
        return staged

    # --- what becomes of it ------------------------------------------------------------------

    def grow(self, staged: Staged, written_bytes: int, wanted_bytes: int, timeout_s: float) -> None:
        """Get more room; waits while the spool is full. What is written must stay as it is."""
        request = pb.GrowRequest(
            file=staged.file, written_bytes=written_bytes, wanted_bytes=wanted_bytes
        )
        # Of a file that passes through the spool, so many pieces are uploaded meanwhile.
        granted = self._node.channel.call("Grow", request, _GROW_PIECES * timeout_s).granted_bytes
        if granted <= written_bytes:
            raise SpoolFullError(f"the daemon grants {granted} bytes: raise spool_max_bytes")
        staged.granted_bytes = staged.length = granted

    def commit(
        self, staged: Staged, trailer: Trailer, trailer_json: str, end: int, timeout_s: float
    ) -> str:
        """Make a file of *end* bytes an acknowledged write; returns the origin's version of it
        if that was waited for."""
        next_bytes = 0
        if end <= _KEPT_BYTES and len(self._kept) < _KEPT:
            next_bytes = (end // _KEPT_GRAIN + 2) * _KEPT_GRAIN  # a little longer is likely
        request = pb.CommitRequest(
            file=staged.file,
            operation=trailer.operation,
            trailer_json=trailer_json,
            next_bytes=next_bytes,
        )
        timeouts = max(1, -(-end // PIECE_BYTES))
        reply = self._ask_commit(request, timeout_s * timeouts, trailer.uri)
        if reply.HasField("next"):
            with self._lock:
                self._kept.append((reply.next.file, reply.next.granted_bytes))
                del self._kept[:-_KEPT]
        staged.close()
        return str(reply.version)

    def _ask_commit(self, request: pb.CommitRequest, timeout_s: float, uri: str) -> pb.CommitReply:
        deadline = time.monotonic() + timeout_s
        folder = self._node.folder()
        if folder is not None:
            reply = self._commits.commit(folder, request, timeout_s)
            if reply is not None:
                return reply
        # The daemon is down, or restarted: it knows a commit that it has taken by its operation.
        left_s = max(1.0, deadline - time.monotonic())
        answer: pb.CommitReply = patiently(self._node.channel, "Commit", request, left_s, uri)
        return answer

    def abandon(self, staged: Staged) -> None:
        """Give a file back that is not going to be committed."""
        if not staged.is_parents and staged.fd >= 0:
            self._abandon(staged.file)
        staged.close()

    def _abandon(self, file: str) -> None:
        with contextlib.suppress(ForebayError):  # otherwise it is taken back later
            request = pb.AbandonRequest(file=file)
            self._node.channel.call("Abandon", request, _QUICK_TIMEOUT_S, wait=False)

    def forget(self) -> None:
        """Keep nothing for later."""
        self._commits.close()
        with self._lock:
            self._kept.clear()

    def after_fork_in_child(self) -> None:
        self._lock = threading.Lock()
        self._kept = []
        # The locks are shared with the parent: they would hold its files after its death.
        for staged in list(self._held):
            staged.is_parents = True
            staged.close()
        self._held = weakref.WeakSet()


class Sink:
    """Writes one staged file from its begin to its end. Not thread-safe."""

    def __init__(
        self, staging: Staging, staged: Staged, timeout_s: float, total_bytes: int = 0
    ) -> None:
        """*total_bytes* is the length that the file is going to have, 0 if that is not known."""
        self._staging = staging
        self._staged = staged
        self._timeout_s = timeout_s
        self._total_bytes = total_bytes
        self._pushed = 0  # bytes that the kernel was told to bring to the disk
        self.written = 0

    def write(self, view: memoryview) -> None:
        """Write bytes as they are, without a copy of them."""
        while view:
            room = min(self._room(len(view)), _WRITE_BYTES)
            view = view[self._pwritev([view[:room]]) :]

    def copy_from(self, fd: int) -> None:
        """Write what a file holds, from its begin to its end."""
        start, can_copy = self.written, True
        while True:
            at = self.written - start
            room = min(self._room(1), _WRITE_BYTES)
            if can_copy:
                try:
                    count = os.copy_file_range(fd, self._fd(), room, at, self.written)
                except OSError as error:
                    self._check_full(error)
                    if error.errno not in _CANNOT_COPY:
                        raise
                    count = 0
                can_copy = count > 0  # 0 may be the end, or a file that has no size
                if can_copy:
                    self._wrote(count)
                    continue
            piece = os.pread(fd, min(room, _READ_BYTES), at)
            if not piece:
                return
            self.write(memoryview(piece))

    def finish(self, last: memoryview, trailer: Trailer) -> str:
        """Write the *last* bytes and the trailer, have all of it on the disk, and commit.

        Returns the origin's version if that was waited for.
        """
        trailer_json = trailer.to_json()
        tail = memoryview(foot_of(trailer_json))
        total = self.written + len(last) + len(tail)
        if total <= self._staged.granted_bytes and total - self.written <= _WRITE_BYTES:
            count = self._pwritev([last, tail])
            tail = tail[max(0, count - len(last)) :]
            last = last[count:]
        self.write(last)
        self.write(tail)
        fd = self._fd()
        try:
            if self._staged.length > total:
                os.ftruncate(fd, total)
            os.fsync(fd)
        except OSError as error:
            self._check_full(error)
            raise
        return self._staging.commit(self._staged, trailer, trailer_json, total, self._timeout_s)

    def abandon(self) -> None:
        self._staging.abandon(self._staged)

    def drop(self) -> None:
        """Let the daemon take the file back, without a word to it: for finalizers."""
        self._staged.close()

    def _fd(self) -> int:
        if self._staged.is_parents:
            raise ForebayError("the file was opened before a fork, and belongs to the parent")
        return self._staged.fd

    def _room(self, needed: int) -> int:
        """Return how much can be written now, at least a byte."""
        room = self._staged.granted_bytes - self.written
        if room > 0:
            return room
        step = min(max(self.written, _FIRST_STEP_BYTES), _STEP_BYTES)
        wanted = self.written + max(step, min(needed, _STEP_BYTES))
        if self.written < self._total_bytes:
            wanted = min(wanted, self._total_bytes)
        self._staging.grow(self._staged, self.written, wanted, self._timeout_s)
        return self._staged.granted_bytes - self.written

    def _pwritev(self, views: list[memoryview]) -> int:
        try:
            count = os.pwritev(self._fd(), views, self.written)
        except OSError as error:
            self._check_full(error)
            raise
        self._wrote(count)
        return count

    def _wrote(self, count: int) -> None:
        self.written += count
        if self.written - self._pushed >= _WRITE_BYTES:
            if _sync_file_range is not None:  # so that the fsync finds little left to do
                length = self.written - self._pushed
                _sync_file_range(self._fd(), self._pushed, length, _SYNC_FILE_RANGE_WRITE)
            self._pushed = self.written

    @staticmethod
    def _check_full(error: OSError) -> None:
        if error.errno in _FULL:
            raise SpoolFullError(
                f"the disk of the cache folder is full ({error.strerror}): nothing was written; "
                "make room on it or lower max_bytes"
            ) from error
