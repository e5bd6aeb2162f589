"""How long the client of the current call is going to wait."""

from __future__ import annotations

import contextvars
import time

_deadline: contextvars.ContextVar[float] = contextvars.ContextVar("deadline", default=float("inf"))


def begin(left_s: float | None) -> None:
    """Note the deadline of the call that the current task answers; None if it has none."""
    _deadline.set(float("inf") if left_s is None else time.monotonic() + left_s)


def left_s() -> float:
    """Return the time left for an answer; infinite outside of calls."""
    return _deadline.get() - time.monotonic()
