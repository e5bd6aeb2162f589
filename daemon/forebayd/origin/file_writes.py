"""Writing of local files: what is not yet whole has a name of ours, which no listing shows.

A file is written under such a name in its target's folder, synced and renamed. An upload in parts
is such a file with every part at its place, and a journal beside it with a line for each part that
is on disk: "number offset size tag". All of it runs in threads.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import threading
import time
import uuid
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from forebayd.errors import InvalidPathError, UploadGoneError, VersionChangedError
from forebayd.origin.base import ABSENT
from forebayd.origin.driver import TransientError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

_OURS = ".forebay-"
_UPLOAD = re.compile(r"\.forebay-[0-9a-f]{32}")
_JOURNAL = ".parts"
_LINE = re.compile(r"^(\d+) (\d+) (\d+) ([0-9a-f]{8})$", re.MULTILINE)
_WRITE_BYTES = 64 << 20  # Linux takes 2 GiB at most in one call
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


def is_ours(name: str) -> bool:
    """Tell whether a file of this name is one that is being written."""
    return name.startswith(_OURS)


def target(uri: str, path: Path) -> Path:
    """Return *path* if a file of this name may be written."""
    if uri.endswith("/"):
        raise InvalidPathError(f"{uri}: a file's name cannot end with '/'")
    if is_ours(path.name):
        raise InvalidPathError(f"{uri}: names that begin with {_OURS} are the daemon's own")
    return path


def version_of(status: os.stat_result) -> str:
    return f"{status.st_size}-{status.st_mtime_ns}"


def put(path: Path, data: memoryview, expected: str | None) -> os.stat_result:
    """Write a whole file. Raises VersionChangedError, OSError."""
    with _written(path, expected) as fd:
        _write(fd, data, 0)
        return _sealed(fd)


def copy(source: Path, path: Path) -> os.stat_result:
    """Write a copy of *source*. Raises TransientError if it is written meanwhile, OSError."""
    with open(source, "rb") as file, _written(path, None) as fd:  # noqa: PTH123
        before = os.fstat(file.fileno())
        _copy(file.fileno(), fd, before.st_size)
        if version_of(os.fstat(file.fileno())) != version_of(before):
            raise TransientError("the file was written while it was copied")
        return _sealed(fd)


def delete(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
        path.unlink()
        _sync_folder(path.parent)


def delete_empty_folders(folder: Path) -> None:
    """Remove a folder and those below it, but for what holds files."""
    for root, _, __ in os.walk(folder, topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(root)  # noqa: PTH106  # as walk names it
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        _sync_folder(folder.parent)


def unused_uploads(path: Path) -> list[tuple[str, float]]:
    """Return (id, unix seconds) of uploads in parts, of whichever file of the folder, that were
    begun and have nothing yet."""
    found = []
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        for file in path.parent.iterdir():
            with contextlib.suppress(FileNotFoundError):
                if _UPLOAD.fullmatch(file.name):
                    journal = file.with_name(file.name + _JOURNAL)
                    if journal.stat().st_size == 0:
                        found.append((file.name, file.stat().st_mtime))
    return found


@dataclass(frozen=True, slots=True)
class _Part:
    offset: int
    size_bytes: int
    tag: str


class Uploads:
    """Uploads in parts. One process writes them; parts of one upload take turns."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards _turns
        self._turns: dict[Path, threading.Lock] = {}

    def begin(self, path: Path) -> str:
        _make_folder(path.parent)
        name = _OURS + uuid.uuid4().hex
        (path.parent / (name + _JOURNAL)).touch(exist_ok=False)
        (path.parent / name).touch(exist_ok=False)
        return name

    def put_part(self, path: Path, upload: str, number: int, data: memoryview) -> str:
        tag = f"{zlib.crc32(data):08x}"
        with self._opened(path, upload) as (fd, journal):
            there = _read(journal)
            part_bytes = max((part.size_bytes for part in there.values()), default=data.nbytes)
            others = {n: part for n, part in there.items() if n != number}
            if data.nbytes > part_bytes and others:
                # What is there can only be the last part, which came before any other.
                if len(others) > 1:
                    raise UploadGoneError(f"{path}: its parts differ in size: begin another upload")
                ((last, part),) = others.items()
                moved = memoryview(os.pread(fd, part.size_bytes, part.offset))
                part = _Part((last - 1) * data.nbytes, part.size_bytes, part.tag)
                _write(fd, moved, part.offset)
                os.fdatasync(fd)
                _note(journal, last, part)
            part = _Part((number - 1) * max(part_bytes, data.nbytes), data.nbytes, tag)
            _write(fd, data, part.offset)
            os.fdatasync(fd)  # what the journal names is there after a power loss, too
            _note(journal, number, part)
        return tag

    def parts(self, path: Path, upload: str) -> dict[int, tuple[str, int]]:
        with self._opened(path, upload) as (_, journal):
            return {n: (part.tag, part.size_bytes) for n, part in _read(journal).items()}

    def complete(self, path: Path, upload: str, tags: Sequence[str]) -> os.stat_result:
        with self._opened(path, upload) as (fd, journal):
            there = _read(journal)
            end = 0
            for number, tag in enumerate(tags, 1):
                part = there.get(number)
                if part is None or part.tag != tag or part.offset != end:
                    raise UploadGoneError(
                        f"{path}: part {number} is not as it was sent: begin another upload"
                    )
                end += part.size_bytes
            os.ftruncate(fd, end)
            status = _sealed(fd)
            (path.parent / upload).replace(path)
            journal.unlink()
        self._forget(path, upload)
        _sync_folder(path.parent)
        return status

    def abort(self, path: Path, upload: str) -> None:
        if not _UPLOAD.fullmatch(upload):
            return
        for name in (upload, upload + _JOURNAL):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                (path.parent / name).unlink()
        self._forget(path, upload)

    @contextlib.contextmanager
    def _opened(self, path: Path, upload: str) -> Iterator[tuple[int, Path]]:
        """Lend the file and its journal's name, to one thread at a time."""
        if not _UPLOAD.fullmatch(upload):
            raise UploadGoneError(f"{path}: {upload!r} is no upload: begin another")
        file = path.parent / upload
        with self._lock:
            turn = self._turns.setdefault(file, threading.Lock())
        with turn:
            try:
                fd = os.open(file, os.O_RDWR | os.O_CLOEXEC)
            except (FileNotFoundError, NotADirectoryError) as error:
                self._forget(path, upload)
                raise UploadGoneError(f"{path}: the upload is gone: begin another") from error
            try:
                yield fd, file.with_name(upload + _JOURNAL)
            finally:
                os.close(fd)

    def _forget(self, path: Path, upload: str) -> None:
        with self._lock:
            self._turns.pop(path.parent / upload, None)


def _note(journal: Path, number: int, part: _Part) -> None:
    # A line's end before it, too: a crash may have left a piece of a line.
    with journal.open("a") as file:
        file.write(f"\n{number} {part.offset} {part.size_bytes} {part.tag}\n")


def _read(journal: Path) -> dict[int, _Part]:
    found: dict[int, _Part] = {}
    for number, offset, size_bytes, tag in _LINE.findall(journal.read_text()):
        found[int(number)] = _Part(int(offset), int(size_bytes), tag)
    return found


@contextlib.contextmanager
def _written(path: Path, expected: str | None) -> Iterator[int]:
    """Lend a new file, which is at *path* afterwards, unless the caller raises."""
    _make_folder(path.parent)
    temporary = path.parent / (_OURS + uuid.uuid4().hex)
    # 0o666: the process' umask says the rest.
    fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        try:
            yield fd
        finally:
            os.close(fd)
        _place(temporary, path, expected)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _place(temporary: Path, path: Path, expected: str | None) -> None:
    if expected == ABSENT:
        try:
            os.link(temporary, path)
        except FileExistsError as error:
            raise VersionChangedError(f"{path} exists") from error
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            # vfat and some network file systems: not in one step, then.
            if os.path.lexists(path):
                raise VersionChangedError(f"{path} exists") from error
        else:
            temporary.unlink()
            return
    elif expected is not None:
        try:
            version = version_of(path.stat())
        except FileNotFoundError as error:
            raise VersionChangedError(f"{path} is gone, no longer {expected}") from error
        if version != expected:
            raise VersionChangedError(f"{path} is now {version}, no longer {expected}")
    temporary.replace(path)


def _write(fd: int, data: memoryview, offset: int) -> None:
    done = 0
    while done < data.nbytes:
        done += os.pwrite(fd, data[done : done + _WRITE_BYTES], offset + done)


def _copy(source: int, target: int, count: int) -> None:
    done, can_share = 0, True
    while done < count:
        length = min(count - done, _WRITE_BYTES)
        copied = 0
        if can_share:
            try:
                copied = os.copy_file_range(source, target, length)
            except OSError as error:
                if error.errno not in (errno.EXDEV, errno.EINVAL, *_NO_LINKS):
                    raise
                can_share = False
        if not can_share:
            copied = os.sendfile(target, source, None, length)
        if not copied:
            raise TransientError("the file was written while it was copied")
        done += copied


def _sealed(fd: int) -> os.stat_result:
    """Return what the file is, now that all of it is on disk."""
    # Kernels before 6.13 stamp a write with the time of the last tick: two of one size within
    # 4 ms would be the same version.
    now = time.time_ns()
    os.utime(fd, ns=(now, now))
    os.fsync(fd)
    return os.fstat(fd)


def _make_folder(folder: Path) -> None:
    missing = [folder, *folder.parents]
    while missing and missing[-1].is_dir():
        missing.pop()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise InvalidPathError(
            f"{folder} cannot be a folder: it is a file, or below one"
        ) from error
    for made in reversed(missing):
        _sync_folder(made.parent)


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
