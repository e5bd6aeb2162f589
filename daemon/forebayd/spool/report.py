"""What is to be said of writes under way: to who waits for them, and to operators."""

from __future__ import annotations

import asyncio
import heapq
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from forebayd.spool.order import DAMAGED, FAILED, UPLOADING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from forebayd.spool.order import Order, Upload
    from forebayd.spool.staging import Staging

log = logging.getLogger(__name__)

_COMPLAIN_S = 60.0
_PROGRESS_S = 0.2
_TOLD = 32  # uploads, in the statistics
_PLACES = {FAILED: 0, UPLOADING: 1}


@dataclass(frozen=True, slots=True)
class Progress:
    """Of a flush."""

    uploads_left: int
    bytes_left: int
    uploads_total: int
    bytes_total: int
    failed: list[Upload]


class Report:
    """Counts, ages and progress. One event loop."""

    def __init__(
        self,
        order: Order,
        staging: Staging,
        uploaded: Callable[[str, str, int, float], object],
        *,
        max_age_s: float,
    ) -> None:
        """*uploaded* is told the origin's prefix, the URI, its bytes and the seconds that a write
        took to get there."""
        self._uploaded = uploaded
        self._order = order
        self._staging = staging
        self._max_age_s = max_age_s
        self._complain_at = 0.0
        self._uploads_done = 0
        self._uploaded_bytes = 0

    def done(self, upload: Upload) -> None:
        """Count a write that the origin has."""
        size_bytes = upload.trailer.size_bytes
        self._uploads_done += 1
        self._uploaded_bytes += size_bytes
        self._uploaded(upload.origin, upload.uri, size_bytes, _age_s(upload))

    async def flush(self, matches: Callable[[str], bool]) -> AsyncIterator[Progress]:
        """Yield the progress of all writes so far that match, until they are done or have failed
        for good."""
        everything = list(self._order.matching(matches))
        total_bytes = sum(upload.trailer.size_bytes for upload in everything)
        while True:
            latest = {upload.last().name: upload.last() for upload in everything}
            left = [upload for upload in latest.values() if not upload.done.done()]
            moving: list[Upload] = []
            stuck: list[Upload] = []
            for upload in left:
                is_stuck = upload.state == FAILED or self._order.culprit(upload) is not None
                (stuck if is_stuck else moving).append(upload)
            bytes_left = sum(u.trailer.size_bytes - u.uploaded_bytes for u in left)
            failed = [] if moving else stuck
            yield Progress(len(left), bytes_left, len(everything), total_bytes, failed)
            if not moving:
                return
            await asyncio.wait(
                [upload.done for upload in moving],
                timeout=_PROGRESS_S,
                return_when=asyncio.FIRST_COMPLETED if len(left) == 1 else asyncio.ALL_COMPLETED,
            )

    def is_overdue(self) -> bool:
        """Tell whether somebody should look: a failed write, a damaged one, or one too old."""
        oldest_s = self.oldest_age_s()
        return oldest_s > self._max_age_s or any(upload.state == FAILED for upload in self._order)

    def oldest_age_s(self) -> float:
        return max(map(_age_s, self._order), default=0.0)

    def complain(self) -> None:
        """Log, now and then, that writes are overdue, if they are."""
        if time.monotonic() < self._complain_at or not len(self._order):
            return
        self._complain_at = time.monotonic() + _COMPLAIN_S
        if self.is_overdue():
            log.error(
                "writes are overdue: see `forebay uploads`",
                extra={"oldest_age_s": round(self.oldest_age_s()), "uploads": len(self._order)},
            )

    def row(self, upload: Upload) -> dict[str, Any]:
        """Return what is to be said of one write: the fields of ``Upload`` in ``cache.proto``."""
        culprit = self._order.culprit(upload)
        return {
            "id": upload.name,
            "kind": upload.trailer.kind,
            "uri": upload.trailer.uri,
            "target": upload.trailer.target,
            "size_bytes": upload.trailer.size_bytes,
            "uploaded_bytes": upload.uploaded_bytes,
            "age_s": _age_s(upload),
            "attempts": upload.attempts,
            "last_error": upload.last_error,
            "state": upload.state if culprit is None else "blocked",
            "blocked_by": "" if culprit is None else culprit.name,
        }

    def stats(self) -> dict[str, Any]:
        """Return the section "spool" of the statistics."""
        uploads = list(self._order)
        # Those that failed, those under way, and of the others those that wait longest.
        first = heapq.nsmallest(_TOLD, uploads, lambda u: _PLACES.get(u.state, len(_PLACES)))
        return {
            "backlog_uploads": len(uploads),
            "backlog_bytes": sum(u.trailer.size_bytes - u.uploaded_bytes for u in uploads),
            "oldest_age_s": self.oldest_age_s(),
            "max_age_s": self._max_age_s,
            "uploads_done": self._uploads_done,
            "uploaded_bytes": self._uploaded_bytes,
            "uploads_failed": sum(upload.state == FAILED for upload in uploads),
            "damaged": sum(upload.trailer.kind == DAMAGED for upload in uploads),
            "uploads": [self.row(upload) for upload in first],
            "staged_files": self._staging.count,
            "spool_used_bytes": self._staging.used_bytes,
            "spool_max_bytes": self._staging.limit_bytes,
            "overdue": self.is_overdue(),
        }


def _age_s(upload: Upload) -> float:
    return max(0.0, time.time() - upload.committed_at)
