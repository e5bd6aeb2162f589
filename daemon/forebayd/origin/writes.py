"""The writing half of a wrapper, for those that do the same around every call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from typing_extensions import Buffer

    from forebayd.origin.base import Form, ObjectInfo, Signed, Writable

T = TypeVar("T")

PUT, PUT_PART, COMPLETE, DELETE, COPY = "put", "put_part", "complete", "delete", "copy"
SIGN, CREATE_BUCKET = "sign", "create_bucket"
BEGIN, PARTS, ABORT, UPLOADS = "begin", "parts", "abort", "uploads"


@dataclass(frozen=True, slots=True)
class Call:
    """What is asked of an origin."""

    operation: str  # as it is measured
    uri: str
    size_bytes: int = 0  # of what is sent


class WritesAround:
    """Calls ``_around`` for every call that writes; a subclass says what it does there."""

    async def _around(self, call: Call, request: Callable[[Writable], Awaitable[T]]) -> T:
        """Return what *request* returns, given whom to ask."""
        raise NotImplementedError

    async def put(self, uri: str, data: Buffer, *, expected: str | None = None) -> ObjectInfo:
        call = Call(PUT, uri, memoryview(data).nbytes)
        return await self._around(call, lambda to: to.put(uri, data, expected=expected))

    async def begin_upload(self, uri: str) -> str:
        return await self._around(Call(BEGIN, uri), lambda to: to.begin_upload(uri))

    async def put_part(self, uri: str, upload: str, number: int, data: Buffer) -> str:
        call = Call(PUT_PART, uri, memoryview(data).nbytes)
        return await self._around(call, lambda to: to.put_part(uri, upload, number, data))

    async def parts(self, uri: str, upload: str) -> dict[int, tuple[str, int]]:
        return await self._around(Call(PARTS, uri), lambda to: to.parts(uri, upload))

    async def complete_upload(self, uri: str, upload: str, tags: Sequence[str]) -> ObjectInfo:
        return await self._around(
            Call(COMPLETE, uri), lambda to: to.complete_upload(uri, upload, tags)
        )

    async def abort_upload(self, uri: str, upload: str) -> None:
        await self._around(Call(ABORT, uri), lambda to: to.abort_upload(uri, upload))

    async def uploads(self, uri: str) -> Sequence[tuple[str, float]]:
        return await self._around(Call(UPLOADS, uri), lambda to: to.uploads(uri))

    async def delete(self, uri: str) -> None:
        await self._around(Call(DELETE, uri), lambda to: to.delete(uri))

    async def copy(self, source: str, target: str) -> ObjectInfo:
        return await self._around(Call(COPY, target), lambda to: to.copy(source, target))

    async def sign(self, uri: str, method: str, expires_s: int, form: Form | None) -> Signed:
        return await self._around(Call(SIGN, uri), lambda to: to.sign(uri, method, expires_s, form))

    async def create_bucket(self, uri: str) -> None:
        await self._around(Call(CREATE_BUCKET, uri), lambda to: to.create_bucket(uri))
