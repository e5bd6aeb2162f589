"""The outermost wrapper: no more than so many requests at once, and listings without an end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

from forebayd.origin.writes import Call, WritesAround

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from forebayd.origin.base import Body, ObjectInfo, Page, Writable
    from forebayd.origin.driver import Driver

T = TypeVar("T")


class Limited(WritesAround):
    """An Origin over a driver.

    A request that waits for its next attempt keeps its place, so that an origin that asks to slow
    down is asked less; the time in the queue does not count against the request's deadline. What
    writes has places of its own: slow uploads keep no reader waiting.
    """

    def __init__(self, driver: Driver, *, max_requests: int) -> None:
        self._driver = driver
        self._places = asyncio.Semaphore(max_requests)
        self._places_to_write = asyncio.Semaphore(max_requests)

    @property
    def can_upload_parts(self) -> bool:
        return self._driver.can_upload_parts

    async def head(self, uri: str) -> ObjectInfo:
        async with self._places:
            return await self._driver.head(uri)

    async def get_range(
        self, uri: str, start: int, end: int, *, version: str | None = None
    ) -> Body:
        async with self._places:
            return await self._driver.get_range(uri, start, end, version=version)

    async def list(self, prefix: str, *, recursive: bool) -> AsyncIterator[Page]:
        token: object | None = None
        while True:
            async with self._places:
                page, token = await self._driver.page(prefix, recursive=recursive, token=token)
            yield page
            if token is None:
                return

    async def _around(self, call: Call, request: Callable[[Writable], Awaitable[T]]) -> T:
        async with self._places_to_write:
            return await request(self._driver)

    async def close(self) -> None:
        await self._driver.close()
