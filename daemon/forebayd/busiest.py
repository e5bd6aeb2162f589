"""Which prefixes are busy: what passed between them and their origin in the last minute.

Bounded, whatever is read: a prefix is at most two folders below its bucket, or below the prefix of
its origin, and in each tick no more than so many are told apart; the rest are counted together.
"""

from __future__ import annotations

from collections import Counter, deque
from typing import TYPE_CHECKING, Any

from forebay_protos import uris

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_FOLDERS = 2
_TICKS = 13  # the one under way, and a minute of them
_PREFIXES_A_TICK = 512
_OTHERS = "(others)"
_TOLD = 16  # by each count


class _LastMinute:
    """Bytes by prefix."""

    def __init__(self) -> None:
        self._ticks: deque[Counter[str]] = deque([Counter()], maxlen=_TICKS)

    def tick(self) -> None:
        self._ticks.append(Counter())

    def add(self, prefix: str, size_bytes: int) -> None:
        counts = self._ticks[-1]
        if prefix not in counts and len(counts) >= _PREFIXES_A_TICK:
            prefix = _OTHERS
        if size_bytes:
            counts[prefix] += size_bytes

    def total(self) -> Counter[str]:
        total: Counter[str] = Counter()
        for counts in self._ticks:
            total.update(counts)
        return total


class Busiest:
    """Counts bytes by prefix; one event loop."""

    def __init__(self, origin_prefixes: Iterable[str]) -> None:
        self._origins = dict.fromkeys(origin_prefixes)
        self._received, self._sent = _LastMinute(), _LastMinute()

    def tick(self) -> None:
        """Begin to count anew; what is older than a minute is forgotten."""
        self._received.tick()
        self._sent.tick()

    def received(self, uri: str, size_bytes: int) -> None:
        """Count what came from the origin."""
        self._received.add(self.prefix(uri), size_bytes)

    def sent(self, uri: str, size_bytes: int) -> None:
        """Count an object that the origin has."""
        self._sent.add(self.prefix(uri), size_bytes)

    def prefix(self, uri: str) -> str:
        """Return the folder of *uri* that is counted for it."""
        found = uris.longest_prefix(uri, self._origins)
        origin = found[0] if found is not None else "".join(uri.partition("://")[:2])
        end = len(origin)
        end += uri.startswith("/", end)  # file:///…, and an origin's prefix without its slash
        for _ in range(_FOLDERS + origin.endswith("://")):
            end = uri.find("/", end) + 1 or end
        return uri[:end]

    def rows(self, used: Sequence[str], each: float) -> list[dict[str, Any]]:
        """Return the busiest prefixes by each count, those with most objects first.

        *used* are the URIs of objects that were used in the last minute, or of some of them, of
        which each stands for so many.
        """
        objects = Counter(map(self.prefix, used))
        counts = {
            "objects_used": Counter({name: round(n * each) for name, n in objects.items()}),
            "received_bytes": self._received.total(),
            "sent_bytes": self._sent.total(),
        }
        told = dict.fromkeys(
            name for count in counts.values() for name, _ in count.most_common(_TOLD)
        )
        return [
            {"prefix": prefix, **{name: count[prefix] for name, count in counts.items()}}
            for prefix in told
        ]
