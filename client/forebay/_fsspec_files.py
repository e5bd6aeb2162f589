"""Files as fsspec's users expect them, over those of the client. Imports no framework."""

from __future__ import annotations

import contextlib
import io
import sys
from typing import IO, TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from forebay._writer import ObjectWriter

_FRAMES = 8  # between the end of a `with` and the file that it closes
_THEIRS = ("fsspec/core.py", "pandas/io/common.py")


class _Discardable(io.IOBase):
    """A file that publishes nothing if an exception leaves its ``with``, or if it is dropped."""

    def discard(self) -> None:
        """Publish nothing."""
        raise NotImplementedError

    def __exit__(self, error_class: object, *_: object) -> None:
        if error_class is None:
            self.close()
        else:
            self.discard()

    def __del__(self) -> None:
        """Leave it to the writer's own finalizer, which publishes nothing."""


class Written(_Discardable, io.BufferedIOBase):
    """A file open for writing, with the attributes that users of fsspec look at.

    In a transaction it is published by ``commit``, after it was closed.
    """

    def __init__(self, fs: Any, path: str, writer: ObjectWriter, *, is_deferred: bool) -> None:
        super().__init__()
        self.fs = fs
        self.path = path
        self.mode = writer.mode
        self._writer = writer
        self._is_deferred = is_deferred

    def writable(self) -> bool:
        return not self.closed

    def tell(self) -> int:
        return self._writer.tell()

    def write(self, data: Buffer, /) -> int:
        if self.closed:
            raise ValueError("I/O operation on closed file")
        return self._writer.write(data)

    def close(self) -> None:
        if self.closed:
            return
        if _is_left_by_exception():
            self.discard()
            return
        try:
            if not self._is_deferred:
                self._writer.close()
        finally:
            super().close()

    def commit(self) -> None:
        """Publish what was written."""
        self._writer.close()

    def discard(self) -> None:
        """Publish nothing."""
        self._writer.discard()
        super().close()


class Compressed(_Discardable, io.BufferedIOBase):
    """A file open for writing that compresses; the compressors leave the file below them open."""

    def __init__(self, file: Written, compressor: Any) -> None:
        super().__init__()
        self._file = file
        self._compressor = compressor

    def writable(self) -> bool:
        return not self.closed

    def write(self, data: Buffer, /) -> int:
        return int(self._compressor.write(data))

    def close(self) -> None:
        if self.closed:
            return
        try:
            self._compressor.close()
            self._file.close()
        except BaseException:
            self._file.discard()
            raise
        finally:
            super().close()

    def discard(self) -> None:
        """Publish nothing."""
        self._file.discard()
        with contextlib.suppress(ValueError):  # it has an end to write
            self._compressor.close()
        super().close()


class WrittenText(_Discardable, io.TextIOWrapper):
    """A file of text in front of one that can be discarded."""

    def __init__(self, file: Written | Compressed, **options: Any) -> None:
        super().__init__(cast("IO[bytes]", file), **options)
        self._file = file

    def discard(self) -> None:
        """Publish nothing."""
        self._file.discard()


def _is_left_by_exception() -> bool:
    """Tell whether an exception has left a ``with`` that closes a file now.

    fsspec's OpenFile and pandas' handles close their files then as ever, and only the frame of
    their ``__exit__`` knows of the exception. Others are not asked: what somebody's ``__exit__``
    saves because of an exception is to be saved.
    """
    frame = sys._getframe(1).f_back
    for _ in range(_FRAMES):
        if frame is None:
            return False
        code = frame.f_code
        if code.co_name == "__exit__" and code.co_filename.endswith(_THEIRS):
            told = frame.f_locals.get(code.co_varnames[1])
            return any(told) if isinstance(told, tuple) else told is not None
        frame = frame.f_back
    return False
