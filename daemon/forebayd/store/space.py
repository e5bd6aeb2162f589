"""The ledger of disk space: what is used, what is promised, and the limit for both.

``used + reserved + spool + overhead <= max_bytes`` at every instant. Spool is what staged files may
take and committed writes do. Overhead is everything in the folder
that is not an object: catalogue, table, counters, folders, and a margin for their growth between
two looks. Pure arithmetic; the caller measures and evicts.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Space:
    """Bytes, in whole disk blocks."""

    max_bytes: int
    overhead_bytes: int = 0
    used_bytes: int = 0
    reserved_bytes: int = 0
    spool_bytes: int = 0

    @property
    def for_objects_bytes(self) -> int:
        """What objects may occupy at most."""
        return max(0, self.max_bytes - self.overhead_bytes)

    def lacking(self, size_bytes: int) -> int:
        """Return how many bytes must be evicted before *size_bytes* can be reserved."""
        taken = self.used_bytes + self.reserved_bytes + self.spool_bytes
        free = self.for_objects_bytes - taken
        return max(0, size_bytes - free)

    def reserve(self, size_bytes: int) -> None:
        """Promise space that is there (``lacking`` was 0)."""
        self.reserved_bytes += size_bytes

    def release(self, size_bytes: int) -> None:
        """Take a promise back."""
        self.reserved_bytes -= size_bytes

    def use(self, size_bytes: int) -> None:
        """Turn a promise into used bytes."""
        self.reserved_bytes -= size_bytes
        self.used_bytes += size_bytes

    def free(self, size_bytes: int) -> None:
        self.used_bytes -= size_bytes
