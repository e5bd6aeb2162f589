"""Measurement of every single request to an origin, for statistics that live elsewhere."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Protocol, TypeVar

from forebay_protos import cache_pb2
from forebayd import traces
from forebayd.errors import DaemonError
from forebayd.origin.writes import Call, WritesAround

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from forebayd.origin.base import Body, ObjectInfo, Page, Writable
    from forebayd.origin.driver import Driver

T = TypeVar("T")


class Observer(Protocol):
    """Is told of every request, in the event loop: it must be quick and must not raise."""

    def request_ended(
        self,
        origin_prefix: str,
        operation: str,
        seconds: float,
        size_bytes: int,
        error_kind: str | None,
    ) -> None:
        """One attempt ended, which got or sent so many bytes.

        *operation*: head, get, list, put, begin, put_part, parts, complete, abort, delete or copy;
        *error_kind*: a name of ErrorKind.
        """

    def request_retried(self, origin_prefix: str, operation: str) -> None:
        """A failed attempt will be followed by another."""


class Unobserved:
    """An observer that looks away."""

    def request_ended(
        self,
        origin_prefix: str,
        operation: str,
        seconds: float,
        size_bytes: int,
        error_kind: str | None,
    ) -> None:
        pass

    def request_retried(self, origin_prefix: str, operation: str) -> None:
        pass


class Observed(WritesAround):
    """A driver that tells an observer of every request; it is itself a driver."""

    def __init__(self, driver: Driver, observer: Observer, *, prefix: str) -> None:
        self._driver = driver
        self._observer = observer
        self._prefix = prefix

    @property
    def can_upload_parts(self) -> bool:
        return self._driver.can_upload_parts

    async def head(self, uri: str) -> ObjectInfo:
        return await self._measured("head", self._driver.head(uri))

    async def get_range(
        self, uri: str, start: int, end: int, *, version: str | None = None
    ) -> Body:
        return await self._measured("get", self._driver.get_range(uri, start, end, version=version))

    async def page(
        self, prefix: str, *, recursive: bool, token: object | None
    ) -> tuple[Page, object | None]:
        return await self._measured(
            "list", self._driver.page(prefix, recursive=recursive, token=token)
        )

    async def close(self) -> None:
        await self._driver.close()

    async def _around(self, call: Call, request: Callable[[Writable], Awaitable[T]]) -> T:
        return await self._measured(call.operation, request(self._driver), call.size_bytes)

    async def _measured(self, operation: str, request: Awaitable[T], sent_bytes: int = 0) -> T:
        began = time.perf_counter()
        size_bytes, error_kind = 0, None
        try:
            with traces.span(f"origin {operation}", origin=self._prefix):
                result = await request
            data = getattr(result, "data", b"")  # a Body's
            size_bytes = sent_bytes or len(data)
        except DaemonError as error:
            error_kind = cache_pb2.ErrorKind.Name(error.kind)
            raise
        except asyncio.CancelledError:  # the deadline, or nobody wants it any more
            error_kind = "CANCELLED"
            raise
        finally:
            seconds = time.perf_counter() - began
            self._observer.request_ended(self._prefix, operation, seconds, size_bytes, error_kind)
        return result
