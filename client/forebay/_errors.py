"""Everything that a client raises of its own, and the one place where gRPC's errors become these.

    ForebayError
    |-- InvalidPathError(ValueError)               the path cannot be served as written
    |-- ObjectNotFoundError(FileNotFoundError)     no such object, prefix or bucket
    |-- AccessDeniedError(PermissionError)         the origin refused the credentials or the request
    |-- OriginUnavailableError(OSError, EIO)       the origin did not answer rightly
    |-- StaleFileError(OSError, ESTALE)            the object changed while it was being read
    |-- CacheFullError(OSError, ENOSPC)            what has to be in the cache does not fit
    |-- ObjectExistsError(FileExistsError)         what was to be created is there
    |-- SpoolFullError(OSError, ENOSPC)            a write finds no room, and waited for it
    |-- UploadFailedError(OSError, EIO)            the origin refused an upload for good
    |-- DaemonUnavailableError(ConnectionError)    no daemon answers
    `-- DeadlineExceededError(TimeoutError)        the daemon did not finish in time

A plain ForebayError is a fault of the daemon. Arguments of a wrong kind raise what Python raises.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any, cast

import grpc

from forebay_protos import cache_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from forebay._values import Upload

_TRAILER = "forebay-error"


class ForebayError(Exception):
    """Base of all errors of this package."""


class InvalidPathError(ForebayError, ValueError):
    """The path cannot be served as written; the text says what to write instead."""


class _OSError(ForebayError, OSError):
    """An error that code written for files knows by its class or its errno."""

    _number = errno.EIO

    def __init__(self, message: str) -> None:
        super().__init__(self._number, message)

    def __str__(self) -> str:
        return str(self.args[1])

    def __reduce__(self) -> tuple[type[_OSError], tuple[Any, ...]]:
        return type(self), (str(self),)


class ObjectNotFoundError(_OSError, FileNotFoundError):
    """There is no such object, prefix or bucket."""

    _number = errno.ENOENT


class AccessDeniedError(_OSError, PermissionError):
    """The origin refused the daemon's credentials or the request."""

    _number = errno.EACCES


class OriginUnavailableError(_OSError):
    """The origin did not answer rightly, after all of the daemon's retries."""

    _number = errno.EIO


class StaleFileError(_OSError):
    """The object was replaced while it was read; open it again to read the new version."""

    _number = errno.ESTALE


class CacheFullError(_OSError):
    """What was asked for has to lie in the cache and does not fit."""

    _number = errno.ENOSPC


class ObjectExistsError(_OSError, FileExistsError):
    """What was to be created (mode "x") is there already."""

    _number = errno.EEXIST


class SpoolFullError(_OSError):
    """There is no room for a write on this node, and waiting for uploads did not make any."""

    _number = errno.ENOSPC


class UploadFailedError(_OSError):
    """The origin refused uploads for good; their bytes stay on this node until somebody decides.

    ``uploads`` are those that failed and those that wait for them, where it is known.
    """

    _number = errno.EIO

    def __init__(self, message: str, uploads: tuple[Upload, ...] = ()) -> None:
        super().__init__(message)
        self.uploads = uploads

    def __reduce__(self) -> tuple[type[UploadFailedError], tuple[Any, ...]]:
        return type(self), (str(self), self.uploads)


class StageLostError(ForebayError):
    """A staged file was taken back. Not to be seen by users where the bytes can be had again."""


class DaemonUnavailableError(_OSError, ConnectionError):
    """No daemon answers at the address; the text says how to start one."""

    _number = errno.ECONNREFUSED


class DeadlineExceededError(_OSError, TimeoutError):
    """The daemon did not finish in time."""

    _number = errno.ETIMEDOUT


_BY_KIND: dict[str, Callable[[str], ForebayError]] = {
    "OBJECT_NOT_FOUND": ObjectNotFoundError,
    "ACCESS_DENIED": AccessDeniedError,
    "INVALID_PATH": InvalidPathError,
    "ORIGIN_UNAVAILABLE": OriginUnavailableError,
    "VERSION_CHANGED": StaleFileError,
    "CACHE_FULL": CacheFullError,
    "ALREADY_EXISTS": ObjectExistsError,
    "SPOOL_FULL": SpoolFullError,
    "UPLOAD_FAILED": UploadFailedError,
    "STAGE_LOST": StageLostError,
}


def from_reply(error: pb.Error) -> ForebayError:
    """Return the error that an entry of a reply carries."""
    return _from_kind(pb.ErrorKind.Name(error.kind), error.message)


def from_call(error: grpc.RpcError) -> ForebayError | None:
    """Return what the daemon means by a failed call, None if it was not the daemon that spoke.

    None leaves it to the caller to try again: the daemon is down, or the call was cut.
    """
    message = error.details() or error.code().name
    trailers = cast("Iterable[tuple[str, str]]", error.trailing_metadata() or ())
    for key, value in trailers:
        if key == _TRAILER:
            return _from_kind(value, message)
    if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        return DeadlineExceededError(
            f"the daemon did not finish in time ({message}): a longer timeout_s gives it more"
        )
    if error.code() in (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.RESOURCE_EXHAUSTED):
        return ForebayError(f"the daemon refused the call: {message}")
    return None


def _from_kind(name: str, message: str) -> ForebayError:
    return _BY_KIND.get(name, ForebayError)(message)
