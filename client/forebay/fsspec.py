"""fsspec: ``forebay://bucket/key`` is ``s3://bucket/key`` through the node's daemon.

The entry point makes the protocol known; ``replace_s3()`` makes ``s3://`` itself go this way.
Credentials and endpoints are the daemon's. What is written is durable on this node when a call
returns, and uploaded behind it: ``ForebayFileSystem.flush`` waits for that.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import os
import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlsplit

import fsspec
from fsspec.callbacks import DEFAULT_CALLBACK
from fsspec.compression import compr
from fsspec.core import get_compression
from fsspec.spec import AbstractFileSystem

from forebay._client import Client
from forebay._errors import ObjectNotFoundError
from forebay._fsspec_files import Compressed, Written, WrittenText
from forebay._values import Stat

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from fsspec.callbacks import Callback
    from typing_extensions import Buffer

_CHUNK_BYTES = 8 << 20
_AT_ONCE = 16
_S3 = "s3://"
_TEXT_OPTIONS = ("encoding", "errors", "newline")
_MOST_ASKED = 10_000  # names after an invalidate_cache; beyond, the origin is always asked


class ForebayFileSystem(AbstractFileSystem):
    """Objects of Ceph/S3, read through the node's cache. Safe with threads, after a fork, pickled.

    There are no folders but prefixes: one that holds nothing is not there, and ``mkdir`` makes
    buckets only.
    """

    protocol: ClassVar[str | tuple[str, ...]] = ("forebay", "s3", "s3a")
    root_marker = ""
    sep = "/"

    def __init__(
        self,
        address: str | None = None,
        timeout_s: float = 60.0,
        **storage_options: Any,
    ) -> None:
        """See :class:`forebay.Client`; *storage_options* are fsspec's own."""
        super().__init__(**storage_options)
        self.client = Client(address, None, timeout_s)
        self._invalid_since = 0.0
        self._asked_at: set[tuple[str, str]] = set()  # since then

    @property
    def fsid(self) -> str:
        return f"forebay-{self.client!r}"

    def _uri(self, path: str) -> str:
        stripped = self._strip_protocol(path)
        if not stripped:
            raise NotImplementedError("buckets are not listed: give bucket/key")
        if stripped.partition("/")[0].endswith(":"):
            raise ValueError(f"{path!r} is of another protocol: write forebay://bucket/key")
        return f"{_S3}{stripped}"

    # --- reading -----------------------------------------------------------------------------

    def cat_file(
        self, path: str, start: int | None = None, end: int | None = None, **_: Any
    ) -> bytes:
        return self.client.get(self._uri(path), start, end)

    def cat(
        self, path: str | list[str], recursive: bool = False, on_error: str = "raise", **kwargs: Any
    ) -> bytes | dict[str, Any]:
        paths = self.expand_path(path, recursive=recursive)
        if recursive:  # which brings the prefixes, too
            paths = [found for found in paths if self.isfile(found)]
        is_one = (
            len(paths) == 1 and isinstance(path, str) and paths[0] == self._strip_protocol(path)
        )
        if is_one or on_error != "raise" or kwargs:
            result: bytes | dict[str, Any] = super().cat(
                paths[0] if is_one else paths, False, on_error, **kwargs
            )
            return result
        return dict(zip(paths, self.client.get_many(map(self._uri, paths)), strict=True))

    def cat_ranges(
        self,
        paths: list[str],
        starts: int | Sequence[int | None] | None,
        ends: int | Sequence[int | None] | None,
        max_gap: int | None = None,
        on_error: str = "return",
        **_: Any,
    ) -> list[bytes | Exception]:
        """Return ranges, several at once; nothing is merged: the cache reads ahead by itself."""
        del max_gap
        count = len(paths)
        begins, stops = _each(starts, count), _each(ends, count)
        if not len(begins) == len(stops) == count:
            raise ValueError(f"{count} paths, {len(begins)} starts and {len(stops)} ends")

        def read(index: int) -> bytes | Exception:
            try:
                return self.cat_file(paths[index], begins[index], stops[index])
            except Exception as error:
                if on_error == "return":
                    return error
                raise

        if count < 2:
            return [read(index) for index in range(count)]
        with ThreadPoolExecutor(min(count, _AT_ONCE)) as pool:
            return list(pool.map(read, range(count)))

    def get_file(
        self,
        rpath: str,
        lpath: str | os.PathLike[str] | IO[bytes],
        callback: Callback = DEFAULT_CALLBACK,
        outfile: IO[bytes] | None = None,
        **_: Any,
    ) -> None:
        """Copy an object to a local file, which has its name once it is whole."""
        if outfile is not None:
            self._copy_to(rpath, outfile, callback)
            return
        if not isinstance(lpath, (str, os.PathLike)):
            self._copy_to(rpath, lpath, callback)
            return
        target = Path(lpath)
        if self.isdir(rpath):
            target.mkdir(parents=True, exist_ok=True)
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = target.with_name(f".forebay-{secrets.token_hex(8)}")
        try:
            with scratch.open("xb") as file:
                self._copy_to(rpath, file, callback)
            scratch.replace(target)
        finally:
            scratch.unlink(missing_ok=True)

    def _copy_to(self, path: str, file: IO[bytes], callback: Callback) -> None:
        with self.client.open(self._uri(path)) as source:
            callback.set_size(source.seek(0, os.SEEK_END))
            source.seek(0)
            while chunk := source.read(_CHUNK_BYTES):
                file.write(chunk)
                callback.relative_update(len(chunk))

    # --- writing -----------------------------------------------------------------------------

    def pipe_file(self, path: str, value: Buffer, mode: str = "overwrite", **_: Any) -> None:
        if mode == "create" or self._intrans:
            with self.open(path, "xb" if mode == "create" else "wb") as file:
                file.write(value)
        else:
            self.client.put(self._uri(path), value)

    def put_file(
        self,
        lpath: str | os.PathLike[str],
        rpath: str,
        callback: Callback = DEFAULT_CALLBACK,
        mode: str = "overwrite",
        **_: Any,
    ) -> None:
        if Path(lpath).is_dir():
            self.makedirs(rpath, exist_ok=True)
            return
        size = Path(lpath).stat().st_size
        callback.set_size(size)
        if mode == "create" or self._intrans:
            letter = "x" if mode == "create" else "w"
            with Path(lpath).open("rb") as source, self.open(rpath, f"{letter}b") as sink:
                while chunk := source.read(_CHUNK_BYTES):
                    sink.write(chunk)
        else:
            self.client.put_file(self._uri(rpath), lpath)
        callback.relative_update(size)

    def cp_file(self, path1: str, path2: str, **_: Any) -> None:
        if self.isfile(path1):
            self.client.copy(self._uri(path1), self._uri(path2))
        elif not self.isdir(path1):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path1)

    def mv(
        self,
        path1: str | list[str],
        path2: str | list[str],
        recursive: bool = False,
        maxdepth: int | None = None,
        **kwargs: Any,
    ) -> None:
        if isinstance(path1, str) and isinstance(path2, str) and not recursive:
            is_file = not path2.endswith("/") and self.isfile(path1) and not self.isdir(path2)
            if is_file:
                if self._strip_protocol(path1) != self._strip_protocol(path2):
                    self.client.move(self._uri(path1), self._uri(path2))
                return
        super().mv(path1, path2, recursive=recursive, maxdepth=maxdepth, **kwargs)

    def rm_file(self, path: str) -> None:
        self.client.remove(self._uri(path))

    def _rm(self, path: str) -> None:
        self.rm_file(path)

    def rm(
        self, path: str | list[str], recursive: bool = False, maxdepth: int | None = None
    ) -> None:
        if recursive and maxdepth is None:
            for found in self.expand_path(path):
                if not self.exists(found):
                    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), found)
                self.client.remove_tree(self._uri(found))
            return
        for found in reversed(self.expand_path(path, recursive=recursive, maxdepth=maxdepth)):
            if self.isfile(found) or not self.isdir(found):
                self.rm_file(found)

    def mkdir(self, path: str, create_parents: bool = True, **_: Any) -> None:
        """Make a bucket; prefixes are there when something is below them."""
        if self._is_bucket(path):
            self.client.create_bucket(self._uri(path))

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        if not exist_ok and self.exists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        self.mkdir(path)

    def rmdir(self, path: str) -> None:
        if self._is_bucket(path):
            raise NotImplementedError("buckets are removed by whoever owns the origin")
        if self.isfile(path):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
        if self.isdir(path):
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), path)

    def touch(self, path: str, truncate: bool = True, **_: Any) -> None:
        if truncate or not self.exists(path):
            self.pipe_file(path, b"")
        else:
            raise NotImplementedError("the time of an object cannot be set")

    def flush(self, path: str | None = None, timeout_s: float | None = None) -> None:
        """Wait until what was written below *path*, or anywhere, is in Ceph/S3."""
        self.client.flush(None if path is None else self._uri(path), timeout_s)

    def sign(self, path: str, expiration: int = 100, **_: Any) -> str:
        return self.client.presign(self._uri(path), expires_s=expiration)

    # --- files -------------------------------------------------------------------------------

    def open(
        self,
        path: str,
        mode: str = "rb",
        block_size: Any = None,
        cache_options: Any = None,
        compression: str | None = None,
        **kwargs: Any,
    ) -> Any:
        """As fsspec; nothing is written if the ``with`` of a file is left by an exception."""
        if "r" in mode:
            return super().open(path, mode, block_size, cache_options, compression, **kwargs)
        text = {word: kwargs.pop(word) for word in _TEXT_OPTIONS if word in kwargs}
        is_text = "b" not in mode
        letter = mode.replace("t", "").replace("b", "")
        method = get_compression(path, compression)
        file: Any = super().open(path, f"{letter}b", block_size, cache_options, **kwargs)
        try:
            if method is not None:
                file = Compressed(file, compr[method](file, mode=letter))
            return WrittenText(file, **text) if is_text else file
        except BaseException:
            file.discard()
            raise

    def _open(
        self, path: str, mode: str = "rb", block_size: Any = None, autocommit: bool = True, **_: Any
    ) -> Any:
        if mode not in ("rb", "wb", "xb", "ab"):
            raise NotImplementedError(f"mode {mode!r}: an object is read or written as a whole")
        file: Any = self.client.open(self._uri(path), mode)
        if mode == "rb":
            file.fs, file.path, file.blocksize = self, path, self.blocksize
            file.full_name = self.unstrip_protocol(path)
            file.size = file.seek(0, os.SEEK_END)
            file.seek(0)
            file.details = {"name": self._strip_protocol(path), "size": file.size, "type": "file"}
            file.info = lambda: dict(file.details)
            return file
        return Written(self, path, file, is_deferred=not autocommit)

    # --- names -------------------------------------------------------------------------------

    def ls(self, path: str, detail: bool = True, refresh: bool = False, **_: Any) -> list[Any]:
        uri = self._uri(path)
        fresh = refresh or self._is_invalid("ls", uri)
        found = [self._entry(each) for each in self.client._entries(uri, fresh=fresh)]
        if not found:
            entry = self.info(path, refresh=refresh)  # raises FileNotFoundError
            found = [entry] if entry["type"] == "file" else []
        found.sort(key=lambda entry: str(entry["name"]))
        return found if detail else [entry["name"] for entry in found]

    def find(
        self,
        path: str,
        maxdepth: int | None = None,
        withdirs: bool = False,
        detail: bool = False,
        prefix: str = "",
        **kwargs: Any,
    ) -> Any:
        """Return what lies below *path*, *prefix*: with names there that begin so."""
        if prefix and (maxdepth is not None or withdirs):
            raise ValueError("prefix cannot be combined with maxdepth or withdirs")
        if maxdepth is not None or withdirs:
            return super().find(path, maxdepth, withdirs, detail, **kwargs)
        begin = f"{self._strip_protocol(path)}/{prefix}"
        entries = [
            self._entry(found)
            for found in self._below(self._uri(path), refresh=bool(kwargs.get("refresh")))
            if not prefix or found.uri.removeprefix(_S3).startswith(begin)
        ]
        if not entries and not prefix:
            with contextlib.suppress(FileNotFoundError):
                entry = self.info(path)
                entries = [entry] if entry["type"] == "file" else []
        found = {entry["name"]: entry for entry in sorted(entries, key=lambda e: str(e["name"]))}
        return found if detail else list(found)

    def _below(self, uri: str, *, refresh: bool) -> Iterator[Stat]:
        fresh = refresh or self._is_invalid("find", uri)
        with contextlib.suppress(ObjectNotFoundError):
            for entry in self.client._entries(uri, recursive=True, fresh=fresh):
                # Markers of folders cannot be named here: their slash is taken off.
                if isinstance(entry, Stat) and not entry.uri.endswith("/"):
                    yield entry

    def info(self, path: str, refresh: bool = False, **_: Any) -> dict[str, Any]:
        stripped = self._strip_protocol(path)
        if not stripped:
            return {"name": "", "size": 0, "type": "directory"}
        uri = self._uri(path)
        fresh = refresh or self._is_invalid("info", uri)
        try:
            reply = self.client._stat(uri, fresh=fresh)
        except ObjectNotFoundError:
            if not self._is_bucket(path):
                raise
            next(iter(self.client._entries(uri, fresh=fresh)), None)  # raises if there is none
        else:
            if not reply.is_prefix:
                return self._entry(Stat.from_reply(reply))
        return {"name": stripped, "size": 0, "type": "directory"}

    def _is_bucket(self, path: str) -> bool:
        stripped = self._strip_protocol(path)
        return bool(stripped) and "/" not in stripped

    def _entry(self, found: Stat | str) -> dict[str, Any]:
        if isinstance(found, str):
            name = found.removeprefix(_S3).rstrip("/")
            return {"name": name, "size": 0, "type": "directory"}
        name = found.uri.removeprefix(_S3)
        entry = {
            "name": name,
            "size": found.size_bytes,
            "type": "file",
            "version": found.version,
            "modified": found.modified,
            # As s3fs has them, for those who ask for them.
            "Key": name,
            "Size": found.size_bytes,
            "ETag": f'"{found.version}"',
        }
        if found.modified is not None:
            entry["LastModified"] = _time(found.modified)
        return entry

    def exists(self, path: str, **_: Any) -> bool:
        if "/" in self._strip_protocol(path):
            return self.client.exists(self._uri(path))
        return self.isdir(path)

    def isfile(self, path: str) -> bool:
        if "/" not in self._strip_protocol(path):
            return False
        return self.client.isfile(self._uri(path))

    def isdir(self, path: str) -> bool:
        if "/" in self._strip_protocol(path):
            return self.client.isdir(self._uri(path))
        try:  # an empty bucket is there
            return bool(self.info(path)["type"] == "directory")
        except FileNotFoundError:
            return False

    def checksum(self, path: str) -> int:
        return int(fsspec.utils.tokenize(self._version(path)), 16)

    def ukey(self, path: str) -> str:
        return str(fsspec.utils.tokenize(self._strip_protocol(path), self._version(path)))

    def _version(self, path: str) -> str:
        entry = self.info(path)
        if entry["type"] != "file":
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        return str(entry["version"])

    def modified(self, path: str) -> datetime.datetime:
        seconds = self.info(path).get("modified")
        if seconds is None:
            raise FileNotFoundError(errno.ENOENT, "the origin tells no time", path)
        return _time(seconds)

    created = modified  # an object is never changed, only replaced

    def invalidate_cache(self, path: str | None = None) -> None:
        """Have the origin asked when names are next, whatever the daemon remembers of them."""
        self._invalid_since = time.monotonic()
        self._asked_at.clear()
        super().invalidate_cache(path)

    def _is_invalid(self, question: str, uri: str) -> bool:
        """Tell, once for each question, whether it is to go to the origin."""
        if not self._invalid_since or len(self._asked_at) >= _MOST_ASKED:
            return bool(self._invalid_since)
        asked = (question, uri)
        if asked in self._asked_at:
            return False
        self._asked_at.add(asked)
        return True


def _time(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)


def _each(values: int | Sequence[int | None] | None, count: int) -> Sequence[int | None]:
    return [values] * count if values is None or isinstance(values, int) else values


class ForebayS3FileSystem(ForebayFileSystem):
    """``s3://`` through the node's daemon, for programs that cannot be told another protocol.

    Takes what s3fs takes; keys, tokens and the like are ignored, since the daemon has its own. An
    endpoint that is not the daemon's is refused: it would be another object.
    """

    protocol = ("s3", "s3a", "forebay")

    def __init__(
        self,
        anon: bool = False,
        endpoint_url: str | None = None,
        *,
        client_kwargs: Mapping[str, Any] | None = None,
        address: str | None = None,
        timeout_s: float = 60.0,
        **storage_options: Any,
    ) -> None:
        del anon
        super().__init__(address, timeout_s, **storage_options)
        wanted = endpoint_url or (client_kwargs or {}).get("endpoint_url")
        if wanted:
            self._check_endpoint(wanted)

    def _check_endpoint(self, wanted: str) -> None:
        origins = self.client._node.attachment(self.client._timeout_s).origins
        parts = urlsplit(wanted)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        # As the daemon writes it.
        normal = f"{parts.scheme}://{parts.hostname}:{port}{parts.path.rstrip('/')}"
        identities = [row.identity.split() for row in origins if row.prefix.startswith("s3:")]
        if not any(normal in identity for identity in identities):
            raise ValueError(
                f"endpoint_url {wanted!r} is not the daemon's: leave it out, or give the daemon an "
                "[[origin]] with it"
            )


def replace_s3() -> None:
    """Let ``s3://`` and ``s3a://`` of this process' fsspec go through the node's daemon."""
    for protocol in ("s3", "s3a"):
        fsspec.register_implementation(protocol, ForebayS3FileSystem, clobber=True)
