"""The gRPC service: validates, calls the cache, translates errors. Nothing else."""

from __future__ import annotations

import asyncio
import json
import os
from typing import TYPE_CHECKING

from forebay_protos import cache_pb2 as pb
from forebay_protos import cache_pb2_grpc
from forebayd import __version__
from forebayd.cache.fill import Uncached
from forebayd.calls import error_message, stream, unary
from forebayd.errors import InvalidPathError
from forebayd.origin.base import Form
from forebayd.service_writes import WriteCalls

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from forebayd.cache.cache import Cache

_INLINE_BYTES = 1 << 20
_REPLY_BYTES = 2 << 20  # of one inline reply message
_MANY, _MOMENT_S = 16, 0.003
_READS = ("get_object", "head_object")


class CacheService(WriteCalls, cache_pb2_grpc.CacheServicer):
    """See ``cache.proto``."""

    def __init__(self, cache: Cache) -> None:
        super().__init__(cache.spool, cache.stat)
        self._cache = cache

    @unary
    async def Attach(self, request: pb.AttachRequest) -> pb.AttachReply:
        store = self._cache.store
        return pb.AttachReply(
            daemon_version=__version__,
            cache_dir=str(store.path),
            cache_id=bytes.fromhex(store.folder.cache_id),
            attach_json=store.attachment.to_json(),
            pid=os.getpid(),
        )

    @stream
    async def Fill(self, request: pb.FillRequest) -> AsyncIterator[pb.FillReply]:
        done: asyncio.Queue[pb.Filled] = asyncio.Queue()

        async def fill(index: int, wanted: pb.Range) -> None:
            done.put_nowait(await self._filled(index, wanted, inline=request.inline))

        tasks = [
            asyncio.create_task(fill(index, wanted)) for index, wanted in enumerate(request.ranges)
        ]
        try:
            remaining = len(tasks)
            while remaining:
                # Everything that is ready goes into one message, which costs 50 us here and as much
                # in the client; of many objects, more will be ready in a moment.
                ready = [await done.get()]
                if remaining > _MANY:
                    await asyncio.sleep(_MOMENT_S)
                size = len(ready[0].data)
                while not done.empty() and size < _REPLY_BYTES:
                    ready.append(done.get_nowait())
                    size += len(ready[-1].data)
                remaining -= len(ready)
                yield pb.FillReply(filled=ready)
        finally:
            for task in tasks:
                task.cancel()

    async def _filled(self, index: int, wanted: pb.Range, *, inline: bool) -> pb.Filled:
        end = wanted.end if wanted.HasField("end") else None
        try:
            outcome = await self._cache.fill(
                wanted.uri, wanted.start, end, wanted.version, is_counted=not wanted.is_continuation
            )
        except Exception as error:
            return pb.Filled(index=index, error=error_message(error))
        info = self._cache.filler.info(outcome)
        reply = pb.Filled(index=index, size_bytes=info.size_bytes, version=info.version)
        if info.modified is not None:
            reply.modified = info.modified
        if isinstance(outcome, Uncached):
            reply.uncached.SetInParent()
            return reply
        if inline:
            stop = info.size_bytes if end is None else min(end, info.size_bytes)
            if stop - wanted.start <= _INLINE_BYTES:
                data = self._cache.store.read(outcome, min(wanted.start, stop), stop)
                if data is not None:
                    reply.data = data
                    return reply
            reply.uncached.SetInParent()  # the client is to Read it
            return reply
        reply.placed.SetInParent()
        return reply

    @stream
    async def Read(self, request: pb.ReadRequest) -> AsyncIterator[pb.ReadReply]:
        wanted = request.range
        end = wanted.end if wanted.HasField("end") else None
        first = True
        async for info, data in self._cache.read(wanted.uri, wanted.start, end, wanted.version):
            reply = pb.ReadReply(data=bytes(data))
            if first:
                reply.size_bytes, reply.version, first = info.size_bytes, info.version, False
            yield reply

    @unary
    async def Stat(self, request: pb.StatRequest) -> pb.StatReply:
        info, entry = await self._cache.stat(request.uri, fresh=request.fresh)
        if info is None:
            return pb.StatReply(uri=request.uri, is_prefix=True)
        reply = pb.StatReply(uri=info.uri, size_bytes=info.size_bytes, version=info.version)
        if info.modified is not None:
            reply.modified = info.modified
        if entry is not None:
            reply.cached_bytes, reply.pinned = entry.cached_bytes, entry.is_pinned
        return reply

    @stream
    async def List(self, request: pb.ListRequest) -> AsyncIterator[pb.ListReply]:
        async for rows, prefixes in self._cache.list_below(
            request.uri, recursive=request.recursive, fresh=request.fresh
        ):
            entries = [pb.StatReply(uri=prefix, is_prefix=True) for prefix in prefixes]
            for info, cached_bytes in rows:
                entry = pb.StatReply(
                    uri=info.uri,
                    size_bytes=info.size_bytes,
                    version=info.version,
                    cached_bytes=cached_bytes,
                )
                if info.modified is not None:
                    entry.modified = info.modified
                entries.append(entry)
            yield pb.ListReply(entries=entries)

    @stream
    async def Warm(self, request: pb.WarmRequest) -> AsyncIterator[pb.WarmReply]:
        async for progress in self._cache.warmer().run(request.uris, request.prefix):
            yield pb.WarmReply(
                objects_total=progress.objects_total,
                objects_done=progress.objects_done,
                bytes_total=progress.bytes_total,
                bytes_done=progress.bytes_done,
                objects_failed=progress.objects_failed,
                failures=[
                    pb.Failure(uri=uri, error=error_message(error))
                    for uri, error in progress.failures
                ],
                listing_done=progress.listing_done,
            )

    @unary
    async def Evict(self, request: pb.EvictRequest) -> pb.EvictReply:
        objects, size = await self._cache.evict(request.prefix, everything=request.all)
        return pb.EvictReply(objects=objects, bytes=size)

    @unary
    async def Pin(self, request: pb.PinRequest) -> pb.PinReply:
        if not request.prefix:
            raise InvalidPathError("pin needs a path or prefix")
        return pb.PinReply(objects=await self._cache.pin(request.prefix, pinned=request.pinned))

    @unary
    async def Lease(self, request: pb.LeaseRequest) -> pb.LeaseReply:
        lease, path = await self._cache.leases.take(self._cache.origins.target(request.uri))
        return pb.LeaseReply(lease=lease, path=path)

    @unary
    async def Release(self, request: pb.ReleaseRequest) -> pb.ReleaseReply:
        self._cache.leases.release(request.lease)
        return pb.ReleaseReply()

    @unary
    async def Sign(self, request: pb.SignRequest) -> pb.SignReply:
        target = self._cache.origins.target(request.uri)
        form = Form(**json.loads(request.form_json)) if request.form_json else None
        if form is not None or request.method not in _READS:
            self._cache.origins.check_writable(target)
        signed = await target.origin.driver.sign(
            target.uri, request.method, request.expires_s, form
        )
        return pb.SignReply(url=signed.url, fields_json=json.dumps(signed.fields))

    @unary
    async def CreateBucket(self, request: pb.CreateBucketRequest) -> pb.CreateBucketReply:
        target = self._cache.origins.target(request.uri)
        self._cache.origins.check_writable(target)
        await target.origin.driver.create_bucket(target.uri)
        self._cache.listings.forget()
        return pb.CreateBucketReply()

    @unary
    async def Stats(self, request: pb.StatsRequest) -> pb.StatsReply:
        return pb.StatsReply(json=json.dumps(self._cache.stats()))

    @unary
    async def Check(self, request: pb.CheckRequest) -> pb.CheckReply:
        report = await self._cache.check(repair=request.repair)
        return pb.CheckReply(
            problems=[pb.Problem(what=p.what, repaired=p.repaired) for p in report.problems],
            objects=report.objects,
            bytes=report.bytes,
        )
