"""Bodies on their way to S3: signed by their sha256, and sent without a copy.

botocore would hash a body in the event loop (10 ms for 16 MiB), and takes files and bytes only.
"""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING, Any

from aiohttp.payload import Payload
from botocore import auth  # type: ignore[import-untyped]  # ships no stubs
from botocore.config import Config  # type: ignore[import-untyped]  # ships no stubs

from forebayd.origin.retrying import within

if TYPE_CHECKING:
    from aiohttp.abc import AbstractStreamWriter

_SIGNER = "forebay-s3v4"
_PIECE_BYTES = 256 << 10  # what a socket takes at once; the loop serves others in between
# Less is hashed sooner than a thread takes it, and sent sooner than the server answers "go on".
_SMALL_BYTES = 64 << 10


class Sent(Payload):
    """A body: a file for botocore's eyes, a payload for aiohttp's."""

    def __init__(self, data: memoryview, sha256: str, *, stall_s: float) -> None:
        super().__init__(data)
        self._data = data
        self._size = data.nbytes
        self._stall_s = stall_s
        self._is_sent = False
        self.sha256 = sha256

    def __len__(self) -> int:
        return self._data.nbytes

    def read(self, _: int = -1) -> bytes:
        """What makes it a file; nobody reads it so, since the hash is known."""
        raise NotImplementedError

    def seek(self, position: int) -> None:
        """Let it be sent again: botocore asks for it, to another region."""
        self._is_sent = False

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return bytes(self._data).decode(encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Send the bytes. Raises asyncio.TimeoutError if the server takes none for too long."""
        if self._is_sent:
            # aiohttp sends a PUT again after a reset; but the first may have been carried out.
            raise ConnectionResetError("the connection ended before an answer")
        self._is_sent = True
        for start in range(0, len(self), _PIECE_BYTES):
            piece = self._data[start : start + _PIECE_BYTES]
            await within(self._stall_s, writer.write(piece))


class _Signer(auth.S3SigV4Auth):  # type: ignore[misc]  # it has no types
    def payload(self, request: Any) -> str:
        known = getattr(request.body, "sha256", None)
        return known if isinstance(known, str) else str(super().payload(request))


async def sent(data: memoryview, *, stall_s: float) -> Sent:
    """Return *data* ready to be sent."""
    if data.nbytes <= _SMALL_BYTES:
        digest = hashlib.sha256(data)
    else:
        digest = await asyncio.to_thread(hashlib.sha256, data)
    return Sent(data, digest.hexdigest(), stall_s=stall_s)


def options(*, is_anonymous: bool) -> dict[str, str]:
    """Return settings of the client.

    Ceph before 19 understands neither the checksums that newer botocores add nor their framing.
    """
    names = ("request_checksum_calculation", "response_checksum_validation")
    chosen = {name: "when_required" for name in names if name in Config.OPTION_DEFAULTS}
    if not is_anonymous:
        chosen["signature_version"] = "s3v4"  # for presigned URLs botocore takes an older one
    return chosen


def install(client: Any) -> None:
    """Let *client* (aiobotocore's, which has no types) take a Sent as ``Body``."""
    auth.AUTH_TYPE_MAPS[_SIGNER] = _Signer
    for operation in ("PutObject", "UploadPart"):
        client.meta.events.register(f"choose-signer.s3.{operation}", _choose_signer)
        client.meta.events.register_last(f"before-call.s3.{operation}", _before_call)


def _choose_signer(signature_version: object, **_: object) -> str | None:
    return _SIGNER if signature_version in ("v4", "s3v4") else None


def _before_call(params: dict[str, Any], **_: object) -> None:
    if len(params["body"]) <= _SMALL_BYTES:
        params["headers"].pop("Expect", None)
