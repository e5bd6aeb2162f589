"""Local files (``file:///…``). The version is size and modification time in nanoseconds.

Files are read in threads, from one open descriptor, and looked at before and after: a file that is
written meanwhile is an error to try again, a file that is replaced stays the one that was opened.
"""

from __future__ import annotations

import asyncio
import errno
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from forebayd.errors import (
    AccessDeniedError,
    DaemonError,
    InvalidPathError,
    ObjectNotFoundError,
    VersionChangedError,
)
from forebayd.origin import file_writes
from forebayd.origin.base import Body, ObjectInfo, Page
from forebayd.origin.driver import TransientError, WithoutKeys

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from typing_extensions import Buffer

    from forebayd.config import OriginConfig

T = TypeVar("T")

_SCHEME = "file://"
_PAGE_ENTRIES = 5000
_THREADS = 16


class FileDriver(WithoutKeys):
    """The files of this machine."""

    can_upload_parts = True

    def __init__(self, config: OriginConfig) -> None:
        threads = min(_THREADS, config.max_requests)
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="file-origin")
        # Their own: slow writes keep no reader waiting.
        self._writers = ThreadPoolExecutor(threads, thread_name_prefix="file-origin-write")
        self._uploads = file_writes.Uploads()

    async def head(self, uri: str) -> ObjectInfo:
        return await self._run(uri, lambda: _head(uri))

    async def get_range(
        self, uri: str, start: int, end: int, *, version: str | None = None
    ) -> Body:
        return await self._run(uri, lambda: _read(uri, start, end, version))

    async def page(
        self, prefix: str, *, recursive: bool, token: object | None
    ) -> tuple[Page, object | None]:
        folders = token if isinstance(token, tuple) else (prefix.rstrip("/") + "/",)
        return await self._run(prefix, lambda: _page(folders, recursive))

    async def put(self, uri: str, data: Buffer, *, expected: str | None = None) -> ObjectInfo:
        view = memoryview(data).cast("B")
        return _info(
            uri, await self._write(uri, lambda path: file_writes.put(path, view, expected))
        )

    async def begin_upload(self, uri: str) -> str:
        return await self._write(uri, self._uploads.begin)

    async def put_part(self, uri: str, upload: str, number: int, data: Buffer) -> str:
        view = memoryview(data).cast("B")
        return await self._write(
            uri, lambda path: self._uploads.put_part(path, upload, number, view)
        )

    async def parts(self, uri: str, upload: str) -> dict[int, tuple[str, int]]:
        return await self._write(uri, lambda path: self._uploads.parts(path, upload))

    async def complete_upload(self, uri: str, upload: str, tags: Sequence[str]) -> ObjectInfo:
        return _info(
            uri, await self._write(uri, lambda path: self._uploads.complete(path, upload, tags))
        )

    async def abort_upload(self, uri: str, upload: str) -> None:
        await self._write(uri, lambda path: self._uploads.abort(path, upload))

    async def uploads(self, uri: str) -> Sequence[tuple[str, float]]:
        return await self._write(uri, file_writes.unused_uploads)

    async def delete(self, uri: str) -> None:
        if uri.endswith("/"):  # where a bucket may have a marker there is the folder itself
            await self._run(uri, lambda: file_writes.delete_empty_folders(_path(uri)))
        else:
            await self._write(uri, file_writes.delete)

    async def copy(self, source: str, target: str) -> ObjectInfo:
        await self.head(source)  # whose error names the source
        status = await self._write(target, lambda path: file_writes.copy(_path(source), path))
        return _info(target, status)

    async def close(self) -> None:
        for threads in (self._threads, self._writers):
            threads.shutdown(wait=False, cancel_futures=True)

    async def _run(self, uri: str, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except OSError as error:
            raise _translated(uri, error) from error

    async def _write(self, uri: str, work: Callable[[Path], T]) -> T:
        path = file_writes.target(uri, _path(uri))
        try:
            return await asyncio.get_running_loop().run_in_executor(self._writers, work, path)
        except OSError as error:
            if isinstance(error, IsADirectoryError):
                raise InvalidPathError(f"{uri}: a folder has this name") from error
            raise _translated(uri, error) from error


def _path(uri: str) -> Path:
    path = uri.removeprefix(_SCHEME)
    if ".." in path.split("/"):
        # An origin's prefix would not bind: file:///data/../etc lies outside of file:///data.
        raise InvalidPathError(f"{uri}: '..' is not allowed in a file URI: write the path itself")
    return Path(path)


def _info(uri: str, status: os.stat_result) -> ObjectInfo:
    if not stat.S_ISREG(status.st_mode):
        raise ObjectNotFoundError(f"{uri} is not a file")
    return ObjectInfo(uri, status.st_size, file_writes.version_of(status), status.st_mtime)


def _head(uri: str) -> ObjectInfo:
    return _info(uri, _path(uri).stat())


def _read(uri: str, start: int, end: int, version: str | None) -> Body:
    # Nonblocking: the opening of a pipe would wait for a writer.
    descriptor = os.open(_path(uri), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        info = _info(uri, os.fstat(descriptor))
        if version is not None and info.version != version:
            raise VersionChangedError(f"{uri} is now {info.version}, no longer {version}")
        count = max(0, min(end, info.size_bytes) - start)
        data = _pread(descriptor, start, count)
        if len(data) != count or _info(uri, os.fstat(descriptor)).version != info.version:
            raise TransientError("the file was written while it was read")
        return Body(info, data)
    finally:
        os.close(descriptor)


def _pread(descriptor: int, start: int, count: int) -> bytes:
    data = os.pread(descriptor, count, start)
    if len(data) == count or not data:
        return data
    pieces = [data]  # Linux reads 2 GiB at most in one call
    while (done := sum(map(len, pieces))) < count:
        piece = os.pread(descriptor, count - done, start + done)
        if not piece:
            break
        pieces.append(piece)
    return b"".join(pieces)


def _page(folders: tuple[str, ...], recursive: bool) -> tuple[Page, tuple[str, ...] | None]:
    """Return entries of the last folders, some thousand at least, and the folders still to read."""
    left = list(folders)
    objects: list[ObjectInfo] = []
    prefixes: list[str] = []
    while left and len(objects) < _PAGE_ENTRIES:
        folder = left.pop()
        found: list[str] = []
        try:
            with os.scandir(_path(folder)) as entries:
                for entry in entries:
                    if _is_unnameable(entry.name) or file_writes.is_ours(entry.name):
                        continue
                    try:
                        if entry.is_dir():
                            found.append(f"{folder}{entry.name}/")
                        else:
                            objects.append(_info(folder + entry.name, entry.stat()))
                    except (FileNotFoundError, ObjectNotFoundError):
                        continue  # gone meanwhile, a dangling link, a socket
                    except OSError as error:
                        if error.errno != errno.ELOOP:
                            raise
        except (FileNotFoundError, NotADirectoryError):
            continue
        if recursive:
            # A folder that is reached through a link to above it would never end.
            left += [name for name in found if not _path(name).is_symlink()]
        else:
            prefixes += found
    objects.sort(key=lambda info: info.uri)
    return Page(tuple(objects), tuple(sorted(prefixes))), tuple(left) or None


def _is_unnameable(name: str) -> bool:
    """Tell whether a name is not valid UTF-8, so that no URI can carry it."""
    return any("\udc80" <= letter <= "\udcff" for letter in name)


def _translated(uri: str, error: OSError) -> DaemonError:
    if isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError):
        return ObjectNotFoundError(f"{uri}: no such file")
    if error.errno == errno.ELOOP:
        return ObjectNotFoundError(f"{uri}: its links lead in a circle")
    if isinstance(error, PermissionError):
        return AccessDeniedError(f"{uri}: the daemon's user has no right to it")
    if error.errno == errno.EROFS:
        return AccessDeniedError(f"{uri}: the file system cannot be written")
    if error.errno is not None and "name too long" in str(error).lower():
        return InvalidPathError(f"{uri[:200]}…: a file name is too long")
    return TransientError(str(error))
