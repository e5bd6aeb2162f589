"""Open files: seekable, one version from the first byte to the last.

A small object is read at once. Of a large one the blob in the cache folder is read in place; what
is missing is filled, for a sequential reader ahead of it. If the object leaves the cache meanwhile,
the same version is filled again; if there is no such version any more, reading raises
StaleFileError. What cannot be cached is streamed by the daemon.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections import deque
from typing import TYPE_CHECKING, Any, TypeVar

from forebay._errors import ForebayError, ObjectNotFoundError, StaleFileError
from forebay._hits import file_number, first_byte, has, identity_of, size_bytes
from forebay._misses import FIRST_BYTES
from forebay._pages import read_file
from forebay_protos import cache_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from typing_extensions import Buffer

    from forebay._hits import Hits, Known, View
    from forebay._mapping import OpenFile
    from forebay._misses import Misses
    from forebay._node import Node

Result = TypeVar("Result")

_BUFFER_BYTES = 128 << 10
_ROUNDS = 6  # a refill takes up to three
_AT_ONCE_BYTES = 16 << 20  # of a file that is still being filled
_LEAST_AHEAD_BYTES, _MOST_AHEAD_BYTES = 16 << 20, 128 << 20
_QUICK_TIMEOUT_S = 2.0


def open_object(
    node: Node, hits: Hits, misses: Misses, path: str, timeout_s: float
) -> io.BufferedReader:
    """Open an object for reading. Raises ObjectNotFoundError."""
    size, version, is_filled = 0, "", False
    place = hits.find(path)
    if place is None:
        uri = misses.uri(path, timeout_s)
        is_remote = node.folder() is None
        filled = misses.fill(uri, 0, FIRST_BYTES, "", timeout_s, inline=is_remote)
        if filled.WhichOneof("outcome") == "data" and len(filled.data) == filled.size_bytes:
            return _in_memory(filled.data)
        size, version = filled.size_bytes, filled.version
        if filled.WhichOneof("outcome") == "placed":
            is_filled = True
            place = hits.find(path, is_filled=True)
    if place is not None:
        view, found = place
        if file_number(found) > 0:
            data = hits.look(path, None, None, is_filled=is_filled)
            return _in_memory(misses.get(path, None, None, timeout_s) if data is None else data)
        if is_filled:
            # The record may be of a later version than the reply: the file begins without it.
            place = None
        else:
            size = size_bytes(found)
            version = _version_of(node, misses.uri(path, timeout_s), view, found)
    raw = _ObjectFile(node, hits, misses, path, size, version, timeout_s)
    if place is not None:
        raw.adopt(*place)
    return io.BufferedReader(raw, _BUFFER_BYTES)


def _in_memory(data: bytes) -> io.BufferedReader:
    return io.BufferedReader(io.BytesIO(data), _BUFFER_BYTES)


def _version_of(node: Node, uri: str, view: View, found: Known) -> str:
    """Return the version of a record, "" if the daemon cannot tell now."""
    request = pb.StatRequest(uri=uri)
    with contextlib.suppress(ForebayError):
        reply = node.channel.call("Stat", request, _QUICK_TIMEOUT_S, wait=False)
        if reply.is_prefix:
            raise ObjectNotFoundError(f"{uri} is a prefix, not an object")
        # The same record before and after: the answer is about it.
        if reply.cached_bytes and view.is_unchanged(found):
            return str(reply.version)
    return ""


class _ObjectFile(io.RawIOBase):
    """One version of an object, by position. Not thread-safe; the BufferedReader around it is."""

    def __init__(
        self,
        node: Node,
        hits: Hits,
        misses: Misses,
        path: str,
        size_bytes: int,
        version: str,
        timeout_s: float,
    ) -> None:
        super().__init__()
        self._node = node
        self._hits = hits
        self._misses = misses
        self._path = path
        self._uri = misses.uri(path, timeout_s)
        self._size = size_bytes
        self._version = version
        self._timeout_s = timeout_s
        self._position = 0
        self._place: tuple[View, Known] | None = None  # of this version, as last seen
        self._is_uncached = node.folder() is None
        self._is_complete = False
        self._sequential_from = 0
        self._run = 0  # bytes read since there, one after the other
        self._ahead_to = 0
        self._ahead: deque[Any] = deque()  # fills under way; a call is cancelled when dropped
        self._stream: Iterator[bytes] | None = None
        self._stream_at = 0
        self._stream_rest = memoryview(b"")

    def adopt(self, view: View, found: Known) -> None:
        """Take a record that is known to be of this file's version."""
        self._place = view, found
        self._is_complete = has(found, 0, self._size)

    # --- io.RawIOBase ------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return self._path

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        self._check_open()
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        self._check_open()
        bases = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}
        if whence not in bases:
            raise ValueError(f"invalid whence: {whence}")
        if bases[whence] + offset < 0:
            raise ValueError(f"negative seek position {bases[whence] + offset}")
        self._position = bases[whence] + offset
        return self._position

    def readinto(self, buffer: Buffer, /) -> int:
        self._check_open()
        target = memoryview(buffer).cast("B")
        low = self._position
        length = min(len(target), max(0, self._size - low))
        if not self._is_complete:
            length = min(length, _AT_ONCE_BYTES)
        if not length:
            return 0
        target = target[:length]

        def read(file: OpenFile, at: int) -> bool | None:
            return True if os.preadv(file.fd, [target], at) == length else None

        if self._read_folder(low, low + length, read) is None:
            length = self._read_stream(target)
        self._position = low + length
        self._read_ahead(low, low + length)
        return length

    def readall(self) -> bytes:
        self._check_open()
        low, high = self._position, max(self._position, self._size)
        if low == high:
            return b""

        def read(file: OpenFile, at: int) -> bytes | None:
            piece = read_file(file, at, high - low)
            return piece if len(piece) == high - low else None

        data = self._read_folder(low, high, read)
        if data is None:
            pieces = []
            while self._position < high:
                piece = bytearray(min(high - self._position, _AT_ONCE_BYTES))
                count = self._read_stream(memoryview(piece))
                self._position += count
                pieces.append(memoryview(piece)[:count])
            data = b"".join(pieces)
        self._position = high
        return data

    def close(self) -> None:
        self._stream = None
        self._place = None
        while self._ahead:
            self._ahead.pop().cancel()
        super().close()

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file")

    # --- from the cache folder ---------------------------------------------------------------

    def _read_folder(
        self, low: int, high: int, read: Callable[[OpenFile, int], Result | None]
    ) -> Result | None:
        """Return what *read* gives for the file with the range and the position at which it begins.

        None if the range is to be streamed.
        """
        for _ in range(_ROUNDS):
            place = self._secure(low, high)
            if place is None:
                return None
            view, found = place
            try:
                # A small object gets here, too, if it was evicted when the file was opened.
                result = read(view.folder.file(file_number(found)), first_byte(found) + low)
            except OSError:  # evicted before its file was opened, or the disk fails
                result = None
            if result is not None and view.is_unchanged(found):
                return result
            self._place = None
        self._is_uncached = True
        return None

    def _secure(self, low: int, high: int) -> tuple[View, Known] | None:
        """Return the place of this version with the range in it, None if it is to be streamed."""
        for _ in range(_ROUNDS):
            if self._is_uncached:
                return None
            place = self._refreshed()
            if place is not None and has(place[1], low, high):
                return place
            if not self._version:
                raise StaleFileError(
                    f"{self._path} left the cache while it was read, and the daemon was down when "
                    "it was opened: open it again"
                )
            # A record that is the same before and after the daemon speaks of a version is of it.
            before = self._hits.find(self._path, is_filled=True)
            filled = self._misses.fill(self._uri, low, high, self._version, self._timeout_s)
            if filled.WhichOneof("outcome") != "placed":
                self._is_uncached = True
            elif before is not None and before[0].is_unchanged(before[1]):
                self._place = before
                self._is_complete = False  # another generation may lack what the last one had
        self._is_uncached = True
        return None

    def _refreshed(self) -> tuple[View, Known] | None:
        """Return the place with the blocks that are present now, None if it is gone."""
        if self._place is None:
            return None
        if self._is_complete:
            return self._place  # whether it is still there is compared after reading
        now = self._hits.find(self._path, is_filled=True)
        if now is None or identity_of(now[1]) != identity_of(self._place[1]):
            self._place = None
            return None
        self._is_complete = has(now[1], 0, self._size)
        self._place = now
        return now

    def _read_ahead(self, low: int, high: int) -> None:
        """Have filled what a sequential reader will want next."""
        if self._is_complete or self._is_uncached:
            return
        if low != self._sequential_from + self._run:
            self._sequential_from, self._run, self._ahead_to = low, 0, high
        self._run = high - self._sequential_from
        window = min(max(2 * self._run, _LEAST_AHEAD_BYTES), _MOST_AHEAD_BYTES)
        start, end = max(self._ahead_to, high), min(high + window, self._size)
        if self._run < _BUFFER_BYTES or end - start < min(window // 2, self._size - start):
            return
        while self._ahead and self._ahead[0].done():
            self._ahead.popleft()
        call = self._misses.start_fill(self._uri, start, end, self._version, self._timeout_s)
        if call is not None:
            self._ahead.append(call)
            self._ahead_to = end

    # --- from the daemon ---------------------------------------------------------------------

    def _read_stream(self, target: memoryview) -> int:
        """Read some bytes at the position from a stream of this version."""
        if self._position >= self._size:
            return 0
        if self._stream is None or self._stream_at != self._position:
            self._stream = self._misses.read(
                self._uri, self._position, None, self._version, self._size, self._timeout_s
            )
            self._stream_at, self._stream_rest = self._position, memoryview(b"")
        while not self._stream_rest:
            self._stream_rest = memoryview(next(self._stream))
        count = min(len(target), len(self._stream_rest))
        target[:count] = self._stream_rest[:count]
        self._stream_rest = self._stream_rest[count:]
        self._stream_at += count
        return count
