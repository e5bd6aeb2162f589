"""The spool: takes writes, answers for them, and brings them to their origins, in order.

A commit is: trailer read, renamed into the order, folder fsynced, shown to readers, answered. What
fails for a while is tried again for ever; what fails for good stays until the operator decides.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forebay_protos import spool
from forebayd.errors import (
    DaemonError,
    InvalidPathError,
    ObjectNotFoundError,
    UploadFailedError,
)
from forebayd.origin.driver import TransientError
from forebayd.spool.departures import Departures
from forebayd.spool.dispatch import Dispatcher
from forebayd.spool.order import DAMAGED, FAILED, Upload
from forebayd.spool.report import Report
from forebayd.spool.shown import tell
from forebayd.spool.uploader import opened
from forebayd.store import disk

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

    from forebayd.cache.origins import Origins, Target
    from forebayd.origin.base import ObjectInfo
    from forebayd.spool.departures import Memory
    from forebayd.spool.journal import Journal
    from forebayd.spool.order import Order
    from forebayd.spool.shown import Shown
    from forebayd.spool.staging import Staged, Staging
    from forebayd.spool.uploader import Uploader

log = logging.getLogger(__name__)

_COMMITTED_MODE = 0o640  # what is acknowledged is no longer its writer's to change
_TIDY_AGAIN_S = 10.0
_LOOK_S = 0.25  # at what a writer that waits is waiting for
_FORSAKEN_S = 30.0  # a client that waits asks again much sooner


class Spool:
    """Acknowledged writes. One event loop."""

    def __init__(
        self,
        journal: Journal,
        staging: Staging,
        order: Order,
        uploader: Uploader,
        origins: Origins,
        shown: Shown,
        memory: Memory,
        uploaded: Callable[[str, str, int, float], object],
        *,
        uploads_at_once: int,
        lingers_s: float,
        max_age_s: float,
    ) -> None:
        self.journal = journal
        self.staging = staging
        self.order = order
        self._uploader = uploader
        self._origins = origins
        self._shown = shown
        self.departures = Departures(journal, staging, shown, memory)
        self.report = Report(order, staging, uploaded, max_age_s=max_age_s)
        self._under_way: dict[str, asyncio.Future[str]] = {}  # commits, by operation
        self._dispatcher = Dispatcher(
            order,
            uploader,
            origins,
            uploads_at_once=uploads_at_once,
            lingers_s=lingers_s,
            is_urgent=lambda: staging.is_filling,
            ready=self._ready,
            finished=self._finish,
            failed=self._failed,
            looked=self.report.complain,
        )
        self._tidying: asyncio.Task[None] | None = None
        self._callers: Counter[str] = Counter()  # of copies and moves, by operation
        self._withdrawing: set[asyncio.Task[None]] = set()
        self._tidy_at = 0.0

    def recover(self) -> None:
        """Take up what earlier daemons have acknowledged, before anybody is answered."""
        for path in self.journal.files():
            upload = self._read(path)
            if self.departures.version_of(upload.trailer.operation) is not None:
                # Done, and only its file was left.
                self.journal.remove(upload.name)
                continue
            upload.charge_bytes = disk.allocated_bytes(path)
            self.staging.charge(upload.charge_bytes)
            self._supersede(self.order.add(upload), upload)
        for upload in self.order:
            if upload.trailer.kind != DAMAGED:
                self._shown.written(upload)
        if len(self.order):
            log.info("writes of an earlier run are uploaded", extra={"uploads": len(self.order)})

    def _read(self, path: Path) -> Upload:
        """Return the write of a committed file; one that failed if it cannot be read."""
        try:
            trailer, committed_at = self.journal.read(path)
            target = self._origins.target(trailer.uri)
            trailer = self._canonical(trailer)
        except (OSError, ValueError, DaemonError) as error:
            log.error(
                "a spooled write is damaged and cannot be uploaded: see `forebay uploads`",
                extra={"file": str(path), "reason": str(error)},
            )
            damaged = spool.Trailer(DAMAGED, f"file://{path}", operation=DAMAGED + path.name)
            upload = Upload(path.name, damaged, "", path, state=FAILED)
            upload.last_error = f"damaged: {error}"
            return upload
        prefix = target.origin.config.prefix
        upload = Upload(path.name, trailer, prefix, path, committed_at=committed_at)
        upload.attempts = 1  # perhaps: its daemon may have died before the answer
        return upload

    def start(self) -> None:
        self._dispatcher.start()

    # --- taking writes -----------------------------------------------------------------------

    def check_writable(self, uri: str, *, is_prefix: bool = False) -> Target:
        """Return the target of a write. Raises InvalidPathError, AccessDeniedError."""
        target = self._origins.target(uri)
        self._origins.check_writable(target)
        key = target.uri.partition("://")[2]
        if not is_prefix and (key.endswith("/") or not key.partition("/")[2]):
            raise InvalidPathError(f"{uri} names no object: write a name after the last '/'")
        return target

    def canonical(self, uri: str) -> str:
        """Return a URI as uploads are known by it. Raises InvalidPathError."""
        return self._origins.target(uri).uri

    def _canonical(self, trailer: spool.Trailer) -> spool.Trailer:
        uri = self.canonical(trailer.uri)
        target = self.canonical(trailer.target) if trailer.target else ""
        if (uri, target) == (trailer.uri, trailer.target):
            return trailer
        return dataclasses.replace(trailer, uri=uri, target=target)

    def known(self, operation: str) -> str | None:
        """Return the version that an operation ended with ("" if it was not waited for), or None
        if it is not known to have been taken."""
        version = self.departures.version_of(operation)
        if version is not None:
            return version
        upload = self.order.by_operation(operation)
        return "" if upload is not None and not upload.is_through else None

    def has(self, operation: str) -> bool:
        """Tell whether an operation was taken, or is being taken."""
        return operation in self._under_way or self.known(operation) is not None

    async def commit(
        self, file: str, operation: str, *, trailer_json: str = "", is_synced: bool = False
    ) -> str:
        """Make a staged file a write; returns the origin's version if that was waited for.

        *trailer_json* spares a look into the file. *is_synced*: the writer sees to it that the
        folder is fsynced.
        """
        is_repeated = self.has(operation)
        version = await self._once(
            operation, lambda: self._commit(file, operation, trailer_json, is_synced)
        )
        if is_repeated and not is_synced:
            await self.journal.durable()  # the first time may have been synced by nobody
        return version

    async def _once(self, operation: str, work: Callable[[], Coroutine[Any, Any, str]]) -> str:
        """Do *work* for an operation unless that was done, or is being done, already.

        Not to be cancelled: the call is going to be repeated.
        """
        finished = self.departures.version_of(operation)
        if finished is not None:
            return finished
        running = self._under_way.get(operation)
        if running is not None:
            return await asyncio.shield(running)
        if self.order.by_operation(operation) is not None:
            return ""  # journaled by an earlier daemon, which died before it answered
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._under_way[operation] = answer
        try:
            version = await work()
        except BaseException as error:
            answer.set_exception(error)
            answer.exception()  # seen: nobody else may be waiting
            raise
        finally:
            del self._under_way[operation]
        answer.set_result(version)
        return version

    async def _commit(self, file: str, operation: str, trailer_json: str, is_synced: bool) -> str:
        staged = self.staging.get(file)
        path = f"{self.journal.cache_dir}/{file}"
        try:
            if trailer_json:
                trailer = spool.Trailer.from_json(trailer_json)
            else:
                with opened(path) as fd:
                    trailer = spool.read_trailer(fd)
            status = os.stat(path)  # noqa: PTH116  # 10 us less
            if trailer.size_bytes < 0 or status.st_size <= trailer.size_bytes:
                raise ValueError(f"{status.st_size} bytes, trailer included")
            os.chmod(path, _COMMITTED_MODE)  # noqa: PTH101
        except (OSError, ValueError) as error:
            raise InvalidPathError(f"{file} cannot be committed: {error}") from error
        kept_bytes = status.st_blocks * 512
        if trailer.operation != operation or trailer.kind not in spool.WITH_BYTES:
            raise InvalidPathError(f"{file} is {trailer.kind} {trailer.operation}, not {operation}")
        target = self.check_writable(trailer.uri)
        if trailer.uri != target.uri:
            trailer = dataclasses.replace(trailer, uri=target.uri)
        mode = trailer.mode or target.origin.config.write_mode
        if trailer.kind == spool.APPEND:
            self._shown.check_base(target, trailer)
        if staged.stream is not None:
            parts = staged.stream.upload, await self.staging.send_rest(staged, trailer.size_bytes)
            return await self._through(trailer, target, staged, Path(path), parts)
        if trailer.kind == spool.CREATE or mode == "write_through":
            return await self._through(trailer, target, staged, Path(path), None)
        name = self.journal.commit(file)
        self.staging.forget(staged, kept_bytes)
        upload = Upload(name, trailer, target.origin.config.prefix, self.journal.file(name))
        await self._enter(upload, kept_bytes, is_synced)
        return ""

    async def _enter(self, upload: Upload, charge_bytes: int, is_synced: bool) -> None:
        """Take a write whose file has its place; returns when it is durable and shown."""
        upload.charge_bytes = charge_bytes
        needless = self.order.add(upload)  # before the wait: who commits later comes later
        try:
            if not is_synced:  # else its writer tells nobody before it is
                await self.journal.durable()
        finally:
            # Whatever becomes of the disk: from here on the write goes its way, told or not.
            tell(lambda: self._shown.written(upload))
            self._dispatcher.committed()
            self._supersede(needless, upload)

    def _supersede(self, needless: Upload | None, upload: Upload) -> None:
        if needless is not None:
            needless.superseded_by = upload
            self.departures.remember(needless.trailer.operation)  # should its commit be repeated
            self.departures.add(needless)

    async def _through(
        self,
        trailer: spool.Trailer,
        target: Target,
        staged: Staged | None,
        path: Path | None,
        parts: tuple[str, list[str]] | None,
    ) -> str:
        """Bring a write to the origin while its writer waits, in its order, without a journal.

        The writer is not told that it is done before it is, and may repeat the call: a staged file
        stays until then. When the writer is gone the file is taken back, which ends the upload.
        """
        prefix = target.origin.config.prefix
        upload = Upload(
            self.journal.next_name(), trailer, prefix, path, is_through=True, parts=parts
        )
        upload.left_at = time.monotonic()
        if staged is not None and staged.target is None:
            upload.attempts = 1  # at least: of a daemon that died before it answered
        self.order.add(upload)
        self._dispatcher.wake()
        info = await self._unblocked(upload)
        version = info.version if info else ""
        self.departures.remember(trailer.operation, version)
        self.departures.save()
        if staged is not None:
            if parts is not None:
                self.journal.parts.forget(staged.name)
            self.journal.remove_staged(staged.name)
            self.staging.forget(staged)
        return version

    async def _unblocked(self, upload: Upload) -> ObjectInfo | None:
        """Return what a write that somebody waits for became.

        Raises UploadFailedError once it waits for one that failed for good: that takes an operator,
        and what is done after its writer was told that it failed would be a surprise.
        """
        while True:
            await asyncio.wait([upload.done], timeout=_LOOK_S)
            culprit = None if upload.done.done() else self.order.culprit(upload)
            if culprit is None:
                if upload.done.done():
                    return upload.done.result()
                continue
            self._withdraw(
                upload,
                f"nothing was done, for it would have to wait for {culprit.uri}, which failed for "
                f"good ({culprit.last_error}): retry or discard that first, see `forebay uploads`",
            )

    async def change(self, trailer: spool.Trailer) -> None:
        """Take a remove, which is answered when it is durable, or do a copy or a move."""
        target = self.check_writable(trailer.uri, is_prefix=trailer.kind == spool.REMOVE_TREE)
        trailer = self._canonical(trailer)
        if trailer.kind in (spool.COPY, spool.MOVE):
            other = self.check_writable(trailer.target)
            if other.origin is not target.origin:
                raise InvalidPathError(
                    f"{trailer.target} is of another origin than {trailer.uri}: read and write it"
                )
            await self._once(
                trailer.operation, lambda: self._through(trailer, target, None, None, None)
            )
        else:
            is_repeated = self.has(trailer.operation)
            await self._once(trailer.operation, lambda: self._remove(trailer, target))
            if is_repeated:
                await self.journal.durable()

    def calling(self, operation: str, count: int) -> None:
        """Note that *count* more wait for a copy or move now; one that nobody waits for ends."""
        self._callers[operation] += count
        if not self._callers[operation]:
            del self._callers[operation]
            upload = self.order.by_operation(operation)
            if upload is not None:
                upload.left_at = time.monotonic()

    def _withdraw(self, upload: Upload, why: str) -> None:
        """Give up a write that its writer was not yet told is done."""
        if self.order.by_operation(upload.trailer.operation) is upload:
            self.order.remove(upload)
            self._failed(upload)
            if not upload.done.done():
                upload.done.set_exception(UploadFailedError(f"{upload.uri}: {why}"))
            self._dispatcher.wake()

    async def _remove(self, trailer: spool.Trailer, target: Target) -> str:
        await self.staging.reserve(disk.BLOCK)
        try:
            staged = await asyncio.to_thread(self.journal.write_staged, trailer)
            name = self.journal.commit(staged)
        except OSError:
            self.staging.release(disk.BLOCK)
            raise
        path = self.journal.file(name)
        upload = Upload(name, trailer, target.origin.config.prefix, path)
        await self._enter(upload, disk.BLOCK, is_synced=False)
        return ""

    # --- when they are there -----------------------------------------------------------------

    def _finish(self, upload: Upload, info: ObjectInfo | None) -> None:
        """The origin has it."""
        if self.order.by_operation(upload.trailer.operation) is not upload:
            return  # withdrawn in this moment
        self.order.remove(upload)
        self.report.done(upload)
        if upload.is_through:
            tell(lambda: self._shown.unknown(upload))
            if not upload.done.done():
                upload.done.set_result(info)
            return
        self.departures.remember(upload.trailer.operation, info.version if info else "")
        # At once: a later write of its key may be here and gone before the file is removed.
        tell(lambda: self._shown.arrived(upload, info))
        self.departures.add(upload, info)

    def _failed(self, upload: Upload) -> None:
        """Its writer is told that it failed; the origin may have it, or a part of a move."""
        tell(lambda: self._shown.unknown(upload))

    async def _ready(self, upload: Upload) -> None:
        """Wait, before a write that has no file in the journal, until earlier ones have none.

        Otherwise a crash would leave files behind that are uploaded again, over it.
        """
        if upload.is_through:
            await self.departures.wait()

    def tidy(self) -> None:
        """End copies and moves that nobody waits for, and, unless that goes on already, begin to
        end what uploads in parts have left at the origins."""
        for upload in list(self.order):
            is_forsaken = (
                upload.is_through
                and upload.path is None
                and upload.trailer.operation not in self._callers
            )
            if is_forsaken and time.monotonic() - upload.left_at > _FORSAKEN_S:
                self._withdrawing.add(task := asyncio.create_task(self._forsake(upload)))
                task.add_done_callback(self._withdrawing.discard)
        is_running = self._tidying is not None and not self._tidying.done()
        if not is_running and time.monotonic() >= self._tidy_at:
            self._tidying = asyncio.create_task(self._end_orphans())

    async def _forsake(self, upload: Upload) -> None:
        await self._dispatcher.cancel(upload)
        self._withdraw(upload, "nobody waited for it any more")

    async def _end_orphans(self) -> None:
        # Some have their files elsewhere; a stream's note has the name of its staged file.
        alive = {upload.name for upload in self.order}
        alive |= {upload.path.name for upload in self.order if upload.path is not None}
        for name, note in self.journal.parts.orphans():
            if name in alive:
                continue
            try:
                origin = self._origins.target(note.uri).origin.driver
                await self.journal.parts.end(name, note, origin)
            except (DaemonError, TransientError, OSError) as error:
                log.warning(
                    "an upload in parts cannot be ended",
                    extra={"uri": note.uri, "reason": str(error)},
                )
                self._tidy_at = time.monotonic() + _TIDY_AGAIN_S

    def _forget(self, upload: Upload) -> None:
        """Drop a write that is not to be: it could not be made durable, or was discarded."""
        if self.order.by_operation(upload.trailer.operation) is upload:
            self.order.remove(upload)
            self.departures.add(upload)

    # --- answers -----------------------------------------------------------------------------

    async def settle(self, ids: Iterable[str], *, discard: bool) -> int:
        """Try failed writes again, or discard writes; all that failed if *ids* names none.

        Raises ObjectNotFoundError for an unknown id.
        """
        by_name = {upload.name: upload for upload in self.order}
        wanted = list(ids) or [u.name for u in by_name.values() if u.state == FAILED]
        unknown = [name for name in wanted if name not in by_name]
        if unknown:
            raise ObjectNotFoundError(f"no upload has the id {unknown[0]}: see `forebay uploads`")
        for name in wanted:
            upload = by_name[name]
            if discard:
                await self._discard(upload)
            else:
                self._dispatcher.retry(upload)
        self._dispatcher.wake()
        return len(wanted)

    async def _discard(self, upload: Upload) -> None:
        await self._dispatcher.cancel(upload)
        if self.order.by_operation(upload.trailer.operation) is not upload:
            return  # it was faster
        log.warning("a write is discarded", extra={"uri": upload.uri})
        if upload.is_through:
            self._withdraw(upload, "discarded")
            return
        self._forget(upload)
        if upload.trailer.kind != DAMAGED:
            tell(lambda: self._shown.unknown(upload))
        await asyncio.wait([upload.done])  # its file is gone: it does not come back

    # --- the end -----------------------------------------------------------------------------

    async def stop(self, grace_s: float) -> None:
        """Upload what can be in *grace_s*; the rest stays in the journal."""
        deadline = time.monotonic() + grace_s
        while len(self.order) and time.monotonic() < deadline:
            if all(u.state == FAILED or self.order.culprit(u) for u in self.order):
                break
            await asyncio.sleep(0.05)
        await self._dispatcher.stop()
        if self._tidying is not None:
            self._tidying.cancel()
            await asyncio.wait([self._tidying])
        await self.departures.wait()
        if len(self.order):
            log.warning("writes are left for the next start", extra={"uploads": len(self.order)})
        self.journal.close()
