"""What one kind of store must be able to do; the wrappers make an Origin of it.

A driver makes one attempt, translates every foreign error at its border and does nothing else:
attempts, limits and measurement are wrapped around it (see ``build.py``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from forebayd.errors import (
    AccessDeniedError,
    DaemonError,
    InvalidPathError,
    ObjectNotFoundError,
    OriginUnavailableError,
    UploadGoneError,
    VersionChangedError,
)
from forebayd.origin.base import Writable

if TYPE_CHECKING:
    from forebayd.origin.base import Body, ObjectInfo, Page


class TransientError(OriginUnavailableError):
    """The origin did not answer rightly this time; another attempt may do."""


class Driver(Writable, Protocol):
    """As :class:`~forebayd.origin.base.Origin`, one attempt each, listings page by page."""

    async def head(self, uri: str) -> ObjectInfo: ...

    async def get_range(
        self, uri: str, start: int, end: int, *, version: str | None = None
    ) -> Body: ...

    async def page(
        self, prefix: str, *, recursive: bool, token: object | None
    ) -> tuple[Page, object | None]:
        """Return a page and the token of the next one, None at the end; the first has none."""

    async def close(self) -> None: ...


# Codes of S3, with what to do about them.
_CURES = {
    "RequestTimeTooSkewed": "this machine's clock is wrong: set it",
    "QuotaExceeded": "the quota is used up: remove objects, or have it raised",
}
_TOO_LONG = ("KeyTooLongError", "InvalidObjectName")
_PASSING_CONFLICTS = ("OperationAborted", "ConditionalRequestConflict", "ConcurrentModification")


def failure_of_status(uri: str, status: int, detail: str) -> DaemonError:
    """Return the error that an HTTP status means; *detail* is what the server said."""
    if status == 404:
        if "NoSuchUpload" in detail:
            return UploadGoneError(f"{uri}: the upload is gone: begin another")
        what = "bucket" if "NoSuchBucket" in detail else "object"
        return ObjectNotFoundError(f"{uri}: no such {what}")
    if status in (401, 403):
        cure = _CURES.get(detail, "check the credentials and their rights")
        return AccessDeniedError(f"{uri}: the origin refused ({status} {detail}): {cure}")
    if status == 412:
        return VersionChangedError(f"{uri} has changed at the origin")
    if detail in _TOO_LONG:
        return InvalidPathError(f"{uri[:200]}…: the origin takes no such name ({detail})")
    if status in (408, 429) or (status >= 500 and status != 501) or "RequestTimeout" in detail:
        return TransientError(f"{status} {detail}")
    if detail in _PASSING_CONFLICTS:
        return TransientError(f"{status} {detail}")
    return OriginUnavailableError(
        f"{uri}: unexpected answer {status} {detail}: check endpoint, region and addressing"
    )
