"""Values that the client returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Stat:
    """One object at the origin, and how much of it is cached on this node."""

    uri: str
    size_bytes: int
    version: str  # the origin's ETag, else "<size>-<mtime>"
    modified: float | None  # unix seconds
    cached_bytes: int


@dataclass(frozen=True, slots=True)
class WarmProgress:
    """Where a warm stands; totals grow while the prefix is being listed."""

    objects_total: int
    objects_done: int
    bytes_total: int
    bytes_done: int
    objects_failed: int
    listing_done: bool
    failures: list[tuple[str, str]] = field(default_factory=list)  # (URI, reason), the first 100


@dataclass(frozen=True, slots=True)
class Problem:
    """A difference that ``check`` found."""

    what: str
    repaired: bool


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What ``check`` compared and found; without problems the cache is clean."""

    problems: list[Problem]
    objects: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Stats:
    """What the daemon counts. ``raw`` is all of it; the properties are since the daemon's start."""

    raw: dict[str, Any]

    @property
    def hits(self) -> int:
        return int(self.raw["since_start"]["hits"])

    @property
    def misses(self) -> int:
        return int(self.raw["since_start"]["misses"])

    @property
    def hit_ratio(self) -> float | None:
        """Share of reads that the cache answered; None before the first read."""
        ratio = self.raw["since_start"]["hit_ratio"]
        return None if ratio is None else float(ratio)

    @property
    def served_bytes(self) -> int:
        return int(self.raw["since_start"]["served_bytes"])

    @property
    def origin_bytes(self) -> int:
        return int(self.raw["since_start"]["origin_bytes"])

    @property
    def used_bytes(self) -> int:
        return int(self.raw["used_bytes"])

    @property
    def max_bytes(self) -> int:
        return int(self.raw["max_bytes"])

    @property
    def objects(self) -> int:
        return int(self.raw["objects"])
