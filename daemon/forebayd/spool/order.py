"""Which write may go when, and what is to be seen of those that have not gone yet. Pure logic.

Writes of one key arrive in order. A remove, move or copy waits for every earlier write of its
origin, whoever made it: a hook that saves epoch_3 and then removes epoch_1 never leaves the origin
without either. A write is skipped for a later one of its key only if no such barrier lies between.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from dataclasses import dataclass, field
from operator import attrgetter
from typing import TYPE_CHECKING

from forebay_protos import spool, uris
from forebayd.store.rows import PENDING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from forebay_protos.spool import Trailer
    from forebayd.origin.base import ObjectInfo

WAITING, UPLOADING, FAILED = "waiting", "uploading", "failed"
HELD = "held"  # being discarded: not to be started again
DAMAGED = "damaged"  # a kind: a file of the spool that cannot be read, of whatever key
_name = attrgetter("name")
_BARRIERS = (spool.REMOVE, spool.REMOVE_TREE, spool.COPY, spool.MOVE)


@dataclass(eq=False, slots=True)
class Upload:
    """A write under way; despite the name it may be a remove, a move or a copy."""

    name: str  # in order of commitment
    trailer: Trailer
    origin: str  # its prefix
    path: Path | None = None  # of its bytes
    is_through: bool = False  # its writer waits for the origin: never seen before, never skipped
    parts: tuple[str, list[str]] | None = None  # (upload, tags), already there: only complete it
    committed_at: float = field(default_factory=time.time)
    state: str = WAITING
    attempts: int = 0
    uploaded_bytes: int = 0
    last_error: str = ""
    retry_at: float = 0.0  # monotonic
    charge_bytes: int = 0  # of the spool
    known_version: str = ""  # of what it overwrites, if the cache has seen that
    superseded_by: Upload | None = None
    is_rebased: bool = False  # an append to other bytes than the file's: the origin's are not ours
    tried: tuple[int, str] = (-1, "")  # size and MD5 of what the last attempt wrote, if not ours
    moved_bytes: int = -1  # of a move: the size of its source, once that was seen
    left_at: float = 0.0  # monotonic, of a copy or move: when the last who waited for it went away
    done: asyncio.Future[ObjectInfo | None] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    @property
    def uri(self) -> str:
        return self.trailer.uri

    @property
    def is_barrier(self) -> bool:
        return self.trailer.kind in _BARRIERS

    @property
    def pending_version(self) -> str:
        return PENDING + self.trailer.operation

    def last(self) -> Upload:
        """Return the write that stands for this one now."""
        upload = self
        while upload.superseded_by is not None:
            upload = upload.superseded_by
        return upload

    def refers_to(self, uri: str) -> bool:
        """Tell whether this write reads or changes the object *uri*."""
        trailer = self.trailer
        if trailer.kind == spool.REMOVE_TREE:
            return uri == trailer.uri.rstrip("/") or uris.has_prefix(uri, trailer.uri)
        return uri in (trailer.uri, trailer.target)


class Order:
    """The writes of all origins."""

    def __init__(self) -> None:
        self._by_origin: defaultdict[str, dict[str, Upload]] = defaultdict(dict)
        self._by_key: dict[str, list[Upload]] = {}
        self._barriers: defaultdict[str, list[Upload]] = defaultdict(list)
        self._barriers_of_key: defaultdict[str, list[Upload]] = defaultdict(list)
        self._trees: defaultdict[str, list[Upload]] = defaultdict(list)
        self._damaged: list[Upload] = []
        self._failed: defaultdict[str, list[Upload]] = defaultdict(list)
        self._by_operation: dict[str, Upload] = {}

    def __len__(self) -> int:
        return sum(map(len, self._by_origin.values())) + len(self._damaged)

    def __iter__(self) -> Iterator[Upload]:
        """Yield all, in order of commitment."""
        uploads = [upload for origin in self._by_origin.values() for upload in origin.values()]
        uploads += self._damaged
        return iter(sorted(uploads, key=lambda upload: upload.name))

    def by_operation(self, operation: str) -> Upload | None:
        return self._by_operation.get(operation)

    def add(self, upload: Upload) -> Upload | None:
        """Take *upload* as the last of its origin; returns the one that it makes needless."""
        if upload.trailer.kind == DAMAGED:
            self._damaged.append(upload)
            self._by_operation[upload.trailer.operation] = upload
            return None
        needless = self._needless(upload)
        if needless is not None:
            self.remove(needless)
            # How long the key's bytes have been waiting, not only these.
            upload.committed_at = min(upload.committed_at, needless.committed_at)
        self._by_origin[upload.origin][upload.name] = upload
        self._by_operation[upload.trailer.operation] = upload
        if upload.is_barrier:
            self._barriers[upload.origin].append(upload)
            for barriers in self._index(upload):
                barriers.append(upload)
        else:
            self._by_key.setdefault(upload.uri, []).append(upload)
        return needless

    def _index(self, barrier: Upload) -> list[list[Upload]]:
        """Return the lists by which a barrier is found from a key that it refers to."""
        trailer = barrier.trailer
        if trailer.kind == spool.REMOVE_TREE:
            return [self._trees[barrier.origin]]
        names = {trailer.uri, trailer.target} - {""}
        return [self._barriers_of_key[name] for name in sorted(names)]

    def _barriers_at(self, origin: str, uri: str) -> list[Upload]:
        """Return the barriers that refer to a key, in order."""
        trees = [tree for tree in self._trees.get(origin, ()) if tree.refers_to(uri)]
        found = [b for b in self._barriers_of_key.get(uri, ()) if b.origin == origin]
        return sorted([*trees, *found], key=_name) if trees else found

    def _needless(self, upload: Upload) -> Upload | None:
        before = self._by_key.get(upload.uri)
        if not before or upload.trailer.kind != spool.PUT or upload.is_through:
            return None
        last, barriers = before[-1], self._barriers[upload.origin]
        if last.is_through or last.state == UPLOADING:
            return None
        if barriers and barriers[-1].name > last.name:
            return None
        return last

    def remove(self, upload: Upload) -> None:
        """Forget a write that is done, skipped or discarded."""
        if upload.trailer.kind == DAMAGED:
            self._damaged.remove(upload)
            del self._by_operation[upload.trailer.operation]
            return
        self._set_state(upload, HELD)
        del self._by_origin[upload.origin][upload.name]
        del self._by_operation[upload.trailer.operation]
        if upload.is_barrier:
            self._barriers[upload.origin].remove(upload)
            for barriers in self._index(upload):
                barriers.remove(upload)
            for name in (upload.trailer.uri, upload.trailer.target):
                if not self._barriers_of_key.get(name, True):
                    del self._barriers_of_key[name]
            return
        self._by_key[upload.uri].remove(upload)
        if not self._by_key[upload.uri]:
            del self._by_key[upload.uri]

    def blocker(self, upload: Upload) -> Upload | None:
        """Return an earlier write that *upload* has to wait for; None once it is done itself."""
        if upload.name not in self._by_origin[upload.origin]:
            return None
        if upload.is_barrier:
            if self._damaged and self._damaged[0].name < upload.name:
                return self._damaged[0]  # who knows which key it was
            first = next(iter(self._by_origin[upload.origin].values()))
            return None if first is upload else first
        first = self._by_key[upload.uri][0]
        if first is not upload:
            return first
        first_barrier = next(iter(self._barriers_at(upload.origin, upload.uri)), None)
        if first_barrier is not None and first_barrier.name < upload.name:
            return first_barrier
        return None

    def culprit(self, upload: Upload) -> Upload | None:
        """Return the failed write because of which *upload* cannot go, directly or not."""
        if upload.state == FAILED:
            return None
        if upload.is_barrier:
            failed = self.first_failed(upload.origin)
            return failed if failed is not None and failed.name < upload.name else None
        blocker = self.blocker(upload)
        if blocker is None or blocker.state == FAILED:
            return blocker
        return self.culprit(blocker)

    def first_failed(self, origin: str) -> Upload | None:
        """Return the first write that failed for good and barriers of an origin wait for."""
        return min([*self._damaged[:1], *self._failed[origin]], key=_name, default=None)

    def fail(self, upload: Upload) -> None:
        """Note that a write has failed for good."""
        self._set_state(upload, FAILED)

    def retry(self, upload: Upload) -> None:
        """Let a write that failed, or waits for its time, be tried again now."""
        if upload.trailer.kind != DAMAGED:
            if upload.state == FAILED:
                self._set_state(upload, WAITING)
            upload.retry_at = 0.0

    def _set_state(self, upload: Upload, state: str) -> None:
        if upload.state == FAILED:
            self._failed[upload.origin].remove(upload)
        if state == FAILED:
            self._failed[upload.origin].append(upload)
        upload.state = state

    def ready(self, origin: str, now: float) -> Iterator[Upload]:
        """Yield what may go now, oldest first."""
        for upload in list(self._by_origin[origin].values()):
            if upload.state == WAITING and upload.retry_at <= now and self.blocker(upload) is None:
                yield upload

    def oldest_at(self, origin: str) -> float:
        """Return when an origin's first write was committed, in unix seconds."""
        return next(iter(self._by_origin[origin].values())).committed_at

    def origins(self) -> list[str]:
        return [origin for origin, uploads in self._by_origin.items() if uploads]

    # --- what is to be seen ------------------------------------------------------------------

    def seen(self, origin: str, uri: str) -> Upload | None:
        """Return the write that decides what *uri* is: a put of its bytes, or what removes it."""
        written = [u for u in self._by_key.get(uri, ()) if not u.is_through]
        last = written[-1] if written else None
        if self._barriers.get(origin):
            for barrier in reversed(self._barriers_at(origin, uri)):
                if last is not None and barrier.name < last.name:
                    break
                if not barrier.is_through:
                    return barrier
        return last

    def below(self, origin: str, folder: str) -> Iterator[Upload]:
        """Yield the puts to be seen below *folder*, a URI that ends with "/"."""
        for uri in [uri for uri in self._by_key if uri.startswith(folder)]:
            upload = self.seen(origin, uri)
            if upload is not None and not upload.is_barrier:
                yield upload

    def hiding(self, origin: str) -> list[Upload]:
        """Return the removes under way."""
        return [barrier for barrier in self._barriers[origin] if not barrier.is_through]

    def matching(self, matches: Callable[[str], bool]) -> Iterable[Upload]:
        """Return the writes that change an object or prefix that *matches*."""
        return [u for u in self if matches(u.trailer.uri) or matches(u.trailer.target)]
