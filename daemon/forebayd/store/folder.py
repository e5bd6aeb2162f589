"""The cache folder as a whole: whose it is, its version, its lock, and whether its content may be
believed after a crash.

A folder is only taken when it is empty or carries our mark; nothing in it that is not ours is ever
removed. After a power loss (another boot, and no clean shutdown) files may hold anything, so the
cache starts empty under a new id, and no client's fingerprint fits any more.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import secrets
import shutil
import stat
from pathlib import Path

from forebay_protos import layout
from forebayd.errors import ConfigError, DaemonError

log = logging.getLogger(__name__)

SCRATCH = ".forebay-doctor-"  # how the names of `forebay doctor`'s folders begin
_BOOT = "BOOT"
_CLEAN = "clean"
_SIGNATURE = (
    "Signature: 8a477f597d28d172789f06886806bc55\n"
    "# A cache of Forebay: https://bford.info/cachedir/ tells backup programs to leave it out.\n"
)
_OURS = (
    layout.ATTACH,
    layout.BLOBS,
    layout.CATALOGUE,
    layout.COUNTERS,
    layout.LEASES,
    layout.META,
    layout.SEGMENTS,
)
_FOLDER_MODE = 0o2750  # setgid: clients of other uids in the group read, and make no files
_ID = re.compile("[0-9a-f]{32}")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def _text(path: Path) -> str:
    """Return a small file's text, "" if there is none; damage is text that means nothing."""
    try:
        return path.read_text(errors="replace").strip()
    except FileNotFoundError:
        return ""


def write_atomically(path: Path, text: str, *, durable: bool = False) -> None:
    """Replace *path*; after a crash of this process it is the old or the new text.

    Only what must hold after a power loss is *durable*: a sync takes 100 ms on a busy disk.
    """
    scratch = path.with_name(f".{path.name}.new")
    scratch.unlink(missing_ok=True)
    fd = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
    with os.fdopen(fd, "w") as file:
        file.write(text)
        file.flush()
        if durable:
            os.fsync(file.fileno())
    scratch.rename(path)


def check_owner(path: Path) -> None:
    """Raise ConfigError if an existing *path* is no folder that this process may take."""
    status = path.stat()
    if not stat.S_ISDIR(status.st_mode):
        raise ConfigError(f"cache folder {path} is not a folder")
    if status.st_uid != os.geteuid():
        raise ConfigError(
            f"cache folder {path} belongs to uid {status.st_uid}, this daemon runs as uid "
            f"{os.geteuid()}: run it as the owner or choose another with --cache-dir"
        )
    names = {each.name for each in path.iterdir()}
    strange = {name for name in names if not name.startswith(SCRATCH)} - {layout.LOCK}
    if layout.VERSION not in names and strange:
        raise ConfigError(
            f"cache folder {path} holds files that are not Forebay's: "
            "give an empty or a new folder with --cache-dir"
        )


def take(lock: int, path: Path) -> None:
    """Lock a folder by its open file. Raises ConfigError if a daemon has it."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.pread(lock, 32, 0).decode(errors="replace").strip() or "unknown"
        raise ConfigError(
            f"cache folder {path} is in use by the daemon with pid {holder}: "
            "stop that one or choose another folder with --cache-dir"
        ) from error


def read_version(path: Path) -> int:
    """Return the version of a cache folder. Raises ConfigError if this daemon does not know it."""
    text = _text(path / layout.VERSION)
    if not text.isdigit():
        raise ConfigError(
            f"{path / layout.VERSION} holds {text!r}, not a version: remove the folder"
        )
    if int(text) > layout.FORMAT_VERSION:
        raise ConfigError(
            f"cache folder {path} has version {text}, this daemon knows up to "
            f"{layout.FORMAT_VERSION}: upgrade forebay or choose another with --cache-dir"
        )
    return int(text)


class CacheFolder:
    """An opened, locked cache folder. Close it to let another daemon have it."""

    def __init__(self, path: Path) -> None:
        """Open or make the folder. Raises ConfigError with what is wrong and what to do."""
        self.path = path
        self.is_new = False  # no content of an earlier run is usable
        try:
            path.mkdir(parents=True, exist_ok=True, mode=_FOLDER_MODE)
            check_owner(path)
            self._lock_fd = self._lock()
        except PermissionError as error:
            raise ConfigError(
                f"cache folder {path} cannot be written by uid {os.getuid()} ({error.strerror}): "
                "change its owner or choose another with --cache-dir"
            ) from error
        except OSError as error:
            raise ConfigError(
                f"cache folder {path} cannot be used: {error.strerror}; "
                "choose another with --cache-dir"
            ) from error
        try:
            self._check_version()
            self.cache_id = self._open_id()
        except BaseException:
            os.close(self._lock_fd)
            raise

    def _lock(self) -> int:
        fd = os.open(self.path / layout.LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            take(fd, self.path)
        except ConfigError:
            os.close(fd)
            raise
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        return fd

    def _check_version(self) -> None:
        version_file = self.path / layout.VERSION
        if not version_file.exists():
            self.path.chmod(_FOLDER_MODE)
            write_atomically(self.path / layout.CACHEDIR_TAG, _SIGNATURE)
            write_atomically(version_file, f"{layout.FORMAT_VERSION}\n")
        if read_version(self.path) < layout.FORMAT_VERSION:
            self.empty()
            write_atomically(version_file, f"{layout.FORMAT_VERSION}\n")

    def _open_id(self) -> str:
        id_file = self.path / layout.ID
        boot_file = self.path / _BOOT
        boot = _BOOT_ID.read_text().strip()
        last, cache_id = _text(boot_file), _text(id_file)
        if not _ID.fullmatch(cache_id) or last not in (boot, _CLEAN):
            if id_file.exists():
                log.warning("the cache was in use when power was lost, or is damaged: starts empty")
            self.empty()
        self.was_clean = last == _CLEAN
        if last != boot:
            # Before anything changes: "clean" must not be believed after a power loss from here on.
            write_atomically(boot_file, boot, durable=True)
        return _text(id_file)

    def empty(self) -> None:
        """Remove all cached content and take a new id."""
        (self.path / layout.ID).unlink(missing_ok=True)
        for name in _OURS:
            self._remove(self.path / name)
        for pattern in ("table.*", "recency.*"):
            for path in self.path.glob(pattern):
                path.unlink()
        for name in (layout.SEGMENTS, layout.BLOBS, layout.LEASES):
            (self.path / name).mkdir(mode=_FOLDER_MODE)
        write_atomically(self.path / layout.ID, secrets.token_hex(16))
        self.cache_id = (self.path / layout.ID).read_text().strip()
        self.is_new = True

    @staticmethod
    def _remove(path: Path) -> None:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)

    def check_there(self) -> None:
        """Raise DaemonError if somebody has removed what this daemon works in."""
        for name in (layout.ID, layout.COUNTERS, layout.SEGMENTS):
            if not (self.path / name).exists():
                raise DaemonError(
                    f"{self.path / name} was removed while the daemon was running: restart the "
                    "daemon, and use `forebay evict --all` to empty the cache"
                )

    def mark_clean(self) -> None:
        """Say that everything is on the disk: the content may be believed after any reboot."""
        write_atomically(self.path / _BOOT, _CLEAN, durable=True)

    def close(self) -> None:
        os.close(self._lock_fd)
