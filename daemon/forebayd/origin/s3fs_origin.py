"""S3 by s3fs: slower than obstore, and exact for every key and listing.

The requests go to the aiobotocore client that s3fs sets up, in the daemon's own event loop: s3fs'
file methods would fold keys ("a//b", a "/" at the end), retry on their own and cache listings.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from forebayd.errors import VersionChangedError
from forebayd.origin import credentials, s3_errors, s3_listing, s3_names
from forebayd.origin.base import Body, ObjectInfo, Page
from forebayd.origin.driver import TransientError
from forebayd.origin.s3_writes import S3Writes

if TYPE_CHECKING:
    from forebayd.config import OriginConfig

_CONNECT_TIMEOUT_S = 5.0


class S3fsDriver(S3Writes):
    """The objects of one S3 endpoint."""

    def __init__(self, config: OriginConfig) -> None:
        self._config = config
        self._filesystem: Any = None  # Any: neither s3fs nor aiobotocore ship types
        self._making = asyncio.Lock()  # guards the making of _filesystem

    async def head(self, uri: str) -> ObjectInfo:
        bucket, key = s3_names.split(uri)
        client = await self._client()
        try:
            answer = await client.head_object(Bucket=bucket, Key=key)
        except Exception as error:
            raise s3_errors.translated(uri, error) from error
        return _info(uri, answer, answer["ContentLength"])

    async def get_range(
        self, uri: str, start: int, end: int, *, version: str | None = None
    ) -> Body:
        bucket, key = s3_names.split(uri)
        if end <= start:
            return await self._nothing(uri, version)
        wanted = {"Bucket": bucket, "Key": key, "Range": f"bytes={start}-{end - 1}"}
        if version is not None:
            wanted["IfMatch"] = s3_names.if_match(version)
        client = await self._client()
        try:
            answer = await client.get_object(**wanted)
            async with answer["Body"] as stream:
                data: bytes = await stream.read()
        except Exception as error:
            if s3_errors.status_of(error) == 416:
                return await self._nothing(uri, version)
            raise s3_errors.translated(uri, error) from error
        # "bytes 0-9/100"; absent when the server sent the whole object.
        content_range = answer.get("ContentRange")
        size_bytes = (
            int(content_range.rpartition("/")[2]) if content_range else answer["ContentLength"]
        )
        info = _info(uri, answer, size_bytes)
        if version is not None and info.version != version:
            raise VersionChangedError(f"{uri} is now {info.version}, no longer {version}")
        if not content_range:
            data = data[start:end]
        expected = max(0, min(end, size_bytes) - start)
        if len(data) != expected:
            raise TransientError(f"a body of {len(data)} bytes instead of {expected}")
        return Body(info, data)

    async def page(
        self, prefix: str, *, recursive: bool, token: object | None
    ) -> tuple[Page, object | None]:
        bucket, key_prefix, base = s3_names.folder(prefix)
        wanted: dict[str, object] = {
            "Bucket": bucket,
            "Prefix": key_prefix,
            "EncodingType": "url",  # XML cannot carry control characters
        }
        if not recursive:
            wanted["Delimiter"] = "/"
        if token is not None:
            wanted["ContinuationToken"] = token
        client = await self._client()
        try:
            answer = await client.list_objects_v2(**wanted)
            listing: s3_listing.Listing = answer[s3_listing.RESULT]
        except Exception as error:
            raise s3_errors.translated(prefix, error) from error
        objects = tuple(
            ObjectInfo(
                base + entry.key,
                entry.size_bytes,
                s3_names.version_of(entry.etag, entry.size_bytes, entry.modified),
                entry.modified,
            )
            for entry in listing.entries
            if entry.key != key_prefix
        )
        prefixes = tuple(base + name for name in listing.prefixes)
        return Page(objects, prefixes), listing.token

    async def close(self) -> None:
        if self._filesystem is not None:
            filesystem, self._filesystem = self._filesystem, None
            await filesystem.s3.close()

    async def _nothing(self, uri: str, version: str | None) -> Body:
        """Return no bytes: the object is empty, or ends before what was asked for."""
        info = await self.head(uri)
        if version is not None and info.version != version:
            raise VersionChangedError(f"{uri} is now {info.version}, no longer {version}")
        return Body(info, b"")

    async def _client(self) -> Any:
        async with self._making:
            if self._filesystem is None:
                self._filesystem = await self._make()
        return self._filesystem.s3

    async def _make(self) -> Any:
        from s3fs import S3FileSystem  # type: ignore[import-untyped]  # ships no stubs

        from forebayd.origin import s3_signing

        config = self._config
        filesystem = S3FileSystem(
            asynchronous=True,
            skip_instance_cache=True,
            anon=config.credentials.anonymous,
            session=credentials.session_of(config.credentials),
            endpoint_url=config.endpoint_url,
            client_kwargs={
                "region_name": config.region or "us-east-1",
                "verify": None if config.ca_bundle is None else str(config.ca_bundle),
            },
            config_kwargs={
                "connect_timeout": min(_CONNECT_TIMEOUT_S, config.request_timeout_s),
                "read_timeout": config.request_timeout_s,
                "max_pool_connections": 2 * config.max_requests,  # reads and writes
                "retries": {"max_attempts": 0},  # attempts are the wrapper's affair
                "s3": {"addressing_style": config.addressing},
                **s3_signing.options(is_anonymous=config.credentials.anonymous),
            },
        )
        try:
            client = await filesystem.set_session()
        except Exception as error:
            raise s3_errors.translated(config.prefix, error) from error
        s3_listing.install(client)
        s3_signing.install(client)
        return filesystem


def _info(uri: str, answer: dict[str, Any], size_bytes: int) -> ObjectInfo:
    modified = answer["LastModified"].timestamp()
    return ObjectInfo(
        uri, size_bytes, s3_names.version_of(answer.get("ETag"), size_bytes, modified), modified
    )
