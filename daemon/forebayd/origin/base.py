"""The interface of an origin, and its values.

Every origin raises only the errors named here: ObjectNotFoundError, AccessDeniedError,
InvalidPathError, VersionChangedError, OriginUnavailableError (all from ``forebayd.errors``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from typing_extensions import Buffer


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One version of an object."""

    uri: str
    size_bytes: int
    version: str  # ETag without quotes, else "<size>-<mtime ns>"
    modified: float | None  # unix seconds


@dataclass(frozen=True, slots=True)
class Body:
    """A range of an object's bytes, verified to be as long as it should be."""

    info: ObjectInfo  # of the whole object
    data: Buffer


@dataclass(frozen=True, slots=True)
class Page:
    """A piece of a listing, at most some thousand names."""

    objects: tuple[ObjectInfo, ...]
    prefixes: tuple[str, ...]  # URIs that end with "/"; empty in recursive listings


class Origin(Protocol):
    """One place that serves URIs."""

    async def head(self, uri: str) -> ObjectInfo:
        """Return what the origin says of *uri* now."""

    async def get_range(
        self, uri: str, start: int, end: int, *, version: str | None = None
    ) -> Body:
        """Return the bytes [start, min(end, size)) and the object's info, in one request.

        *start* 0 works for any object, the empty one included; a *start* at or beyond the end gives
        no bytes. With *version*, VersionChangedError is raised unless the object still has it
        (``If-Match`` where the origin knows it). A body of another length than its headers
        promise is never returned.
        """

    def list(self, prefix: str, *, recursive: bool) -> AsyncIterator[Page]:
        """Yield pages of what lies below *prefix*, a URI: "a/b" lists "a/b/", never "a/bc".

        A folder's marker object (the prefix itself with "/") is left out. A missing prefix
        gives no entries; a missing bucket raises ObjectNotFoundError.
        """

    async def close(self) -> None:
        """Release connections."""
