"""The calls that write: validate, call the spool, translate. The other half is ``service``."""

from __future__ import annotations

import asyncio
import dataclasses
import fcntl
import os
import time
from typing import TYPE_CHECKING, Any, TypeVar

from forebay_protos import cache_pb2 as pb
from forebay_protos import spool, uris
from forebayd.calls import stream, unary
from forebayd.errors import (
    AccessDeniedError,
    InvalidPathError,
    ObjectNotFoundError,
    OriginUnavailableError,
)
from forebayd.spool.order import FAILED

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine

    from forebayd.spool.order import Upload
    from forebayd.spool.spool import Spool
    from forebayd.spool.staging import Staged

T = TypeVar("T")

_STEP_BYTES = 32 << 20  # by which a stream's file grows
_LOOK_S = 3.0  # at the origin, for what is to be removed
_FOOT_BYTES = 4096  # more than any trailer of a key of 1,024 bytes takes
_KINDS = {
    pb.ChangeRequest.REMOVE: spool.REMOVE,
    pb.ChangeRequest.REMOVE_TREE: spool.REMOVE_TREE,
    pb.ChangeRequest.COPY: spool.COPY,
    pb.ChangeRequest.MOVE: spool.MOVE,
}


class WriteCalls:
    """See ``cache.proto``."""

    def __init__(self, to: Spool, stat: Callable[..., Awaitable[Any]]) -> None:
        """*stat* is ``Cache.stat``."""
        self._spool = to
        self._stat = stat

    @unary
    async def Stage(self, request: pb.StageRequest) -> pb.StageReply:
        target = self._spool.check_writable(request.uri)
        return _staged(await self._spool.staging.stage(target, request.size_bytes))

    @unary
    async def Grow(self, request: pb.GrowRequest) -> pb.GrowReply:
        granted = await self._spool.staging.grow(
            request.file, request.written_bytes, request.wanted_bytes
        )
        return pb.GrowReply(granted_bytes=granted)

    @unary
    async def Commit(self, request: pb.CommitRequest) -> pb.CommitReply:
        return await _to_its_end(self.commit(request))

    async def commit(self, request: pb.CommitRequest) -> pb.CommitReply:
        """Do what Commit does; for the commit socket too. Raises DaemonError."""
        if not request.operation:
            raise InvalidPathError("Commit needs the operation's id")
        target = self._spool.staging.target_of(request.file) if request.next_bytes else None
        version = await self._spool.commit(
            request.file,
            request.operation,
            trailer_json=request.trailer_json,
            is_synced=request.is_synced_by_writer,
        )
        reply = pb.CommitReply(version=version)
        if target is not None:
            ahead = self._spool.staging.try_stage(target, request.next_bytes)
            if ahead is not None:
                reply.next.CopyFrom(_staged(ahead))
        return reply

    @unary
    async def Abandon(self, request: pb.AbandonRequest) -> pb.AbandonReply:
        self._spool.staging.abandon(request.file)
        return pb.AbandonReply()

    async def Write(self, requests: AsyncIterator[pb.WriteRequest], context: Any) -> Any:
        return await self._write(requests, context)

    @unary
    async def _write(self, requests: AsyncIterator[pb.WriteRequest]) -> pb.CommitReply:
        """Put a client's stream into the spool as a client of this node would."""
        first = await anext(aiter(requests), None)
        if first is None:
            raise InvalidPathError("a Write without a message")
        trailer = spool.Trailer.from_json(first.trailer_json)
        if trailer.kind not in spool.WITH_BYTES:
            raise InvalidPathError(f"a Write of kind {trailer.kind}: use Change")
        known = self._spool.known(trailer.operation)
        if known is not None:
            return pb.CommitReply(version=known)
        target = self._spool.check_writable(trailer.uri)
        staging = self._spool.staging
        staged = await staging.stage(target, len(first.data) + _FOOT_BYTES)
        fd = os.open(self._spool.journal.cache_dir / staged.name, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            message, position = first, 0
            while True:
                wanted = position + len(message.data) + _FOOT_BYTES
                while wanted > staged.granted_bytes:
                    await staging.grow(staged.name, position, wanted + _STEP_BYTES)
                await asyncio.to_thread(os.pwrite, fd, message.data, position)
                position += len(message.data)
                if message.is_last:
                    break
                following = await anext(aiter(requests), None)
                if following is None:
                    raise InvalidPathError("the Write ended without its last message")
                message = following
            trailer = dataclasses.replace(trailer, size_bytes=position)
            await asyncio.to_thread(_seal, fd, trailer)
            version = await _to_its_end(self._spool.commit(staged.name, trailer.operation))
        except BaseException:
            if self._spool.known(trailer.operation) is None:
                staging.abandon(staged.name)
            raise
        finally:
            os.close(fd)
        return pb.CommitReply(version=version)

    @unary
    async def Change(self, request: pb.ChangeRequest) -> pb.ChangeReply:
        if not request.operation:
            raise InvalidPathError("Change needs the operation's id")
        kind = _KINDS[request.kind]
        trailer = spool.Trailer(
            kind, request.uri, target=request.target, operation=request.operation
        )
        is_new = self._spool.known(request.operation) is None
        if is_new and kind == spool.REMOVE and not request.missing_ok:
            await self._check_exists(request.uri)
        await _to_its_end(self._spool.change(trailer))
        return pb.ChangeReply()

    async def _check_exists(self, uri: str) -> None:
        """Raise ObjectNotFoundError if there is nothing to remove, as far as can be known."""
        try:
            info, _ = await asyncio.wait_for(self._stat(uri, fresh=True), _LOOK_S)
        except (OriginUnavailableError, AccessDeniedError, asyncio.TimeoutError):
            return  # a hook is not to fail because the origin is down: the remove will wait for it
        if info is None:
            raise ObjectNotFoundError(f"{uri} is a prefix, not an object: use remove_tree")

    @stream
    async def Flush(self, request: pb.FlushRequest) -> AsyncIterator[pb.FlushReply]:
        prefixes = [self._spool.canonical(prefix) for prefix in request.prefixes]

        def matches(uri: str) -> bool:
            return not prefixes or any(uris.has_prefix(uri, prefix) for prefix in prefixes)

        async for progress in self._spool.flush(matches):
            yield pb.FlushReply(
                uploads_left=progress.uploads_left,
                bytes_left=progress.bytes_left,
                uploads_total=progress.uploads_total,
                bytes_total=progress.bytes_total,
                failed=[self._upload(upload) for upload in progress.failed],
            )

    @unary
    async def Uploads(self, request: pb.UploadsRequest) -> pb.UploadsReply:
        return pb.UploadsReply(
            uploads=[self._upload(upload) for upload in self._spool.order],
            is_overdue=self._spool.is_overdue(),
        )

    @unary
    async def Settle(self, request: pb.SettleRequest) -> pb.SettleReply:
        return pb.SettleReply(
            settled=await self._spool.settle(request.ids, discard=request.discard)
        )

    def _upload(self, upload: Upload) -> pb.Upload:
        culprit = None if upload.state == FAILED else self._spool.order.culprit(upload)
        return pb.Upload(
            id=upload.name,
            kind=upload.trailer.kind,
            uri=upload.trailer.uri,
            target=upload.trailer.target,
            size_bytes=upload.trailer.size_bytes,
            uploaded_bytes=upload.uploaded_bytes,
            age_s=max(0.0, time.time() - upload.committed_at),
            attempts=upload.attempts,
            last_error=upload.last_error,
            state="blocked" if culprit is not None else upload.state,
            blocked_by=culprit.name if culprit is not None else "",
        )


async def _to_its_end(work: Coroutine[Any, Any, T]) -> T:
    """Return what *work* returns; a caller that goes away leaves it running."""
    task = asyncio.create_task(work)
    task.add_done_callback(lambda done: done.cancelled() or done.exception())  # seen, in any case
    return await asyncio.shield(task)


def _staged(staged: Staged) -> pb.StageReply:
    return pb.StageReply(file=staged.name, granted_bytes=staged.granted_bytes)


def _seal(fd: int, trailer: spool.Trailer) -> None:
    end = trailer.size_bytes + os.pwrite(fd, trailer.to_bytes(), trailer.size_bytes)
    os.ftruncate(fd, end)
    os.fsync(fd)
