"""``forebay.Client``: the public face, and the hit path.

A hit costs no message, no lock and no system call: what the client remembers of a path leads to the
object's record in the shared table; if the record is the one that was verified before, the bytes are
copied from the mapped segment, and if the record has not changed then, the bytes are right. The
rules are in ``forebay_protos.table``.
"""

from __future__ import annotations

import os
from time import time_ns
from typing import IO, TYPE_CHECKING, Any, TypeVar

from forebay import _local, _names
from forebay._attach import attachments
from forebay._channel import channel_to
from forebay._errors import ForebayError, InvalidPathError, ObjectNotFoundError
from forebay._file import open_file
from forebay._memo import Memo
from forebay._miss import Reader, Target
from forebay._paths import PathMapping, parse_mapping
from forebay._shared import SharedCache, is_resident
from forebay._types import Stat, Stats
from forebay_protos.addresses import default_address
from forebay_protos.layout import LEASE_S
from forebay_protos.table import IDENTITY_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from forebay._memo import Remembered
    from forebay._types import CheckReport, WarmProgress

    Path = str | os.PathLike[str]

T = TypeVar("T")

_LEASE_NS = int(LEASE_S * 1e9)
_WARM_NS = 60 * 10**9  # touched so lately, by whatever process, its pages are in memory
_ROUNDS = 3


class Client:
    """Reads objects through the node's cache.

    Cheap to build, safe to fork, to pickle and to share between threads. Connections and mappings
    belong to the process, not to the client.

    Example:
        >>> client = forebay.Client(path_mapping={"data/coco/": "s3://bucket/coco/"})
        >>> image_bytes = client.get("data/coco/train2017/000000000009.jpg")
    """

    def __init__(
        self,
        address: str | None = None,
        path_mapping: Mapping[str, str] | None = None,
        timeout_s: float = 60.0,
    ) -> None:
        """Make a client; nothing is connected before the first call.

        Args:
            address: ``unix:/path/to.sock`` or ``host:port``; else $FOREBAY_ADDRESS, else the
                default socket.
            path_mapping: prefixes of paths to URIs; wins over $FOREBAY_PATH_MAPPING, which wins
                over the daemon's.
            timeout_s: how long a call waits for the daemon.
        """
        self._address = address
        self._own_mapping = dict(path_mapping or {})
        self._timeout_s = timeout_s
        self._channel = channel_to(address or os.environ.get("FOREBAY_ADDRESS") or default_address())
        self._tiers = [
            self._own_mapping,
            parse_mapping(os.environ.get("FOREBAY_PATH_MAPPING", "")),
        ]
        PathMapping(self._tiers)  # a wrong one is told here, not at the first read
        self._closed = False
        self._detach()

    def _detach(self) -> None:
        """Forget everything that belongs to an attachment."""
        self._shared: SharedCache | None = None  # set: hits are possible
        self._reader: Reader | None = None  # set: attached, shared or not
        self._mapping: PathMapping | None = None
        self._memo = Memo()
        self._checked_ns = 0

    # --- the hit path ------------------------------------------------------------------------

    def get(self, path: Path, start: int | None = None, end: int | None = None) -> bytes:
        """Return an object's bytes [start, end).

        Negative positions count from the end and what lies beyond it is cut off, as in fsspec's
        ``cat_file``. Raises ObjectNotFoundError (a FileNotFoundError) and the other errors of
        ``forebay.ForebayError``.
        """
        if start is None and end is None:
            known = self._memo.young.get(path)
            if known is not None:
                at, at_end, record, mapping, begin, finish, slot, stale_after_ns, _ = known
                shared = self._shared
                now = time_ns()
                if (
                    shared is not None
                    and 0 <= now - self._checked_ns < _LEASE_NS
                    and now < stale_after_ns
                    and now - shared.recency[slot] < _WARM_NS
                ):
                    table = shared.table
                    if table[at:at_end] == record:
                        data = mapping[begin:finish]
                        if table[at:at_end] == record:
                            shared.recency[slot] = now
                            row = shared.row.values
                            row[0] += 1
                            row[1] += finish - begin
                            return data
        return self._get(path, start, end)

    def _get(self, path: Path, start: int | None, end: int | None) -> bytes:
        """``get`` for everything but the repeated hit of a whole packed object."""
        shared = self._attached()
        if shared is not None and start is None and end is None:
            known = self._remember(shared, path)
            if known is not None:
                data = self._copy(shared, known)
                if data is not None:
                    return data
        reader = self._reader_now()
        return reader.read(self._target(path), start, end)

    def _remember(self, shared: SharedCache, path: Path) -> Remembered | None:
        """Return what a hit of a packed object needs, looked up anew; None if it is no such hit."""
        known = self._memo.get(path)
        if known is None or shared.table[known[0] : known[1]] != known[2]:
            target = self._target(path)
            found = shared.find(target.fingerprint)
            if found is None or not found.record.is_packed:
                return None
            record = found.record
            try:
                mapping, fd = shared.segment(record.segment)
            except OSError:
                return None
            begin = record.offset
            known = (
                found.offset,
                found.offset + len(found.data),
                found.data,
                mapping,
                begin,
                begin + record.size_bytes,
                found.slot,
                record.stale_after_ns,
                fd,
            )
            self._memo.put(path, known)
            # New to this process: its pages may be on the disk, whatever the recency says.
            if not is_resident(fd, begin, begin + max(1, record.size_bytes)):
                _read_ahead(fd, begin, record.size_bytes)
        elif time_ns() - shared.recency[known[6]] >= _WARM_NS and not is_resident(
            known[8], known[4], max(known[4] + 1, known[5])
        ):
            _read_ahead(known[8], known[4], known[5] - known[4])
        return known if time_ns() < known[7] else None

    @staticmethod
    def _copy(shared: SharedCache, known: Remembered) -> bytes | None:
        """Return the verified bytes, or None if the record changed."""
        at, _, record, mapping, begin, finish, slot, _, _ = known
        data = mapping[begin:finish]
        if shared.table[at : at + IDENTITY_SIZE] != record[:IDENTITY_SIZE]:
            return None
        _count(shared, slot, finish - begin)
        return data

    def apply(self, path: Path, function: Callable[[memoryview], T]) -> T:
        """Return ``function(view)`` for a read-only view of the object's bytes, without a copy.

        The view is valid only inside *function*: what it returns must not refer to it. If the bytes
        are evicted meanwhile, *function* is run again, and what it returned or raised before does not
        count; so it must bear being repeated.

        Raises ForebayError if the result still holds the view (``numpy.frombuffer`` does): copy it.
        """
        for _ in range(_ROUNDS):
            shared = self._attached()
            known = None if shared is None else self._remember(shared, path)
            if shared is None or known is None:
                break
            at, at_end, record, mapping, begin, finish, slot, _, _ = known
            if shared.table[at:at_end] != record:
                continue
            whole = memoryview(mapping)
            try:
                result = _call(function, whole[begin:finish])
            except ForebayError:
                raise
            except Exception:
                if shared.table[at : at + IDENTITY_SIZE] == record[:IDENTITY_SIZE]:
                    raise
                continue
            if shared.table[at : at + IDENTITY_SIZE] == record[:IDENTITY_SIZE]:
                _count(shared, slot, finish - begin)
                return result
        return self._reader_now().apply(self._target(path), lambda view: _call(function, view))

    def get_many(self, paths: Iterable[Path]) -> list[bytes]:
        """Return the bytes of several objects, in order; misses are filled concurrently.

        If some cannot be read, the error of the first of them is raised, after all were tried.
        """
        wanted = list(paths)
        results: list[bytes | None] = []
        append = results.append
        missing: list[int] = []
        shared = self._attached()
        young = self._memo.young
        if shared is None:
            missing = list(range(len(wanted)))
            results = [None] * len(wanted)
        else:
            table, recency, row = shared.table, shared.recency, shared.row.values
            hits = hit_bytes = 0
            for path in wanted:
                known = young.get(path)
                if known is not None:
                    at, at_end, record, mapping, begin, finish, slot, stale_after_ns, _ = known
                    now = time_ns()
                    if (
                        now < stale_after_ns
                        and now - recency[slot] < _WARM_NS
                        and table[at:at_end] == record
                    ):
                        data = mapping[begin:finish]
                        if table[at:at_end] == record:
                            recency[slot] = now
                            hits += 1
                            hit_bytes += finish - begin
                            append(data)
                            continue
                known = self._remember(shared, path)
                copied = None if known is None else self._copy(shared, known)
                if copied is None:
                    missing.append(len(results))
                append(copied)
            row[0] += hits
            row[1] += hit_bytes
        if missing:
            reader = self._reader_now()
            found = reader.read_many([self._target(wanted[index]) for index in missing])
            for index, data_or_error in zip(missing, found, strict=True):
                if isinstance(data_or_error, Exception):
                    raise data_or_error
                results[index] = data_or_error
        return results  # type: ignore[return-value]  # every None was replaced

    # --- attachment and paths ----------------------------------------------------------------

    def _attached(self) -> SharedCache | None:
        """Return the shared folder if hits are possible, attached anew if it was replaced."""
        now = time_ns()
        if self._reader is not None and 0 <= now - self._checked_ns < _LEASE_NS:
            return self._shared
        if self._closed:
            raise ForebayError("this client is closed")
        attached = attachments.get(self._channel, self._timeout_s)
        shared = attached if isinstance(attached, SharedCache) else None
        if self._reader is None or shared is not self._shared:
            attachment = attached.attachment if isinstance(attached, SharedCache) else attached
            self._detach()
            self._mapping = PathMapping([*self._tiers, attachment.path_mapping])
            self._shared = shared
            self._reader = Reader(self._channel, shared, self._timeout_s)
        self._checked_ns = now
        return self._shared

    def _reader_now(self) -> Reader:
        self._attached()
        assert self._reader is not None  # noqa: S101  # set by _attached
        return self._reader

    def _target(self, path: Path) -> Target:
        """Return what *path* names. Raises InvalidPathError."""
        shared = self._attached()
        assert self._mapping is not None  # noqa: S101  # set by _attached
        uri = self._mapping.uri(path)
        if shared is None:
            return Target(uri, b"")
        found = shared.fingerprint(uri)
        if found is None:
            raise InvalidPathError(
                f"no origin of the daemon serves {uri!r}: add an [[origin]] to its configuration"
            )
        return Target(*found)

    def _uri(self, path: Path) -> str:
        return self._target(path).uri

    # --- files and names ---------------------------------------------------------------------

    def open(self, path: Path, mode: str = "rb") -> IO[bytes]:
        """Return a seekable binary file of one version of the object, to its end.

        A sequential reader is read ahead for. Raises StaleFileError when the object changes at the
        origin before all of it was read.
        """
        if mode not in ("rb", "r+b", "br"):
            raise InvalidPathError(f'mode {mode!r} is not supported: open objects with "rb"')
        return open_file(self._reader_now(), self._target(path))

    def stat(self, path: Path) -> Stat:
        """Return size, version and time of an object, as of at most ``max_age`` ago."""
        stat = _names.stat(self._channel, self._uri(path), self._timeout_s)
        if stat is None:
            raise ObjectNotFoundError(f"{self._uri(path)} is a prefix, not an object")
        return stat

    def exists(self, path: Path) -> bool:
        """Tell whether there is an object or a prefix of this name."""
        try:
            _names.stat(self._channel, self._uri(path), self._timeout_s)
        except ObjectNotFoundError:
            return False
        return True

    def isfile(self, path: Path) -> bool:
        """Tell whether there is an object of this name."""
        try:
            return _names.stat(self._channel, self._uri(path), self._timeout_s) is not None
        except ObjectNotFoundError:
            return False

    def isdir(self, path: Path) -> bool:
        """Tell whether there are objects below this name."""
        return _names.has_below(self._channel, self._uri(path), self._timeout_s)

    def list(self, path: Path, recursive: bool = False) -> Iterator[Stat | str]:
        """Yield what is below a prefix: a Stat an object and, unless *recursive*, a URI that ends with
        "/" a prefix."""
        return _names.listing(self._channel, self._uri(path), recursive, self._timeout_s)

    def local_path(self, path: Path) -> AbstractContextManager[str]:
        """Return a context manager of a real local file, or of a folder with what is below a prefix.

        For what can only open a path: lmdb.open, mmap, C++ readers. The files stay until the context
        is left, and must not be written.
        """
        return _local.local_path(self._channel, self._reader_now(), self._uri(path), self._timeout_s)

    # --- the cache ---------------------------------------------------------------------------

    def warm(
        self,
        paths_or_prefix: Path | Sequence[Path],
        progress: Callable[[WarmProgress], None] | None = None,
    ) -> WarmProgress:
        """Bring objects, or everything below a prefix, into the cache; returns the final progress.

        *progress* is called a few times a second. What could not be read is in ``failures``.
        """
        if isinstance(paths_or_prefix, (str, os.PathLike)):
            return _names.warm(self._channel, [], self._uri(paths_or_prefix), progress, self._timeout_s)
        uris = [self._uri(path) for path in paths_or_prefix]
        return _names.warm(self._channel, uris, "", progress, self._timeout_s)

    def evict(self, prefix: Path) -> tuple[int, int]:
        """Drop what is cached of an object or below a prefix; returns (objects, bytes)."""
        return _names.evict(self._channel, self._uri(prefix), self._timeout_s)

    def pin(self, prefix: Path) -> int:
        """Keep an object or a prefix from being evicted for space, now and when it is filled later.

        Returns how many cached objects are newly pinned. Explicit ``evict`` still drops them.
        """
        return _names.pin(self._channel, self._uri(prefix), True, self._timeout_s)

    def unpin(self, prefix: Path) -> int:
        """Undo ``pin`` of the same prefix; returns how many cached objects are free to go."""
        return _names.pin(self._channel, self._uri(prefix), False, self._timeout_s)

    def stats(self) -> Stats:
        """Return what the daemon counts, this process's hits included."""
        return _names.stats(self._channel, self._timeout_s)

    def check(self, repair: bool = False) -> CheckReport:
        """Compare the cache's catalogue, table, files and totals; mend them with *repair*."""
        return _names.check(self._channel, repair, self._timeout_s)

    # --- life --------------------------------------------------------------------------------

    def close(self) -> None:
        """Make this client unusable. The process's connection stays for other clients."""
        self._detach()
        self._closed = True

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return Client, (self._address, self._own_mapping, self._timeout_s)

    def __repr__(self) -> str:
        return f"forebay.Client({self._channel.address!r})"


def _count(shared: SharedCache, slot: int, size_bytes: int) -> None:
    shared.recency[slot] = time_ns()
    row = shared.row.values
    row[0] += 1
    row[1] += size_bytes


def _read_ahead(fd: int, start: int, length: int) -> None:
    """Bring an object's pages into memory without the GIL, and no more than its own."""
    os.pread(fd, length, start)


def _call(function: Callable[[memoryview], T], view: memoryview) -> T:
    """Call *function* and make sure that its result does not refer to the view."""
    result = function(view)
    if isinstance(result, memoryview) and result.obj is view.obj:
        result.release()
        raise ForebayError("apply's function returned a part of its view: return bytes(view[…])")
    try:
        view.release()
    except BufferError as error:
        raise ForebayError(
            "apply's function returned an object that refers to its view, whose bytes may change "
            "later: return a copy (numpy.frombuffer(view).copy())"
        ) from error
    return result
