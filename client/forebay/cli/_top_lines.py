"""Lines of a fixed width: what does not fit is cut, names in their middle."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rich.cells import cell_len, set_cell_size
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Sequence

_ASCII = str.maketrans(
    {"█": "#", "░": "-", "…": "~"} | dict(zip("▁▂▃▄▅▆▇", "_.-:=+*", strict=True))
)
_BARS = "▁▂▃▄▅▆▇█"


def printable(text: str) -> str:
    """Return *text* without what could move the cursor: names may hold anything."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def middle(text: str, width: int) -> str:
    """Return *text* in exactly *width* cells; the middle of a longer one is left out."""
    text = printable(text)
    if cell_len(text) <= width or width < 2:
        return set_cell_size(text, max(0, width))
    tail = width // 2
    rest = text
    while cell_len(rest) > tail:
        rest = rest[1 + (cell_len(rest) - tail) // 3 :]  # no letter is wider than two cells
    return set_cell_size(text, width - 1 - cell_len(rest)) + "…" + rest


def spread(left: Text, right: Text, width: int) -> Text:
    """Return *left*, cut if need be, and *right* at the end of the line."""
    room = width - right.cell_len
    if room < 1:
        return fitted(left, width)
    return Text.assemble(fitted(left, room), right)


def fitted(line: Text, width: int) -> Text:
    """Return *line* in exactly *width* cells."""
    line = line.copy()
    line.truncate(width, pad=True)
    return line


def bar(share: float, width: int) -> str:
    full = min(width, max(0, round(share * width)))
    return "█" * full + "░" * (width - full)


def sparkline(values: Sequence[float | None], width: int, top: float | None = None) -> str:
    """Return all *values* in *width* cells, the newest at the right; a gap where there is none.

    *top* is a full cell; without it the largest value is.
    """
    each = max(1, math.ceil(len(values) / width)) if width > 0 else 1
    means: list[float | None] = []
    for end in range(len(values), 0, -each):
        known = [value for value in values[max(0, end - each) : end] if value is not None]
        means.append(sum(known) / len(known) if known else None)
    means.reverse()
    top = top or max((value for value in means if value), default=0.0)
    cells = "".join(" " if value is None else _cell(value, top) for value in means[-width:])
    return cells.rjust(width)


def _cell(value: float, top: float) -> str:
    place = math.ceil(value / top * (len(_BARS) - 1)) if top else 0  # a little is seen
    return _BARS[min(max(0, place), len(_BARS) - 1)]


def in_ascii(line: Text) -> Text:
    """Return *line* for a terminal that knows no blocks."""
    plain = line.copy()
    plain.plain = line.plain.translate(_ASCII)
    return plain


def shares(wanted: Sequence[int], room: int) -> list[int]:
    """Return how many lines each section gets: each its first two, the foremost first; then one
    each in turn, until none wants more or there is no room."""
    given = [0] * len(wanted)
    for index, want in enumerate(wanted):
        least = min(want, 2)
        if least <= room:
            given[index] = least
            room -= least
    while room > 0:
        hungry = [i for i, want in enumerate(wanted) if 0 < given[i] < want][:room]
        if not hungry:
            break
        for index in hungry:
            given[index] += 1
        room -= len(hungry)
    return given
