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
from typing import TYPE_CHECKING

from forebay_protos import spool, uris
from forebayd.store.rows import PENDING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from forebay_protos.spool import Trailer
    from forebayd.origin.base import ObjectInfo

WAITING, UPLOADING, FAILED = "waiting", "uploading", "failed"
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
        self._by_operation: dict[str, Upload] = {}

    def __len__(self) -> int:
        return sum(map(len, self._by_origin.values()))

    def __iter__(self) -> Iterator[Upload]:
        """Yield all, in order of commitment."""
        uploads = [upload for origin in self._by_origin.values() for upload in origin.values()]
        return iter(sorted(uploads, key=lambda upload: upload.name))

    def by_operation(self, operation: str) -> Upload | None:
        return self._by_operation.get(operation)

    def add(self, upload: Upload) -> Upload | None:
        """Take *upload* as the last of its origin; returns the one that it makes needless."""
        needless = self._needless(upload)
        if needless is not None:
            self.remove(needless)
            # How long the key's bytes have been waiting, not only these.
            upload.committed_at = min(upload.committed_at, needless.committed_at)
        self._by_origin[upload.origin][upload.name] = upload
        self._by_operation[upload.trailer.operation] = upload
        if upload.is_barrier:
            self._barriers[upload.origin].append(upload)
        else:
            self._by_key.setdefault(upload.uri, []).append(upload)
        return needless

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
        del self._by_origin[upload.origin][upload.name]
        del self._by_operation[upload.trailer.operation]
        if upload.is_barrier:
            self._barriers[upload.origin].remove(upload)
            return
        self._by_key[upload.uri].remove(upload)
        if not self._by_key[upload.uri]:
            del self._by_key[upload.uri]

    def blocker(self, upload: Upload) -> Upload | None:
        """Return an earlier write that *upload* has to wait for; None once it is done itself."""
        if upload.name not in self._by_origin[upload.origin]:
            return None
        if upload.is_barrier:
            first = next(iter(self._by_origin[upload.origin].values()))
            return None if first is upload else first
        first = self._by_key[upload.uri][0]
        if first is not upload:
            return first
        for barrier in self._barriers[upload.origin]:
            if barrier.name > upload.name:
                break
            if barrier.refers_to(upload.uri):
                return barrier
        return None

    def culprit(self, upload: Upload) -> Upload | None:
        """Return the failed write because of which *upload* cannot go, directly or not."""
        if upload.state == FAILED:
            return None
        if upload.is_barrier:
            earlier = (u for u in self._by_origin[upload.origin].values() if u.name < upload.name)
            return next((other for other in earlier if other.state == FAILED), None)
        blocker = self.blocker(upload)
        if blocker is None or blocker.state == FAILED:
            return blocker
        return self.culprit(blocker)

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
        for barrier in reversed(self._barriers[origin]):
            if last is not None and barrier.name < last.name:
                break
            if not barrier.is_through and barrier.refers_to(uri):
                return barrier
        return last

    def below(self, origin: str, folder: str) -> Iterator[Upload]:
        """Yield the puts to be seen below *folder*, a URI that ends with "/"."""
        for uri in [uri for uri in self._by_key if uri.startswith(folder)]:
            upload = self.seen(origin, uri)
            if upload is not None and not upload.is_barrier:
                yield upload

    def hides_any(self, origin: str) -> bool:
        return any(not barrier.is_through for barrier in self._barriers[origin])

    def matching(self, matches: Callable[[str], bool]) -> Iterable[Upload]:
        """Return the writes that change an object or prefix that *matches*."""
        return [u for u in self if matches(u.trailer.uri) or matches(u.trailer.target)]
