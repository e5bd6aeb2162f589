"""Real local files of cached objects, for what can only open a path: lmdb.open, mmap, C++."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from forebay._errors import ForebayError, InvalidPathError, ObjectNotFoundError
from forebay._file import open_object
from forebay_protos import cache_pb2 as pb
from forebay_protos import layout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from forebay._folder import Folder
    from forebay._hits import Hits
    from forebay._misses import Misses
    from forebay._node import Node

_QUICK_TIMEOUT_S = 2.0


@contextlib.contextmanager
def leased(node: Node, folder: Folder, uri: str, timeout_s: float) -> Iterator[str]:
    """Hold a lease on an object's file, or on the folder of a prefix, in the cache folder."""
    # It fills with progress and no deadline, where Lease alone would have one for everything.
    is_prefix = node.channel.call("Stat", pb.StatRequest(uri=uri), timeout_s).is_prefix
    warm = pb.WarmRequest(prefix=uri) if is_prefix else pb.WarmRequest(uris=[uri])
    for _ in node.channel.stream("Warm", lambda: warm, timeout_s, has_deadline=False):
        pass
    reply = node.channel.call("Lease", pb.LeaseRequest(uri=uri), timeout_s)
    lock = os.open(f"{folder.path}/{reply.lease}/{layout.LOCK}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        # What tells the daemon that we live, whatever pid namespace it looks from.
        fcntl.flock(lock, fcntl.LOCK_SH)
        yield f"{folder.path}/{reply.path}"
    finally:
        os.close(lock)
        with contextlib.suppress(ForebayError):  # a daemon that is down sees the lock is gone
            release = pb.ReleaseRequest(lease=reply.lease)
            node.channel.call("Release", release, _QUICK_TIMEOUT_S, wait=False)


@contextlib.contextmanager
def downloaded(
    node: Node,
    hits: Hits,
    misses: Misses,
    uri: str,
    list_below: Callable[[str], Iterator[str]],
    timeout_s: float,
) -> Iterator[str]:
    """Keep a temporary copy, for a client that does not share the cache folder."""
    with tempfile.TemporaryDirectory(prefix="forebay-") as scratch:
        target = Path(scratch, file_name(uri.rstrip("/").rpartition("/")[2]))
        try:
            _download(node, hits, misses, uri, target, timeout_s)
        except ObjectNotFoundError:
            prefix = uri.rstrip("/") + "/"
            found = False
            for below in list_below(prefix):
                parts = [file_name(part) for part in below.removeprefix(prefix).split("/")]
                _download(node, hits, misses, below, target.joinpath(*parts), timeout_s)
                found = True
            if not found:
                raise
        yield str(target)


def _download(
    node: Node, hits: Hits, misses: Misses, uri: str, target: Path, timeout_s: float
) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with open_object(node, hits, misses, uri, timeout_s) as source, target.open("wb") as sink:
        shutil.copyfileobj(source, sink, 1 << 20)


def file_name(part: str) -> str:
    """Return a component of a key if it can be a file's name. Raises InvalidPathError."""
    if part in ("", ".", "..") or "/" in part:
        raise InvalidPathError(f"the key component {part!r} cannot be a file name")
    return part
