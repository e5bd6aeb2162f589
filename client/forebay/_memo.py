"""What a client remembers of the packed objects that it has hit: from the path, as it was given, to
everything that the next hit needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import mmap

Remembered: TypeAlias = "tuple[int, int, bytes, mmap.mmap, int, int, int, int, int]"
"""(record's start and end in the table, its 64 bytes as verified, segment mapping, the object's start
and end in it, slot, stale_after_ns, segment file)"""

_GENERATION_SIZE = 1 << 16


class Memo:
    """A bounded map of two generations: what is used moves to the young one, the old one goes whole.

    A hit looks into ``young`` itself, without a call.
    """

    def __init__(self) -> None:
        self.young: dict[object, Remembered] = {}
        self._old: dict[object, Remembered] = {}

    def get(self, path: object) -> Remembered | None:
        """Return what is remembered in either generation, young from now on."""
        known = self.young.get(path)
        if known is None:
            known = self._old.get(path)
            if known is not None:
                self.put(path, known)
        return known

    def put(self, path: object, remembered: Remembered) -> None:
        if len(self.young) >= _GENERATION_SIZE:
            self._old, self.young = self.young, {}
        self.young[path] = remembered
