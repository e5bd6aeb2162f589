"""Tables of text, and where they are told."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import logging
    from collections.abc import Sequence


def ascii_table(rows: Sequence[Sequence[object]], *, has_footer: bool = False) -> str:
    """Return a framed table; the first row is its head, the last one may be its foot."""
    texts = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    rule = "+" + "+".join("-" * (width + 2) for width in widths) + "+"
    lines = [
        "|" + "|".join(f" {cell:<{width}} " for cell, width in zip(row, widths, strict=True)) + "|"
        for row in texts
    ]
    if has_footer:
        lines.insert(-1, rule)
    return "\n".join([rule, lines[0], rule, *lines[1:], rule])


def say(text: str, logger: logging.Logger | str | None) -> None:
    """Log a text, print it if there is no logger, or keep quiet if that is "silent"."""
    if logger is None:
        print(text)
    elif not isinstance(logger, str):
        logger.info(text)
