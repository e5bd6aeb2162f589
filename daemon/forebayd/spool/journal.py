"""The spool's folder, which is the journal of acknowledged writes.

``spool/staging/<name>`` belongs to a writer, who holds a flock on it; its length is what it may
take. ``spool/<epoch>-<number>`` is committed: the rename gave it its place in the order, for good,
since an epoch (a run of the daemon) never comes again. ``spool/<name>.parts`` remembers an upload
in parts of either (``parts.py``). Nothing here is removed by anything but a finished or discarded
write.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import re
import secrets
from typing import TYPE_CHECKING

from forebay_protos import layout, spool
from forebayd.spool.parts import PartNotes
from forebayd.store.folder import write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

log = logging.getLogger(__name__)

_EPOCH = "EPOCH"
_NAME = re.compile(r"\d{8}-\d{12}")
_MODE = 0o2750  # clients open files that the daemon has made, and make none
_SMALL_BYTES = 1 << 20
_READY_FILES = 64


class Journal:
    """The files. One event loop, except where a docstring says otherwise."""

    def __init__(self, cache_dir: Path) -> None:
        """Open or make the folder, and begin an epoch. Raises OSError."""
        self.cache_dir = cache_dir
        self.parts = PartNotes(cache_dir)
        self.path = cache_dir / layout.SPOOL
        staging = cache_dir / layout.STAGING
        for folder in (self.path, staging):
            folder.mkdir(exist_ok=True)
            folder.chmod(_MODE)
        for path in staging.iterdir():
            # Who writes holds a lock, and may outlive daemons; files that nobody got do not.
            self.take_back(f"{layout.STAGING}/{path.name}")
        epoch_file = self.path / _EPOCH
        # Committed names count too, should the file be lost.
        last = max((int(path.name[:8]) for path in self.files()), default=0)
        if epoch_file.exists():
            last = max(last, int(epoch_file.read_text() or 0))
        self._epoch = last + 1
        write_atomically(epoch_file, f"{self._epoch}\n", durable=True)
        self._number = 0
        self._fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        os.fsync(self._fd)
        self._ready: list[str] = []  # staged files that nobody has yet
        self._making: asyncio.Task[None] | None = None
        self._waiting: list[asyncio.Future[None]] = []
        self._syncing: asyncio.Task[None] | None = None

    # --- staged files ------------------------------------------------------------------------

    def stage(self, size_bytes: int) -> str:
        """Return a file that may take *size_bytes*; its name is relative to the cache folder.

        Raises OSError.
        """
        name = self._ready.pop() if self._ready else self._make()
        if size_bytes > _SMALL_BYTES:
            try:
                self.grow(name, size_bytes)
            except OSError:
                self.remove_staged(name)
                raise
        if len(self._ready) < _READY_FILES // 2 and (self._making is None or self._making.done()):
            self._making = asyncio.create_task(asyncio.to_thread(self._make_ready))
        return name

    def _make(self) -> str:
        name = f"{layout.STAGING}/{secrets.token_hex(12)}"
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        os.close(os.open(f"{self.cache_dir}/{name}", flags, 0o660))
        return name

    def _make_ready(self) -> None:
        """Make files ahead, in a thread: one takes 100 us, more while another is fsynced."""
        try:
            while len(self._ready) < _READY_FILES:
                self._ready.append(self._make())
        except OSError as error:
            log.warning("no file can be made in the spool", extra={"reason": str(error)})

    def grow(self, name: str, size_bytes: int) -> None:
        """Let a staged file take *size_bytes*. Raises FileNotFoundError if it was taken back.

        Its length says so, for a daemon that finds it after this one; of small ones it need not.
        """
        os.truncate(self.cache_dir / name, size_bytes)

    def staged(self) -> Iterator[tuple[str, int]]:
        """Yield (name, length in bytes) of every staged file."""
        for path in (self.cache_dir / layout.STAGING).iterdir():
            with contextlib.suppress(FileNotFoundError):
                yield f"{layout.STAGING}/{path.name}", max(path.stat().st_size, _SMALL_BYTES)

    def take_back(self, name: str) -> bool:
        """Remove a staged file unless its writer holds it; tells whether it is gone."""
        path = self.cache_dir / name
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return True
        try:
            # Who comes later and gets the lock sees a file without a name.
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
        except BlockingIOError:
            return False
        finally:
            os.close(fd)
        return True

    def remove_staged(self, name: str) -> None:
        """Remove a staged file whose writer is done with it."""
        (self.cache_dir / name).unlink(missing_ok=True)

    # --- committed files ---------------------------------------------------------------------

    def next_name(self) -> str:
        self._number += 1
        return f"{self._epoch:08d}-{self._number:012d}"

    def commit(self, staged: str) -> str:
        """Give a staged file its place in the order; returns its name. ``durable`` is to follow.

        Raises OSError.
        """
        name = self.next_name()
        os.rename(f"{self.cache_dir}/{staged}", f"{self.path}/{name}")  # noqa: PTH104  # 20 us less
        return name

    def write_staged(self, trailer: spool.Trailer) -> str:
        """Return a staged file, fsynced, of a write without bytes. In any thread."""
        staged = self._make()
        fd = os.open(self.cache_dir / staged, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, trailer.to_bytes())
            os.fsync(fd)
        finally:
            os.close(fd)
        return staged

    async def durable(self) -> None:
        """Wait until every rename and removal so far is on the disk. Raises OSError.

        Those who come while one fsync runs share the next.
        """
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        if self._syncing is None:
            self._syncing = asyncio.create_task(self._sync())
        await future

    async def _sync(self) -> None:
        while self._waiting:
            waiting, self._waiting = self._waiting, []
            error: OSError | None = None
            try:
                await asyncio.to_thread(os.fsync, self._fd)
            except OSError as raised:
                error = raised
            for future in waiting:
                if future.done():
                    continue
                if error is None:
                    future.set_result(None)
                else:
                    future.set_exception(error)
        self._syncing = None

    def file(self, name: str) -> Path:
        return self.path / name

    def remove(self, name: str) -> None:
        """Remove a write that is done; ``durable`` makes it last. In any thread."""
        self.file(name).unlink(missing_ok=True)

    def files(self) -> list[Path]:
        """Return the committed files, in order."""
        return sorted(path for path in self.path.iterdir() if _NAME.fullmatch(path.name))

    @staticmethod
    def read(path: Path) -> tuple[spool.Trailer, float]:
        """Return a committed file's trailer, and when it was written, in unix seconds.

        Raises ValueError for a damaged one, OSError.
        """
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return spool.read_trailer(fd), os.fstat(fd).st_mtime
        finally:
            os.close(fd)

    def close(self) -> None:
        for name in self._ready:
            self.remove_staged(name)
        os.close(self._fd)
