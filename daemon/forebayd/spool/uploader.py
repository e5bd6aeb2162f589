"""One attempt at one write. What it leaves behind, the next attempt finds and goes on with.

A request that had no answer may still arrive, after later writes of its key even. So a PUT is bound
to the version that was there before it (``If-Match``, ``If-None-Match``), and an upload in parts,
which ends with its id, needs no such care: S3 refuses to complete it twice.
"""

from __future__ import annotations

import asyncio
import hashlib
import mmap
import os
import re
from collections import OrderedDict
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

from forebay_protos import spool
from forebayd.errors import (
    AccessDeniedError,
    AlreadyExistsError,
    AppendedMeanwhileError,
    DamagedError,
    ObjectNotFoundError,
    StageLostError,
    UploadGoneError,
    VersionChangedError,
)
from forebayd.origin.base import ABSENT
from forebayd.origin.driver import TransientError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator, Sequence
    from pathlib import Path

    from typing_extensions import Buffer

    from forebayd.origin.base import ObjectInfo, Origin
    from forebayd.spool.journal import Journal
    from forebayd.spool.order import Upload

_MOST_PARTS = 10_000  # S3's limit
_REMOVALS_AT_ONCE = 8
_VERSIONS = 4096
_SMALL_BYTES = 256 << 10  # read in less time than a thread takes to be asked
_LARGEST_READ_BYTES = 64 << 20
_MD5 = re.compile("[0-9a-f]{32}")
_ROUNDS = 5  # against others who write the same key


class Uploader:
    """Carries out writes at their origins."""

    def __init__(self, journal: Journal, *, part_bytes: int, parts_at_once: int) -> None:
        self._journal = journal
        self._part_bytes = part_bytes
        self._places = asyncio.Semaphore(parts_at_once)  # of all uploads together
        self._versions: OrderedDict[str, str] = OrderedDict()  # written last, by URI

    async def run(self, upload: Upload, origin: Origin) -> ObjectInfo | None:
        """Do what *upload* says; returns what was written, if anything.

        Raises FileNotFoundError if its bytes are gone.
        """
        kind, uri = upload.trailer.kind, upload.uri
        if kind != spool.PUT:
            self._versions.clear()  # what they do to which keys need not be followed
        if upload.parts is not None:
            return await self._complete(upload, *upload.parts, origin)
        if kind == spool.REMOVE:
            await origin.delete(uri)
            return None
        if kind == spool.REMOVE_TREE:
            await self._remove_tree(uri, origin)
            return None
        if kind in (spool.COPY, spool.MOVE):
            return await self._copy(upload, origin)
        assert upload.path is not None  # noqa: S101  # every other kind has bytes
        with opened(upload.path) as fd:
            if kind == spool.CREATE:
                return await self._create(upload, fd, origin)
            if kind == spool.APPEND:
                return await self._append(upload, fd, origin)
            if origin.can_upload_parts and upload.trailer.size_bytes > self._part_bytes:
                return await self._put_parts(upload, fd, origin)
            return await self._put(upload, fd, origin)

    # --- whole objects -----------------------------------------------------------------------

    async def _put(self, upload: Upload, fd: int, origin: Origin) -> ObjectInfo:
        async with self._places, lent(fd, 0, upload.trailer.size_bytes) as data:
            # Most keys are new, or were written or read here: no look before the first try.
            expected: str | None = self._versions.get(upload.uri) or upload.known_version or ABSENT
            for _ in range(_ROUNDS):
                try:
                    info = await origin.put(upload.uri, data, expected=expected)
                except VersionChangedError:
                    # There is another: of another node, or of an earlier attempt of this write.
                    expected = await _version(origin, upload.uri)
                    continue
                upload.uploaded_bytes = len(data)
                self._note_version(upload.uri, info.version)
                return info
        raise TransientError(f"{upload.uri} changes faster than it can be written")

    def _note_version(self, uri: str, version: str) -> None:
        self._versions[uri] = version
        self._versions.move_to_end(uri)
        if len(self._versions) > _VERSIONS:
            self._versions.popitem(last=False)

    async def _create(self, upload: Upload, fd: int, origin: Origin) -> ObjectInfo:
        async with self._places, lent(fd, 0, upload.trailer.size_bytes) as data:
            try:
                return await origin.put(upload.uri, data, expected=ABSENT)
            except VersionChangedError as error:
                if upload.attempts > 1:
                    # Was it an earlier attempt, whose answer was lost?
                    info = await origin.head(upload.uri)
                    if await _is(origin, info, data):
                        return info
                raise AlreadyExistsError(f"{upload.uri} exists already") from error

    async def _append(self, upload: Upload, fd: int, origin: Origin) -> ObjectInfo:
        """Write the base and what was appended, or what is there by now and what was appended."""
        async with self._places, lent(fd, 0, upload.trailer.size_bytes) as data:
            for _ in range(_ROUNDS):
                try:
                    return await self._append_once(upload, data, origin)
                except VersionChangedError:  # noqa: PERF203
                    continue  # others append too
        raise TransientError(f"{upload.uri} changes faster than it can be appended to")

    async def _append_once(self, upload: Upload, data: memoryview, origin: Origin) -> ObjectInfo:
        trailer = upload.trailer
        base, suffix = data[: trailer.base_bytes], data[trailer.base_bytes :]
        try:
            there = await origin.head(upload.uri)
        except ObjectNotFoundError:
            there = None
        version = ABSENT if there is None else there.version
        whole: Buffer = data
        upload.is_rebased = False
        if version != trailer.base_version and not await _is(origin, there, base):
            # Others' doing, or already ours, by an attempt whose answer was lost.
            if there is not None and await _is(origin, there, data):
                return there
            upload.is_rebased = True
            before: Buffer = b""
            if there is not None:
                if there.size_bytes == upload.tried[0]:
                    digest = await _digest(origin, there)
                    if digest == upload.tried[1]:
                        return there
                body = await origin.get_range(
                    upload.uri, 0, there.size_bytes, version=there.version
                )
                before = body.data
            joined = await asyncio.to_thread(b"".join, [before, suffix])
            upload.tried = len(joined), await asyncio.to_thread(_md5, memoryview(joined))
            whole = joined
        return await origin.put(upload.uri, whole, expected=version)

    # --- parts -------------------------------------------------------------------------------

    async def _put_parts(self, upload: Upload, fd: int, origin: Origin) -> ObjectInfo:
        size = upload.trailer.size_bytes
        noted = self._journal.parts.find(upload.name)
        there: dict[int, tuple[str, int]] = {}
        number = noted.upload if noted is not None else ""
        if noted is not None and number:
            part_bytes = noted.part_bytes
            try:
                there = await origin.parts(upload.uri, number)
            except UploadGoneError:
                # Completed without an answer, or ended by somebody. To write it again is right
                # either way: nothing later of this key has been written.
                number = ""
                self._journal.parts.forget(upload.name)
        if not number:
            part_bytes = max(self._part_bytes, -(-size // _MOST_PARTS))
            number = await self._journal.parts.begin(upload.name, upload.uri, origin, part_bytes)
        starts = range(0, size, part_bytes)
        tags = [""] * len(starts)
        upload.uploaded_bytes = 0

        async def send(index: int, start: int) -> None:
            length = min(part_bytes, size - start)
            tag, present = there.get(index + 1, ("", -1))
            if present != length:
                async with self._places, lent(fd, start, length) as data:
                    tag = await origin.put_part(upload.uri, number, index + 1, data)
            tags[index] = tag
            upload.uploaded_bytes += length

        try:
            await gather_all(send(index, start) for index, start in enumerate(starts))
            info = await origin.complete_upload(upload.uri, number, tags)
        except UploadGoneError:
            self._journal.parts.forget(upload.name)  # the next attempt begins a new one
            raise
        self._journal.parts.forget(upload.name)
        return info

    @staticmethod
    async def _complete(upload: Upload, number: str, tags: list[str], origin: Origin) -> ObjectInfo:
        trailer = upload.trailer
        if trailer.kind != spool.PUT and upload.attempts < 2:
            # Ceph heeds no conditions on what follows: this is as near to it as a look can be.
            version = await _version(origin, trailer.uri)
            if trailer.kind == spool.CREATE and version not in (ABSENT, None):
                raise AlreadyExistsError(f"{trailer.uri} exists already")
            if trailer.kind == spool.APPEND and version != (trailer.base_version or ABSENT):
                raise AppendedMeanwhileError(f"{trailer.uri} has been written meanwhile")
        try:
            return await origin.complete_upload(upload.uri, number, tags)
        except UploadGoneError as error:
            # It may be an earlier attempt's doing. If not, its bytes are nowhere any more.
            info = await origin.head(upload.uri) if upload.attempts > 1 else None
            if info is None or info.version != version_of_parts(tags):
                raise StageLostError(f"{upload.uri}: {error}; write it again") from error
            return info

    # --- without bytes -----------------------------------------------------------------------

    async def _remove_tree(self, uri: str, origin: Origin) -> None:
        places = asyncio.Semaphore(_REMOVALS_AT_ONCE)

        async def remove(found: str) -> None:
            async with places:
                await origin.delete(found)

        try:
            async for page in origin.list(uri, recursive=True):
                await gather_all(remove(info.uri) for info in page.objects)
        except ObjectNotFoundError:
            return
        folder = uri.rstrip("/")
        for name in (folder + "/", folder):  # a folder's marker, and an object of that name
            await origin.delete(name)

    async def _copy(self, upload: Upload, origin: Origin) -> ObjectInfo | None:
        trailer = upload.trailer
        if trailer.uri == trailer.target:
            return await origin.head(trailer.uri)
        if trailer.kind == spool.COPY:
            return await origin.copy(trailer.uri, trailer.target)
        if upload.moved_bytes < 0:
            upload.moved_bytes = (await origin.head(trailer.uri)).size_bytes
        try:
            info = await origin.copy(trailer.uri, trailer.target)
        except ObjectNotFoundError:
            info = await origin.head(trailer.target)  # moved, by an attempt without an answer?
            if info.size_bytes != upload.moved_bytes:
                raise
        await origin.delete(trailer.uri)
        return info


async def gather_all(requests: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run all; when one fails, end the others before its error is raised."""
    tasks = [asyncio.create_task(request) for request in requests]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _version(origin: Origin, uri: str) -> str | None:
    """Return what is to be expected at *uri*; None if the origin does not let us look."""
    try:
        return (await origin.head(uri)).version
    except ObjectNotFoundError:
        return ABSENT
    except AccessDeniedError:
        return None  # keys that may only write


async def _is(origin: Origin, there: ObjectInfo | None, data: memoryview) -> bool:
    """Tell whether an object holds just these bytes; that there is none, if there are none."""
    if there is None or there.size_bytes != len(data):
        return there is None and not data
    return await _digest(origin, there) == await asyncio.to_thread(_md5, data)


async def _digest(origin: Origin, there: ObjectInfo) -> str:
    """Return the MD5 of an object, by its version where that is one."""
    if _MD5.fullmatch(there.version):
        return there.version
    body = await origin.get_range(there.uri, 0, there.size_bytes, version=there.version)
    return await asyncio.to_thread(_md5, memoryview(body.data))


def version_of_parts(tags: Sequence[str]) -> str:
    """Return what S3 calls an object of parts with these tags; "" if they are not S3's."""
    try:
        digests = b"".join(map(bytes.fromhex, tags))
    except ValueError:
        return ""
    return f"{hashlib.md5(digests, usedforsecurity=False).hexdigest()}-{len(tags)}"


def _md5(data: memoryview) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


@contextmanager
def opened(path: Path | str, flags: int = os.O_RDONLY) -> Iterator[int]:
    fd = os.open(path, flags | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


@asynccontextmanager
async def lent(fd: int, start: int, length: int) -> AsyncIterator[memoryview]:
    """Lend bytes of a file. Raises DamagedError if it is shorter, OSError.

    They are read, since a mapping of a file that is cut, or that the disk cannot read, ends the
    process; but what is larger than parts are is mapped, since memory would not do for many.
    """
    if length > _LARGEST_READ_BYTES:
        if os.fstat(fd).st_size < start + length:
            raise DamagedError(f"the spooled file ends before {start + length} bytes")
        skipped = start % mmap.ALLOCATIONGRANULARITY
        # It goes with the last view of it: a request that was cancelled may still hold one.
        mapping = mmap.mmap(fd, length + skipped, prot=mmap.PROT_READ, offset=start - skipped)
        yield memoryview(mapping)[skipped:]
    elif length <= _SMALL_BYTES:
        yield memoryview(_read(fd, start, length))
    else:
        yield memoryview(await asyncio.to_thread(_read, fd, start, length))


def _read(fd: int, start: int, length: int) -> bytes:
    data = os.pread(fd, length, start)
    if len(data) < length:
        raise DamagedError(f"the spooled file ends before {start + length} bytes")
    return data
