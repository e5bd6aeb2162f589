"""Every error that the client raises, and the one place where gRPC's are translated.

    ForebayError
    |-- InvalidPathError(ValueError)             the path cannot be served as written
    |-- ObjectNotFoundError(FileNotFoundError)   no such object, prefix or bucket
    |-- AccessDeniedError(PermissionError)       the origin refused
    |-- OriginUnavailableError(OSError, EIO)     the origin did not answer rightly
    |-- StaleFileError(OSError, ESTALE)          the object changed under an open file
    |-- CacheFullError(OSError, ENOSPC)          no space can be made
    |-- DaemonUnavailableError(ConnectionError)  no daemon answers
    `-- DeadlineExceededError(TimeoutError)      a call took longer than timeout_s
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import grpc

from forebay_protos import cache_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Mapping


class ForebayError(Exception):
    """Base of all."""


class InvalidPathError(ForebayError, ValueError):
    """The path cannot be served as written; the text says what to write."""


class _OSError(ForebayError, OSError):
    """An error that code written for files knows by its errno."""

    code = errno.EIO

    def __init__(self, message: str) -> None:
        super().__init__(self.code, message)

    def __str__(self) -> str:
        return str(self.args[1])

    def __reduce__(self) -> tuple[type[_OSError], tuple[str]]:
        return type(self), (str(self),)


class ObjectNotFoundError(_OSError, FileNotFoundError):
    """There is no such object, prefix or bucket."""

    code = errno.ENOENT


class AccessDeniedError(_OSError, PermissionError):
    """The origin refused the daemon's credentials, or the request."""

    code = errno.EACCES


class OriginUnavailableError(_OSError):
    """The origin did not answer rightly, after all retries of the daemon."""

    code = errno.EIO


class StaleFileError(_OSError):
    """The object is no longer the version that was opened."""

    code = errno.ESTALE


class CacheFullError(_OSError):
    """No space can be made for what must be on the local disk."""

    code = errno.ENOSPC


class DaemonUnavailableError(_OSError, ConnectionError):
    """No daemon answers; the text says how to start one."""

    code = errno.ECONNREFUSED


class DeadlineExceededError(_OSError, TimeoutError):
    """A call took longer than the client's timeout_s."""

    code = errno.ETIMEDOUT


_BY_KIND: Mapping[int, type[ForebayError]] = {
    pb.OBJECT_NOT_FOUND: ObjectNotFoundError,
    pb.ACCESS_DENIED: AccessDeniedError,
    pb.INVALID_PATH: InvalidPathError,
    pb.ORIGIN_UNAVAILABLE: OriginUnavailableError,
    pb.VERSION_CHANGED: StaleFileError,
    pb.CACHE_FULL: CacheFullError,
}


def from_message(error: pb.Error) -> ForebayError:
    """Return the exception for an error inside a reply."""
    return _BY_KIND.get(error.kind, ForebayError)(error.message)


def from_rpc(error: grpc.RpcError) -> ForebayError:
    """Return the exception for a failed call (never for one that may be repeated)."""
    trailers = {str(key): value for key, value in error.trailing_metadata() or ()}
    kind = trailers.get("forebay-error")
    if kind is not None:
        return from_message(pb.Error(kind=str(kind), message=error.details()))
    if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        return DeadlineExceededError("the daemon did not answer within the client's timeout_s")
    return ForebayError(f"the daemon answered {error.code().name}: {error.details()}")
