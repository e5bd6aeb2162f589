"""Values that the client returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from forebay_protos import cache_pb2 as pb


@dataclass(frozen=True, slots=True)
class Stat:
    """One object, as the cache knows it."""

    uri: str
    size_bytes: int
    version: str  # the origin's ETag, else something that changes with the content
    modified: float | None  # unix seconds
    cached_bytes: int
    is_pinned: bool = False

    @classmethod
    def from_reply(cls, reply: pb.StatReply) -> Stat:
        modified = reply.modified if reply.HasField("modified") else None
        return cls(
            reply.uri, reply.size_bytes, reply.version, modified, reply.cached_bytes, reply.pinned
        )


class Evicted(NamedTuple):
    """What an eviction dropped."""

    objects: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class WarmProgress:
    """Where a warm stands. Objects that were cached before are done too."""

    objects_total: int  # known so far
    objects_done: int
    bytes_total: int
    bytes_done: int
    objects_failed: int
    failures: tuple[tuple[str, str], ...]  # (URI, what is wrong), the first hundred
    is_listing_done: bool  # the totals are final


@dataclass(frozen=True, slots=True)
class Upload:
    """A write that this node has acknowledged and the origin does not have yet."""

    id: str
    kind: str  # put, create, append, remove, remove_tree, copy, move
    path: str  # the URI
    target: str  # of a copy or a move
    size_bytes: int
    uploaded_bytes: int
    age_s: float
    attempts: int
    last_error: str
    state: str  # waiting, uploading, failed, or blocked by one that failed
    blocked_by: str  # its id

    @classmethod
    def from_reply(cls, upload: pb.Upload) -> Upload:
        return cls(
            upload.id,
            upload.kind,
            upload.uri,
            upload.target,
            upload.size_bytes,
            upload.uploaded_bytes,
            upload.age_s,
            upload.attempts,
            upload.last_error,
            upload.state,
            upload.blocked_by,
        )


@dataclass(frozen=True, slots=True)
class FlushProgress:
    """Where a flush stands; the totals are those of its begin."""

    uploads_left: int
    bytes_left: int
    uploads_total: int
    bytes_total: int


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that a check found."""

    what: str
    repaired: bool


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What a check found, and what the cache then holds."""

    problems: tuple[Problem, ...]
    objects: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Stats:
    """What the daemon counted, hits without it included; ``raw`` is everything it said.

    The properties are counts since the daemon's start.
    """

    raw: dict[str, Any]

    @property
    def hits(self) -> int:
        return int(self.raw["since_start"]["hits"])

    @property
    def misses(self) -> int:
        return int(self.raw["since_start"]["misses"])

    @property
    def hit_ratio(self) -> float | None:
        """Hits of all reads, None before the first."""
        ratio = self.raw["since_start"]["hit_ratio"]
        return None if ratio is None else float(ratio)

    @property
    def hit_bytes(self) -> int:
        return int(self.raw["since_start"]["hit_bytes"])

    @property
    def miss_bytes(self) -> int:
        return int(self.raw["since_start"]["miss_bytes"])

    @property
    def origin_bytes(self) -> int:
        return int(self.raw["since_start"]["origin_bytes"])

    @property
    def origin_requests(self) -> int:
        return int(self.raw["since_start"]["origin_requests"])

    @property
    def used_bytes(self) -> int:
        return int(self.raw["used_bytes"])

    @property
    def max_bytes(self) -> int:
        return int(self.raw["max_bytes"])

    @property
    def objects(self) -> int:
        return int(self.raw["objects"])
