"""URIs of schemes that nobody configured: fsspec knows many, each is built at its first use."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from forebayd.errors import InvalidPathError
from forebayd.origin.build import build, fallback
from forebayd.origin.writes import Call, WritesAround

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from forebayd.origin.base import Body, ObjectInfo, Origin, Page, Writable
    from forebayd.origin.observed import Observer

T = TypeVar("T")


class Fallback(WritesAround):
    """An origin that passes each URI to one of its scheme."""

    can_upload_parts = False  # not every scheme's origin can

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._by_prefix: dict[str, Origin] = {}

    def _of(self, uri: str) -> Origin:
        config = fallback(uri)
        if config.scheme in ("file", "local"):
            raise InvalidPathError(
                f"{uri}: local files are not served through a port unless the configuration has an "
                "[[origin]] for them, such as prefix = 'file:///data'"
            )
        origin = self._by_prefix.get(config.prefix)
        if origin is None:
            origin = self._by_prefix[config.prefix] = build(config, self._observer)
        return origin

    async def head(self, uri: str) -> ObjectInfo:
        return await self._of(uri).head(uri)

    async def get_range(
        self, uri: str, start: int, end: int, *, version: str | None = None
    ) -> Body:
        return await self._of(uri).get_range(uri, start, end, version=version)

    async def list(self, prefix: str, *, recursive: bool) -> AsyncIterator[Page]:
        async for page in self._of(prefix).list(prefix, recursive=recursive):
            yield page

    async def copy(self, source: str, target: str) -> ObjectInfo:
        if self._of(source) is not self._of(target):
            raise InvalidPathError(f"{source} cannot be copied to another origin, {target}")
        return await super().copy(source, target)

    async def _around(self, call: Call, request: Callable[[Writable], Awaitable[T]]) -> T:
        return await request(self._of(call.uri))

    async def close(self) -> None:
        for origin in self._by_prefix.values():
            await origin.close()
