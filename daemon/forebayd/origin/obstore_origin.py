"""S3 by obstore: one lean GET per range, no HEAD before it, the bytes handed on without a copy.

Keys that obstore would alter ("//", "." and ".." components, a "/" at either end, control
characters), listings, in which it drops the "/" at the end of a key, and all that writes go
through :class:`~forebayd.origin.s3fs_origin.S3fsDriver`, built when first needed.
"""

from __future__ import annotations

import asyncio
import re
from datetime import timedelta
from posixpath import splitext
from typing import TYPE_CHECKING, TypeVar

from obstore import exceptions as obstore_errors
from obstore import get_async, head_async, put_async
from obstore.store import S3Store

from forebayd.errors import (
    DaemonError,
    InvalidPathError,
    ObjectNotFoundError,
    OriginUnavailableError,
    VersionChangedError,
)
from forebayd.origin import credentials, s3_names
from forebayd.origin.base import ABSENT, Body, ObjectInfo
from forebayd.origin.driver import TransientError, broken_off, failure_of_status
from forebayd.origin.s3_writes import lacks_bucket
from forebayd.origin.writes import Call, WritesAround

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from obstore import GetOptions, ObjectMeta, PutMode
    from obstore.store import ClientConfig, S3Config
    from typing_extensions import Buffer

    from forebayd.config import OriginConfig
    from forebayd.origin.base import Page, Writable
    from forebayd.origin.s3fs_origin import S3fsDriver

T = TypeVar("T")

# An empty, "." or ".." component, or an ASCII control character: obstore refuses or alters these.
_LARGEST_PUT_BYTES = 16 << 20
_INEXACT = re.compile(r"(?:^|/)\.{0,2}(?:/|\Z)|[\x00-\x1f\x7f]")
_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>(\w+)</Code>")
_CONNECT_TIMEOUT_S = 5.0
# A Ceph gateway spends a sixth more CPU on a GET with a range, even if that is all of the object.
# So the first bytes, from so many on, are asked for without. That costs a larger object the
# connection and some 16 MiB under way on it: once per kind of name (bucket and suffix), as what is
# called alike is of like size.
_WHOLE_BYTES = 1 << 20
_MOST_KINDS = 4096


def is_exact(key: str) -> bool:
    """Tell whether obstore sends *key* as it is."""
    return _INEXACT.search(key) is None


class ObstoreDriver(WritesAround):
    """The objects of one S3 endpoint; a store per bucket, made when first asked."""

    can_upload_parts = True

    def __init__(self, config: OriginConfig) -> None:
        self._config = config
        self._stores: dict[str, S3Store] = {}
        self._keys: credentials.Keys | credentials.RefreshedKeys | None = None
        self._opening = asyncio.Lock()  # guards _keys, and the making of _stores
        self._s3fs: S3fsDriver | None = None
        self._large_kinds: set[tuple[str, str]] = set()

    async def head(self, uri: str) -> ObjectInfo:
        bucket, key = s3_names.split(uri)
        if not is_exact(key):
            return await self._exact().head(uri)
        store = self._stores.get(bucket) or await self._open(bucket)
        try:
            meta = await head_async(store, key)
        except Exception as error:
            raise _translated(uri, error) from error
        return _info(uri, meta)

    async def get_range(
        self, uri: str, start: int, end: int, *, version: str | None = None
    ) -> Body:
        bucket, key = s3_names.split(uri)
        if not is_exact(key):
            return await self._exact().get_range(uri, start, end, version=version)
        if end <= start:
            return await self._nothing(uri, version)
        store = self._stores.get(bucket) or await self._open(bucket)
        options: GetOptions = {}
        kind = (bucket, splitext(key)[1])
        is_first = not start and end >= _WHOLE_BYTES and version is None
        if not is_first or kind in self._large_kinds:
            options["range"] = (start, end)
        if version is not None:
            options["if_match"] = s3_names.if_match(version)
        try:
            result = await get_async(store, key, options=options)
            if is_first:
                self._learn(kind, is_large=result.meta["size"] > end)
            data: Buffer
            if "range" in options or result.meta["size"] <= end:
                data = await result.bytes_async()
            else:
                data = memoryview(await anext(result.stream(min_chunk_size=end)))[:end]
        except Exception as error:
            if isinstance(error, obstore_errors.GenericError) and _status(str(error)) == 416:
                return await self._nothing(uri, version)
            raise _translated(uri, error) from error
        info = _info(uri, result.meta)
        if version is not None and info.version != version:
            raise VersionChangedError(f"{uri} is now {info.version}, no longer {version}")
        expected = min(end, info.size_bytes) - start
        received = len(memoryview(data))
        if received != expected:
            raise TransientError(f"a body of {received} bytes instead of {expected}")
        return Body(info, data)

    async def page(
        self, prefix: str, *, recursive: bool, token: object | None
    ) -> tuple[Page, object | None]:
        return await self._exact().page(prefix, recursive=recursive, token=token)

    async def put(self, uri: str, data: Buffer, *, expected: str | None = None) -> ObjectInfo:
        """As the contract has it; a sixth of the CPU that aiobotocore takes for a small object."""
        bucket, key = s3_names.split(uri)
        size_bytes = memoryview(data).nbytes
        # Its deadline is for small bodies: a large one has as long as bytes are taken.
        if not is_exact(key) or not 0 < size_bytes <= _LARGEST_PUT_BYTES:
            return await super().put(uri, data, expected=expected)
        store = self._stores.get(bucket) or await self._open(bucket)
        mode: PutMode = "overwrite"
        if expected is not None:
            # Without the quotes: Ceph knows it only so, and AWS takes either.
            mode = "create" if expected == ABSENT else {"e_tag": expected}
        try:
            result = await put_async(store, key, data, mode=mode, use_multipart=False)
        except Exception as error:
            raised = _translated(uri, error)
            if expected and isinstance(raised, ObjectNotFoundError) and not lacks_bucket(raised):
                raise VersionChangedError(f"{uri} is gone, no longer {expected}") from error
            raise raised from error
        version = s3_names.version_of(result["e_tag"], size_bytes, 0.0)
        return ObjectInfo(uri, size_bytes, version, None)

    async def _around(self, call: Call, request: Callable[[Writable], Awaitable[T]]) -> T:
        return await request(self._exact())

    async def close(self) -> None:
        self._stores.clear()
        if self._s3fs is not None:
            await self._s3fs.close()

    async def _nothing(self, uri: str, version: str | None) -> Body:
        """Return no bytes: the object is empty, or ends before what was asked for."""
        info = await self.head(uri)
        if version is not None and info.version != version:
            raise VersionChangedError(f"{uri} is now {info.version}, no longer {version}")
        return Body(info, b"")

    def _learn(self, kind: tuple[str, str], *, is_large: bool) -> None:
        if not is_large:
            self._large_kinds.discard(kind)
        elif len(self._large_kinds) < _MOST_KINDS:
            self._large_kinds.add(kind)

    def _exact(self) -> S3fsDriver:
        if self._s3fs is None:
            from forebayd.origin.s3fs_origin import S3fsDriver

            self._s3fs = S3fsDriver(self._config)
        return self._s3fs

    async def _open(self, bucket: str) -> S3Store:
        """Return the bucket's store, made now unless another task did it meanwhile."""
        async with self._opening:
            if self._keys is None and not self._config.credentials.anonymous:
                self._keys = await credentials.find(self._config.credentials)
            if bucket not in self._stores:
                self._stores[bucket] = self._make(bucket)
            return self._stores[bucket]

    def _make(self, bucket: str) -> S3Store:
        config = self._config
        is_virtual = config.addressing == "virtual"
        options: S3Config = {
            "region": config.region or "us-east-1",
            "virtual_hosted_style_request": is_virtual,
            "skip_signature": config.credentials.anonymous,
        }
        if config.endpoint_url is not None:
            # With virtual addressing obstore wants the bucket in the endpoint already.
            options["endpoint"] = (
                config.endpoint_url.replace("://", f"://{bucket}.", 1)
                if is_virtual
                else config.endpoint_url
            )
        client: ClientConfig = {
            "allow_http": True,
            "connect_timeout": timedelta(seconds=min(_CONNECT_TIMEOUT_S, config.request_timeout_s)),
            "read_timeout": timedelta(seconds=config.request_timeout_s),
            "timeout": timedelta(seconds=config.deadline_s),
        }
        if config.ca_bundle is not None:
            client["root_certificate"] = config.ca_bundle.read_bytes()
        provider = None
        if isinstance(self._keys, credentials.Keys):
            options["access_key_id"] = self._keys.access_key
            options["secret_access_key"] = self._keys.secret_key
            if self._keys.token:
                options["session_token"] = self._keys.token
        else:
            provider = self._keys
        return S3Store(
            bucket,
            config=options,
            client_options=client,
            # Attempts are the wrapper's affair, which counts them and keeps the deadline.
            retry_config={"max_retries": 0, "retry_timeout": timedelta(seconds=config.deadline_s)},
            credential_provider=provider,
        )


def _info(uri: str, meta: ObjectMeta) -> ObjectInfo:
    modified = meta["last_modified"].timestamp()
    size_bytes = meta["size"]
    return ObjectInfo(
        uri, size_bytes, s3_names.version_of(meta["e_tag"], size_bytes, modified), modified
    )


def _status(text: str) -> int | None:
    found = _STATUS.search(text)
    return int(found[1]) if found else None


def _translated(uri: str, error: Exception) -> Exception:
    """Return our error for one of obstore's, which tells most of them apart by text only."""
    text = str(error).partition("\n\nDebug source")[0]
    code = _CODE.search(text)
    detail = code[1] if code else text[:300]
    if isinstance(error, DaemonError):
        return error
    if isinstance(error, FileNotFoundError):
        return failure_of_status(uri, 404, detail)
    if isinstance(error, obstore_errors.PermissionDeniedError):
        return failure_of_status(uri, 403, detail)
    if isinstance(error, obstore_errors.UnauthenticatedError):
        return failure_of_status(uri, 401, detail)
    # Of a conditional PUT these are 404, 409 and 412.
    if isinstance(error, obstore_errors.PreconditionError | obstore_errors.AlreadyExistsError):
        return failure_of_status(uri, _status(text) or 412, detail)
    if isinstance(error, ValueError):  # UnicodeEncodeError too
        return InvalidPathError(f"{uri!r} cannot be asked of S3: {detail}")
    status = _status(text)
    if status is not None:
        return failure_of_status(uri, status, detail)
    if isinstance(error, obstore_errors.BaseError | OSError):
        return broken_off(detail, error)
    return OriginUnavailableError(f"{uri}: {type(error).__name__}: {detail}")
