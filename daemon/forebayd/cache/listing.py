"""What the origin says of names: stat results and listings, remembered as long as the origin's
``max_age``; that there is nothing, for a few seconds at most.

Kept in ``meta/`` by diskcache, as JSON and not as pickle: a writable cache folder is no way to run
code in the daemon.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from typing import TYPE_CHECKING, Any

import diskcache  # type: ignore[import-untyped]  # ships no stubs

from forebay_protos import layout
from forebayd.cache.flight import Flights
from forebayd.errors import ObjectNotFoundError
from forebayd.origin.base import ObjectInfo, Page

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from forebayd.cache.origins import Target
    from forebayd.stats import Statistics

log = logging.getLogger(__name__)

_NEGATIVE_AGE_S = 5.0
_LONGEST_LISTING = 20_000  # entries; a longer one is asked for each time
_IMMUTABLE_LISTING_AGE_S = 300.0  # objects never change, but new ones appear
PREFIX = "prefix"  # a stat result: no object, but objects below


class Listings:
    """Stat and list with a memory."""

    def __init__(self, folder: Path, size_limit_bytes: int, statistics: Statistics) -> None:
        self._statistics = statistics
        self._flights = Flights()
        self._is_empty = False
        self._forgotten = 0  # times; an answer that was asked for before the last is not kept
        self._memory = diskcache.Cache(
            str(folder / layout.META),
            disk=diskcache.JSONDisk,
            size_limit=size_limit_bytes,
            eviction_policy="least-recently-stored",
            sqlite_journal_mode="truncate",
            sqlite_synchronous=0,
            sqlite_mmap_size=0,
            sqlite_cache_size=256,
        )

    async def stat(self, target: Target, *, fresh: bool = False) -> ObjectInfo | None:
        """Return the object's info, or None if the name is only a prefix.

        Raises ObjectNotFoundError if it is neither.
        """
        key = "s" + target.fingerprint.hex()
        value = None if fresh else self._get(key)
        if value is None:
            value = await self._flights.do(
                (key, fresh, self._forgotten), lambda: self._ask(target, key)
            )
        if value == PREFIX:
            return None
        if value == "":
            raise ObjectNotFoundError(f"there is no object and no prefix {target.uri}")
        size, version, modified = value
        return ObjectInfo(target.uri, size, version, modified)

    async def _ask(self, target: Target, key: str) -> Any:
        age_s, forgotten = _age_s(target), self._forgotten
        try:
            info = await target.origin.driver.head(target.uri)
        except ObjectNotFoundError:
            value: Any = PREFIX if await self._has_below(target) else ""
            age_s = min(age_s, _NEGATIVE_AGE_S)
        else:
            value = [info.size_bytes, info.version, info.modified]
        if forgotten == self._forgotten:
            self._set(key, value, age_s)
        return value

    async def _has_below(self, target: Target) -> bool:
        try:
            async for page in target.origin.driver.list(target.uri, recursive=False):
                if page.objects or page.prefixes:
                    return True
        except ObjectNotFoundError:
            pass
        return False

    async def pages(
        self, target: Target, *, recursive: bool, fresh: bool = False
    ) -> AsyncIterator[Page]:
        """Yield the listing below the target; *fresh*: whatever is remembered."""
        key = "lr"[recursive] + target.fingerprint.hex()
        known = None if fresh else self._get(key)
        if known is not None:
            objects = tuple(ObjectInfo(*row) for row in known["objects"])
            prefixes = tuple(known["prefixes"])
            for start in range(0, max(len(objects), 1), 1000):
                yield Page(objects[start : start + 1000], prefixes if start == 0 else ())
            return
        forgotten = self._forgotten
        rows: list[Any] = []
        prefixes_seen: list[str] = []
        async for page in target.origin.driver.list(target.uri, recursive=recursive):
            if len(rows) + len(prefixes_seen) <= _LONGEST_LISTING:
                rows += [(o.uri, o.size_bytes, o.version, o.modified) for o in page.objects]
                prefixes_seen += page.prefixes
            yield page
        is_short = len(rows) + len(prefixes_seen) <= _LONGEST_LISTING
        if is_short and forgotten == self._forgotten:
            age_s = _age_s(target)
            if not rows and not prefixes_seen:
                age_s = min(age_s, _NEGATIVE_AGE_S)
            self._set(key, {"objects": rows, "prefixes": prefixes_seen}, age_s)

    def forget(self) -> None:
        """Forget everything: after an evict, the origin is asked."""
        self._forgotten += 1
        if self._is_empty:
            return
        try:
            self._memory.clear()
            self._is_empty = True
        except (sqlite3.Error, OSError, diskcache.Timeout) as error:
            self._broken(error)

    def _get(self, key: str) -> Any:
        try:
            value = self._memory.get(key)
        except (sqlite3.Error, OSError, ValueError, diskcache.Timeout) as error:
            self._broken(error)
            return None
        if value is None or value["until"] < time.time():
            return None
        return value["value"]

    def _set(self, key: str, value: Any, age_s: float) -> None:
        if age_s <= 0:
            return
        self._is_empty = False
        try:
            self._memory.set(key, {"until": time.time() + age_s, "value": value}, expire=age_s)
        except (sqlite3.Error, OSError, diskcache.Timeout) as error:
            self._broken(error)

    def _broken(self, error: Exception) -> None:
        """Without its memory this is only slower."""
        log.warning("the memory of listings failed", extra={"reason": str(error)})
        self._statistics.count_error("meta")

    def close(self) -> None:
        self._memory.close()


def _age_s(target: Target) -> float:
    config = target.origin.config
    if config.freshness == "always":
        return 0.0
    return _IMMUTABLE_LISTING_AGE_S if config.freshness == "immutable" else config.max_age_s
