"""Notes of uploads in parts: to go on with them after a crash, and to leave none behind.

``spool/<name>.parts`` belongs to the staged or committed file *name*, and is written before the
upload is begun: an answer that never came may hide an upload that nobody knows by its id. Such a
doubt outlives the upload that is then made, and is looked into when the file is gone.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from forebay_protos import layout
from forebayd.store.folder import write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from forebayd.origin.base import Origin

_SUFFIX = ".parts"
_CLOCKS_S = 60.0  # by which the origin's clock may be another


@dataclass(frozen=True, slots=True)
class Note:
    """What is known of the upload of one file."""

    uri: str
    upload: str = ""  # its id; "" if none was answered yet
    part_bytes: int = 0
    attempts: int = 0  # at beginning one
    first_at: float = 0.0  # of these, in unix seconds
    last_at: float = 0.0

    @property
    def is_doubtful(self) -> bool:
        """Tell whether there may be uploads that were begun and never answered."""
        return self.attempts > (1 if self.upload else 0)


class PartNotes:
    """The notes in a spool's folder. In any thread, for one name at a time."""

    def __init__(self, cache_dir: Path) -> None:
        self._path = cache_dir / layout.SPOOL
        self._staging = cache_dir / layout.STAGING

    async def begin(self, name: str, uri: str, origin: Origin, part_bytes: int) -> str:
        """Begin an upload at *origin* and note its id, which is returned."""
        now = time.time()
        before = self.find(name) or Note(uri, first_at=now)
        intent = Note(uri, "", 0, before.attempts + 1, before.first_at, now)
        await asyncio.to_thread(self._write, name, intent)
        upload = await origin.begin_upload(uri)
        known = dataclasses.replace(intent, upload=upload, part_bytes=part_bytes)
        await asyncio.to_thread(self._write, name, known)
        return upload

    def find(self, name: str) -> Note | None:
        try:
            return Note(**json.loads(self._file(name).read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def forget(self, name: str) -> None:
        """Drop what is known of an upload that is complete, or gone; doubts stay."""
        note = self.find(name)
        if note is not None and note.is_doubtful:
            attempts = note.attempts - 1 if note.upload else note.attempts
            self._write(name, dataclasses.replace(note, upload="", attempts=attempts))
        else:
            self._file(name).unlink(missing_ok=True)

    def orphans(self) -> Iterator[tuple[str, Note]]:
        """Yield the notes whose files are gone."""
        for file in sorted(self._path.glob("*" + _SUFFIX)):
            name = file.name.removesuffix(_SUFFIX)
            if (self._path / name).exists() or (self._staging / name).exists():
                continue
            note = self.find(name)
            if note is None:
                file.unlink(missing_ok=True)
            else:
                yield name, note

    async def end(self, name: str, note: Note, origin: Origin) -> None:
        """End at *origin* what an orphan tells of, and drop the note."""
        doomed = {note.upload} if note.upload else set()
        if note.is_doubtful:
            mine = {each.upload for each in map(self.find, self._names()) if each is not None}
            doomed |= {
                upload
                for upload, begun_at in await origin.uploads(note.uri)
                if note.first_at - _CLOCKS_S <= begun_at <= note.last_at + _CLOCKS_S
                and upload not in mine
            }
        for upload in doomed:
            await origin.abort_upload(note.uri, upload)
        self._file(name).unlink(missing_ok=True)

    def _names(self) -> list[str]:
        return [file.name.removesuffix(_SUFFIX) for file in self._path.glob("*" + _SUFFIX)]

    def _file(self, name: str) -> Path:
        return self._path / (os.path.basename(name) + _SUFFIX)  # noqa: PTH119  # a staged one's too

    def _write(self, name: str, note: Note) -> None:
        write_atomically(self._file(name), json.dumps(dataclasses.asdict(note)), durable=True)
