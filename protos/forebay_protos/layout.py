"""Names of the files in a cache folder, and ``attach.json``, which tells a client how to hit.

``attach.json`` is only ever replaced by rename. A client keeps it open and compares the inode that
the name has now with the one it holds, at most every ``LEASE_S`` seconds: another inode means that
the cache was wiped, its table grew or its origins changed, and that it must attach again. A daemon
that has made a new cache id waits ``2 * LEASE_S`` before it answers anybody.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

FORMAT_VERSION = 1
LEASE_S = 0.02

ATTACH = "attach.json"
CACHEDIR_TAG = "CACHEDIR.TAG"
CATALOGUE = "catalogue"
COUNTERS = "counters"
ID = "ID"
LEASES = "leases"
LOCK = "lock"
META = "meta"
BLOBS = "blobs"
SEGMENTS = "segments"
SPOOL = "spool"
STAGING = "spool/staging"
COMMIT_SOCKET = "spool/commit"
VERSION = "VERSION"


def table_name(epoch: int) -> str:
    return f"table.{epoch}"


def recency_name(epoch: int) -> str:
    return f"recency.{epoch}"


def segment_name(number: int) -> str:
    return f"{SEGMENTS}/{number:08d}.seg"


def blob_name(generation: int) -> str:
    return f"{BLOBS}/{generation:016x}"


@dataclass(frozen=True, slots=True)
class OriginRow:
    """An origin as clients must know it: which URIs are its own, and who it is."""

    prefix: str  # canonical URL prefix; the longest one of whole components wins
    identity: str  # endpoint, region, account: everything that makes the same URI another object


@dataclass(frozen=True, slots=True)
class Attachment:
    """The content of ``attach.json``."""

    cache_id: str  # 32 hex digits
    epoch: int  # of table.<epoch> and recency.<epoch>
    segment_bytes: int  # size of every segment file
    path_mapping: dict[str, str]
    origins: tuple[OriginRow, ...]
    format: int = FORMAT_VERSION

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Attachment:
        """Parse the text. Raises ValueError if it is of another format."""
        raw = json.loads(text)
        if raw.get("format") != FORMAT_VERSION:
            raise ValueError(
                f"cache folder of format {raw.get('format')}, this program knows {FORMAT_VERSION}: "
                "use the same version of client and daemon"
            )
        raw["origins"] = tuple(OriginRow(**row) for row in raw["origins"])
        return cls(**raw)


def fingerprint_key(cache_id: str, identity: str) -> bytes:
    """Return the 16-byte key under which an origin's URIs are hashed."""
    return hashlib.blake2b(identity.encode(), digest_size=16, key=bytes.fromhex(cache_id)).digest()


def fingerprint(key: bytes, uri: str) -> bytes:
    """Return the 16 bytes by which an object is found; *key* from :func:`fingerprint_key`."""
    return hashlib.blake2b(uri.encode("utf-8", "surrogatepass"), digest_size=16, key=key).digest()
