"""The daemon's origins by URI, each with the identity under which its objects are cached."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from forebay_protos import layout, uris
from forebayd.errors import InvalidPathError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from forebayd.config import OriginConfig
    from forebayd.origin.base import Origin


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

    def __init__(
        self, drivers: Mapping[str, tuple[OriginConfig, Origin]], cache_id: str
    ) -> None:
        self._handles = {
            prefix: OriginHandle(config, driver, layout.fingerprint_key(cache_id, config.identity))
            for prefix, (config, driver) in drivers.items()
        }

    def target(self, uri: str) -> Target:
        """Return the target of *uri*. Raises InvalidPathError."""
        try:
            found = uris.resolve(uri, self._handles)
        except ValueError as error:
            raise InvalidPathError(str(error)) from error
        if found is None:
            known = ", ".join(sorted(self._handles))
            raise InvalidPathError(
                f"no origin serves {uri!r}: this daemon has {known}; add an [[origin]] for it"
            )
        canonical, _, handle = found
        return Target(canonical, layout.fingerprint(handle.key, canonical), handle)

    def rows(self) -> tuple[layout.OriginRow, ...]:
        """Return what clients must know."""
        return tuple(
            layout.OriginRow(prefix, handle.config.identity)
            for prefix, handle in sorted(self._handles.items())
        )

    async def close(self) -> None:
        for handle in self._handles.values():
            await handle.driver.close()
