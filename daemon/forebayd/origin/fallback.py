"""URIs of schemes that nobody configured: fsspec knows many, each is built at its first use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from forebayd.errors import InvalidPathError
from forebayd.origin.build import build, fallback

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from forebayd.origin.base import Body, ObjectInfo, Origin, Page
    from forebayd.origin.observed import Observer


class Fallback:
    """An origin that passes each URI to one of its scheme."""

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

    async def close(self) -> None:
        for origin in self._by_prefix.values():
            await origin.close()
