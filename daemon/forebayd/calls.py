"""What every gRPC call has around it: our errors as gRPC's."""

from __future__ import annotations

import errno
import functools
import logging
from typing import TYPE_CHECKING, Any

import grpc

from forebay_protos import cache_pb2 as pb
from forebayd import deadline
from forebayd.errors import DaemonError, SpoolFullError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

log = logging.getLogger(__name__)

_STATUS = {
    pb.OBJECT_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    pb.ACCESS_DENIED: grpc.StatusCode.PERMISSION_DENIED,
    pb.INVALID_PATH: grpc.StatusCode.INVALID_ARGUMENT,
    pb.VERSION_CHANGED: grpc.StatusCode.FAILED_PRECONDITION,
    pb.CACHE_FULL: grpc.StatusCode.RESOURCE_EXHAUSTED,
    pb.SPOOL_FULL: grpc.StatusCode.RESOURCE_EXHAUSTED,
    pb.ALREADY_EXISTS: grpc.StatusCode.ALREADY_EXISTS,
    pb.UPLOAD_FAILED: grpc.StatusCode.ABORTED,
    pb.STAGE_LOST: grpc.StatusCode.FAILED_PRECONDITION,
    # Not UNAVAILABLE: that says that the daemon is down, and clients wait for it.
    pb.ORIGIN_UNAVAILABLE: grpc.StatusCode.ABORTED,
}


def _translated(error: Exception) -> Exception:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return SpoolFullError(
            f"the disk of the cache folder is full ({error.strerror}): nothing was written; make "
            "room on it or lower max_bytes"
        )
    return error


def _kind_name(kind: int) -> str:
    return str(pb.ErrorKind.Name(kind))


async def _abort(context: grpc.aio.ServicerContext[Any, Any], error: Exception) -> None:
    error = _translated(error)
    kind = error.kind if isinstance(error, DaemonError) else pb.INTERNAL_ERROR
    if not isinstance(error, DaemonError):
        log.error("a call failed", exc_info=error)
    await context.abort(
        _STATUS.get(kind, grpc.StatusCode.INTERNAL),
        str(error) or type(error).__name__,
        (("forebay-error", _kind_name(kind)),),
    )


def error_message(error: Exception) -> pb.Error:
    error = _translated(error)
    if isinstance(error, DaemonError):
        return pb.Error(kind=error.kind, message=str(error))
    log.error("a fill failed", exc_info=error)
    return pb.Error(kind=pb.INTERNAL_ERROR, message=f"{type(error).__name__}: {error}")


def unary(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    async def call(self: Any, request: Any, context: Any) -> Any:
        deadline.begin(context.time_remaining())
        try:
            return await method(self, request)
        except Exception as error:
            await _abort(context, error)

    return call


def stream(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    async def call(self: Any, request: Any, context: Any) -> AsyncIterator[Any]:
        replies = method(self, request)
        try:
            async for reply in replies:
                yield reply
        except Exception as error:
            await _abort(context, error)
        finally:
            await replies.aclose()

    return call
