"""Writes: bytes to the daemon, and what else changes objects.

A client that shares the folder stages the bytes itself, another sends them. Every operation has an
id, so that what a restart of the daemon cuts is simply done again.
"""

from __future__ import annotations

import errno
import os
import random
import stat
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from pickle import PickleBuffer
from typing import TYPE_CHECKING, Protocol

from forebay._errors import (
    DeadlineExceededError,
    ForebayError,
    ObjectExistsError,
    ObjectNotFoundError,
    StageLostError,
    StaleFileError,
)
from forebay._staging import PIECE_BYTES, ROUNDS, Sink
from forebay._uploads import patiently
from forebay_protos import cache_pb2 as pb
from forebay_protos import spool, uris
from forebay_protos.spool import Trailer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import IO

    from typing_extensions import Buffer

    from forebay._misses import Misses
    from forebay._node import Node

_MESSAGE_BYTES = 1 << 20
_TRAILER_BYTES = 1 << 10  # and the URI: more than nearly every trailer takes
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.005, 0.2
_NOTHING = memoryview(b"")


def check_mode(mode: str | None) -> str:
    """Return a mode as a trailer has it. Raises ValueError."""
    text = mode or ""
    if text not in spool.MODES:
        raise ValueError(f"mode {mode!r}: give None, 'write_back' or 'write_through'")
    return text


def as_view(data: Buffer | str) -> memoryview:
    """Return the bytes of a buffer, or of a text as UTF-8, without a copy (a view of items of
    another byte order is copied).

    Raises TypeError for what has none, BufferError if they do not lie one after the other.
    """
    if isinstance(data, str):
        data = data.encode()
    try:
        with memoryview(data) as view:
            if "O" in view.format:
                raise TypeError("an array of objects has no bytes of its own: pickle it")
            if not view.c_contiguous:
                raise BufferError("the buffer is not C-contiguous: write a copy of it")
            if not view.nbytes:
                return _NOTHING
            if not isinstance(data, memoryview):
                return PickleBuffer(data).raw()
            # Not so: of a view there must be no exporter (see _pages._exported).
            try:
                return view.cast("B")
            except ValueError:  # a format like ">i4"
                return memoryview(view.tobytes())
    except TypeError as error:
        if "array of objects" in str(error):
            raise
        raise TypeError(f"bytes-like or str are written, not {type(data).__name__}") from error


# --- what is written --------------------------------------------------------------------------


class Body(Protocol):
    """Bytes that can be had again from their begin."""

    @property
    def size_bytes(self) -> int:
        """How many, as far as it is known before they are read."""

    @property
    def exact_bytes(self) -> int:
        """As ``size_bytes``; -1 if there may be more or fewer."""

    def write_to(self, sink: Sink) -> memoryview:
        """Write the bytes but for the last, which are returned."""

    def pieces(self) -> Iterator[bytes | memoryview]:
        """Yield the bytes in pieces of any size."""


class InMemory:
    """The bytes of a buffer."""

    def __init__(self, view: memoryview) -> None:
        self._view = view
        self.size_bytes = self.exact_bytes = len(view)

    def write_to(self, _: Sink) -> memoryview:
        return self._view

    def pieces(self) -> Iterator[memoryview]:
        yield self._view


class LocalFile:
    """What a descriptor of a local file reads."""

    exact_bytes = -1

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.size_bytes = os.fstat(fd).st_size

    def write_to(self, sink: Sink) -> memoryview:
        sink.copy_from(self._fd)
        return _NOTHING

    def pieces(self) -> Iterator[bytes]:
        at = 0
        while piece := os.pread(self._fd, _MESSAGE_BYTES, at):
            at += len(piece)
            yield piece


class Joined:
    """What *first* yields each time that it is called, then a file from its begin."""

    def __init__(
        self, first: Callable[[], Iterator[bytes]], file: IO[bytes], size_bytes: int
    ) -> None:
        self._first = first
        self._file = file
        self._lock = threading.Lock()  # guards the file's position
        self.size_bytes = self.exact_bytes = size_bytes

    def write_to(self, sink: Sink) -> memoryview:
        for piece in self.pieces():
            sink.write(memoryview(piece))
        return _NOTHING

    def pieces(self) -> Iterator[bytes]:
        yield from self._first()
        at = 0
        while piece := self._read(at):
            at += len(piece)
            yield piece

    def _read(self, at: int) -> bytes:
        # gRPC may still be sending from here what is already being sent anew.
        with self._lock:
            self._file.seek(at)
            return self._file.read(_MESSAGE_BYTES)


# --- writing ----------------------------------------------------------------------------------


def put(node: Node, uri: str, data: Buffer | str, mode: str | None, timeout_s: float) -> None:
    body = InMemory(as_view(data))
    trailer = Trailer(spool.PUT, uri, size_bytes=body.size_bytes, mode=check_mode(mode))
    publish(node, trailer, body, timeout_s)


def put_file(
    node: Node, uri: str, local_path: str | os.PathLike[str], mode: str | None, timeout_s: float
) -> None:
    trailer = Trailer(spool.PUT, uri, mode=check_mode(mode))
    fd = os.open(local_path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise IsADirectoryError(errno.EISDIR, "a folder is no object", os.fspath(local_path))
        publish(node, trailer, LocalFile(fd), timeout_s)
    finally:
        os.close(fd)


def publish(node: Node, trailer: Trailer, body: Body, timeout_s: float) -> None:
    """Write an object; returns when it is durable on this node and seen by all its clients.

    In mode ``write_through``, and for a create, when it is in the origin.
    """
    # A file that turns out to need more grows.
    total = body.size_bytes + len(trailer.uri) + _TRAILER_BYTES
    for _ in range(ROUNDS):
        staged = node.staging.take_kept(total) or node.staging.take(trailer.uri, total, timeout_s)
        if staged is None:
            return _send(node, trailer, body, timeout_s)
        sink = Sink(node.staging, staged, timeout_s, total)
        try:
            with abandoned_on_error(sink):
                last = body.write_to(sink)
                size_bytes = sink.written + len(last)
                if trailer.size_bytes != size_bytes:
                    trailer = replace(trailer, size_bytes=size_bytes)
                sink.finish(last, trailer)
                return None
        except StageLostError:
            continue
    raise ForebayError(f"{trailer.uri} cannot be written: its staged file is taken back each time")


@contextmanager
def abandoned_on_error(sink: Sink) -> Iterator[None]:
    """Give the staged file back if what is done with it fails."""
    try:
        yield
    except BaseException:
        sink.abandon()
        raise


def _send(node: Node, trailer: Trailer, body: Body, timeout_s: float) -> None:
    """Write an object through the daemon."""
    text = replace(trailer, size_bytes=body.exact_bytes).to_json()

    def requests() -> Iterator[pb.WriteRequest]:
        yield pb.WriteRequest(trailer_json=text)
        for piece in body.pieces():
            view = memoryview(piece)
            for at in range(0, len(view), _MESSAGE_BYTES):
                yield pb.WriteRequest(data=bytes(view[at : at + _MESSAGE_BYTES]))
        yield pb.WriteRequest(is_last=True)

    timeouts = max(1, -(-body.size_bytes // PIECE_BYTES))
    node.channel.send("Write", requests, timeout_s * timeouts)


def check_absent(node: Node, uri: str, timeout_s: float) -> None:
    """Raise ObjectExistsError if there is an object by now; it is only sure when it is created."""
    try:
        reply = node.channel.call("Stat", pb.StatRequest(uri=uri, fresh=True), timeout_s)
    except ObjectNotFoundError:
        return
    if not reply.is_prefix:
        raise ObjectExistsError(f"{uri} exists already")


def append(
    node: Node, misses: Misses, uri: str, suffix: IO[bytes], size_bytes: int, timeout_s: float
) -> None:
    """Write what an object holds, nothing if there is none, and then *suffix* of *size_bytes*.

    Whoever appends at the same time loses nothing either: the later one reads again.
    """
    operation = spool.new_operation()
    deadline = time.monotonic() + timeout_s
    pause_s = _FIRST_PAUSE_S
    while True:
        base_bytes, version = _base(node, uri, timeout_s)
        if version and not size_bytes:
            return
        trailer = Trailer(
            spool.APPEND, uri, base_version=version, base_bytes=base_bytes, operation=operation
        )

        def base(count: int = base_bytes, version: str = version) -> Iterator[bytes]:
            if count:
                yield from misses.read(uri, 0, count, version, count, timeout_s)

        try:
            publish(node, trailer, Joined(base, suffix, base_bytes + size_bytes), timeout_s)
        except (StaleFileError, ObjectNotFoundError) as error:  # changed, or removed, meanwhile
            if time.monotonic() > deadline:
                raise DeadlineExceededError(
                    f"{uri} changes faster than it can be appended to: nothing was appended"
                ) from error
        else:
            return
        time.sleep(pause_s * random.random())  # noqa: S311  # two appenders must not keep in step
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)


def _base(node: Node, uri: str, timeout_s: float) -> tuple[int, str]:
    """Return (size in bytes, version) of what is there, (0, "") if there is nothing."""
    try:
        reply = node.channel.call("Stat", pb.StatRequest(uri=uri), timeout_s)
    except ObjectNotFoundError:
        return 0, ""
    return (0, "") if reply.is_prefix else (reply.size_bytes, reply.version)


# --- what else changes objects ----------------------------------------------------------------


def remove(node: Node, uri: str, timeout_s: float, *, missing_ok: bool) -> None:
    _change(node, pb.ChangeRequest(kind="REMOVE", uri=uri, missing_ok=missing_ok), timeout_s)


def remove_tree(node: Node, uri: str, timeout_s: float) -> None:
    _change(node, pb.ChangeRequest(kind="REMOVE_TREE", uri=uri), timeout_s)


def copy(node: Node, misses: Misses, source: str, target: str, timeout_s: float) -> None:
    """Copy an object; one of another origin is read and written."""
    if _is_one_origin(node, source, target, timeout_s):
        _change(node, pb.ChangeRequest(kind="COPY", uri=source, target=target), timeout_s)
    else:
        _copy_bytes(node, misses, source, target, "", timeout_s)


def move(node: Node, misses: Misses, source: str, target: str, timeout_s: float) -> None:
    if _is_one_origin(node, source, target, timeout_s):
        _change(node, pb.ChangeRequest(kind="MOVE", uri=source, target=target), timeout_s)
    else:
        # The removal waits for earlier writes of its own origin only.
        version = _copy_bytes(node, misses, source, target, "write_through", timeout_s)
        if _base(node, source, timeout_s)[1] != version:
            raise StaleFileError(
                f"{source} was written while it was moved: it is copied, and stays"
            )
        remove(node, source, timeout_s, missing_ok=True)


def _change(node: Node, request: pb.ChangeRequest, timeout_s: float) -> None:
    request.operation = spool.new_operation()
    patiently(node.channel, "Change", request, timeout_s, request.uri)


def _is_one_origin(node: Node, source: str, target: str, timeout_s: float) -> bool:
    """Tell whether both belong to one origin; also if none is known, which the daemon explains."""
    origins = {row.prefix: row for row in node.attachment(timeout_s).origins}
    one, other = uris.resolve(source, origins), uris.resolve(target, origins)
    return one is None or other is None or one[1] == other[1]


def _copy_bytes(
    node: Node, misses: Misses, source: str, target: str, mode: str, timeout_s: float
) -> str:
    """Copy an object; returns the version that was copied."""
    for _ in range(ROUNDS):
        size_bytes, version = _base(node, source, timeout_s)
        if not version:
            raise ObjectNotFoundError(f"there is no object {source}")
        body = _Object(misses, source, size_bytes, version, timeout_s)
        try:
            publish(node, Trailer(spool.PUT, target, mode=mode), body, timeout_s)
        except StaleFileError:
            continue
        return version
    raise StaleFileError(f"{source} changes faster than it can be copied")


class _Object:
    """One version of an object."""

    def __init__(
        self, misses: Misses, uri: str, size_bytes: int, version: str, timeout_s: float
    ) -> None:
        self._misses = misses
        self._uri = uri
        self.size_bytes = self.exact_bytes = size_bytes
        self._version = version
        self._timeout_s = timeout_s

    def write_to(self, sink: Sink) -> memoryview:
        for piece in self.pieces():
            sink.write(memoryview(piece))
        return _NOTHING

    def pieces(self) -> Iterator[bytes]:
        if self.size_bytes:
            yield from self._misses.read(
                self._uri, 0, self.size_bytes, self._version, self.size_bytes, self._timeout_s
            )
