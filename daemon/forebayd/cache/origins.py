"""The daemon's origins by URI, each with the identity under which its objects are cached."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from forebay_protos import layout, uris
from forebayd.config import OriginConfig
from forebayd.errors import AccessDeniedError, InvalidPathError
from forebayd.origin.build import build
from forebayd.origin.fallback import Fallback

if TYPE_CHECKING:
    from collections.abc import Iterable

    from forebayd.origin.base import Origin
    from forebayd.origin.observed import Observer

_RESOLVED = 256  # a call asks several times, each time for 20 us


@dataclass(frozen=True, slots=True)
class OriginHandle:
    """An origin with everything that the cache needs to know of it."""

    config: OriginConfig
    driver: Origin
    key: bytes  # under which its URIs are hashed


@dataclass(frozen=True, slots=True)
class Target:
    """A URI that is resolved: what the cache works on."""

    uri: str
    fingerprint: bytes
    origin: OriginHandle


class Origins:
    """Finds the origin of a URI."""

    def __init__(self, configs: Iterable[OriginConfig], cache_id: str, observer: Observer) -> None:
        """Build every origin; nothing is connected before its first request."""
        drivers = [(config, build(config, observer)) for config in configs]
        drivers.append(
            (OriginConfig(prefix="", driver="fsspec", write_mode="read_only"), Fallback(observer))
        )
        self._handles = {
            config.prefix: OriginHandle(
                config, driver, layout.fingerprint_key(cache_id, config.identity)
            )
            for config, driver in drivers
        }
        self._resolved = lru_cache(_RESOLVED)(self._resolve)

    def target(self, uri: str) -> Target:
        """Return the target of *uri*. Raises InvalidPathError."""
        return self._resolved(uri)

    def _resolve(self, uri: str) -> Target:
        try:
            found = uris.resolve(uri, self._handles)
        except ValueError as error:
            raise InvalidPathError(str(error)) from error
        assert found is not None  # noqa: S101  # the fallback serves the rest
        canonical, _, handle = found
        return Target(canonical, layout.fingerprint(handle.key, canonical), handle)

    @staticmethod
    def check_writable(target: Target) -> None:
        """Raise AccessDeniedError if nothing may be written there."""
        if target.origin.config.write_mode == "read_only":
            raise AccessDeniedError(
                f"{target.uri}: this origin is read-only: to write there, give the configuration "
                f"an [[origin]] with its prefix and write_mode = 'write_back'"
            )

    def rows(self) -> tuple[layout.OriginRow, ...]:
        """Return what clients must know."""
        return tuple(
            layout.OriginRow(prefix, handle.config.identity)
            for prefix, handle in sorted(self._handles.items())
        )

    async def close(self) -> None:
        for handle in self._handles.values():
            await handle.driver.close()
