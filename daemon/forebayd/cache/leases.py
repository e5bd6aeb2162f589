"""Handing out files by path, for what can only open a path: lmdb.open, mmap, C++ readers."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
from typing import TYPE_CHECKING

from forebayd.cache.fill import Uncached
from forebayd.errors import CacheFullError, InvalidPathError, ObjectNotFoundError
from forebayd.spool.uploader import lent
from forebayd.store import disk

if TYPE_CHECKING:
    from forebayd.cache.eviction import Evictor
    from forebayd.cache.fill import Filler
    from forebayd.cache.origins import Origins, Target
    from forebayd.cache.written import Written
    from forebayd.store.rows import Entry
    from forebayd.store.store import Store

log = logging.getLogger(__name__)


class LeaseKeeper:
    """Makes leases, and takes back those whose holder is gone."""

    def __init__(
        self,
        store: Store,
        filler: Filler,
        evictor: Evictor,
        origins: Origins,
        written: Written,
    ) -> None:
        self._store = store
        self._filler = filler
        self._evictor = evictor
        self._origins = origins
        self._written = written
        self._making: set[str] = set()

    async def take(self, target: Target) -> tuple[str, str]:
        """Return (lease, path) of the object, or of a folder with what is below the prefix.

        Raises ObjectNotFoundError if there is neither, CacheFullError if it does not fit.
        """
        lease = secrets.token_hex(8)
        tree = self._store.leases.create(lease)
        self._making.add(lease)
        try:
            name = await self._collect(lease, target)
        except BaseException:
            self._store.lease_release(lease)
            raise
        finally:
            self._making.discard(lease)
        self._store.leases.handed_out(lease)
        return f"leases/{lease}", f"{tree}/{name}"

    async def _collect(self, lease: str, target: Target) -> str:
        """Put everything into the lease; returns the name of the file or folder."""
        name = _file_name(target.uri.rstrip("/").rpartition("/")[2])
        if not target.uri.endswith("/"):
            try:
                await self._add(lease, name, target)
            except ObjectNotFoundError:
                pass
            else:
                return name
        found = False
        prefix = target.uri.rstrip("/") + "/"
        async for page in self._written.pages(self._origins.target(prefix), recursive=True):
            for info in page.objects:
                parts = [_file_name(part) for part in info.uri[len(prefix) :].split("/")]
                await self._add(lease, "/".join([name, *parts]), self._origins.target(info.uri))
                found = True
        if not found:
            raise ObjectNotFoundError(f"there is no object and no prefix {target.uri}")
        return name

    async def _add(self, lease: str, name: str, target: Target) -> None:
        for _ in range(3):
            filled, _ = await self._filler.ensure(target, 0, None)
            if isinstance(filled, Uncached):
                break
            # From here to lease_add nothing awaits: the entry cannot be evicted in between.
            entry = self._store.get(target.fingerprint)
            if entry is None or not entry.is_complete:
                continue
            if entry.is_pending:
                await self._add_pending(lease, name, entry)
                return
            if not entry.is_packed:
                self._store.lease_add(lease, name, entry, None)
                return
            copy = self._store.read(entry, 0, entry.size_bytes)
            if copy is None:
                continue
            size = disk.rounded(len(copy))
            if not self._evictor.make_room(size):
                break
            self._store.space.reserve(size)
            try:
                self._store.lease_add(lease, name, entry, copy)
            except OSError as error:
                self._store.space.release(size)
                raise CacheFullError(f"no local copy of {target.uri}: {error.strerror}") from error
            return
        raise CacheFullError(
            f"{target.uri} does not fit into the cache (limit {self._store.space.max_bytes} bytes, "
            "less what is pinned, handed out or being written; min_free_bytes of the disk stay "
            "free): raise --max-bytes or make room on the disk"
        )

    async def _add_pending(self, lease: str, name: str, entry: Entry) -> None:
        """Copy what is still the spool's: in its file more follows the object's bytes."""
        size = disk.rounded(entry.size_bytes)
        fd = self._store.blobs.duplicate(entry.generation)
        try:
            if not self._evictor.make_room(size):
                raise CacheFullError(f"no room for a local copy of {entry.uri}")
            self._store.space.reserve(size)
            try:
                async with lent(fd, 0, entry.size_bytes) as data:
                    await asyncio.to_thread(self._store.leases.write, lease, name, data)
            except OSError as error:
                self._store.space.release(size)
                raise CacheFullError(f"no local copy of {entry.uri}: {error.strerror}") from error
            self._store.lease_copied(size)
        finally:
            os.close(fd)

    def release(self, lease: str) -> None:
        """Take a lease back; one that is unknown (already swept) is no error."""
        self._store.lease_release(lease.rpartition("/")[2])

    def sweep(self) -> None:
        """Release the leases of holders that are gone."""
        for lease in self._store.leases.abandoned():
            if lease in self._making:
                continue
            log.info("lease abandoned", extra={"lease": lease})
            self._store.lease_release(lease)


def _file_name(part: str) -> str:
    """Return a key's component as a file name. Raises InvalidPathError if it cannot be one."""
    if part in ("", ".", "..") or len(part.encode("utf-8", "surrogatepass")) > 255:
        raise InvalidPathError(f"the key component {part!r} cannot be a file name")
    return part
