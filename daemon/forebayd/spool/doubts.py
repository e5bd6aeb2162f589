"""Requests that had no answer: they may still take effect, after later writes of their keys.

A PUT is bound to the version before it, which stops most of them, but not a DELETE, nor a PUT to a
key that was removed since, or that has an earlier content again (an ETag is a digest). So a write
that follows such a request on its key is looked at once more when nothing can come any more, and
done again if it was undone. Of requests before a restart nothing is known.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import TYPE_CHECKING

from forebay_protos import spool, uris
from forebayd.errors import ObjectNotFoundError
from forebayd.origin.driver import NotTakenError, TransientError

if TYPE_CHECKING:
    from forebayd.origin.base import ObjectInfo, Origin
    from forebayd.spool.order import Upload

_MOST = 10_000


class Doubts:
    """Which keys are in doubt. One event loop."""

    def __init__(self, lingers_s: float) -> None:
        """*lingers_s*: how long an origin may still carry out what it has not answered."""
        self._lingers_s = lingers_s
        self._until: OrderedDict[tuple[str, str], tuple[float, bool]] = OrderedDict()

    def note(self, upload: Upload, error: Exception) -> None:
        """Take note of a failed attempt, unless its error says that nothing can come of it."""
        cause = error.__cause__ if isinstance(error.__cause__, TransientError) else error
        if not isinstance(cause, TransientError) or isinstance(cause, NotTakenError):
            return
        self._forget_old()
        is_tree = upload.trailer.kind == spool.REMOVE_TREE
        for uri in (upload.trailer.uri, upload.trailer.target):
            if uri and len(self._until) < _MOST:
                key = upload.trailer.operation, uri
                self._until[key] = time.monotonic() + self._lingers_s, is_tree
                self._until.move_to_end(key)

    def left_s(self, upload: Upload) -> float:
        """Return for how long requests of other writes may still change what *upload* did."""
        self._forget_old()
        if not self._until:
            return 0.0
        names = {upload.trailer.uri, upload.trailer.target} - {""}
        is_tree = upload.trailer.kind == spool.REMOVE_TREE
        ends = [
            until
            for (operation, uri), (until, was_tree) in self._until.items()
            if operation != upload.trailer.operation
            and any(
                uri == name
                or (was_tree and uris.has_prefix(name, uri))
                or (is_tree and uris.has_prefix(uri, name))
                for name in names
            )
        ]
        return max(0.0, max(ends, default=0.0) - time.monotonic())

    def _forget_old(self) -> None:
        now = time.monotonic()
        while self._until:
            key, (until, _) = next(iter(self._until.items()))
            if until > now:
                return
            del self._until[key]


async def check_undone(upload: Upload, info: ObjectInfo | None, origin: Origin) -> None:
    """Raise TransientError if the origin no longer has what *upload* has made of its key."""
    if upload.trailer.kind == spool.REMOVE_TREE:
        return  # which is done once more by whoever asks
    uri = upload.trailer.uri if info is None else info.uri
    try:
        version = (await origin.head(uri)).version
    except ObjectNotFoundError:
        version = ""
    if version != ("" if info is None else info.version):
        raise TransientError(f"{uri}: undone by an earlier request, which had no answer in time")
