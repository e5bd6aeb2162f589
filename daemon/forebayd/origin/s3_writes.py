"""The writing half of an S3 driver, by aiobotocore's client: exact for every key."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from forebayd.errors import (
    InvalidPathError,
    ObjectNotFoundError,
    OriginUnavailableError,
    UploadGoneError,
    VersionChangedError,
)
from forebayd.origin import s3_errors, s3_names
from forebayd.origin.base import ABSENT, ObjectInfo, Signed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Buffer

    from forebayd.config import OriginConfig
    from forebayd.origin.base import Body, Form

_LARGEST_COPY_BYTES = 5 << 30  # S3 copies no more in one request
_COPY_PART_BYTES = 64 << 20
_MOST_PARTS = 10_000
_COPIES_AT_ONCE = 4
_SIGNED = ("get_object", "put_object", "head_object", "delete_object")
_OF_AN_UPLOAD = (
    "upload_part",
    "list_parts",
    "complete_multipart_upload",
    "abort_multipart_upload",
)


class S3Writes(ABC):
    """What a driver has that has a client."""

    can_upload_parts = True
    _config: OriginConfig

    @abstractmethod
    async def head(self, uri: str) -> ObjectInfo: ...

    @abstractmethod
    async def get_range(
        self, uri: str, start: int, end: int, *, version: str | None = None
    ) -> Body: ...

    @abstractmethod
    async def _client(self) -> Any:
        """Return aiobotocore's client, which has no types."""

    async def put(self, uri: str, data: Buffer, *, expected: str | None = None) -> ObjectInfo:
        wanted: dict[str, object] = {}
        if expected == ABSENT:
            wanted["IfNoneMatch"] = "*"
        elif expected is not None:
            # Without the quotes: Ceph knows it only so, and AWS takes either.
            wanted["IfMatch"] = expected
        view = memoryview(data).cast("B")
        try:
            answer = await self._send("put_object", uri, view, **wanted)
        except ObjectNotFoundError as error:
            if expected and not lacks_bucket(error):
                raise VersionChangedError(f"{uri} is gone, no longer {expected}") from error
            raise
        return _written(uri, view.nbytes, answer)

    async def begin_upload(self, uri: str) -> str:
        answer = await self._ask("create_multipart_upload", uri)
        return str(answer["UploadId"])

    async def put_part(self, uri: str, upload: str, number: int, data: Buffer) -> str:
        view = memoryview(data).cast("B")
        answer = await self._send("upload_part", uri, view, UploadId=upload, PartNumber=number)
        return _tag(answer)

    async def parts(self, uri: str, upload: str) -> dict[int, tuple[str, int]]:
        found: dict[int, tuple[str, int]] = {}
        marker: dict[str, object] = {}
        while True:
            answer = await self._ask("list_parts", uri, UploadId=upload, **marker)
            for part in answer.get("Parts", ()):
                found[part["PartNumber"]] = (_tag(part), part["Size"])
            if not answer.get("IsTruncated"):
                return found
            marker = {"PartNumberMarker": answer["NextPartNumberMarker"]}

    async def complete_upload(self, uri: str, upload: str, tags: Sequence[str]) -> ObjectInfo:
        # The answer tells no size; and a HEAD after it may tell of another's object.
        there = await self.parts(uri, upload)
        wanted = {number: tag for number, tag in enumerate(tags, 1)}
        if any(there.get(number, ("", 0))[0] != tag for number, tag in wanted.items()):
            raise UploadGoneError(f"{uri}: other parts are there than were sent: begin another")
        parts = [{"PartNumber": number, "ETag": f'"{tag}"'} for number, tag in wanted.items()]
        answer = await self._ask(
            "complete_multipart_upload", uri, UploadId=upload, MultipartUpload={"Parts": parts}
        )
        # Ceph 16 tells an empty one.
        version = _tag(answer) or await self._version_of_parts(uri, tags)
        size_bytes = sum(there[number][1] for number in wanted)
        return ObjectInfo(uri, size_bytes, version, None)

    async def abort_upload(self, uri: str, upload: str) -> None:
        with contextlib.suppress(UploadGoneError):
            await self._ask("abort_multipart_upload", uri, UploadId=upload)

    async def uploads(self, uri: str) -> Sequence[tuple[str, float]]:
        bucket, key = s3_names.split(uri)
        client = await self._client()
        found: list[tuple[str, float]] = []
        try:
            pages = client.get_paginator("list_multipart_uploads")
            async for page in pages.paginate(Bucket=bucket, Prefix=key):
                found += [
                    (upload["UploadId"], upload["Initiated"].timestamp())
                    for upload in page.get("Uploads", ())
                    if upload["Key"] == key
                ]
        except Exception as error:
            raise s3_errors.translated(uri, error) from error
        return found

    async def delete(self, uri: str) -> None:
        try:
            await self._ask("delete_object", uri)
        except ObjectNotFoundError as error:
            if lacks_bucket(error):
                raise

    async def copy(self, source: str, target: str) -> ObjectInfo:
        info = await self.head(source)
        if source == target:
            return info  # S3 refuses it
        bucket, key = s3_names.split(source)
        where: dict[str, object] = {
            "CopySource": {"Bucket": bucket, "Key": key},
            "CopySourceIfMatch": info.version,
        }
        if info.size_bytes > _LARGEST_COPY_BYTES:
            return await self._copy_parts(info, target, where)
        answer = await self._ask("copy_object", target, **where)
        return _written(target, info.size_bytes, answer["CopyObjectResult"])

    async def _copy_parts(
        self, source: ObjectInfo, target: str, where: dict[str, object]
    ) -> ObjectInfo:
        upload = await self.begin_upload(target)
        places = asyncio.Semaphore(_COPIES_AT_ONCE)
        # Ceph 16 decodes the name of a part's source twice: "a%20b" would be a part of "a b".
        is_exact = not any(letter in source.uri for letter in "%+")
        part_bytes = max(_COPY_PART_BYTES, -(-source.size_bytes // _MOST_PARTS))

        async def copy(number: int, start: int) -> str:
            end = min(start + part_bytes, source.size_bytes)
            async with places:
                if not is_exact:
                    body = await self.get_range(source.uri, start, end, version=source.version)
                    return await self.put_part(target, upload, number, body.data)
                answer = await self._ask(
                    "upload_part_copy",
                    target,
                    UploadId=upload,
                    PartNumber=number,
                    CopySourceRange=f"bytes={start}-{end - 1}",
                    **where,
                )
            return _tag(answer["CopyPartResult"])

        starts = range(0, source.size_bytes, part_bytes)
        tasks = [asyncio.ensure_future(copy(i, start)) for i, start in enumerate(starts, 1)]
        try:
            return await self.complete_upload(target, upload, await asyncio.gather(*tasks))
        except BaseException:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.abort_upload(target, upload)
            raise

    async def _version_of_parts(self, uri: str, tags: Sequence[str]) -> str:
        try:
            digests = b"".join(map(bytes.fromhex, tags))
        except ValueError:  # an origin of its own kind
            return (await self.head(uri)).version
        return f"{hashlib.md5(digests, usedforsecurity=False).hexdigest()}-{len(tags)}"

    async def _send(self, operation: str, uri: str, data: memoryview, **wanted: object) -> Any:
        from forebayd.origin import s3_signing

        body = await s3_signing.sent(data, stall_s=self._config.request_timeout_s)
        return await self._ask(operation, uri, Body=body, ContentLength=len(body), **wanted)

    async def sign(self, uri: str, method: str, expires_s: int, form: Form | None) -> Signed:
        bucket, key = s3_names.split(uri)
        if self._config.credentials.anonymous:
            raise InvalidPathError(
                f"{uri}: this origin is asked without keys: nothing to sign with"
            )
        if form is not None and "${" in key:
            # S3 puts the file's name there: the form would be for every key that begins so.
            raise InvalidPathError(f"{uri}: a form is for one key: write its name out")
        if form is None and method not in _SIGNED:
            raise InvalidPathError(f"{uri}: {method!r} is none of {', '.join(_SIGNED)}")
        client = await self._client()
        try:
            if form is not None:
                answer = await client.generate_presigned_post(
                    bucket, key, form.fields, form.conditions, expires_s
                )
                return Signed(answer["url"], answer["fields"])
            parameters = {"Bucket": bucket, "Key": key}
            return Signed(await client.generate_presigned_url(method, parameters, expires_s), {})
        except Exception as error:
            raise s3_errors.translated(uri, error) from error

    async def create_bucket(self, uri: str) -> None:
        bucket, _ = s3_names.split(f"{uri.rstrip('/')}/-")
        client = await self._client()
        region = client.meta.region_name
        # Where AWS began it must not be named.
        wanted = (
            {"CreateBucketConfiguration": {"LocationConstraint": region}}
            if ".amazonaws." in client.meta.endpoint_url and region != "us-east-1"
            else {}
        )
        try:
            await client.create_bucket(Bucket=bucket, **wanted)
        except (client.exceptions.BucketAlreadyOwnedByYou, client.exceptions.BucketAlreadyExists):
            await client.head_bucket(Bucket=bucket)
        except Exception as error:
            raise s3_errors.translated(uri, error) from error

    async def _ask(self, operation: str, uri: str, **wanted: object) -> Any:
        """Return the answer, which has no types."""
        bucket, key = s3_names.split(uri)
        client = await self._client()
        try:
            return await getattr(client, operation)(Bucket=bucket, Key=key, **wanted)
        except Exception as error:
            ours = s3_errors.translated(uri, error)
            is_missing = isinstance(ours, ObjectNotFoundError) and not lacks_bucket(ours)
            if is_missing and operation in _OF_AN_UPLOAD:
                # Ceph says NoSuchKey when the parts are listed.
                ours = UploadGoneError(f"{uri}: the upload is gone: begin another")
            raise ours from error


def lacks_bucket(error: ObjectNotFoundError) -> bool:
    return "no such bucket" in str(error)


def _tag(answer: dict[str, Any]) -> str:
    return str(answer.get("ETag", "")).strip('"')


def _written(uri: str, size_bytes: int, answer: dict[str, Any]) -> ObjectInfo:
    version = _tag(answer)
    if not version:
        raise OriginUnavailableError(f"{uri}: the origin does not tell what it wrote")
    modified = answer.get("LastModified")
    return ObjectInfo(uri, size_bytes, version, modified.timestamp() if modified else None)
