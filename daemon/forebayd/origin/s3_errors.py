"""Our errors for those of botocore and aiohttp."""

from __future__ import annotations

import asyncio
from typing import Any

from forebayd.errors import (
    DaemonError,
    InvalidPathError,
    ObjectNotFoundError,
    OriginUnavailableError,
)
from forebayd.origin.driver import broken_off, failure_of_status


def status_of(error: Exception) -> int | None:
    """Return the HTTP status that botocore keeps in its ClientError."""
    response = getattr(error, "response", None)
    if not isinstance(response, dict):
        return None
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return status if isinstance(status, int) else None


def translated(uri: str, error: Exception) -> Exception:
    """Return our error for one of botocore's or aiohttp's."""
    from aiohttp import ClientError as HttpError
    from botocore import exceptions as botocore_errors  # type: ignore[import-untyped]  # ships no stubs
    from botocore.parsers import (  # type: ignore[import-untyped]  # ships no stubs
        ResponseParserError,
    )

    if isinstance(error, DaemonError):
        return error
    status = status_of(error)
    if status is not None:
        response: dict[str, Any] = error.response  # type: ignore[attr-defined]  # status_of saw it
        return failure_of_status(uri, status, str(response.get("Error", {}).get("Code", "")))
    if isinstance(error, botocore_errors.NoCredentialsError | botocore_errors.ProfileNotFound):
        return failure_of_status(uri, 401, str(error))
    if isinstance(error, botocore_errors.ParamValidationError):
        # A bucket name that S3 does not allow, so that none can exist.
        if "bucket name" in str(error):
            return ObjectNotFoundError(f"{uri}: no such bucket: {error}")
        return InvalidPathError(f"{uri!r} cannot be asked of S3: {error}")
    transient = (
        botocore_errors.HTTPClientError,
        botocore_errors.ConnectionError,
        botocore_errors.IncompleteReadError,
        ResponseParserError,
        HttpError,
        OSError,
        asyncio.TimeoutError,
    )
    if isinstance(error, transient):
        return broken_off(f"{type(error).__name__}: {error}", error)
    if isinstance(error, ValueError):
        return InvalidPathError(f"{uri!r} cannot be asked of S3: {error}")
    return OriginUnavailableError(f"{uri}: {type(error).__name__}: {error}")
