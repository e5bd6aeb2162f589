"""Filling many objects ahead of their use."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from forebay._values import WarmProgress
from forebay_protos import cache_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable

    from forebay._channel import Channel

_URIS_A_CALL = 50_000


def warm(
    channel: Channel,
    prefix: str,
    uris: list[str] | None,
    timeout_s: float,
    progress: Callable[[WarmProgress], object] | None,
) -> WarmProgress:
    """Have the daemon fill what lies below *prefix*, or these objects; returns how it went."""
    if uris is None:
        requests = [pb.WarmRequest(prefix=prefix)]
    else:
        requests = [
            pb.WarmRequest(uris=uris[at : at + _URIS_A_CALL])
            for at in range(0, len(uris), _URIS_A_CALL)
        ]
    total = WarmProgress(0, 0, 0, 0, 0, (), is_listing_done=True)
    for request in requests:
        before = total
        stream = channel.stream("Warm", partial(_same, request), timeout_s, has_deadline=False)
        for reply in stream:
            total = _sum(before, total, reply)
            if progress is not None:
                progress(total)
    return total


def _same(request: pb.WarmRequest) -> pb.WarmRequest:
    return request


def _sum(before: WarmProgress, last: WarmProgress, reply: pb.WarmReply) -> WarmProgress:
    """Return the progress after a reply, *before* being that of the finished calls."""
    failures = tuple((failure.uri, failure.error.message) for failure in reply.failures)
    return WarmProgress(
        before.objects_total + reply.objects_total,
        before.objects_done + reply.objects_done,
        before.bytes_total + reply.bytes_total,
        before.bytes_done + reply.bytes_done,
        before.objects_failed + reply.objects_failed,
        (*last.failures, *failures)[:100],
        reply.listing_done,
    )
