"""What one kind of store must be able to do; the wrappers make an Origin of it.

A driver makes one attempt, translates every foreign error at its border and does nothing else:
attempts, limits and measurement are wrapped around it (see ``build.py``).
"""

from __future__ import annotations

import re
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
    from forebayd.origin.base import Body, Form, ObjectInfo, Page, Signed


class TransientError(OriginUnavailableError):
    """The origin did not answer rightly this time; another attempt may do."""


class NotTakenError(TransientError):
    """As TransientError, and what was asked is certainly not going to happen."""


_NOT_TAKEN = re.compile(
    "connect error|trying to connect|ConnectError|onnection refused|dns error"
    "|Could not connect|Cannot connect"
)


def broken_off(detail: str, error: Exception) -> TransientError:
    """Return the error for a request that *error* has left without an answer."""
    return NotTakenError(detail) if _NOT_TAKEN.search(str(error)) else TransientError(detail)


class WithoutKeys:
    """What a driver of no object store has: no keys to sign with, and no buckets."""

    async def sign(self, uri: str, method: str, expires_s: int, form: Form | None) -> Signed:
        del method, expires_s, form
        raise InvalidPathError(f"{uri}: only requests to S3 can be signed")

    async def create_bucket(self, uri: str) -> None:
        raise InvalidPathError(f"{uri}: only S3 has buckets")


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
_DAMAGED = ("IncompleteBody", "BadDigest", "XAmzContentSHA256Mismatch", "InvalidDigest")
_OLD_KEYS = ("ExpiredToken", "TokenRefreshRequired")  # renewed by the next attempt
_OTHER_PARTS = ("InvalidPart", "InvalidPartOrder")
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
    if detail in _OTHER_PARTS:
        return UploadGoneError(f"{uri}: other parts are there than were sent: begin another")
    if detail in (*_DAMAGED, *_OLD_KEYS):
        return TransientError(f"{status} {detail}")
    if detail == "EntityTooLarge":
        return InvalidPathError(f"{uri}: too large for one request: write it in smaller objects")
    if status in (429, 503):
        return NotTakenError(f"{status} {detail}")
    if status == 408 or (status >= 500 and status != 501) or "RequestTimeout" in detail:
        return TransientError(f"{status} {detail}")
    if detail in _PASSING_CONFLICTS:
        return TransientError(f"{status} {detail}")
    return OriginUnavailableError(
        f"{uri}: unexpected answer {status} {detail}: check endpoint, region and addressing"
    )
