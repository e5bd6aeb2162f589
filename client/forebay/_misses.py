"""Misses: the daemon is asked to bring bytes into the folder, or to send them.

A client that shares the folder has them filled and then takes them from there; another gets small
objects in the reply and large ones as a stream. Filling may be asked for twice, so what a restart
of the daemon cuts is asked for again.
"""

from __future__ import annotations

import io
import operator
from typing import TYPE_CHECKING, Any

from forebay._errors import ForebayError, ObjectNotFoundError, StaleFileError, from_reply
from forebay._hits import ROUNDS
from forebay._paths import Paths, as_text, check_mapping
from forebay_protos import cache_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from forebay._hits import Hits
    from forebay._node import Node
    from forebay._paths import StrPath, Tier
    from forebay_protos.layout import Attachment

FIRST_BYTES = 8 << 20  # asked for first of an object of unknown size: all of nearly every object
PIECE_BYTES = 64 << 20  # of a larger one, for each of which timeout_s is allowed
_OBJECTS_A_CALL = 512
_OBJECTS_A_TIMEOUT = 64
_MOST_UINT64 = 2**64 - 1


class Misses:
    """Brings what is not there, for all Clients with the same path mappings. Thread-safe."""

    def __init__(self, node: Node, hits: Hits, tiers: tuple[Tier, ...]) -> None:
        self._node = node
        self._hits = hits
        self._tiers = tiers
        self._paths: tuple[Attachment, Paths] | None = None

    def uri(self, path: StrPath, timeout_s: float) -> str:
        """Return the canonical URI. Raises InvalidPathError; may wait for the daemon's mapping."""
        text = as_text(path)
        if not text:
            return Paths(()).uri(text)  # raises, and needs no daemon for that
        return self.paths(timeout_s).uri(text)

    def paths(self, timeout_s: float) -> Paths:
        """Return the mappings; may wait for the daemon's."""
        attachment = self._node.attachment(timeout_s)
        known = self._paths
        if known is None or known[0] is not attachment:
            known = attachment, Paths((*self._tiers, check_mapping(attachment.path_mapping)))
            self._paths = known
        return known[1]

    def known_paths(self) -> Paths:
        """Return the mappings; the daemon's only if it is known, or answers at once."""
        self._node.folder()
        if self._node.state.attachment is None:
            return Paths(self._tiers)
        return self.paths(0.001)

    # --- one object --------------------------------------------------------------------------

    def get(self, path: StrPath, start: int | None, end: int | None, timeout_s: float) -> bytes:
        """Return the bytes of an object that is not a hit, sliced as Python slices."""
        start = None if start is None else operator.index(start)
        end = None if end is None else operator.index(end)
        uri = self.uri(path, timeout_s)
        version = ""
        for _ in range(ROUNDS):
            low, high = start or 0, end
            if low < 0 or (high is not None and high < 0):
                size, version = self._size(uri, timeout_s)
                low, high, _ = slice(start, end).indices(size)
            if high is not None and high <= low:
                high = low
            try:
                return self._get(path, uri, (start, end), (low, high), version, timeout_s)
            except StaleFileError:
                # Replaced between two steps: nothing of the old version was handed out yet.
                continue
        raise StaleFileError(f"{uri} changes faster than it can be read")

    def _get(
        self,
        path: StrPath,
        uri: str,
        wanted: tuple[int | None, int | None],
        absolute: tuple[int, int | None],
        version: str,
        timeout_s: float,
    ) -> bytes:
        low, high = absolute
        is_remote = self._node.folder() is None
        first_end = low + FIRST_BYTES if high is None else min(high, low + FIRST_BYTES)
        first = _range(uri, low, first_end, version)
        for _ in range(ROUNDS):
            filled = self._fill_one(first, timeout_s, inline=is_remote)
            outcome = filled.WhichOneof("outcome")
            end = filled.size_bytes if high is None else min(high, filled.size_bytes)
            if outcome == "data" and end <= first_end:
                return filled.data
            if outcome != "placed":
                break
            if end > first_end:
                data = self._get_large(path, uri, low, end, filled, timeout_s)
            else:
                data = self._hits.look(as_text(path), *wanted, is_filled=True)
            if data is not None:
                return data
            self._node.doubt()  # is this the folder into which it filled?
        sink = io.BytesIO()  # its buffer becomes its bytes without a copy
        for data in self.read(uri, low, high, filled.version, filled.size_bytes, timeout_s):
            sink.write(data)
        return sink.getvalue()

    def _get_large(
        self, path: StrPath, uri: str, low: int, end: int, first: pb.Filled, timeout_s: float
    ) -> bytes | None:
        """Return a long range whose *first* piece is there, each of its pieces read while the next
        ones are being filled. None if it cannot be had from the folder.
        """
        starts = range(low + FIRST_BYTES, end, FIRST_BYTES)
        pieces = [
            _range(uri, at, min(end, at + FIRST_BYTES), first.version, is_continuation=True)
            for at in starts
        ]
        sink, identity = io.BytesIO(), b""  # the buffer becomes bytes without a copy
        timeouts = -(-(end - low) // PIECE_BYTES)
        for index, piece in self._fill_all(pieces, timeout_s * timeouts, inline=False):
            outcome = piece.WhichOneof("outcome")
            if outcome == "error":
                raise from_reply(piece.error)
            if outcome != "placed":
                return None
            ready = [starts[index]]
            if not identity:
                sink.seek(end - low - 1)
                sink.write(b"\0")
                ready.append(low)
            for at in ready:
                to = min(end, at + FIRST_BYTES)
                with sink.getbuffer() as whole, whole[at - low : to - low] as target:
                    identity = self._hits.read_into(
                        as_text(path), at, target, identity, first.size_bytes
                    )
                if not identity:
                    return None
        return sink.getvalue()

    def _size(self, uri: str, timeout_s: float) -> tuple[int, str]:
        reply = self._node.channel.call("Stat", pb.StatRequest(uri=uri), timeout_s)
        if reply.is_prefix:
            raise ObjectNotFoundError(f"{uri} is a prefix, not an object")
        return reply.size_bytes, reply.version

    def fill(
        self,
        uri: str,
        start: int,
        end: int | None,
        version: str,
        timeout_s: float,
        *,
        inline: bool = False,
    ) -> pb.Filled:
        """Have a range filled; returns the outcome. A long range goes in pieces, all at once."""
        first_end = end
        if end is None or end - start > FIRST_BYTES:
            first_end = start + FIRST_BYTES
        filled = self._fill_one(_range(uri, start, first_end, version), timeout_s, inline=inline)
        end = filled.size_bytes if end is None else min(end, filled.size_bytes)
        if first_end is None or end <= first_end:
            return filled
        if inline:
            filled.uncached.SetInParent()  # more than a reply holds: it is to be read
            return filled
        if filled.WhichOneof("outcome") != "placed":
            return filled
        pieces = [
            _range(uri, at, min(end, at + PIECE_BYTES), filled.version, is_continuation=True)
            for at in range(first_end, end, PIECE_BYTES)
        ]
        for _, piece in self._fill_all(pieces, timeout_s * len(pieces), inline=False):
            outcome = piece.WhichOneof("outcome")
            if outcome == "error":
                raise from_reply(piece.error)
            if outcome != "placed":
                return piece
        return filled

    def _fill_one(self, wanted: pb.Range, timeout_s: float, *, inline: bool) -> pb.Filled:
        for _, filled in self._fill_all([wanted], timeout_s, inline=inline):
            if filled.WhichOneof("outcome") == "error":
                raise from_reply(filled.error)
            return filled
        raise ForebayError("the daemon ended a Fill without an answer")

    def _fill_all(
        self, wanted: Sequence[pb.Range], timeout_s: float, *, inline: bool
    ) -> Iterator[tuple[int, pb.Filled]]:
        """Yield (index, outcome) in the order in which they come."""
        left = dict(enumerate(wanted))
        asked: list[int] = []

        def request() -> pb.FillRequest:
            asked[:] = left
            return pb.FillRequest(ranges=left.values(), inline=inline)

        for reply in self._node.channel.stream("Fill", request, timeout_s):
            for filled in reply.filled:
                index = asked[filled.index]
                if left.pop(index, None) is not None:
                    yield index, filled

    def start_fill(self, uri: str, start: int, end: int, version: str, timeout_s: float) -> Any:
        """Have a range filled for later; returns the call, which is to be kept, or None."""
        request = pb.FillRequest(ranges=[_range(uri, start, end, version)])
        return self._node.channel.start("Fill", request, timeout_s)

    def read(
        self,
        uri: str,
        start: int,
        end: int | None,
        version: str,
        size_bytes: int,
        timeout_s: float,
    ) -> Iterator[bytes]:
        """Yield the bytes of a range of one version as the daemon sends them."""
        stop = size_bytes if end is None else min(end, size_bytes)
        position = start

        def request() -> pb.ReadRequest:
            return pb.ReadRequest(range=_range(uri, position, max(stop, position), version))

        pieces = max(1, -(-(stop - start) // PIECE_BYTES))
        for reply in self._node.channel.stream("Read", request, timeout_s * pieces):
            data: bytes = reply.data  # a copy, each time that it is asked for
            position += len(data)
            yield data
        if position < stop:
            raise ForebayError(f"{uri}: the daemon sent {position - start} of {stop - start} bytes")

    # --- many --------------------------------------------------------------------------------

    def get_many(
        self, paths: Sequence[StrPath], results: list[bytes | None], timeout_s: float
    ) -> None:
        """Put the objects of *paths* into *results* where they hold None.

        Everything that can be had is filled, so that a second try finds it; then the error of the
        first path that failed is raised.
        """
        errors: dict[int, Exception] = {}
        missing: list[tuple[int, str]] = []
        for index, path in enumerate(paths):
            if results[index] is None:
                try:
                    missing.append((index, self.uri(path, timeout_s)))
                except ValueError as error:
                    errors[index] = error
        for start in range(0, len(missing), _OBJECTS_A_CALL):
            self._get_chunk(
                paths, missing[start : start + _OBJECTS_A_CALL], results, errors, timeout_s
            )
        if errors:
            raise errors[min(errors)]

    def _get_chunk(
        self,
        paths: Sequence[StrPath],
        chunk: list[tuple[int, str]],
        results: list[bytes | None],
        errors: dict[int, Exception],
        timeout_s: float,
    ) -> None:
        is_remote = self._node.folder() is None
        wanted = [_range(uri, 0, None, "") for _, uri in chunk]
        timeouts = -(-len(chunk) // _OBJECTS_A_TIMEOUT)
        again: list[int] = []
        for number, filled in self._fill_all(wanted, timeout_s * timeouts, inline=is_remote):
            index = chunk[number][0]
            outcome = filled.WhichOneof("outcome")
            if outcome == "data":
                results[index] = filled.data
            elif outcome == "error":
                errors[index] = from_reply(filled.error)
            elif outcome == "placed":
                results[index] = self._hits.look(as_text(paths[index]), None, None, is_filled=True)
            if outcome != "error" and results[index] is None:
                again.append(index)
        for index in again:
            try:
                results[index] = self.get(paths[index], None, None, timeout_s)
            except ForebayError as error:  # noqa: PERF203  # each for itself
                errors[index] = error


def _range(
    uri: str, start: int, end: int | None, version: str, *, is_continuation: bool = False
) -> pb.Range:
    wanted = pb.Range(
        uri=uri,
        start=min(start, _MOST_UINT64),
        version=version,
        is_continuation=is_continuation,
    )
    if end is not None:
        wanted.end = min(end, _MOST_UINT64)
    return wanted
