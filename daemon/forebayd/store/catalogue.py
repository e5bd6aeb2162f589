"""The durable list of what is cached, in LMDB. Opened by one daemon; clients never see it.

Databases: ``entries`` (fingerprint -> row), ``names`` (URI and fingerprint, for prefix scans),
``meta`` (JSON values), ``unsettled`` (generations of blobs whose file is being written or removed:
what a crash may have left behind). Commits do not sync: after kill -9 the page cache still has
them, and after a power loss the cache starts empty anyway.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from typing import TYPE_CHECKING, Any

import lmdb

from forebayd.store import disk, rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from forebayd.store.rows import Entry

_MAP_SIZE = 1 << 37  # address space, not memory: some 300 million rows
_RESERVE_BYTES = 1 << 20  # on the disk, for commits while it is full
_MAX_NAME = 480  # LMDB keys end at 511 bytes; 16 are the fingerprint's


def _name_key(uri: str, fingerprint: bytes) -> bytes:
    return uri.encode("utf-8", "surrogatepass")[:_MAX_NAME] + b"\0" + fingerprint


class Catalogue:
    """Rows by fingerprint and by URI prefix. One writer; not thread-safe but for ``snapshot``."""

    def __init__(self, folder: Path) -> None:
        """Open or make it. Raises lmdb.Error, OSError or ValueError if that cannot be."""
        folder.mkdir(mode=0o700, exist_ok=True)
        self.path = folder / "data.mdb"
        self._env = lmdb.open(
            str(folder), map_size=_MAP_SIZE, max_dbs=4, sync=False, metasync=False, mode=0o600
        )
        try:
            self._check_length()
            self._entries = self._env.open_db(b"entries")
            self._names = self._env.open_db(b"names")
            self._meta = self._env.open_db(b"meta")
            self._unsettled = self._env.open_db(b"unsettled")
        except BaseException:
            self._env.close()
            raise

    @property
    def _needed_bytes(self) -> int:
        """How long the file must be for its content."""
        return int((self._env.info()["last_pgno"] + 1) * self._env.stat()["psize"])

    def _check_length(self) -> None:
        """Raise ValueError if the file is cut: reading beyond its end would kill the daemon.

        Pages at the end that a commit took and gave back are never written; ``reserve`` keeps the
        file longer than that.
        """
        size = self.path.stat().st_size
        if size < self._needed_bytes:
            raise ValueError(f"{self.path} is {size} bytes, its content is {self._needed_bytes}")

    @contextlib.contextmanager
    def _writing(self, db: Any = None) -> Iterator[lmdb.Transaction]:
        """Commit at the end, all or nothing. Raises OSError: a full disk is the usual reason."""
        try:
            with self._env.begin(write=True, db=db) as txn:
                yield txn
        except lmdb.Error as error:
            raise OSError(errno.ENOSPC, f"the catalogue cannot be written: {error}") from error

    def reserve(self) -> int:
        """Keep the file longer than its content, with disk space for commits while the disk is full
        (where the file system has it); returns how much."""
        needed = self._needed_bytes
        if self.path.stat().st_size < needed + _RESERVE_BYTES // 2:
            try:
                disk.allocate(self.path, needed, _RESERVE_BYTES)
            except OSError:
                os.truncate(self.path, needed + _RESERVE_BYTES)
        return max(0, disk.allocated_bytes(self.path) - needed)

    def get(self, fingerprint: bytes) -> Entry | None:
        """Return the committed entry, or None."""
        with self._env.begin(db=self._entries) as txn:
            row = txn.get(fingerprint)
        return None if row is None else rows.decode(fingerprint, row)

    def get_many(self, fingerprints: Iterable[bytes]) -> list[Entry | None]:
        with self._env.begin(db=self._entries) as txn:
            found = [(key, txn.get(key)) for key in fingerprints]
        return [None if row is None else rows.decode(key, row) for key, row in found]

    def commit(
        self,
        puts: Iterable[Entry] = (),
        deletes: Iterable[Entry] = (),
        meta: dict[str, Any] | None = None,
        unsettled: Mapping[int, bytes] | None = None,
        settled: Iterable[int] = (),
    ) -> None:
        """Apply everything in one transaction; deletes first.

        *unsettled* (generation -> fingerprint) is noted before a blob's file is touched, *settled*
        (generations) taken back after it. Raises OSError with nothing changed.
        """
        with self._writing() as txn:
            for entry in deletes:
                txn.delete(entry.fingerprint, db=self._entries)
                txn.delete(_name_key(entry.uri, entry.fingerprint), db=self._names)
            for entry in puts:
                txn.put(entry.fingerprint, rows.encode(entry), db=self._entries)
                txn.put(_name_key(entry.uri, entry.fingerprint), b"", db=self._names)
            for key, value in (meta or {}).items():
                txn.put(key.encode(), json.dumps(value).encode(), db=self._meta)
            for generation, fingerprint in (unsettled or {}).items():
                txn.put(generation.to_bytes(8, "big"), fingerprint, db=self._unsettled)
            for generation in settled:
                txn.delete(generation.to_bytes(8, "big"), db=self._unsettled)

    def update(self, entries: Iterable[Entry]) -> None:
        """Rewrite rows that exist under the same name (validation times, pins, blocks).

        Raises OSError with nothing changed.
        """
        with self._writing(self._entries) as txn:
            for entry in entries:
                txn.put(entry.fingerprint, rows.encode(entry))

    def meta(self, key: str, default: Any = None) -> Any:
        with self._env.begin(db=self._meta) as txn:
            value = txn.get(key.encode())
        return default if value is None else json.loads(value)

    def unsettled(self) -> dict[int, bytes]:
        with self._env.begin(db=self._unsettled) as txn:
            return {int.from_bytes(key, "big"): bytes(value) for key, value in txn.cursor()}

    def fingerprints(self) -> bytes:
        """Return all keys, 16 bytes each, in byte order."""
        with self._env.begin(db=self._entries) as txn:
            return b"".join(txn.cursor().iternext(values=False))

    def count(self) -> int:
        with self._env.begin() as txn:
            return int(txn.stat(self._entries)["entries"])

    def below(self, prefix: str) -> Iterator[Entry]:
        """Yield the entries whose URI starts with *prefix*, as of now, in URI order."""
        start = prefix.encode("utf-8", "surrogatepass")[:_MAX_NAME]
        with self._env.begin() as txn:
            cursor = txn.cursor(self._names)
            found = cursor.set_range(start)
            while found:
                name = cursor.key()
                if not name.startswith(start):
                    return
                fingerprint = name[-16:]
                row = txn.get(fingerprint, db=self._entries)
                if row is not None:
                    entry = rows.decode(fingerprint, row)
                    if entry.uri.startswith(prefix):
                        yield entry
                found = cursor.next()

    def all(self) -> Iterator[Entry]:
        """Yield every entry as of now; may run in another thread."""
        with self._env.begin(db=self._entries) as txn:
            for fingerprint, row in txn.cursor():
                yield rows.decode(bytes(fingerprint), row)

    def sync(self) -> None:
        self._env.sync(True)

    def close(self) -> None:
        self._env.close()
