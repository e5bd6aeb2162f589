"""HTTP messages as bytes on a connection, read without changing one of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

_CHUNK = 1 << 16


class MessageReader:
    """Reads HTTP messages from a connection, with what was read too far kept for the next."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self._buffer = b""

    def head(self) -> bytes | None:
        """Return a message's head with its blank line, or None at the connection's end."""
        while b"\r\n\r\n" not in self._buffer:
            data = self.connection.recv(_CHUNK)
            if not data:
                return None
            self._buffer += data
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        if head.startswith(b"HTTP/1.1 100"):
            return self.head()
        return head + b"\r\n\r\n"

    def body(self, headers: dict[str, str], *, has_length: bool) -> Iterator[bytes]:
        """Yield a body's bytes as they are on the wire.

        *has_length*: without a length the body goes on to the connection's end (an answer), else
        there is none (a request).
        """
        if "chunked" in headers.get("transfer-encoding", "").lower():
            yield from self._chunked()
            return
        length = headers.get("content-length")
        if length is not None:
            yield from self._exactly(int(length))
        elif has_length:
            yield self._take()
            while data := self.connection.recv(_CHUNK):
                yield data

    def _take(self) -> bytes:
        data, self._buffer = self._buffer, b""
        return data

    def _exactly(self, count: int) -> Iterator[bytes]:
        while count:
            data = self._buffer or self.connection.recv(min(count, _CHUNK))
            if not data:
                raise ConnectionResetError("ended in the middle of a body")
            piece, self._buffer = data[:count], data[count:]
            count -= len(piece)
            yield piece

    def _line(self) -> bytes:
        while b"\r\n" not in self._buffer:
            data = self.connection.recv(_CHUNK)
            if not data:
                raise ConnectionResetError("ended in the middle of a body")
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\r\n")
        return line + b"\r\n"

    def _chunked(self) -> Iterator[bytes]:
        while True:
            line = self._line()
            yield line
            size = int(line.split(b";")[0], 16)
            if size:
                yield from self._exactly(size + 2)
                continue
            while True:  # trailers, then a blank line
                line = self._line()
                yield line
                if line == b"\r\n":
                    return


def headers_of(head: bytes) -> dict[str, str]:
    """Return a message's headers, their names in lower case."""
    pairs = (line.split(":", 1) for line in head.decode("latin-1").split("\r\n")[1:] if line)
    return {name.strip().lower(): value.strip() for name, value in pairs}


def without_header(head: bytes, name: bytes) -> bytes:
    """Return a message's head less one header."""
    lines = head.split(b"\r\n")
    return b"\r\n".join(line for line in lines if not line.lower().startswith(name + b":"))
