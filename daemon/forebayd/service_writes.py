"""The calls that write: validate, call the spool, translate. The other half is ``service``."""

from __future__ import annotations

import asyncio
import dataclasses
import fcntl
import os
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from forebay_protos import cache_pb2 as pb
from forebay_protos import spool, uris
from forebayd.calls import stream, unary
from forebayd.errors import (
    AccessDeniedError,
    InvalidPathError,
    ObjectNotFoundError,
    OriginUnavailableError,
    SpoolFullError,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine

    from forebayd.cache.origins import Target
    from forebayd.spool.spool import Spool
    from forebayd.spool.staging import Staged

T = TypeVar("T")

_STEP_BYTES = 32 << 20  # by which a stream's file grows
_PIECE_BYTES = 1 << 20  # written at once
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
        if self._spool.has(trailer.operation):
            version = await self._spool.commit("", trailer.operation)  # once that is durable
            return pb.CommitReply(version=version)
        target = self._spool.check_writable(trailer.uri)
        staging = self._spool.staging
        staged, fd = await self._held(target)
        try:
            message, position = first, 0
            while True:
                for at in range(0, len(message.data), _PIECE_BYTES):
                    piece = message.data[at : at + _PIECE_BYTES]
                    await self._make_room(staged, position, len(piece))
                    await _in_thread(fd, partial(_write, data=piece, position=position))
                    position += len(piece)
                if message.is_last:
                    break
                following = await anext(aiter(requests), None)
                if following is None:
                    raise InvalidPathError("the Write ended without its last message")
                message = following
            if trailer.size_bytes not in (-1, position):
                raise InvalidPathError(
                    f"{trailer.uri}: {position} bytes came of {trailer.size_bytes}: write it again"
                )
            trailer = dataclasses.replace(trailer, size_bytes=position)
            await self._make_room(staged, position, 0)
            await _in_thread(fd, partial(_seal, trailer=trailer))
            version = await _to_its_end(self._spool.commit(staged.name, trailer.operation))
        except BaseException:
            if not self._spool.has(trailer.operation):
                staging.abandon(staged.name)
            raise
        finally:
            os.close(fd)
        return pb.CommitReply(version=version)

    async def _held(self, target: Target) -> tuple[Staged, int]:
        """Return a new staged file, and a descriptor that holds it."""
        while True:
            staged = await self._spool.staging.stage(target, _FOOT_BYTES)
            fd = os.open(self._spool.journal.cache_dir / staged.name, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:  # somebody plays with files that are not theirs: theirs be it
                os.close(fd)
                continue
            except OSError:
                os.close(fd)
                raise
            return staged, fd

    async def _make_room(self, staged: Staged, position: int, length: int) -> None:
        """See to it that *length* bytes and a trailer can be written at *position*."""
        wanted = position + length + _FOOT_BYTES
        while wanted > staged.granted_bytes:
            before = staged.granted_bytes
            await self._spool.staging.grow(staged.name, position, wanted + _STEP_BYTES)
            if staged.granted_bytes <= before:
                raise SpoolFullError(
                    f"the spool holds {self._spool.staging.limit_bytes} bytes, too few for this "
                    "write: raise spool_max_bytes"
                )

    @unary
    async def Change(self, request: pb.ChangeRequest) -> pb.ChangeReply:
        if not request.operation:
            raise InvalidPathError("Change needs the operation's id")
        kind = _KINDS[request.kind]
        trailer = spool.Trailer(
            kind, request.uri, target=request.target, operation=request.operation
        )
        is_new = not self._spool.has(request.operation)
        if is_new and kind == spool.REMOVE and not request.missing_ok:
            await self._check_exists(request.uri)
        self._spool.calling(request.operation, 1)
        try:
            await _to_its_end(self._spool.change(trailer))
        finally:
            self._spool.calling(request.operation, -1)
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

        async for progress in self._spool.report.flush(matches):
            yield pb.FlushReply(
                uploads_left=progress.uploads_left,
                bytes_left=progress.bytes_left,
                uploads_total=progress.uploads_total,
                bytes_total=progress.bytes_total,
                failed=[pb.Upload(**self._spool.report.row(upload)) for upload in progress.failed],
            )

    @unary
    async def Uploads(self, request: pb.UploadsRequest) -> pb.UploadsReply:
        return pb.UploadsReply(
            uploads=[pb.Upload(**self._spool.report.row(upload)) for upload in self._spool.order],
            is_overdue=self._spool.report.is_overdue(),
        )

    @unary
    async def Settle(self, request: pb.SettleRequest) -> pb.SettleReply:
        return pb.SettleReply(
            settled=await self._spool.settle(request.ids, discard=request.discard)
        )


async def _to_its_end(work: Coroutine[Any, Any, T]) -> T:
    """Return what *work* returns; a caller that goes away leaves it running."""
    task = asyncio.create_task(work)
    task.add_done_callback(lambda done: done.cancelled() or done.exception())  # seen, in any case
    return await asyncio.shield(task)


def _staged(staged: Staged) -> pb.StageReply:
    return pb.StageReply(file=staged.name, granted_bytes=staged.granted_bytes)


async def _in_thread(fd: int, work: Callable[[int], None]) -> None:
    """Run *work* with a descriptor of its own, which a cancelled caller does not close under it."""
    own = os.dup(fd)

    def run() -> None:
        try:
            work(own)
        finally:
            os.close(own)

    await asyncio.get_running_loop().run_in_executor(None, run)


def _write(fd: int, data: bytes, position: int) -> None:
    view = memoryview(data)
    while view:
        count = os.pwrite(fd, view, position)
        view, position = view[count:], position + count


def _seal(fd: int, trailer: spool.Trailer) -> None:
    foot = trailer.to_bytes()
    _write(fd, foot, trailer.size_bytes)
    os.ftruncate(fd, trailer.size_bytes + len(foot))
    os.fsync(fd)
