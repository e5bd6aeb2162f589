"""The public client. Thin: each method is a hit, or a question to the daemon."""

from __future__ import annotations

import io
import json
import os
from array import array
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar, overload

from forebay import _uploads, _writes
from forebay._errors import InvalidPathError, ObjectNotFoundError
from forebay._file import open_object
from forebay._hits import Hits
from forebay._local import downloaded, leased
from forebay._misses import Misses
from forebay._node import Node, node_at
from forebay._pages import lend
from forebay._paths import as_text, check_mapping, parse_mapping
from forebay._values import CheckReport, Evicted, Problem, Stat, Stats, WarmProgress
from forebay._warm import warm
from forebay._writer import ObjectWriter, TextWriter, parse_mode
from forebay_protos import addresses
from forebay_protos import cache_pb2 as pb

if TYPE_CHECKING:
    import builtins
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from contextlib import AbstractContextManager
    from types import TracebackType

    from typing_extensions import Buffer, Self

    from forebay._paths import StrPath, Tier
    from forebay._values import FlushProgress, Upload

Result = TypeVar("Result")

_LONGEST_EXPIRY_S = 7 * 24 * 3600  # S3's limit
_LONGEST_TIMEOUT_S = 1e7  # for gRPC, which knows none without an end

_VARIABLES = ("FOREBAY_ADDRESS", "FOREBAY_PATH_MAPPING", "FOREBAY_CACHE_DIR")
_ATTRIBUTES = ("_made_of", "_is_open", "_timeout_s", "_node", "_hits", "_misses")
_Arguments: TypeAlias = "tuple[str | None, Mapping[str, str] | None, float]"

_readers: dict[tuple[Node, tuple[Tier, ...]], tuple[Hits, Misses]] = {}


class Client:
    """Reads Ceph/S3 through the node's Forebay cache, and writes to it behind the node's disk.

    Cheap to make, picklable, safe with threads and under fork; all Clients of a process with the
    same address share one connection and one attachment to the cache folder.

    A *path* is a URI (``s3://bucket/key``) or a path that ``path_mapping`` turns into one.
    """

    def __init__(
        self,
        address: str | None = None,
        path_mapping: Mapping[str, str] | None = None,
        timeout_s: float = 60.0,
    ) -> None:
        """Make a client; nothing is opened before the first use.

        Args:
            address: ``unix:/path/to.sock`` or ``host:port``; by default ``$FOREBAY_ADDRESS``, else
                the socket of a daemon that was told no other.
            path_mapping: prefixes of paths and the URIs that take their place; goes before
                ``$FOREBAY_PATH_MAPPING``, which goes before the daemon's.
            timeout_s: how long a miss may take, a daemon that is down included; for each 64 MiB of
                a larger one. Hits never wait.
        """
        self._set_up((address, path_mapping, timeout_s), tuple(map(os.environ.get, _VARIABLES)))

    def _set_up(self, arguments: _Arguments, environment: tuple[str | None, ...]) -> None:
        told, path_mapping, timeout_s = arguments
        address_outside, mapping_outside, cache_dir = environment
        own = () if path_mapping is None else check_mapping(path_mapping)
        if not timeout_s > 0:
            raise ValueError(f"timeout_s must be more than 0 seconds, not {timeout_s!r}")
        copied = None if path_mapping is None else dict(path_mapping)
        self._made_of = (told, copied, timeout_s), environment
        self._is_open = True
        checked = _address(told, address_outside)
        tiers = (own, check_mapping(parse_mapping(mapping_outside)) if mapping_outside else ())
        self._timeout_s = min(timeout_s, _LONGEST_TIMEOUT_S)
        self._node = node_at(checked, cache_dir or None)
        readers = _readers.get((self._node, tiers))
        if readers is None:
            hits = Hits(self._node, tiers)
            readers = hits, Misses(self._node, hits, tiers)
            _readers[self._node, tiers] = readers
        self._hits, self._misses = readers

    # --- reading -----------------------------------------------------------------------------

    def get(self, path: StrPath, start: int | None = None, end: int | None = None) -> bytes:
        """Return an object's bytes, or the slice [start:end] of them, as ``bytes`` would slice.

        Raises ObjectNotFoundError, which is a FileNotFoundError.
        """
        data = self._hits.get(path, start, end)
        if data is None:
            data = self._misses.get(path, start, end, self._timeout_s)
        return data

    def get_many(self, paths: Iterable[StrPath]) -> list[bytes]:
        """Return objects in the order of *paths*; what is missing is filled concurrently.

        If some cannot be had, the others are filled all the same, and the error of the first
        failing path is raised.
        """
        wanted = list(paths)
        get = self._hits.get
        try:
            results = [get(path) for path in wanted]
        except InvalidPathError:  # which is raised once the others are filled
            results = [None] * len(wanted)
        if None in results:
            self._misses.get_many(wanted, results, self._timeout_s)
        return results  # type: ignore[return-value]  # no None is left

    def apply(self, path: StrPath, function: Callable[[memoryview], Result]) -> Result:
        """Return ``function(view)`` for a read-only view of the object's bytes, without a copy.

        The view is only valid inside the function. The function is run again if the object left the
        cache meanwhile, so it should have no other effect than its result. A result that still
        refers to the bytes (``numpy.frombuffer(view)``) raises BufferError: return a copy of it.
        """
        applied = self._hits.apply(as_text(path), function)
        if applied is not None:
            return applied[0]
        return lend(memoryview(self._misses.get(path, None, None, self._timeout_s)), function)

    @overload
    def open(self, path: StrPath, mode: Literal["rb", "br"] = "rb") -> io.BufferedReader: ...

    @overload
    def open(
        self, path: StrPath, mode: Literal["wb", "xb", "ab", "bw", "bx", "ba"]
    ) -> ObjectWriter: ...

    @overload
    def open(
        self,
        path: StrPath,
        mode: Literal["w", "x", "a", "wt", "xt", "at"],
        *,
        encoding: str | None = ...,
        errors: str | None = ...,
        newline: str | None = ...,
    ) -> TextWriter: ...

    @overload
    def open(
        self,
        path: StrPath,
        mode: str = ...,
        *,
        encoding: str | None = ...,
        errors: str | None = ...,
        newline: str | None = ...,
    ) -> io.BufferedReader | io.TextIOWrapper | ObjectWriter: ...

    def open(
        self,
        path: StrPath,
        mode: str = "rb",
        *,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> io.BufferedReader | io.TextIOWrapper | ObjectWriter:
        """Open an object as a file; without "b" in *mode*, as a file of text (UTF-8 by default).

        "r": seekable, with read-ahead for sequential readers. It is one version of the object;
        StaleFileError is raised if that cannot be kept. "w", "x" (the object must not exist) and
        "a": from the begin to the end, in constant memory; the object is there, durable on this
        node (of "x": in the origin), when the file is closed. Nothing is written if a ``with``
        block is left by an exception, or if the file is not closed.
        """
        letter, is_text = parse_mode(mode)
        text = encoding or "utf-8", errors, newline
        if not is_text and (encoding, errors, newline) != (None, None, None):
            raise ValueError(f"mode {mode!r} takes no encoding, errors or newline")
        if letter == "r":
            file = open_object(self._node, self._hits, self._misses, as_text(path), self._timeout_s)
            return io.TextIOWrapper(file, *text) if is_text else file
        uri = self._uri(path)
        if letter == "x":
            _writes.check_absent(self._node, uri, self._timeout_s)
        writer = ObjectWriter(self._node, self._misses, as_text(path), uri, letter, self._timeout_s)
        if not is_text:
            return writer
        try:
            return TextWriter(writer, *text)
        except BaseException:
            writer.discard()
            raise

    def local_path(self, path: StrPath) -> AbstractContextManager[str]:
        """Return a context manager of a real file with the object's bytes, for reading only.

        For a prefix it is a folder with everything below it. Both stay while the context is open,
        whatever is evicted.
        """
        uri = self._uri(path)
        folder = self._node.folder()
        if folder is not None:
            return leased(self._node, folder, uri, self._timeout_s)

        def list_below(prefix: str) -> Iterator[str]:
            return (entry.uri for entry in self._list(prefix, recursive=True))

        return downloaded(self._node, self._hits, self._misses, uri, list_below, self._timeout_s)

    # --- writing -----------------------------------------------------------------------------

    def put(self, path: StrPath, data: Buffer | str, *, mode: str | None = None) -> None:
        """Write an object; a str as UTF-8.

        Returns when the bytes are durable on this node and all its clients see them; they are
        uploaded behind that, in order. In *mode* "write_through", or if that is how the origin is
        set, returns when the origin has them; None is as the origin is set. Raises SpoolFullError
        if there is no room for so long as ``timeout_s``.
        """
        _writes.put(self._node, self._uri(path), data, mode, self._timeout_s)

    def put_file(self, path: StrPath, local_path: StrPath, *, mode: str | None = None) -> None:
        """Write the bytes of a local file; otherwise as ``put``."""
        _writes.put_file(self._node, self._uri(path), local_path, mode, self._timeout_s)

    def remove(self, path: StrPath, missing_ok: bool = False) -> None:
        """Remove an object: hidden at once, and from the origin after all earlier writes to it.

        Raises ObjectNotFoundError, unless *missing_ok* or the origin cannot be asked.
        """
        _writes.remove(self._node, self._uri(path), self._timeout_s, missing_ok=missing_ok)

    def remove_tree(self, prefix: StrPath) -> None:
        """Remove everything below a prefix, and the object of that name; as ``remove``."""
        _writes.remove_tree(self._node, self._uri(prefix), self._timeout_s)

    def copy(self, source: StrPath, target: StrPath) -> None:
        """Copy an object, after all earlier writes to its origin; returns when it is done."""
        uris = self._uri(source), self._uri(target)
        _writes.copy(self._node, self._misses, *uris, self._timeout_s)

    def move(self, source: StrPath, target: StrPath) -> None:
        """Move an object, after all earlier writes to its origin; returns when it is done."""
        uris = self._uri(source), self._uri(target)
        _writes.move(self._node, self._misses, *uris, self._timeout_s)

    def flush(
        self,
        paths_or_prefix: StrPath | Iterable[StrPath] | None = None,
        timeout_s: float | None = None,
        progress: Callable[[FlushProgress], object] | None = None,
    ) -> None:
        """Wait until what was written (to these objects, below this prefix, or anywhere) is in the
        origins, whoever of the node has written it.

        Raises UploadFailedError if some of it failed for good, DeadlineExceededError after
        *timeout_s*; the uploads go on. *progress* is called some times a second.
        """
        if paths_or_prefix is None:
            prefixes = []
        elif isinstance(paths_or_prefix, (str, os.PathLike)):
            prefixes = [self._uri(paths_or_prefix)]
        else:
            prefixes = [self._uri(path) for path in paths_or_prefix]
            if not prefixes:
                return
        _uploads.flush(self._node.channel, prefixes, timeout_s, self._timeout_s, progress)

    def uploads(self) -> builtins.list[Upload]:
        """Return the writes that are not in their origins yet, in order."""
        return _uploads.ask(self._node.channel, self._timeout_s)[0]

    def settle_uploads(self, ids: Iterable[str] | None = None, *, discard: bool = False) -> int:
        """Try uploads again now, or discard them; without *ids*, all that failed for good.

        Returns how many. What is discarded is lost.
        """
        chosen = [] if ids is None else [*ids]
        if ids is not None and not chosen:
            return 0
        return _uploads.settle(self._node.channel, chosen, self._timeout_s, discard=discard)

    # --- what needs the origin's keys --------------------------------------------------------

    def presign(self, path: StrPath, method: str = "get_object", expires_s: int = 3600) -> str:
        """Return a URL with which anybody may do *method* to an object of S3 for *expires_s*.

        *method*: "get_object", "put_object", "head_object" or "delete_object". It goes past this
        node's cache, and what is not uploaded yet it does not find: ``flush`` first.
        """
        _check_expiry(expires_s)
        request = pb.SignRequest(uri=self._uri(path), method=method, expires_s=expires_s)
        return str(self._call("Sign", request).url)

    def presign_form(
        self,
        path: StrPath,
        fields: Mapping[str, str] | None = None,
        conditions: Iterable[Any] | None = None,
        expires_s: int = 3600,
    ) -> dict[str, Any]:
        """Return ``url`` and ``fields`` of a form with which anybody may write an object of S3.

        *fields* and *conditions* are those of S3's POST policies.
        """
        _check_expiry(expires_s)
        form = {
            "fields": None if fields is None else dict(fields),
            "conditions": None if conditions is None else [*conditions],
        }
        reply = self._call(
            "Sign",
            pb.SignRequest(
                uri=self._uri(path), method="post", expires_s=expires_s, form_json=json.dumps(form)
            ),
        )
        return {"url": reply.url, "fields": json.loads(reply.fields_json)}

    def create_bucket(self, path: StrPath) -> None:
        """Make the bucket of a URI in its origin, unless it is there."""
        self._call("CreateBucket", pb.CreateBucketRequest(uri=self._uri(path)))

    # --- names -------------------------------------------------------------------------------

    def stat(self, path: StrPath) -> Stat:
        """Return what is known of an object. Raises ObjectNotFoundError, for a bare prefix too."""
        reply = self._stat(path)
        if reply.is_prefix:
            raise ObjectNotFoundError(f"{reply.uri} is a prefix, not an object")
        return Stat.from_reply(reply)

    def exists(self, path: StrPath) -> bool:
        """Tell whether there is an object or a prefix of this name."""
        if self._hits.contains(as_text(path)):
            return True
        try:
            self._stat(path)
        except ObjectNotFoundError:
            return False
        return True

    def isfile(self, path: StrPath) -> bool:
        """Tell whether there is an object of this name."""
        if self._hits.contains(as_text(path)):
            return True
        try:
            return not self._stat(path).is_prefix
        except ObjectNotFoundError:
            return False

    def isdir(self, path: StrPath) -> bool:
        """Tell whether there are objects below this name."""
        try:
            return next(self._list(self._uri(path), recursive=False), None) is not None
        except ObjectNotFoundError:
            return False

    def list(self, path: StrPath, recursive: bool = False) -> Iterator[Stat | str]:
        """Yield what lies below a prefix: a Stat for each object, a URI with "/" for each prefix.

        Recursively, all objects and no prefixes. A prefix without objects yields nothing.
        """
        return self._entries(self._uri(path), recursive=recursive)

    def _entries(
        self, uri: str, *, recursive: bool = False, fresh: bool = False
    ) -> Iterator[Stat | str]:
        for entry in self._list(uri, recursive=recursive, fresh=fresh):
            yield entry.uri if entry.is_prefix else Stat.from_reply(entry)

    def is_mapped(self, path: StrPath) -> bool:
        """Tell whether a mapping covers it: this client's, the environment's or the daemon's.

        Of a daemon that is down and was never asked, nothing is known, and not waited for.
        """
        return self._misses.known_paths().maps(as_text(path))

    # --- what is cached ----------------------------------------------------------------------

    def is_cached(self, path: StrPath) -> bool:
        """Tell whether all of an object can be read without a message to the daemon; sends none.

        False of everything where the cache folder is not shared.
        """
        return self._hits.is_whole(as_text(path))

    def warm(
        self,
        paths_or_prefix: StrPath | Iterable[StrPath],
        progress: Callable[[WarmProgress], object] | None = None,
    ) -> WarmProgress:
        """Fill all these objects, or everything below a prefix, and return how it went.

        *progress* is called some times a second. Objects that fail are in the result and do not
        keep the others.
        """
        if isinstance(paths_or_prefix, (str, os.PathLike)):
            prefix, uris = self._uri(paths_or_prefix), None
        else:
            prefix, uris = "", [self._uri(path) for path in paths_or_prefix]
        return warm(self._node.channel, prefix, uris, self._timeout_s, progress)

    def evict(self, prefix: StrPath | None = None, *, everything: bool = False) -> Evicted:
        """Drop what is cached of an object, of all below a prefix, or of everything."""
        if (prefix is None) is not everything:
            raise ValueError("evict needs a path or prefix, or everything=True")
        uri = "" if prefix is None else self._uri(prefix)
        reply = self._call("Evict", pb.EvictRequest(prefix=uri, all=everything))
        return Evicted(reply.objects, reply.bytes)

    def pin(self, prefix: StrPath) -> int:
        """Keep an object or a prefix from eviction for space, what is filled later included.

        Returns how many cached objects this changed.
        """
        return self._pin(prefix, pinned=True)

    def unpin(self, prefix: StrPath) -> int:
        """Undo ``pin``; returns how many cached objects this changed."""
        return self._pin(prefix, pinned=False)

    def _pin(self, prefix: StrPath, *, pinned: bool) -> int:
        return int(
            self._call("Pin", pb.PinRequest(prefix=self._uri(prefix), pinned=pinned)).objects
        )

    def check(self, *, repair: bool = False) -> CheckReport:
        """Have the daemon compare its catalogue, table, files and totals."""
        reply = self._call("Check", pb.CheckRequest(repair=repair))
        problems = tuple(Problem(problem.what, problem.repaired) for problem in reply.problems)
        return CheckReport(problems, reply.objects, reply.bytes)

    def stats(self) -> Stats:
        """Return the daemon's statistics."""
        return Stats(json.loads(self._call("Stats", pb.StatsRequest()).json))

    # --- the client itself -------------------------------------------------------------------

    def close(self) -> None:
        """Give back what this process holds of the address, once its last Client is closed.

        A closed client that is used again opens what it needs.
        """
        if self._is_open:
            self._is_open = False
            self._node.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _: type[BaseException] | None,
        __: BaseException | None,
        ___: TracebackType | None,
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        # With the environment: that of a fork server may be older than this process's.
        added = {name: value for name, value in vars(self).items() if name not in _ATTRIBUTES}
        return _restored, (type(self), *self._made_of), added or None

    def __repr__(self) -> str:
        return f"forebay.Client({self._node.channel.address!r})"

    def _uri(self, path: StrPath) -> str:
        return self._misses.uri(path, self._timeout_s)

    def _call(self, method: str, request: Any) -> Any:
        return self._node.channel.call(method, request, self._timeout_s)

    def _stat(self, path: StrPath, *, fresh: bool = False) -> pb.StatReply:
        request = pb.StatRequest(uri=self._uri(path), fresh=fresh)
        reply: pb.StatReply = self._call("Stat", request)
        return reply

    def _list(self, uri: str, *, recursive: bool, fresh: bool = False) -> Iterator[pb.StatReply]:
        request = pb.ListRequest(uri=uri, recursive=recursive, fresh=fresh)
        told = array("q")  # hashes of the names, 8 bytes each: listings are of millions
        known: set[int] = set()  # after a restart of the daemon, all that were told before

        def start_over() -> pb.ListRequest:
            known.update(told)
            return request

        stream = self._node.channel.stream("List", start_over, self._timeout_s, has_deadline=False)
        for reply in stream:
            for entry in reply.entries:
                name = hash(entry.uri)
                if name not in known:
                    told.append(name)
                    yield entry


def _check_expiry(seconds: int) -> None:
    if seconds.__class__ is not int or not 0 < seconds <= _LONGEST_EXPIRY_S:
        raise ValueError(
            f"a signed request expires after 1 to {_LONGEST_EXPIRY_S} seconds, not {seconds!r}"
        )


def _restored(kind: type[Client], arguments: _Arguments, environment: tuple[Any, ...]) -> Client:
    client = object.__new__(kind)
    client._set_up(arguments, environment)
    return client


def _address(told: str | None, outside: str | None) -> str:
    """Return the address as a Node has it. Raises InvalidPathError."""
    found = told or outside
    if not found:
        return addresses.default_address()
    try:
        path = addresses.socket_path(found)
    except ValueError as error:
        source = "" if told else "FOREBAY_ADDRESS: "
        raise InvalidPathError(f"{source}{error}") from error
    return found if path is None else f"unix:{path}"
