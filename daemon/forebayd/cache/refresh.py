"""Keeping entries in use fresh ahead of time, so that hits need not ask.

Every pass takes the entries whose ``max_age`` is over and that were used since they were last
looked up. Many in one folder are compared with a LIST of it (1,000 ETags a request), few by a HEAD
each. What has changed or gone is evicted; the next reader fills it anew. Each origin is asked by a
task of its own, so that one which does not answer keeps no other's entries from being fresh.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import random
import time
from collections import defaultdict
from functools import partial
from typing import TYPE_CHECKING

from forebayd.cache import freshness
from forebayd.errors import DaemonError, ObjectNotFoundError

if TYPE_CHECKING:
    from forebayd.cache.fill import Filler
    from forebayd.cache.origins import Origins, Target
    from forebayd.stats import Statistics
    from forebayd.store.rows import Entry
    from forebayd.store.store import Store

    _Folders = dict[str, list[tuple[Target, Entry]]]

log = logging.getLogger(__name__)

_LIST_FROM = 8  # so many entries of a folder are worth a LIST
_HEADS_AT_ONCE = 16
_ENTRIES_A_PASS = 10_000
_IN_USE_S = 86_400.0  # an entry last used longer ago waits for its reader
_LEAST_PAUSE_S = 0.25


class Refresher:
    """The background task."""

    def __init__(
        self,
        store: Store,
        filler: Filler,
        origins: Origins,
        statistics: Statistics,
        max_age_s: float,
    ) -> None:
        """*max_age_s* is the shortest of all origins'."""
        self._store = store
        self._filler = filler
        self._origins = origins
        self._statistics = statistics
        self._pause_s = max(_LEAST_PAUSE_S, min(5.0, max_age_s / 4))
        self._asking: dict[str, asyncio.Task[None]] = {}  # by the origin's prefix

    async def run(self) -> None:
        """Look again and again until cancelled."""
        try:
            while True:
                started = time.monotonic()
                try:
                    busy = await self._refresh_due()
                except Exception:
                    log.exception("refreshing failed")
                    busy = False
                spent = time.monotonic() - started
                # Over a million slots a pass takes some 20 ms: keep it to a few per cent of a core.
                await asyncio.sleep(_LEAST_PAUSE_S if busy else max(self._pause_s, 20 * spent))
        finally:
            tasks = list(self._asking.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _refresh_due(self) -> bool:
        """Begin one pass at every origin that has ended its last; True if there is more to do."""
        table, now = self._store.table, time.time()
        due = await asyncio.to_thread(table.due, now, now - _IN_USE_S)
        # Anywhere: the entries of an origin that is down must not be in the way for ever.
        first = random.randrange(len(due)) if len(due) > _ENTRIES_A_PASS else 0  # noqa: S311
        chosen = [*due[first:], *due[:first]][:_ENTRIES_A_PASS]
        origins: dict[str, _Folders] = defaultdict(lambda: defaultdict(list))
        for start in range(0, len(chosen), 500):
            for entry in self._store.catalogue.get_many(chosen[start : start + 500]):
                if entry is None or not self._was_used(entry):
                    continue
                target = self._origins.target(entry.uri)
                prefix = target.origin.config.prefix
                # Another fingerprint: of an origin that is no more.
                if target.fingerprint == entry.fingerprint and prefix not in self._asking:
                    origins[prefix][entry.uri.rpartition("/")[0]].append((target, entry))
            await asyncio.sleep(0)  # let readers in
        for prefix, folders in origins.items():
            task = self._asking[prefix] = asyncio.create_task(self._ask(folders))
            task.add_done_callback(partial(self._has_asked, prefix))
        return len(due) > len(chosen)

    def _has_asked(self, prefix: str, _: asyncio.Task[None]) -> None:
        del self._asking[prefix]

    async def _ask(self, folders: _Folders) -> None:
        """Compare entries of one origin with it."""
        try:
            for folder, members in folders.items():
                left = members
                if len(members) >= _LIST_FROM:
                    left = await self._by_list(folder, members)
                await self._by_head(left)
        except Exception:
            log.exception("refreshing failed")

    def _was_used(self, entry: Entry) -> bool:
        found = self._store.table.find(entry.fingerprint)
        if found is None:
            return False
        used_at_ns = int(self._store.table.recency[found[0]])
        if used_at_ns > found[1].refresh_after_s * 1_000_000_000:
            self._statistics.add("stale_served")
        return used_at_ns > entry.validated_at_ns

    async def _by_list(
        self, folder: str, members: list[tuple[Target, Entry]]
    ) -> list[tuple[Target, Entry]]:
        """Compare with a listing; returns those that it did not settle."""
        wanted = {entry.uri: (target, entry) for target, entry in members}
        origin = members[0][0].origin
        asked_at_ns = time.time_ns()
        fresh: list[Entry] = []
        pages = 2 + len(members) // 20
        try:
            async for page in origin.driver.list(folder, recursive=False):
                for info in page.objects:
                    match = wanted.get(info.uri)
                    if match is None:
                        continue
                    if info.version == match[1].version:
                        del wanted[info.uri]
                        fresh.append(dataclasses.replace(match[1], validated_at_ns=asked_at_ns))
                    # else: a HEAD decides, since listings of some origins name versions otherwise
                pages -= 1
                if not wanted or pages <= 0:
                    break
        except DaemonError as error:
            log.warning("refreshing by list failed", extra={"folder": folder, "reason": str(error)})
        still = [
            entry
            for entry in fresh
            if (now := self._store.get(entry.fingerprint)) is not None
            and now.generation == entry.generation
            and now.present == entry.present
        ]
        self._store.validated(still, freshness.validity(origin.config, asked_at_ns))
        return list(wanted.values())

    async def _by_head(self, members: list[tuple[Target, Entry]]) -> None:
        slots = asyncio.Semaphore(_HEADS_AT_ONCE)

        async def look(target: Target, entry: Entry) -> None:
            async with slots:
                try:
                    await self._filler.validate(target, entry)
                except ObjectNotFoundError:
                    pass  # evicted by validate
                except DaemonError as error:
                    self._statistics.count_error("refresh")
                    log.warning("refreshing failed", extra={"uri": entry.uri, "reason": str(error)})

        await asyncio.gather(*(look(target, entry) for target, entry in members))
