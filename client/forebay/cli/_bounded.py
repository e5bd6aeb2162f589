"""Calls that may hang in the kernel (a dead disk, a name server), given a limit all the same."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

Result = TypeVar("Result")

_TIDY_S = 2.0  # for a call that is left by Ctrl-C to remove what it has made


def bounded(seconds: float, call: Callable[[], Result]) -> Result:
    """Return what *call* returns, or raise what it raises; TimeoutError after *seconds*.

    A call that takes longer goes on in a thread that ends with the process.
    """
    results: list[Result] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(call())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        thread.join(seconds)
    except BaseException:
        thread.join(_TIDY_S)
        raise
    if errors:
        raise errors[0]
    if not results:
        raise TimeoutError(f"no answer in {seconds:g} s")
    return results[0]
