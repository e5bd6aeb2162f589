"""Files of the spool: bytes that are to be written to an origin, and what is to become of them.

A file is the bytes, then a trailer: JSON, and 16 bytes that say how long the JSON is and prove that
it is whole. A writer puts all of it into a staged file and fsyncs that; the daemon's commit is a
rename. So a file in the spool either is whole or is not there, and the folder is the journal.

A change to these bytes needs another ``layout.FORMAT_VERSION``.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from dataclasses import dataclass, field

PUT = "put"
CREATE = "create"
APPEND = "append"
REMOVE = "remove"
REMOVE_TREE = "remove_tree"
COPY = "copy"
MOVE = "move"
KINDS = (PUT, CREATE, APPEND, REMOVE, REMOVE_TREE, COPY, MOVE)
WITH_BYTES = (PUT, CREATE, APPEND)
MODES = ("", "write_back", "write_through")  # "": as the origin is set

_FOOT = struct.Struct("<II8s")  # length and crc32 of the JSON
_MAGIC = b"FBYspool"
_LONGEST_JSON = 64 << 10
_TAIL_BYTES = 1024  # holds nearly every trailer: one read


def framed(body: bytes) -> bytes:
    """Return a message of the commit socket: its length, then itself.

    A request is a CommitRequest; an answer is 0 and a CommitReply, or 1 and an Error.
    """
    return len(body).to_bytes(4, "little") + body


def unframed(received: bytes) -> bytes | None:
    """Return the body of a message once it is complete."""
    if len(received) < 4 or len(received) < 4 + int.from_bytes(received[:4], "little"):
        return None
    return received[4:]


def new_operation() -> str:
    """Return an id by which a repeated commit is known."""
    return os.urandom(16).hex()


@dataclass(frozen=True, slots=True)
class Trailer:
    """What is to become of the bytes before it."""

    kind: str
    uri: str
    size_bytes: int = 0  # of the bytes before the trailer
    mode: str = ""
    target: str = ""  # of a copy or move
    # Of an append: the bytes are those of base_version (its first base_bytes) and what follows.
    base_version: str = ""
    base_bytes: int = 0
    operation: str = field(default_factory=new_operation)

    def to_json(self) -> str:
        return json.dumps({name: getattr(self, name) for name in self.__slots__}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Trailer:
        """Parse the text. Raises ValueError if it is not a trailer's."""
        try:
            trailer = cls(**json.loads(text))
        except (TypeError, RecursionError) as error:
            raise ValueError(f"not a trailer: {error}") from error
        texts = (trailer.uri, trailer.target, trailer.base_version, trailer.operation)
        sizes = (trailer.size_bytes, trailer.base_bytes)
        is_valid = (
            all(type(text) is str for text in texts)
            and all(type(size) is int and -1 <= size < 1 << 62 for size in sizes)
            and trailer.kind in KINDS
            and trailer.mode in MODES
            and trailer.uri
            and trailer.operation
        )
        if not is_valid:
            raise ValueError(f"not a trailer: {text[:200]}")
        return trailer

    def to_bytes(self) -> bytes:
        """Return what follows the bytes in the file."""
        return foot_of(self.to_json())


def foot_of(trailer_json: str) -> bytes:
    """Return what follows the bytes in the file."""
    text = trailer_json.encode("utf-8", "surrogatepass")
    return text + _FOOT.pack(len(text), zlib.crc32(text), _MAGIC)


def read_trailer(fd: int) -> Trailer:
    """Return the trailer of an open file. Raises ValueError if there is no whole one."""
    end = os.fstat(fd).st_size
    tail = os.pread(fd, _TAIL_BYTES, max(0, end - _TAIL_BYTES))
    if len(tail) < _FOOT.size:
        raise ValueError("too short for a trailer")
    length, crc, magic = _FOOT.unpack_from(tail, len(tail) - _FOOT.size)
    start = end - _FOOT.size - length
    if magic != _MAGIC or length > _LONGEST_JSON or start < 0:
        raise ValueError("no trailer at the end")
    text = tail[-_FOOT.size - length : -_FOOT.size]
    if len(text) < length:
        text = os.pread(fd, length, start)
    if zlib.crc32(text) != crc:
        raise ValueError("a damaged trailer")
    trailer = Trailer.from_json(text.decode("utf-8", "surrogatepass"))
    if trailer.size_bytes != start:
        raise ValueError(f"a trailer for {trailer.size_bytes} bytes after {start}")
    return trailer
