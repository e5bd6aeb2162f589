"""Files that are open for writing. What is written is there for others once the file is closed.

Small ones stay in memory and are put at the end. Of a larger one the bytes go straight into a
staged file of the spool; when appending, or if this process does not share the cache folder, into
a temporary file. Nothing is published if the ``with`` block raises, if a write failed, or if the
file is dropped without having been closed.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import tempfile
import threading
import warnings
from typing import IO, TYPE_CHECKING, cast

from forebay._errors import ForebayError, StageLostError
from forebay._staging import Sink
from forebay._writes import InMemory, Joined, abandoned_on_error, append, as_view, publish
from forebay_protos import spool
from forebay_protos.spool import Trailer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from typing_extensions import Buffer

    from forebay._misses import Misses
    from forebay._node import Node

_MARKED = ("utf-16", "utf-32")  # which TextIOWrapper writes only where it can seek
_BUFFER_BYTES = 1 << 20
_FIRST_STAGE_BYTES = 8 << 20
_IN_MEMORY_BYTES = 64 << 20  # of what cannot be staged while it is written


def parse_mode(mode: str) -> tuple[str, bool]:
    """Return (one of "rwxa", whether it is text). Raises ValueError."""
    kinds = [letter for letter in mode if letter in "rwxa"]
    rest = [letter for letter in mode if letter not in "rwxa"]
    if "+" in rest:
        raise ValueError(f"mode {mode!r}: an object is read or written as a whole, not updated")
    if len(kinds) != 1 or rest not in ([], ["b"], ["t"]):
        raise ValueError(f"mode {mode!r}: give one of r, w, x or a, then b for bytes or t for text")
    return kinds[0], rest != ["b"]


class ObjectWriter(io.BufferedIOBase):
    """A binary file, from its begin to its end; not seekable. Thread-safe."""

    def __init__(
        self, node: Node, misses: Misses, path: str, uri: str, letter: str, timeout_s: float
    ) -> None:
        """*letter* is "w", "x" or "a"."""
        super().__init__()
        self.name = path
        self.mode = letter + "b"
        self._node = node
        self._misses = misses
        self._uri = uri
        self._timeout_s = timeout_s
        self._is_append = letter == "a"
        kind = {"w": spool.PUT, "x": spool.CREATE, "a": spool.APPEND}[letter]
        self._trailer = Trailer(kind, uri)
        self._pid = os.getpid()
        self._lock = threading.RLock()  # guards what follows; held while bytes are written
        self._buffer = bytearray()
        self._written = 0
        self._sink: Sink | None = None
        self._spare: IO[bytes] | None = None  # what is to be sent, or appended, at the end
        self._failure: BaseException | None = None

    def __repr__(self) -> str:
        return f"<forebay file name={self.name!r} mode={self.mode!r}>"

    # --- io.BufferedIOBase -------------------------------------------------------------------

    def writable(self) -> bool:
        self._check_open()
        return True

    def tell(self) -> int:
        """Return how many bytes were written here, also when appending."""
        self._check_open()
        return self._written

    def write(self, data: Buffer, /) -> int:
        """Write all of *data*: it is done with when this returns."""
        if isinstance(data, str):
            raise TypeError(f"{self.name} is open for bytes, not for text: use mode 'w'")
        view = as_view(data)
        with self._lock:
            self._check_open()
            if self._failure is not None:
                raise self._broken() from self._failure
            with self._remembering():
                if len(self._buffer) + len(view) < _BUFFER_BYTES:
                    self._buffer += view
                else:
                    self._push(view)
                self._written += len(view)
        return len(view)

    def flush(self) -> None:
        """Do nothing: what is written is to be seen by nobody before the file is closed."""
        self._check_open()

    def close(self) -> None:
        """Publish what was written; returns when it is durable on this node.

        Raises ObjectExistsError in mode "x" if there is an object by now.
        """
        with self._lock:
            if self.closed:
                return
            try:
                with self._remembering():
                    if self._failure is not None:
                        raise self._broken() from self._failure
                    self._publish()
            finally:
                self._end(is_abandoned=self._failure is not None)

    def discard(self) -> None:
        """Close the file and publish nothing."""
        with self._lock:
            if not self.closed:
                self._end(is_abandoned=True)

    def __exit__(
        self,
        error_class: type[BaseException] | None,
        error: BaseException | None,
        _: TracebackType | None,
    ) -> None:
        if error_class is None:
            self.close()
            return
        self.discard()
        # torch.save ends its archive also when a write failed, and raises what this leads to.
        failure = self._failure
        if error_class is RuntimeError and failure is not None and failure in _contexts(error):
            raise failure

    def __del__(self) -> None:
        if "_failure" in self.__dict__ and not self.closed:  # __init__ came to its end
            self.drop(self)

    def drop(self, file: object) -> None:
        """Close the file without a word to the daemon, for finalizers, and complain of *file*."""
        is_own = self._pid == os.getpid()
        if self._sink is not None:
            self._sink.drop()
        self._end(is_abandoned=False)
        if is_own:
            text = f"unclosed file {file!r}: nothing was written to {self._uri}"
            warnings.warn(text, ResourceWarning, stacklevel=3, source=file)

    # --- inside ------------------------------------------------------------------------------

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file")

    def _broken(self) -> ForebayError:
        return ForebayError(f"nothing was written to {self._uri}: an earlier write failed")

    @contextlib.contextmanager
    def _remembering(self) -> Iterator[None]:
        try:
            if self._pid != os.getpid():
                raise ForebayError(f"{self._uri} was opened before a fork, and is the parent's")
            yield
        except StageLostError as error:
            lost = StageLostError(
                f"nothing was written to {self._uri}: the daemon was restarted, or took back what "
                f"was written so far: write it again ({error})"
            )
            self._failure = self._failure or lost
            raise lost from error
        except BaseException as error:
            self._failure = self._failure or error
            raise

    def _push(self, view: memoryview) -> None:
        """Write what is in the buffer and *view* where they need no memory."""
        if self._sink is None and self._spare is None:
            staged = None
            if not self._is_append:
                first = max(_FIRST_STAGE_BYTES, len(self._buffer))
                staged = self._node.staging.take(self._uri, first, self._timeout_s)
            if staged is not None:
                self._sink = Sink(self._node.staging, staged, self._timeout_s)
            else:
                spare = tempfile.SpooledTemporaryFile(_IN_MEMORY_BYTES)  # noqa: SIM115  # ours to close
                self._spare = cast("IO[bytes]", spare)
        for piece in (memoryview(self._buffer), view):
            if self._sink is not None:
                self._sink.write(piece)
            elif self._spare is not None:
                self._spare.write(piece)
        self._buffer = bytearray()

    def _publish(self) -> None:
        if self._is_append:
            self._push(memoryview(b""))
        if self._sink is not None:
            rest = memoryview(self._buffer)
            trailer = Trailer(
                self._trailer.kind,
                self._uri,
                size_bytes=self._sink.written + len(rest),
                operation=self._trailer.operation,
            )
            with abandoned_on_error(self._sink):
                self._sink.finish(rest, trailer)
            self._sink = None
        elif self._spare is None:
            publish(self._node, self._trailer, InMemory(memoryview(self._buffer)), self._timeout_s)
        elif self._is_append:
            append(self._node, self._misses, self._uri, self._spare, self._written, self._timeout_s)
        else:
            self._push(memoryview(b""))
            body = Joined(lambda: iter(()), self._spare, self._written)
            publish(self._node, self._trailer, body, self._timeout_s)

    def _end(self, *, is_abandoned: bool) -> None:
        sink, self._sink = self._sink, None
        spare, self._spare = self._spare, None
        self._buffer = bytearray()
        super().close()
        if spare is not None:
            spare.close()
        if sink is not None and is_abandoned:
            sink.abandon()


def _contexts(error: BaseException | None) -> Iterator[BaseException]:
    """Yield what was being handled when *error* was raised, and so on."""
    while error is not None and (error := error.__context__) is not None:
        yield error


class TextWriter(io.TextIOWrapper):
    """A text file in front of an ObjectWriter, with the same promises."""

    def __init__(
        self, writer: ObjectWriter, encoding: str, errors: str | None, newline: str | None
    ) -> None:
        """Raises LookupError or ValueError for an encoding that this cannot be."""
        name = codecs.lookup(encoding).name
        if name in _MARKED or (name == "utf-8-sig" and writer.mode == "ab"):
            raise ValueError(
                f"encoding {encoding!r} begins with a mark: write with one that has none, such as "
                "utf-8 or utf-16-le"
            )
        super().__init__(cast("IO[bytes]", writer), encoding, errors, newline)
        self._writer = writer

    @property
    def mode(self) -> str:
        return self._writer.mode[0]

    def close(self) -> None:
        """As ObjectWriter.close; what cannot be encoded or flushed leaves nothing written."""
        if not self._writer.closed:
            try:
                self.flush()
            except BaseException:
                self.discard()
                raise
        super().close()

    def discard(self) -> None:
        """Close the file and publish nothing."""
        self._writer.discard()

    def __exit__(
        self,
        error_class: type[BaseException] | None,
        _: BaseException | None,
        __: TracebackType | None,
    ) -> None:
        if error_class is None:
            self.close()
        else:
            self.discard()

    def __del__(self) -> None:
        if "_writer" in self.__dict__ and not self._writer.closed:
            self._writer.drop(self)
