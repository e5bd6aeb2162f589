"""A real HTTP/1.1 proxy in front of an S3 endpoint, which counts requests and misbehaves on demand.

    with FaultProxy(endpoint_url) as proxy:
        daemon = start(endpoint_url=proxy.url)
        proxy.fail("images/1.jpg", status=503, times=2)
        ...
        assert proxy.gets("images/1.jpg") == 3

It listens on loopback, forwards bytes as they are and keeps the client's Host header, so that
signatures (SigV4) hold. One thread serves one connection; many processes may use one proxy.

**Which requests.** Every fault takes a *match* and a *method*. A text matches an object whose
decoded path (``bucket/key``) is that text or ends with ``/`` + text: "1.jpg", "images/1.jpg" and
"bucket/images/1.jpg" all name the same object, "11.jpg" another. None matches everything, listings
included; a function gets the :class:`Request` and decides. *method* is "GET" unless told otherwise,
None for all. *times* is how many requests are hit, None for all. A request meets at most one fault:
the oldest that matches and is not used up.

**What can go wrong** (each returns a handle with ``hits`` and ``remove()``):

    proxy.fail(match, status=503, code="SlowDown")    an S3 error, the origin is not asked
    proxy.reset(match)                                the connection is reset, no answer at all
    proxy.reset_mid_body(match, after_bytes=1000)     headers, some bytes, then a reset (RST)
    proxy.short_body(match, after_bytes=1000)         headers, some bytes, then a clean end (FIN)
    proxy.stall_body(match, after_bytes=1000)         headers, some bytes, then none until release()
    proxy.change_etag(match, etag="other")            the answer carries another ETag
    proxy.change_date(seconds=-3600)                  the answer comes from another time
    proxy.gate(match)                                 requests are held until release()
    proxy.hold_answer(match)                          the origin has done it, and nobody is told

``after_bytes=None`` means half of the body. A gate proves de-duplication without a sleep:

    gate = proxy.gate("1.jpg")
    start_readers(80)
    gate.wait_for(1)            # one request waits at the gate
    ...                         # the other readers are known to wait for it
    gate.release()
    assert proxy.gets("1.jpg") == 1
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import unquote, urlsplit

from support.http_messages import MessageReader, headers_of, without_header

if TYPE_CHECKING:
    from types import TracebackType

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER with 0 s: close() sends RST instead of FIN
_WAIT_S = 60.0  # a machine that is busy with other tests


@dataclass(frozen=True)
class Request:
    """What a client asked, as it arrived."""

    method: str
    path: str  # decoded, without the leading slash: "bucket/key" with path-style addressing
    query: str  # as sent
    headers: dict[str, str]  # names in lower case

    @property
    def range(self) -> str | None:
        """The Range header, such as "bytes=0-99"."""
        return self.headers.get("range")

    def names(self, key: str) -> bool:
        """Tell whether *key* ("key" or "bucket/key") is the object that was asked for."""
        return self.path == key or self.path.endswith("/" + key)


Match = str | Callable[[Request], bool] | None


@dataclass(eq=False)
class Fault:
    """A programmed fault: ``hits`` counts the requests that met it."""

    match: Match
    method: str | None
    times: int | None
    hits: int = 0
    removed: bool = False

    def wants(self, request: Request) -> bool:
        if self.removed or (self.times is not None and self.hits >= self.times):
            return False
        if self.method is not None and request.method != self.method:
            return False
        if self.match is None:
            return True
        if isinstance(self.match, str):
            return request.names(self.match)
        return bool(self.match(request))

    def remove(self) -> None:
        """Hit no further request."""
        self.removed = True


_F = TypeVar("_F", bound=Fault)


@dataclass(eq=False)
class _Answer(Fault):
    status: int = 503
    code: str = "SlowDown"


@dataclass(eq=False)
class _Reset(Fault):
    pass


@dataclass(eq=False)
class _ChangeETag(Fault):
    etag: str = "changed"


@dataclass(eq=False)
class _ChangeDate(Fault):
    seconds: float = 0.0


@dataclass(eq=False)
class _BreakBody(Fault):
    after_bytes: int | None = None
    reset: bool = True


@dataclass(eq=False)
class _Holding(Fault):
    """A fault at which requests wait."""

    _changed: threading.Condition = field(default_factory=threading.Condition)
    _waiting: int = 0
    _released: bool = False

    @property
    def waiting(self) -> int:
        """How many requests are held now."""
        return self._waiting

    def wait_for(self, count: int, timeout_s: float = _WAIT_S) -> None:
        """Return once *count* requests are held at the same time. Raises TimeoutError."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._waiting >= count, timeout_s):
                raise TimeoutError(f"{self._waiting} of {count} requests came in {timeout_s} s")

    def release(self) -> None:
        """Let those that wait go on, and hold no others."""
        self.remove()
        with self._changed:
            self._released = True
            self._changed.notify_all()

    def hold(self) -> None:
        with self._changed:
            self._waiting += 1
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._released)
            self._waiting -= 1
            self._changed.notify_all()


@dataclass(eq=False)
class Gate(_Holding):
    """Holds requests before they reach the origin; a context manager that releases at its end."""

    _answered: int = 0

    @property
    def answered(self) -> int:
        """How many that it held have reached the origin since, and had its answer."""
        return self._answered

    def answer(self) -> None:
        with self._changed:
            self._answered += 1

    def __enter__(self) -> Gate:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


@dataclass(eq=False)
class HeldAnswer(_Holding):
    """Holds answers before their first byte."""


@dataclass(eq=False)
class Stall(_Holding):
    """Holds answers in the middle of their bodies."""

    after_bytes: int | None = None


class FaultProxy:
    """The proxy; a context manager. ``url`` is the endpoint to give to clients."""

    def __init__(self, endpoint_url: str) -> None:
        parts = urlsplit(endpoint_url)
        if parts.scheme != "http" or parts.hostname is None:
            raise ValueError(f"the proxy speaks plain HTTP, not {endpoint_url!r}")
        self._upstream = (parts.hostname, parts.port or 80)
        self._lock = threading.Lock()  # guards everything below
        self._faults: list[Fault] = []
        self._requests: list[Request] = []
        self._sockets: set[socket.socket] = set()
        self._closed = False
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, name="fault-proxy", daemon=True).start()

    def __enter__(self) -> FaultProxy:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release what is held and drop every connection."""
        with self._lock:
            self._closed = True
            sockets, self._sockets = self._sockets, set()
            faults, self._faults = self._faults, []
        for fault in faults:
            if isinstance(fault, _Holding):
                fault.release()
        for each in (self._listener, *sockets):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    # What happened

    @property
    def requests(self) -> list[Request]:
        """All requests so far, in the order of their arrival, those that met a fault included."""
        with self._lock:
            return list(self._requests)

    @property
    def connections(self) -> int:
        """How many are open, to clients and to the origin; with none, no request is under way."""
        with self._lock:
            return len(self._sockets)

    def gets(self, key: str) -> int:
        """Count the GETs of an object; *key* is "key" or "bucket/key"."""
        return self.count("GET", key)

    def count(self, method: str | None = None, key: str | None = None) -> int:
        """Count requests by method and object; None is any."""
        return sum(
            (method is None or request.method == method) and (key is None or request.names(key))
            for request in self.requests
        )

    def by_range(self) -> dict[tuple[str, str, str | None], int]:
        """Count requests per (method, decoded path, Range header)."""
        counts: dict[tuple[str, str, str | None], int] = {}
        for request in self.requests:
            name = (request.method, request.path, request.range)
            counts[name] = counts.get(name, 0) + 1
        return counts

    def forget(self) -> None:
        """Start counting again; faults stay."""
        with self._lock:
            self._requests.clear()

    # What shall go wrong

    def fail(
        self,
        match: Match = None,
        *,
        method: str | None = "GET",
        status: int = 503,
        code: str | None = None,
        times: int | None = 1,
    ) -> Fault:
        """Answer with an S3 error of *status*; *code* has the usual text by default."""
        code = code or _CODES.get(status, "InternalError")
        return self._add(_Answer(match, method, times, status=status, code=code))

    def reset(
        self, match: Match = None, *, method: str | None = "GET", times: int | None = 1
    ) -> Fault:
        """Reset the connection instead of an answer."""
        return self._add(_Reset(match, method, times))

    def reset_mid_body(
        self,
        match: Match = None,
        *,
        method: str | None = "GET",
        after_bytes: int | None = None,
        times: int | None = 1,
    ) -> Fault:
        """Send some of the body, then reset the connection."""
        return self._add(_BreakBody(match, method, times, after_bytes=after_bytes, reset=True))

    def short_body(
        self,
        match: Match = None,
        *,
        method: str | None = "GET",
        after_bytes: int | None = None,
        times: int | None = 1,
    ) -> Fault:
        """Send some of the body, then end the connection as if that were all."""
        return self._add(_BreakBody(match, method, times, after_bytes=after_bytes, reset=False))

    def stall_body(
        self,
        match: Match = None,
        *,
        method: str | None = "GET",
        after_bytes: int | None = None,
        times: int | None = 1,
    ) -> Stall:
        """Send some of the body, then nothing until the handle's ``release()``."""
        return self._add(Stall(match, method, times, after_bytes=after_bytes))

    def change_etag(
        self,
        match: Match = None,
        *,
        etag: str = "changed",
        method: str | None = "GET",
        times: int | None = 1,
    ) -> Fault:
        """Let the answer carry the ETag ``"etag"`` instead of its own."""
        return self._add(_ChangeETag(match, method, times, etag=etag))

    def change_date(
        self,
        match: Match = None,
        *,
        seconds: float,
        method: str | None = None,
        times: int | None = None,
    ) -> Fault:
        """Let the answer carry a Date that is so many seconds from now."""
        return self._add(_ChangeDate(match, method, times, seconds=seconds))

    def gate(
        self, match: Match = None, *, method: str | None = "GET", times: int | None = None
    ) -> Gate:
        """Hold requests before they reach the origin, until ``release()``."""
        return self._add(Gate(match, method, times))

    def hold_answer(
        self, match: Match = None, *, method: str | None = "GET", times: int | None = 1
    ) -> HeldAnswer:
        """Let the origin do what it is asked, and hold its answer until ``release()``."""
        return self._add(HeldAnswer(match, method, times))

    def clear(self) -> None:
        """Remove all faults; what is held goes on."""
        with self._lock:
            faults, self._faults = self._faults, []
        for fault in faults:
            fault.remove()
            if isinstance(fault, _Holding):
                fault.release()

    def _add(self, fault: _F) -> _F:
        with self._lock:
            self._faults.append(fault)
        return fault

    # How it works

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._keep(client):
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _keep(self, connection: socket.socket) -> bool:
        """Remember the connection for close(); False, and closed, if that was already called."""
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._lock:
            if not self._closed:
                self._sockets.add(connection)
                return True
        connection.close()
        return False

    def _drop(self, connection: socket.socket | None) -> None:
        if connection is not None:
            with self._lock:
                self._sockets.discard(connection)
            connection.close()

    def _serve(self, client: socket.socket) -> None:
        """Serve one client's connection until either side ends it."""
        reader = MessageReader(client)
        upstream: MessageReader | None = None
        try:
            while (head := reader.head()) is not None:
                request = _parse(head)
                if request.headers.get("expect", "").lower() == "100-continue":
                    client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
                    head = without_header(head, b"expect")
                body = b"".join(reader.body(request.headers, has_length=False))
                fault = self._meet(request)
                if isinstance(fault, _Reset):
                    _reset_on_close(client)
                    return
                if isinstance(fault, _Answer):
                    client.sendall(_error(request.method, fault))
                    continue
                if isinstance(fault, Gate):
                    fault.hold()
                upstream, answer = self._ask(upstream, head + body)
                if isinstance(fault, Gate):
                    fault.answer()
                if isinstance(fault, HeldAnswer):
                    fault.hold()
                if not self._forward(request, answer, upstream, client, fault):
                    return
        except OSError:  # a side went away: so does the other
            pass
        finally:
            self._drop(client)
            self._drop(upstream.connection if upstream is not None else None)

    def _meet(self, request: Request) -> Fault | None:
        with self._lock:
            self._requests.append(request)
            for fault in self._faults:
                if fault.wants(request):
                    fault.hits += 1
                    return fault
        return None

    def _ask(self, upstream: MessageReader | None, data: bytes) -> tuple[MessageReader, bytes]:
        """Send the request; return the connection and the answer's head.

        A kept connection may have been closed by the server meanwhile: then a new one is tried.
        """
        if upstream is not None:
            with contextlib.suppress(OSError):
                upstream.connection.sendall(data)
                if (head := upstream.head()) is not None:
                    return upstream, head
            self._drop(upstream.connection)
        connection = socket.create_connection(self._upstream)
        if not self._keep(connection):
            raise ConnectionAbortedError("the proxy is closed")
        upstream = MessageReader(connection)
        connection.sendall(data)
        head = upstream.head()
        if head is None:
            raise ConnectionResetError("the origin closed the connection")
        return upstream, head

    def _forward(
        self,
        request: Request,
        head: bytes,
        upstream: MessageReader,
        client: socket.socket,
        fault: Fault | None,
    ) -> bool:
        """Pass the answer on; False if the client's connection must end."""
        status = int(head.split(b" ", 2)[1])
        headers = headers_of(head)
        if isinstance(fault, _ChangeETag):
            head = without_header(head, b"etag")[:-2] + f'ETag: "{fault.etag}"\r\n\r\n'.encode()
        if isinstance(fault, _ChangeDate):
            date = formatdate(time.time() + fault.seconds, usegmt=True)
            head = without_header(head, b"date")[:-2] + f"Date: {date}\r\n\r\n".encode()
        client.sendall(head)
        if request.method == "HEAD" or status in (204, 304):
            return True
        left: int | None = None
        if isinstance(fault, _BreakBody | Stall):
            half = int(headers.get("content-length", 0)) // 2
            left = half if fault.after_bytes is None else fault.after_bytes
        for piece in upstream.body(headers, has_length=True):
            rest = piece
            if left is not None and isinstance(fault, _BreakBody | Stall):
                client.sendall(rest[:left])
                left, rest = left - len(rest[:left]), rest[left:]
                if left == 0:
                    if isinstance(fault, _BreakBody):
                        if fault.reset:
                            _reset_on_close(client)
                        return False
                    fault.hold()
                    left = None
            client.sendall(rest)
        return "content-length" in headers or "transfer-encoding" in headers


_CODES = {
    400: "BadRequest",
    403: "AccessDenied",
    404: "NoSuchKey",
    412: "PreconditionFailed",
    500: "InternalError",
    503: "SlowDown",
}


def _parse(head: bytes) -> Request:
    method, target, _ = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
    path, _, query = target.partition("?")
    return Request(method, unquote(path.removeprefix("/")), query, headers_of(head))


def _error(method: str, answer: _Answer) -> bytes:
    body = (
        '<?xml version="1.0" encoding="UTF-8"?>'
        f"<Error><Code>{answer.code}</Code><Message>made by the test proxy</Message></Error>"
    ).encode()
    head = (
        f"HTTP/1.1 {answer.status} {answer.code}\r\nContent-Type: application/xml\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode()
    return head if method == "HEAD" else head + body


def _reset_on_close(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
