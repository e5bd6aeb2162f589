"""What this node has written, as its readers see it before the origin has it.

When somebody reads it, or once it is uploaded, a file of the spool becomes a cached object by a
hard link, first under a version of its own, then under the origin's. What is removed is hidden at
once.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from bisect import bisect_left
from collections import OrderedDict
from typing import TYPE_CHECKING

from forebay_protos import spool
from forebay_protos.table import BLOB, NEVER_STALE
from forebayd.errors import CacheFullError, ObjectNotFoundError, VersionChangedError
from forebayd.origin.base import ObjectInfo, Page

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from forebayd.cache.eviction import Evictor
    from forebayd.cache.fill import Filler
    from forebayd.cache.listing import Listings
    from forebayd.cache.origins import Origins, Target
    from forebayd.spool.order import Order, Upload
    from forebayd.store.catalogue import Catalogue
    from forebayd.store.rows import Entry
    from forebayd.store.store import Store

log = logging.getLogger(__name__)

_RENAMED = 10_000  # for readers who began before an upload ended
_NEVER = (NEVER_STALE, 2**32 - 1)


class Written:
    """The pending writes over the cache and the origins."""

    def __init__(
        self,
        order: Order,
        store: Store,
        filler: Filler,
        evictor: Evictor,
        listings: Listings,
        origins: Origins,
    ) -> None:
        self._order = order
        self._store = store
        self._filler = filler
        self._evictor = evictor
        self._listings = listings
        self._origins = origins
        self._renamed: OrderedDict[str, str] = OrderedDict()  # version while pending: the origin's

    # --- what the spool tells ----------------------------------------------------------------

    def written(self, upload: Upload) -> None:
        """Take out of the cache what a write replaces or removes. Readers are sent to ``entry``:
        to show it now would cost every write what only few need, which are read back."""
        target = self._origins.target(upload.uri)
        old = self._drop(target)
        if old is not None and not old.is_pending:
            upload.known_version = old.version
        if upload.trailer.kind == spool.REMOVE_TREE:
            self._drop(self._origins.target(target.uri.rstrip("/")))
            self._filler.evicting(target.uri)
            self._store.flush()  # so that what was published a moment ago is found
            below = list(self._store.catalogue.below(target.uri.rstrip("/") + "/"))
            if below:
                self._evictor.remove(below, "removed")

    def arrived(self, upload: Upload, info: ObjectInfo | None) -> None:
        """Make the bytes of a put that was uploaded a cached object, if they are not one yet."""
        self._listings.forget()
        if info is None:
            return
        target = self._origins.target(upload.uri)
        if upload.is_rebased:
            if (entry := self._store.get(target.fingerprint)) is not None:
                self._evictor.remove([entry], "overwritten")
            return
        self._renamed[upload.pending_version] = info.version
        if len(self._renamed) > _RENAMED:
            self._renamed.popitem(last=False)
        entry = self._store.get(target.fingerprint)
        if entry is None and self._order.seen(upload.origin, target.uri) is None:
            self._show(upload, target)

    def uploaded(self, upload: Upload, info: ObjectInfo) -> None:
        """Keep what was uploaded under its origin's version."""
        target = self._origins.target(upload.uri)
        entry = self._store.get(target.fingerprint)
        if upload.is_rebased or entry is None or entry.version != upload.pending_version:
            return
        try:
            self._own(target, entry, info)
        except OSError as error:
            log.error("a write is not kept", exc_info=error, extra={"uri": target.uri})
            self._drop(target)

    def unknown(self, upload: Upload) -> None:
        """Show again what the origin has."""
        self._listings.forget()
        for name in (upload.trailer.uri, upload.trailer.target):
            if name:
                self._drop(self._origins.target(name))

    def check_base(self, target: Target, trailer: spool.Trailer) -> None:
        """Raise VersionChangedError if an append is not to what readers see now."""
        seen = self._order.seen(target.origin.config.prefix, target.uri)
        if seen is None:
            return  # the origin decides
        version = "" if seen.is_barrier else seen.pending_version
        if trailer.base_version != version:
            raise VersionChangedError(f"{target.uri} has been written meanwhile")

    def version(self, version: str) -> str:
        """Return the origin's version for one of ours, by which a reader may know an object."""
        return self._renamed.get(version, version)

    def is_same(self, one: str, other: str) -> bool:
        """Tell whether two versions are of the same bytes."""
        return self.version(one) == self.version(other)

    # --- the cache ---------------------------------------------------------------------------

    def _drop(self, target: Target) -> Entry | None:
        """Take out what is cached, and return it; what is being filled is asked for again."""
        self._filler.changing(target.uri)
        old = self._store.get(target.fingerprint)
        if old is not None:
            self._evictor.remove([old], "overwritten")
        return old

    def _show(self, upload: Upload, target: Target) -> None:
        assert upload.path is not None  # noqa: S101  # a journaled put has bytes
        self._drop(target)
        entry = self._filler.new_entry(
            target,
            ObjectInfo(
                target.uri,
                upload.trailer.size_bytes,
                upload.pending_version,
                upload.committed_at,
            ),
            BLOB,
            time.time_ns(),
        )
        entry = dataclasses.replace(entry, present=(1 << entry.block_count) - 1)
        self._store.adopt(entry, upload.path, _NEVER)

    def _own(self, target: Target, entry: Entry, info: ObjectInfo) -> None:
        charge_bytes = self._store.charge_of(entry)
        if info.size_bytes != entry.size_bytes or not self._evictor.make_room(charge_bytes):
            self._drop(target)
            return
        self._store.space.reserve(charge_bytes)
        owned = dataclasses.replace(
            entry,
            version=info.version,
            modified=info.modified if info.modified is not None else entry.modified,
            validated_at_ns=time.time_ns(),
        )
        try:
            self._store.own(owned, charge_bytes, self._filler.validity(target, owned))
        except OSError:
            self._store.space.release(charge_bytes)
            raise

    # --- readers -----------------------------------------------------------------------------

    def entry(self, target: Target) -> Entry | None:
        """Return the entry of an object whose write is pending; None if none is.

        Raises ObjectNotFoundError if it was removed, CacheFullError if it cannot be shown.
        """
        upload = self._order.seen(target.origin.config.prefix, target.uri)
        if upload is None:
            return None
        if upload.is_barrier:
            raise ObjectNotFoundError(f"{target.uri}: removed on this node")
        entry = self._store.get(target.fingerprint)
        if entry is None or entry.version != upload.pending_version:
            try:
                self._show(upload, target)
            except OSError as error:
                raise CacheFullError(f"{target.uri} cannot be shown: {error}") from error
            entry = self._store.get(target.fingerprint)
        return entry

    async def stat(self, target: Target, *, fresh: bool = False) -> ObjectInfo | None:
        """Return the object's info, or None if the name is only a prefix.

        Raises ObjectNotFoundError if it is neither.
        """
        prefix, folder = target.origin.config.prefix, target.uri.rstrip("/") + "/"
        upload = self._order.seen(prefix, target.uri)
        if upload is not None and not upload.is_barrier:
            return _info(upload)
        # Now: what is pending may be done before the origin's answer, which is older, comes.
        is_above_ours = any(True for _ in self._order.below(prefix, folder))
        hiding = self._order.hiding(prefix)
        try:
            if upload is not None:
                raise ObjectNotFoundError(f"{target.uri}: removed on this node")
            info = await self._listings.stat(target, fresh=fresh)
            if info is not None or not hiding:
                return info
            removes = _Removes(hiding)
            hides = removes.any_below(folder) or removes.hide_all(folder)
            if hides and not await self._shows(target):
                raise ObjectNotFoundError(f"{target.uri}: all below it is removed on this node")
            return info
        except ObjectNotFoundError:
            if is_above_ours:
                return None
            raise

    async def pages(
        self, target: Target, *, recursive: bool, fresh: bool = False
    ) -> AsyncIterator[Page]:
        """Yield the origin's listing with what is pending in it, and without what is removed."""
        prefix, folder = target.origin.config.prefix, target.uri.rstrip("/") + "/"
        ours = {upload.uri: _info(upload) for upload in self._order.below(prefix, folder)}
        hiding = self._order.hiding(prefix)  # now: one may be done before the page comes
        if not ours and not hiding:
            async for page in self._listings.pages(target, recursive=recursive, fresh=fresh):
                yield page
            return
        removes = _Removes(hiding)
        new = sorted(
            (uri for uri in ours if recursive or "/" not in uri[len(folder) :]), reverse=True
        )
        folders = {
            folder + uri[len(folder) :].partition("/")[0] + "/"
            for uri in ours
            if not recursive and "/" in uri[len(folder) :]
        }
        told: set[str] = set()  # of ours: pages of files are sorted each by itself only
        known: set[str] = set()
        try:
            async for page in self._listings.pages(target, recursive=recursive, fresh=fresh):
                shown = {
                    info.uri: ours.get(info.uri, info)
                    for info in page.objects
                    if (
                        info.uri not in told
                        if info.uri in ours
                        else not self._is_hidden(prefix, info.uri, removes)
                    )
                }
                while new and page.objects and new[-1] <= page.objects[-1].uri:
                    uri = new.pop()
                    shown[uri] = ours[uri]
                told.update(uri for uri in shown if uri in ours)
                objects = tuple(shown[uri] for uri in sorted(shown))
                prefixes = [
                    name
                    for name in page.prefixes
                    if name not in folders
                    and not (
                        removes.hide_all(name)
                        or (removes.any_below(name) and not await self._shows_below(name))
                    )
                ]
                # Ours with the first page, where they are once they have arrived.
                prefixes = sorted({*prefixes, *folders} - known)
                known.update(prefixes)
                yield Page(objects, tuple(prefixes))
        except ObjectNotFoundError:
            if not ours:
                raise
        rest = [ours[uri] for uri in reversed(new)]
        yield Page(tuple(rest), tuple(sorted(folders - known)))

    async def _shows_below(self, name: str) -> bool:
        return await self._shows(self._origins.target(name))

    async def _shows(self, target: Target) -> bool:
        """Tell whether an object is to be seen below a prefix."""
        try:
            async for page in self.pages(target, recursive=True):
                if page.objects:
                    return True
        except ObjectNotFoundError:
            pass
        return False

    def _is_hidden(self, prefix: str, uri: str, removes: _Removes) -> bool:
        seen = self._order.seen(prefix, uri)
        if seen is not None:
            return seen.is_barrier
        return removes.hide(uri)  # done a moment ago


class _Removes:
    """Removes under way, looked up by name: thousands of them, for each of thousands of names."""

    def __init__(self, barriers: Iterable[Upload]) -> None:
        self._trees: list[Upload] = []
        names: set[str] = set()
        for barrier in barriers:
            if barrier.trailer.kind == spool.REMOVE_TREE:
                self._trees.append(barrier)
            else:
                names |= {barrier.trailer.uri, barrier.trailer.target}
        self._names = names
        self._sorted = sorted(names.union(tree.trailer.uri for tree in self._trees))

    def hide(self, uri: str) -> bool:
        return uri in self._names or any(tree.refers_to(uri) for tree in self._trees)

    def hide_all(self, folder: str) -> bool:
        """Tell whether nothing is left of a prefix, which ends with "/"."""
        return any(tree.refers_to(folder.rstrip("/")) for tree in self._trees)

    def any_below(self, folder: str) -> bool:
        at = bisect_left(self._sorted, folder)
        return at < len(self._sorted) and self._sorted[at].startswith(folder)


def _info(upload: Upload) -> ObjectInfo:
    return ObjectInfo(
        upload.uri, upload.trailer.size_bytes, upload.pending_version, upload.committed_at
    )


class CatalogueMemory:
    """Finished operations, in the catalogue: after kill -9 they are there, and after a power loss
    nobody is left who would ask."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    def load(self) -> list[str]:
        return list(self._catalogue.meta("operations", []))

    def save(self, operations: list[str]) -> None:
        self._catalogue.commit(meta={"operations": operations})
