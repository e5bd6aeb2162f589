"""Writes on their way from this node to the origins: waiting for them, looking, deciding."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from forebay._errors import (
    DaemonUnavailableError,
    DeadlineExceededError,
    ForebayError,
    UploadFailedError,
)
from forebay._values import FlushProgress, Upload
from forebay_protos import cache_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from forebay._channel import Channel

_NAMED = 5  # failed uploads in the text of an error
_QUICK_TIMEOUT_S = 2.0
_LEAST_ROUND_S = 0.05


def flush(
    channel: Channel,
    prefixes: Sequence[str],
    timeout_s: float | None,
    down_timeout_s: float,
    progress: Callable[[FlushProgress], object] | None,
) -> None:
    """Wait until what was written below *prefixes*, or everything, is in the origins.

    Raises UploadFailedError, or DeadlineExceededError after *timeout_s*. A daemon that is down is
    waited for *down_timeout_s* if there is no deadline.
    """
    request = pb.FlushRequest(prefixes=prefixes)
    last: pb.FlushReply | None = None
    has_deadline = timeout_s is not None
    limit_s = down_timeout_s if timeout_s is None else timeout_s
    try:
        for reply in channel.stream("Flush", lambda: request, limit_s, has_deadline=has_deadline):
            last = reply
            if progress is not None:
                progress(
                    FlushProgress(
                        reply.uploads_left,
                        reply.bytes_left,
                        reply.uploads_total,
                        reply.bytes_total,
                    )
                )
    except DeadlineExceededError as error:
        if last is None or timeout_s is None:
            raise
        raise DeadlineExceededError(
            f"{last.uploads_left} uploads with {last.bytes_left} bytes are left after "
            f"{timeout_s:g} s{_left_text(channel, prefixes)}; they go on, and `forebay uploads` "
            "lists them"
        ) from error
    if last is not None and last.failed:
        failed = tuple(map(Upload.from_reply, last.failed))
        raise UploadFailedError(_failure_text(failed), failed)


def _failure_text(failed: Sequence[Upload]) -> str:
    return (
        f"{failure_counts(failed)}: {_names(failed)}; nothing is lost: see `forebay uploads`, "
        "which retries or discards them"
    )


def _left_text(channel: Channel, prefixes: Sequence[str]) -> str:
    """Return what is still under way below *prefixes*, to be said after how much that is."""
    with contextlib.suppress(ForebayError):
        left = [
            upload
            for upload in ask(channel, _QUICK_TIMEOUT_S)[0]
            if not prefixes or any(_is_below(upload.path, prefix) for prefix in prefixes)
        ]
        if left:
            return f": {_names(left)}"
    return ""


def _is_below(uri: str, prefix: str) -> bool:
    folder = prefix.rstrip("/")
    return uri == folder or uri.startswith(f"{folder}/")


def _names(uploads: Sequence[Upload]) -> str:
    """Return the first of *uploads* with what keeps them."""
    named = []
    for upload in uploads[:_NAMED]:
        reason = upload.last_error or (upload.blocked_by and f"waits for {upload.blocked_by}")
        named.append(f"{upload.path} ({reason})" if reason else upload.path)
    if len(uploads) > _NAMED:
        named.append(f"and {len(uploads) - _NAMED} more")
    return ", ".join(named)


def failure_counts(failed: Sequence[Upload]) -> str:
    """Return how many uploads failed for good, and how many wait for one that did."""
    waiting = sum(bool(upload.blocked_by) for upload in failed)
    counts = []
    if len(failed) > waiting:
        counts.append(f"failed for good: {len(failed) - waiting}")
    if waiting:
        counts.append(f"waiting for what has failed: {waiting}")
    return "uploads " + ", ".join(counts)


def ask(channel: Channel, timeout_s: float) -> tuple[list[Upload], bool]:
    """Return what is under way, in order, and whether somebody should look at it."""
    reply = channel.call("Uploads", pb.UploadsRequest(), timeout_s)
    return [Upload.from_reply(upload) for upload in reply.uploads], reply.is_overdue


def settle(channel: Channel, ids: Sequence[str], timeout_s: float, *, discard: bool) -> int:
    """Retry or discard these uploads, or all that failed; returns how many."""
    request = pb.SettleRequest(ids=ids, discard=discard)
    return int(channel.call("Settle", request, timeout_s).settled)


def patiently(channel: Channel, method: str, request: Any, timeout_s: float, uri: str) -> Any:
    """Make a call that may have to wait for uploads: the deadline starts anew as those get on that
    it waits for, the earlier ones of the origin of *uri*.

    The call is made again, so *request* names an operation that is done once.
    """
    deadline = time.monotonic() + timeout_s
    known: _Backlog | None = None
    while True:
        began = time.monotonic()
        try:
            # In two halves at least, to see what happens between them.
            return channel.call(method, request, timeout_s / 2)
        except (DeadlineExceededError, DaemonUnavailableError) as error:
            now = _backlog(channel, uri)
            if known is not None and now is not None and now.is_less_than(known):
                deadline = time.monotonic() + timeout_s
            elif time.monotonic() >= deadline - 0.01 * timeout_s:
                if isinstance(error, DeadlineExceededError):
                    raise DeadlineExceededError(_delay_text(channel, uri, timeout_s)) from error
                raise
            known = now or known
        time.sleep(max(0.0, min(_LEAST_ROUND_S, began + _LEAST_ROUND_S - time.monotonic())))


def _delay_text(channel: Channel, uri: str, timeout_s: float) -> str:
    """Return what is to be said of a write that did not get through in time."""
    text = f"{uri}: not done in {timeout_s:g} s"
    with contextlib.suppress(ForebayError):
        uploads = {upload.id: upload for upload in ask(channel, _QUICK_TIMEOUT_S)[0]}
        own = [upload for upload in uploads.values() if upload.path == uri]
        if own:
            culprit = uploads.get(own[-1].blocked_by, own[-1])
            if culprit is not own[-1]:
                text += f", for it waits for {culprit.path}, which failed for good"
            if culprit.last_error:
                text += f" ({culprit.last_error})"
            text += ": it is given up soon, see `forebay uploads`"
    return text


@dataclass(frozen=True, slots=True)
class _Backlog:
    """What a call waits for."""

    ids: frozenset[str]
    bytes_left: int

    def is_less_than(self, other: _Backlog) -> bool:
        is_shorter = self.ids < other.ids
        return is_shorter or (self.ids == other.ids and self.bytes_left < other.bytes_left)


def _backlog(channel: Channel, uri: str) -> _Backlog | None:
    """Return what is left before, and of, the last write of *uri*; None if the daemon is not
    there, or knows of none."""
    try:
        reply = channel.call("Uploads", pb.UploadsRequest(), _QUICK_TIMEOUT_S, wait=False)
    except ForebayError:
        return None
    own = [upload.id for upload in reply.uploads if uri == upload.uri]
    if not own:
        return None
    place = _place(uri)
    before = [u for u in reply.uploads if u.id <= max(own) and _place(u.uri) == place]
    left = sum(max(0, upload.size_bytes - upload.uploaded_bytes) for upload in before)
    return _Backlog(frozenset(upload.id for upload in before), left)


def _place(uri: str) -> str:
    scheme, _, rest = uri.partition("://")
    return f"{scheme}://{rest.partition('/')[0]}"
