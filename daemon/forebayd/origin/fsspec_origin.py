"""Every other scheme, by its fsspec filesystem, in threads.

The version is the ETag where the filesystem tells one, else size and modification time. Filesystems
take no ``If-Match``: the object is looked at before and after the read instead, and before a
write.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import fsspec

from forebayd.errors import (
    AccessDeniedError,
    DaemonError,
    InvalidPathError,
    ObjectNotFoundError,
    OriginUnavailableError,
    VersionChangedError,
)
from forebayd.origin.base import ABSENT, Body, ObjectInfo, Page
from forebayd.origin.driver import TransientError, WithoutKeys, failure_of_status

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from typing_extensions import Buffer

    from forebayd.config import OriginConfig

T = TypeVar("T")

_THREADS = 16
_PAGE_ENTRIES = 5000
_WRITE_BYTES = 1 << 20
_TIMES = ("mtime", "LastModified", "last_modified", "Last-Modified", "updated", "modified")


class FsspecDriver(WithoutKeys):
    """The objects of one fsspec filesystem, which is made when first asked."""

    can_upload_parts = False

    def __init__(self, config: OriginConfig) -> None:
        self._scheme = config.prefix.partition("://")[0]
        threads = min(_THREADS, config.max_requests)
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix=f"{self._scheme}-origin")
        # Their own: slow writes keep no reader waiting.
        self._writers = ThreadPoolExecutor(threads, thread_name_prefix=f"{self._scheme}-write")

    async def head(self, uri: str) -> ObjectInfo:
        return await self._run(uri, lambda: self._head(uri))

    async def get_range(
        self, uri: str, start: int, end: int, *, version: str | None = None
    ) -> Body:
        return await self._run(uri, lambda: self._read(uri, start, end, version))

    async def page(
        self, prefix: str, *, recursive: bool, token: object | None
    ) -> tuple[Page, object | None]:
        folders = token if isinstance(token, tuple) else (prefix.rstrip("/") + "/",)
        return await self._run(prefix, lambda: self._page(folders, recursive))

    async def put(self, uri: str, data: Buffer, *, expected: str | None = None) -> ObjectInfo:
        view = memoryview(data).cast("B")
        return await self._write(uri, lambda: self._put(uri, view, expected))

    async def begin_upload(self, uri: str) -> str:
        raise self._no_parts(uri)

    async def put_part(self, uri: str, upload: str, number: int, data: Buffer) -> str:
        raise self._no_parts(uri)

    async def parts(self, uri: str, upload: str) -> dict[int, tuple[str, int]]:
        raise self._no_parts(uri)

    async def complete_upload(self, uri: str, upload: str, tags: Sequence[str]) -> ObjectInfo:
        raise self._no_parts(uri)

    async def abort_upload(self, uri: str, upload: str) -> None:
        raise self._no_parts(uri)

    async def uploads(self, uri: str) -> Sequence[tuple[str, float]]:
        raise self._no_parts(uri)

    async def delete(self, uri: str) -> None:
        def delete() -> None:
            with contextlib.suppress(FileNotFoundError):
                self._filesystem.rm_file(uri)

        await self._write(uri, delete)

    async def copy(self, source: str, target: str) -> ObjectInfo:
        def copy() -> ObjectInfo:
            self._filesystem.cp_file(source, target)
            return self._head(target)

        await self.head(source)  # whose error names the source
        return await self._write(target, copy)

    async def close(self) -> None:
        for threads in (self._threads, self._writers):
            threads.shutdown(wait=False, cancel_futures=True)

    @cached_property
    def _filesystem(self) -> Any:  # fsspec ships no types
        try:
            return fsspec.filesystem(
                self._scheme, skip_instance_cache=True, use_listings_cache=False
            )
        except ImportError as error:
            raise InvalidPathError(
                f"{self._scheme}:// needs a package that is not installed: {error}"
            ) from error

    async def _run(self, uri: str, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except Exception as error:
            raise _translated(uri, error) from error

    async def _write(self, uri: str, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._writers, work)
        except NotImplementedError as error:
            raise AccessDeniedError(f"{uri}: {self._scheme}:// cannot be written") from error
        except Exception as error:
            if getattr(error, "errno", None) == errno.EROFS:
                raise AccessDeniedError(f"{uri}: {self._scheme}:// cannot be written") from error
            raise _translated(uri, error) from error

    def _no_parts(self, uri: str) -> OriginUnavailableError:
        return OriginUnavailableError(f"{uri}: {self._scheme}:// takes no uploads in parts")

    def _head(self, uri: str) -> ObjectInfo:
        facts = self._filesystem.info(uri)
        if facts.get("type") == "directory":
            raise ObjectNotFoundError(f"{uri} is a folder, not an object")
        return _info(uri, facts)

    def _read(self, uri: str, start: int, end: int, version: str | None) -> Body:
        info = self._head(uri)
        if version is not None and info.version != version:
            raise VersionChangedError(f"{uri} is now {info.version}, no longer {version}")
        count = max(0, min(end, info.size_bytes) - start)
        data: bytes = b""
        if count:
            data = self._filesystem.cat_file(uri, start=start, end=start + count)
            if len(data) == info.size_bytes:  # a server that knows no ranges sends all
                data = data[start : start + count]
        if len(data) != count:
            raise TransientError(f"a body of {len(data)} bytes instead of {count}")
        if self._head(uri).version != info.version:
            raise TransientError("the object was written while it was read")
        return Body(info, data)

    def _put(self, uri: str, data: memoryview, expected: str | None) -> ObjectInfo:
        if expected is not None:
            try:
                version = self._head(uri).version
            except (FileNotFoundError, ObjectNotFoundError):
                version = ABSENT
            if version != expected:
                raise VersionChangedError(f"{uri} is now {version or 'gone'}, not {expected}")
        file = self._open(uri)
        try:
            for start in range(0, data.nbytes, _WRITE_BYTES):
                file.write(data[start : start + _WRITE_BYTES])
        except BaseException:
            # Closing would make an object of what is there.
            file.closed = True
            with contextlib.suppress(Exception):
                file.discard()
            raise
        file.close()
        return self._head(uri)

    def _open(self, uri: str) -> Any:
        """Return a new file (fsspec has no types), in a folder made for it if it must be."""
        try:
            return self._filesystem.open(uri, "wb")
        except FileNotFoundError:
            self._filesystem.makedirs(self._filesystem._parent(uri), exist_ok=True)
            return self._filesystem.open(uri, "wb")

    def _page(
        self, folders: tuple[str, ...], recursive: bool
    ) -> tuple[Page, tuple[str, ...] | None]:
        left = list(folders)
        objects: list[ObjectInfo] = []
        prefixes: list[str] = []
        while left and len(objects) < _PAGE_ENTRIES:
            folder = left.pop()
            try:
                found = self._filesystem.ls(folder.rstrip("/"), detail=True)
            except (FileNotFoundError, NotADirectoryError):
                continue
            here = self._filesystem._strip_protocol(folder.rstrip("/")).rstrip("/")
            for facts in found:
                above, _, name = facts["name"].rstrip("/").rpartition("/")
                if not name or above != here:  # the folder itself, or another site's link
                    continue
                if facts.get("type") == "directory":
                    (left if recursive else prefixes).append(f"{folder}{name}/")
                elif facts.get("size") is None:  # a page of links tells names only
                    objects.append(self._head(folder + name))
                else:
                    objects.append(_info(folder + name, facts))
        objects.sort(key=lambda info: info.uri)
        return Page(tuple(objects), tuple(sorted(prefixes))), tuple(left) or None


def _info(uri: str, facts: dict[str, Any]) -> ObjectInfo:
    """Return what *facts*, as fsspec's ``info`` gives them, say."""
    size_bytes = facts.get("size")
    if size_bytes is None:
        raise OriginUnavailableError(f"{uri}: the server does not tell the size")
    times = (facts[name] for name in _TIMES if facts.get(name) is not None)
    modified = _unix_seconds(next(times, None))
    etag = facts.get("ETag") or facts.get("etag")
    # Neither ETag nor time of change: the time of creation changes with every writing, in memory://.
    stamp = modified if modified is not None else _unix_seconds(facts.get("created"))
    version = (
        str(etag).strip('"')
        if etag
        else f"{size_bytes}-{int(stamp * 1e9) if stamp is not None else 0}"
    )
    return ObjectInfo(uri, int(size_bytes), version, modified if modified is not None else stamp)


def _unix_seconds(moment: object) -> float | None:
    if isinstance(moment, datetime):
        return moment.timestamp()
    if isinstance(moment, int | float):
        return float(moment)
    if isinstance(moment, str):
        try:
            return parsedate_to_datetime(moment).timestamp()
        except ValueError:
            pass
        try:
            return datetime.fromisoformat(moment.replace("Z", "+00:00")).timestamp()
        except ValueError:
            return None
    return None


def _translated(uri: str, error: Exception) -> Exception:
    if isinstance(error, DaemonError):
        return error
    if isinstance(error, FileNotFoundError | IsADirectoryError | NotADirectoryError):
        # HTTPFileSystem says so whatever has failed.
        cause = error.__cause__ or error.__context__
        if isinstance(cause, Exception) and type(cause).__module__.startswith("aiohttp"):
            if not isinstance(getattr(cause, "status", None), int):
                return TransientError(f"{type(cause).__name__}: {cause}")
            return _translated(uri, cause)
        return ObjectNotFoundError(f"{uri}: no such object")
    if isinstance(error, PermissionError):
        return AccessDeniedError(f"{uri}: the origin refused: {error}")
    status = getattr(error, "status", None)  # of aiohttp, and of several cloud libraries
    if isinstance(status, int):
        return failure_of_status(uri, status, str(getattr(error, "message", "")))
    if isinstance(error, OSError | asyncio.TimeoutError) or "aiohttp" in type(error).__module__:
        return TransientError(f"{type(error).__name__}: {error}")
    if isinstance(error, ValueError):
        return InvalidPathError(f"{uri!r} cannot be asked of its origin: {error}")
    return OriginUnavailableError(f"{uri}: {type(error).__name__}: {error}")
