"""More than one attempt: exponential backoff with full jitter, within a deadline.

Only TransientError is tried again (500, 502, 503 SlowDown, resets, short and stalled bodies,
timeouts): what the origin denies, lacks or has changed stays so. Of what writes, only what may be
done twice is; for the rest, whoever has the bytes must look first what an attempt without an answer
has done.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from typing import TYPE_CHECKING, TypeVar

from forebayd.errors import OriginUnavailableError
from forebayd.origin.driver import TransientError
from forebayd.origin.writes import (
    ABORT,
    COMPLETE,
    COPY,
    CREATE_BUCKET,
    PARTS,
    UPLOADS,
    Call,
    WritesAround,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from forebayd.origin.base import Body, ObjectInfo, Page, Writable
    from forebayd.origin.driver import Driver
    from forebayd.origin.observed import Observer

T = TypeVar("T")

FIRST_BACKOFF_S = 0.1
LAST_BACKOFF_S = 5.0
_REPEATABLE = (PARTS, ABORT, UPLOADS, CREATE_BUCKET)
_SLOWEST_BYTES_PER_S = 1 << 20  # a body has the deadline's time, and this much more
_AT_THE_ORIGIN_S = 3600.0  # copying may be a matter of terabytes


class Retrying(WritesAround):
    """A driver that tries again; it is itself a driver."""

    def __init__(
        self,
        driver: Driver,
        observer: Observer,
        *,
        prefix: str,
        endpoint: str,
        attempts: int,
        deadline_s: float,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        jitter: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._driver = driver
        self._observer = observer
        self._prefix = prefix
        self._endpoint = endpoint
        self._attempts = attempts
        self._deadline_s = deadline_s
        self._sleep = sleep
        self._jitter = jitter
        self._clock = clock

    @property
    def can_upload_parts(self) -> bool:
        return self._driver.can_upload_parts

    async def head(self, uri: str) -> ObjectInfo:
        return await self._try("head", uri, lambda: self._driver.head(uri))

    async def get_range(
        self, uri: str, start: int, end: int, *, version: str | None = None
    ) -> Body:
        return await self._try(
            "get", uri, lambda: self._driver.get_range(uri, start, end, version=version)
        )

    async def page(
        self, prefix: str, *, recursive: bool, token: object | None
    ) -> tuple[Page, object | None]:
        return await self._try(
            "list", prefix, lambda: self._driver.page(prefix, recursive=recursive, token=token)
        )

    async def close(self) -> None:
        await self._driver.close()

    async def _around(self, call: Call, request: Callable[[Writable], Awaitable[T]]) -> T:
        if call.operation in _REPEATABLE:
            return await self._try(call.operation, call.uri, lambda: request(self._driver))
        seconds = self._deadline_s + call.size_bytes / _SLOWEST_BYTES_PER_S
        if call.operation in (COPY, COMPLETE):
            seconds = max(seconds, _AT_THE_ORIGIN_S)
        try:
            return await within(seconds, request(self._driver))
        except asyncio.TimeoutError as error:
            raise TransientError(
                f"{call.uri}: no answer from {self._endpoint} in {seconds:.1f} s"
            ) from error

    async def _try(self, operation: str, uri: str, request: Callable[[], Awaitable[T]]) -> T:
        """Return what the first attempt that works returns. Raises OriginUnavailableError."""
        began = self._clock()
        attempt = 0
        while True:
            attempt += 1
            left_s = began + self._deadline_s - self._clock()
            try:
                return await within(left_s, request())
            except TransientError as error:
                cause: Exception = error
            except asyncio.TimeoutError as error:
                cause = error
            pause_s = self._jitter() * min(LAST_BACKOFF_S, FIRST_BACKOFF_S * 2 ** (attempt - 1))
            took_s = self._clock() - began
            if attempt >= self._attempts or took_s + pause_s >= self._deadline_s:
                last = str(cause) or "no answer in time"
                raise OriginUnavailableError(
                    f"{uri}: no right answer from {self._endpoint} in {attempt} attempt(s), "
                    f"{took_s:.1f} s; the last: {last}"
                ) from cause
            self._observer.request_retried(self._prefix, operation)
            await self._sleep(pause_s)


async def within(seconds: float, request: Awaitable[T]) -> T:
    """Return what *request* returns; after *seconds* cancel it and raise asyncio.TimeoutError."""
    if sys.version_info >= (3, 11):
        # wait_for would start a task for each request: 30 us on a path of 340.
        async with asyncio.timeout(seconds):
            return await request
    else:
        return await asyncio.wait_for(request, seconds)
