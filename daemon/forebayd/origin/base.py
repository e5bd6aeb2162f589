"""The interface of an origin, and its values.

Every origin raises only the errors named here: ObjectNotFoundError, AccessDeniedError,
InvalidPathError, VersionChangedError, OriginUnavailableError, UploadGoneError (all from
``forebayd.errors``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

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


ABSENT = ""  # as an expected version: there is no object


@dataclass(frozen=True, slots=True)
class Page:
    """A piece of a listing, at most some thousand names."""

    objects: tuple[ObjectInfo, ...]
    prefixes: tuple[str, ...]  # URIs that end with "/"; empty in recursive listings


@dataclass(frozen=True, slots=True)
class Form:
    """What is to be signed of a form; see ``generate_presigned_post`` of botocore."""

    fields: dict[str, str] | None
    conditions: list[Any] | None


@dataclass(frozen=True, slots=True)
class Signed:
    """What gives somebody without keys the right to one request."""

    url: str
    fields: dict[str, str]  # of a form


class Writable(Protocol):
    """What is written to: one attempt each, for one without an answer may still take effect."""

    @property
    def can_upload_parts(self) -> bool:
        """Whether the calls for parts work."""

    async def put(self, uri: str, data: Buffer, *, expected: str | None = None) -> ObjectInfo:
        """Write an object whole, or not at all; returns what it is now.

        *expected*: the version that must be there now, ``ABSENT`` if none may be; None: whatever.
        Raises VersionChangedError if it is not so, decided by the origin in one step with the
        writing where it can be (S3's ``If-Match`` and ``If-None-Match``).
        """

    async def begin_upload(self, uri: str) -> str:
        """Begin an upload in parts, of which nothing is seen before it is complete; its id."""

    async def put_part(self, uri: str, upload: str, number: int, data: Buffer) -> str:
        """Write part *number*, from 1 on; returns its tag. Again is no harm.

        All parts but the last are of one size, 5 MiB at least. Raises UploadGoneError.
        """

    async def parts(self, uri: str, upload: str) -> dict[int, tuple[str, int]]:
        """Return (tag, size in bytes) of the parts that are there. Raises UploadGoneError."""

    async def complete_upload(self, uri: str, upload: str, tags: Sequence[str]) -> ObjectInfo:
        """Make the parts 1..n with these tags the object. Raises UploadGoneError."""

    async def abort_upload(self, uri: str, upload: str) -> None:
        """Remove an upload and its parts; one that is gone is no error."""

    async def uploads(self, uri: str) -> Sequence[tuple[str, float]]:
        """Return (id, unix seconds of its begin) of the unfinished uploads of an object."""

    async def delete(self, uri: str) -> None:
        """Remove an object; one that is not there is no error."""

    async def copy(self, source: str, target: str) -> ObjectInfo:
        """Write *source* to *target*, both of this origin, at the origin; returns the target.

        Raises ObjectNotFoundError.
        """

    async def sign(self, uri: str, method: str, expires_s: int, form: Form | None) -> Signed:
        """Return a URL with which anybody may do *method* to the object for a while; of a *form*,
        the URL and fields with which anybody may write it.

        Raises InvalidPathError where there is no such thing.
        """

    async def create_bucket(self, uri: str) -> None:
        """Make the bucket of *uri*; one that is ours already is no error."""


class Origin(Writable, Protocol):
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
