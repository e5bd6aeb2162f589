"""One gRPC channel per process and address, made anew after a fork, with waiting and trying again.

Three cures are needed against forks, each of which alone would do for most: the channel is closed
before a fork, so that no connection is inherited; no thread is inside gRPC at that moment (see
``_gate``); and its subchannels are its own, so that gRPC's global pool cannot hand the child the
parent's. Calls of other threads that a fork cuts are made again; every call here may be made twice.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any, TypeVar

import grpc

from forebay import _tls
from forebay._errors import DaemonUnavailableError, ForebayError, from_call
from forebay._gate import ForkGate
from forebay_protos import cache_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

log = logging.getLogger(__name__)

Reply = TypeVar("Reply")

_MESSAGE_BYTES = 64 << 20
_OPTIONS = (
    ("grpc.use_local_subchannel_pool", 1),
    # Objects come as a stream of messages of 1 MiB: twice as fast as with a window of 64 KiB.
    ("grpc.http2.lookahead_bytes", 16 << 20),
    ("grpc.http2.max_frame_size", 1 << 20),
    ("grpc.enable_http_proxy", 0),  # the daemon is near; proxies are for the origin
    ("grpc.max_receive_message_length", _MESSAGE_BYTES),
    ("grpc.max_send_message_length", _MESSAGE_BYTES),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
)
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.02, 0.1
_BROKEN_TRIES = 3
_QUIET_S = 3.0  # a daemon that is restarted is back by then
_HASTY_S = 0.5  # a busy machine may take longer to find out that nobody answers
_CLOSED = ("closed channel", "Channel closed")  # as grpcio says it, in two places
_CUT = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


class Channel:
    """Calls to the daemon at one address. Thread-safe."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._lock = threading.Lock()  # guards _channel and _stub
        self._channel: grpc.Channel | None = None
        self._stub: cache_pb2_grpc.CacheStub | None = None
        self._unread: weakref.WeakSet[Any] = weakref.WeakSet()  # calls of start()
        _channels.add(self)

    def _get_stub(self) -> cache_pb2_grpc.CacheStub:
        """Return the stub; only for who has passed the gate."""
        with self._lock:
            if self._stub is None:
                # By TLS only over a network: behind a unix socket stands our group.
                secure = None if self.address.startswith("unix:") else _tls.credentials()
                self._channel = (
                    grpc.insecure_channel(self.address, options=_OPTIONS)
                    if secure is None
                    else grpc.secure_channel(self.address, secure, options=_OPTIONS)
                )
                self._stub = cache_pb2_grpc.CacheStub(self._channel)
            return self._stub

    def call(self, method: str, request: Any, timeout_s: float, *, wait: bool = True) -> Any:
        """Return the reply of a unary call; waits for a daemon that is down unless told not to."""
        for attempt in self._attempts(timeout_s, wait=wait):
            with attempt, self._inside():
                return _reply(getattr(self._get_stub(), method), request, attempt.left_s)
        raise AssertionError  # the attempts end with an error

    def send(
        self, method: str, make_requests: Callable[[], Iterator[Any]], timeout_s: float
    ) -> Any:
        """Return the reply of a call with a stream of requests, made anew for each try.

        What *make_requests* or its iterator raises is raised here.
        """
        for attempt in self._attempts(timeout_s):
            with attempt:
                requests = _Requests(make_requests())
                try:
                    with self._inside():
                        return _reply(getattr(self._get_stub(), method), requests, attempt.left_s)
                except grpc.RpcError:
                    if requests.error is not None:
                        raise requests.error from None
                    raise
        raise AssertionError  # the attempts end with an error

    def stream(
        self,
        method: str,
        make_request: Callable[[], Any],
        timeout_s: float,
        *,
        has_deadline: bool = True,
    ) -> Iterator[Any]:
        """Yield the replies of a streaming call; one that is cut is made again.

        *make_request* is called for each try, so that it can leave out what was received. Without
        a deadline, *timeout_s* is how long to wait for a daemon that is down.
        """
        for attempt in self._attempts(timeout_s, has_deadline=has_deadline):
            call = None
            try:
                with attempt:
                    with self._inside():
                        start = getattr(self._get_stub(), method)
                        call = start(make_request(), timeout=attempt.left_s)
                    while True:
                        with self._inside():
                            reply = next(call, None)
                        if reply is None:
                            return
                        attempt.progress()
                        yield reply
            finally:
                if call is not None:
                    with self._inside():
                        call.cancel()

    def start(self, method: str, request: Any, timeout_s: float) -> Any:
        """Start a streaming call whose replies nobody reads; None if the daemon is not there.

        Keep the call: it is cancelled when it is dropped.
        """
        with contextlib.suppress(grpc.RpcError, ValueError), self._inside():
            call = getattr(self._get_stub(), method)(request, timeout=timeout_s)
            self._unread.add(call)
            return call
        return None

    @contextlib.contextmanager
    def _inside(self) -> Iterator[None]:
        """Be in gRPC, where no fork happens; an exception that is not gRPC's costs the channel.

        It is a signal handler's (Ctrl-C, a killed worker of a loader), and may have come when a
        call was half begun: the channel would wait forever for the call's end before it closes.
        """
        with _gate.passed():
            try:
                yield
            except (grpc.RpcError, ValueError):
                raise
            except BaseException:
                self._abandon()
                raise

    def _abandon(self) -> None:
        with self._lock:
            channel, self._channel, self._stub = self._channel, None, None
        if channel is not None:
            threading.Thread(target=channel.close, name="forebay-abandon", daemon=True).start()

    def _attempts(
        self, timeout_s: float, *, wait: bool = True, has_deadline: bool = True
    ) -> Iterator[_Attempt]:
        state = _Attempt(self.address, timeout_s, wait=wait, has_deadline=has_deadline)
        while True:
            yield state
            state.pause()

    def close(self) -> None:
        with _gate.passed():
            self._close()

    def _close(self) -> None:
        with self._lock:
            channel, self._channel, self._stub = self._channel, None, None
        if channel is not None:
            channel.close()

    def cut(self) -> bool:
        """End all calls; True if none is left that nobody waits for. For the time before a fork."""
        self._close()
        return all(call.done() for call in list(self._unread))

    def after_fork_in_child(self) -> None:
        self._lock = threading.Lock()
        self._unread.clear()


def _reply(method: Any, request: Any, timeout_s: float | None) -> Any:
    """Return the reply of a call with one reply, in a way that a signal may interrupt.

    A blocking call cannot be cancelled, and its channel cannot be closed after an exception of a
    signal handler. Handlers run in the main thread only; elsewhere it saves 80 us, and at the
    program's end it needs no thread, when none starts any more.
    """
    main = threading.main_thread()
    if threading.current_thread() is not main or not main.is_alive():
        return method(request, timeout=timeout_s)
    call = method.future(request, timeout=timeout_s)
    try:
        return call.result()
    except grpc.FutureCancelledError:
        raise call from None  # the error of the blocking call
    except BaseException:
        call.cancel()
        raise


class _Requests:
    """An iterator that keeps its error, which gRPC would only log."""

    def __init__(self, requests: Iterator[Any]) -> None:
        self._requests = requests
        self.error: Exception | None = None

    def __iter__(self) -> _Requests:
        return self

    def __next__(self) -> Any:
        try:
            return next(self._requests)
        except StopIteration:
            raise
        except Exception as error:
            self.error = error
            raise


class _Attempt:
    """The tries of one call: swallows what is worth another try, raises what is not."""

    def __init__(self, address: str, timeout_s: float, *, wait: bool, has_deadline: bool) -> None:
        self._address = address
        self._timeout_s = timeout_s
        self._wait = wait
        self._has_deadline = has_deadline
        self._deadline = time.monotonic() + timeout_s
        self._pause_s = _FIRST_PAUSE_S
        self._broken = 0
        self._has_told = False
        self._was_down = False
        self._try_s = timeout_s

    @property
    def left_s(self) -> float | None:
        """What the next try may take."""
        if not self._has_deadline:
            return None
        self._try_s = max(0.001, self._deadline - time.monotonic())
        return self._try_s

    def progress(self) -> None:
        self._was_down = False
        if not self._has_deadline:
            self._deadline = time.monotonic() + self._timeout_s
        self._pause_s = _FIRST_PAUSE_S
        self._broken = 0

    def __enter__(self) -> _Attempt:
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> bool:
        if isinstance(error, ValueError) and any(text in str(error) for text in _CLOSED):
            return True  # a fork came between stub() and the call
        if not isinstance(error, grpc.RpcError):
            return False
        meant = _tls.refusal(error, self._address) or from_call(error)
        # A last try may be too short to find what the one before it has found: nobody.
        is_too_short = (
            self._was_down
            and self._try_s < _HASTY_S
            and error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        )
        if meant is not None and not is_too_short:
            raise meant from error
        if is_too_short or error.code() in _CUT:
            self._was_down = True
            if "Permission denied" in str(error.details()):
                raise DaemonUnavailableError(
                    f"permission denied at {self._address}: the daemon serves its own group there, "
                    f"to which uid {os.geteuid()} does not belong: run as a member of it"
                ) from error
            self._say_that_it_waits()
            if not self._wait or time.monotonic() + self._pause_s >= self._deadline:
                raise DaemonUnavailableError(
                    f"no Forebay daemon answers at {self._address} (waited {self._timeout_s:g} s: "
                    f"{error.details()}): start it with `forebay serve`, or set FOREBAY_ADDRESS"
                    f"{_tls.hint(self._address)}"
                ) from error
            return True
        self._broken += 1
        if self._broken >= _BROKEN_TRIES:
            raise ForebayError(
                f"the call failed: {error.code().name}: {error.details()}"
            ) from error
        return True

    def _say_that_it_waits(self) -> None:
        began = self._deadline - self._timeout_s
        if self._wait and not self._has_told and time.monotonic() - began > _QUIET_S:
            self._has_told = True
            log.warning(
                "no Forebay daemon answers at %s: waiting up to %g s for it",
                self._address,
                self._timeout_s,
            )

    def pause(self) -> None:
        time.sleep(self._pause_s)
        self._pause_s = min(self._pause_s * 2, _LONGEST_PAUSE_S)


_channels: weakref.WeakSet[Channel] = weakref.WeakSet()
_gate = ForkGate()


def _cut_all() -> bool:
    return all([channel.cut() for channel in list(_channels)])


def _before_fork() -> None:
    _gate.shut(_cut_all)


def _after_fork_in_parent() -> None:
    _gate.open()


def _after_fork_in_child() -> None:
    global _gate
    _gate = ForkGate()
    for channel in list(_channels):
        channel.after_fork_in_child()


os.register_at_fork(
    before=_before_fork,
    after_in_parent=_after_fork_in_parent,
    after_in_child=_after_fork_in_child,
)
