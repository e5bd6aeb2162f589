"""Bytes of cached files: read, brought into memory, or lent without a copy."""

from __future__ import annotations

import contextlib
import errno
import gc
import io
import os
import pickle
from collections import deque
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from forebay._mapping import OpenFile

Result = TypeVar("Result")

_MOST_PREAD = 0x7FFF_F000  # Linux reads no more at once
_PREREAD_BYTES = 8 << 20
_ALIASED = (
    "what the function given to apply() returned or kept still refers to the cached bytes, which "
    "may change later: return a copy (numpy.frombuffer(view).copy(), bytes(view))"
)


def read_file(file: OpenFile, start: int, length: int) -> bytes:
    """Return bytes of a file; fewer only if it is shorter."""
    if length <= _MOST_PREAD:
        return os.pread(file.fd, length, start)
    # One allocation: a list of pieces would need the memory twice.
    with io.FileIO(f"/proc/self/fd/{file.fd}") as whole:
        whole.seek(start)
        if start + length >= os.fstat(file.fd).st_size:
            return whole.readall()
        pieces = []
        while length and (piece := whole.read(min(length, _MOST_PREAD))):
            pieces.append(piece)
            length -= len(piece)
        return b"".join(pieces)


_probe = [bytearray(1)]  # nobody looks at what is read into it


def is_resident(file: OpenFile, offset: int) -> bool:
    """Tell whether a byte of a file is in the page cache; False where one cannot ask (tmpfs)."""
    try:
        return os.preadv(file.fd, _probe, offset, os.RWF_NOWAIT) == 1
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EOPNOTSUPP):
            return False
        raise


def preread(file: OpenFile, start: int, length: int) -> None:
    """Bring cold pages into memory while other threads run: a page fault would hold the GIL.

    By reading into a scratch buffer, not by ``posix_fadvise``: that returns before the pages are
    there, and the function would wait for them in faults.
    """
    if length and not is_resident(file, start + length - 1):
        scratch = bytearray(min(length, _PREREAD_BYTES))
        for offset in range(start, start + length, len(scratch)):
            os.preadv(file.fd, [scratch], offset)


# Views that what apply()'s functions raised or kept still refers to. CPython before 3.12.7 crashes
# when its collector clears a view while another one has its buffer (gh-77894): as long as that may
# be, no garbage has the last reference.
_exported: deque[tuple[memoryview, memoryview]] = deque()


def lend(view: memoryview, function: Callable[[memoryview], Result]) -> Result:
    """Return ``function(view)``. Raises BufferError if anything still refers to the view's bytes.

    The wrapper makes the lent view an exporter of its own: whatever is made from it (a slice, an
    array, at any depth) keeps the wrapper's hold on *view*, which then cannot be released.
    """
    if _exported:
        _look_at_one_that_is_exported()
    lent = memoryview(pickle.PickleBuffer(view))
    try:
        result = function(lent)
    except BaseException:
        if not _is_released(lent, view):  # the traceback has what the function made of it
            _exported.append((lent, view))
        raise
    try:
        lent.release()
        view.release()
    except BufferError:
        gc.collect()  # it may be in a cycle that is garbage already
        if not _is_released(lent, view):
            _exported.append((lent, view))
            raise BufferError(_ALIASED) from None
    if result is lent:  # which is of no use to the caller any more
        raise BufferError(_ALIASED)
    return result


def _look_at_one_that_is_exported() -> None:
    """Let go of it if it is so no more; of one in each call, as somebody may keep many errors."""
    with contextlib.suppress(IndexError):  # another thread has taken the last
        views = _exported.popleft()
        if not _is_released(*views):
            _exported.append(views)


def _is_released(*views: memoryview) -> bool:
    try:
        for view in views:
            view.release()
    except BufferError:
        return False
    return True
