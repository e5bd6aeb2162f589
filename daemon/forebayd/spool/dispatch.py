"""Running uploads: how many at once, which next, and when to try again.

What fails for a while is tried again for ever, later each time; an origin that fails is asked by
one write at a time. What fails for good stays, and blocks what must not overtake it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from functools import partial
from typing import TYPE_CHECKING

from forebayd import traces
from forebayd.errors import (
    DaemonError,
    OriginUnavailableError,
    UploadGoneError,
    VersionChangedError,
)
from forebayd.origin.driver import TransientError
from forebayd.spool.doubts import Doubts, check_undone
from forebayd.spool.order import FAILED, HELD, UPLOADING, WAITING, Upload

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from forebayd.cache.origins import Origins
    from forebayd.origin.base import ObjectInfo
    from forebayd.spool.order import Order
    from forebayd.spool.uploader import Uploader

log = logging.getLogger(__name__)

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 30.0
_LONGEST_SUSPICION_S = 5.0  # of an origin: then one write tries it
_LOOK_S = 0.1
_CALM_S, _LONGEST_WAY_S = 0.1, 5.0  # without a commit; how long uploads give way


class Dispatcher:
    """Carries out the writes of an Order. One event loop."""

    def __init__(
        self,
        order: Order,
        uploader: Uploader,
        origins: Origins,
        *,
        uploads_at_once: int,
        lingers_s: float,
        is_urgent: Callable[[], bool],
        ready: Callable[[Upload], Awaitable[None]],
        finished: Callable[[Upload, ObjectInfo | None], None],
        failed: Callable[[Upload], None],
        looked: Callable[[], None],
    ) -> None:
        """*is_urgent* tells whether uploads go before writers; *ready* is waited for before each
        attempt; *finished* is told of each write that the origin has, *failed* of each that its
        writer is told of; *looked* is called now and then while there are writes."""
        self._order = order
        self._uploader = uploader
        self._origins = origins
        self._uploads_at_once = uploads_at_once
        self._is_urgent = is_urgent
        self._ready = ready
        self._finished = finished
        self._failed = failed
        self._looked = looked
        self._doubts = Doubts(lingers_s)
        self._running: dict[Upload, asyncio.Task[None]] = {}
        self._suspects: dict[str, tuple[float, float]] = {}  # origin: (when to ask, pause)
        self._committed_at = 0.0  # monotonic
        self._is_idle = True  # nothing to upload: asleep until woken
        self._wake = asyncio.Event()
        self._loop: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._loop = asyncio.create_task(self._dispatch())

    def wake(self) -> None:
        """Look at once: something has been added, or may go now."""
        self._wake.set()

    def committed(self) -> None:
        """A writer has been served, and may go on writing: no need to look at once."""
        self._committed_at = time.monotonic()
        if self._is_idle:
            self._wake.set()

    def retry(self, upload: Upload) -> None:
        """Try a write again now, also one that failed for good."""
        self._order.retry(upload)
        self._suspects.pop(upload.origin, None)
        self._wake.set()

    async def cancel(self, upload: Upload) -> None:
        """End the attempt that is under way, if one is, and begin no other."""
        if upload.state != FAILED:
            upload.state = HELD
        running = self._running.get(upload)
        if running is not None:
            running.cancel()
            await asyncio.wait([running])

    async def stop(self) -> None:
        tasks = [*self._running.values(), *([self._loop] if self._loop else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _dispatch(self) -> None:
        while True:
            self._wake.clear()
            try:
                self._start_ready()
                self._looked()
            except Exception:
                log.exception("uploads cannot be started")
            self._is_idle = not len(self._order)
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._wake.wait(), None if self._is_idle else _LOOK_S)
            self._is_idle = False

    def _start_ready(self) -> None:
        now = time.monotonic()
        # Uploads give way to a burst of writes, with which they share cores and disk.
        is_calm = now - self._committed_at > _CALM_S or self._is_urgent()
        oldest_at = time.time() - _LONGEST_WAY_S
        for prefix in self._order.origins():
            ask_at, _ = self._suspects.get(prefix, (0.0, 0.0))
            if ask_at > now or not (is_calm or self._order.oldest_at(prefix) < oldest_at):
                continue
            running = sum(upload.origin == prefix for upload in self._running)
            # An origin that failed a moment ago is asked by one.
            room = (1 if ask_at else self._uploads_at_once) - running
            for upload in self._order.ready(prefix, now):
                if room <= 0:
                    break
                room -= 1
                upload.state, upload.attempts = UPLOADING, upload.attempts + 1
                task = self._running[upload] = asyncio.create_task(self._run(upload))
                task.add_done_callback(partial(self._ended, upload))

    def _ended(self, upload: Upload, _: asyncio.Task[None]) -> None:
        # Not in the attempt itself: one that is cancelled before its first step never runs.
        del self._running[upload]
        if upload.state == UPLOADING:
            upload.state = WAITING
        self._wake.set()

    async def _run(self, upload: Upload) -> None:
        origin = self._origins.target(upload.uri).origin.driver
        try:
            await self._ready(upload)
            told = traces.span(
                "upload",
                uri=upload.uri,
                kind=upload.trailer.kind,
                bytes=upload.trailer.size_bytes,
                attempt=upload.attempts,
            )
            with told:
                info = await self._uploader.run(upload, origin)
            self._suspects.pop(upload.origin, None)
            while left_s := self._doubts.left_s(upload):
                await asyncio.sleep(left_s)
                await check_undone(upload, info, origin)
        except Exception as error:
            self._doubts.note(upload, error)
            self._fail(upload, error)
        else:
            self._finished(upload, info)

    def _fail(self, upload: Upload, error: Exception) -> None:
        upload.last_error = str(error) or type(error).__name__
        is_withdrawn = upload.is_through and isinstance(error, FileNotFoundError)
        if not is_withdrawn and is_transient(error):
            if not isinstance(error, DaemonError):
                log.error("an upload failed", exc_info=error, extra={"uri": upload.uri})
            upload.state = WAITING
            upload.retry_at = time.monotonic() + _pause(upload.attempts, _LONGEST_PAUSE_S)
            _, pause_s = self._suspects.get(upload.origin, (0.0, _FIRST_PAUSE_S / 2))
            pause_s = min(_LONGEST_SUSPICION_S, 2 * pause_s)
            self._suspects[upload.origin] = time.monotonic() + pause_s, pause_s
        elif upload.is_through:
            self._order.remove(upload)
            self._failed(upload)
            if not upload.done.done():
                upload.done.set_exception(error)
        else:
            self._order.fail(upload)
            log.error(
                "an upload failed for good: see `forebay uploads`",
                extra={"uri": upload.uri, "reason": upload.last_error},
            )


def is_transient(error: Exception) -> bool:
    """Tell whether another attempt may do. What is not known is: nothing acknowledged is lost."""
    transient = TransientError | VersionChangedError | UploadGoneError
    if isinstance(error, transient) or not isinstance(error, DaemonError):
        return True
    # The wrapper's, after several attempts.
    return isinstance(error, OriginUnavailableError) and isinstance(
        error.__cause__, TransientError | asyncio.TimeoutError
    )


def _pause(attempts: int, longest_s: float) -> float:
    jitter = 0.5 + random.random() / 2  # noqa: S311  # no secret
    return jitter * min(longest_s, _FIRST_PAUSE_S * float(2 ** min(attempts, 20)))
