"""What a daemon needs of a folder, a disk and its origins, looked at without being one.

Nothing is changed: what is written for a try has no name, or lies in a scratch folder that goes at
once. Each check is bounded in what it does; who calls it bounds how long a broken disk or network
may take for that.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import mmap
import os
import stat as modes
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from forebay_protos import layout, uris
from forebay_protos.counters import FLOCK
from forebay_protos.findings import Finding, ok, problem, problem_of, skipped, warning
from forebayd import remote
from forebayd.errors import ConfigError, InvalidPathError, ObjectNotFoundError
from forebayd.origin.build import driver_of, fallback
from forebayd.store import disk, folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from forebayd.config import DaemonConfig, OriginConfig

FOLDER, FILES, SPACE, SPEED = "cache folder", "file system", "disk space", "disk speed"

_NETWORKS = ("nfs", "nfs4", "cifs", "smb3", "ceph", "9p", "lustre", "gpfs", "beegfs", "afs")
_TRIAL_BYTES, _LEAST_TRIAL_BYTES = 128 << 20, 8 << 20
_PIECE_BYTES = 4 << 20
_SYNCS = 10
_TURN_S = 2.0  # each of: syncs, writing, reading
# Below these the network is faster than the disk, and a save waits longer than the origin takes.
_SLOW_BYTES_PER_S = 200e6
_SLOW_SYNC_S = 0.02


def check_listeners(config: DaemonConfig) -> None:
    """Look at certificate, key and token. Raises ConfigError."""
    if config.tls_cert is not None and config.tls_key is not None:
        remote.server_credentials(config.tls_cert, config.tls_key)
    if config.token_file is not None:
        remote.TokenCheck(config.token_file)


def is_writable(cache_dir: Path) -> bool:
    """Tell whether this user may write there, or where the folder would be made."""
    return os.access(disk.existing(cache_dir), os.W_OK)


def check_folder(cache_dir: Path, *, is_served: bool) -> Finding:
    """Look at whether clients may share the folder and, unless a daemon has it, whether one of this
    user would take it."""
    if is_served:
        return _check_group(cache_dir)
    there = disk.existing(cache_dir)
    if there != cache_dir:
        if os.access(there, os.W_OK | os.X_OK):
            return ok(FOLDER, f"{cache_dir} is not there yet; the daemon makes it")
        return problem(
            FOLDER,
            f"{cache_dir} is not there, and uid {os.geteuid()} cannot make it in {there}",
            "make it, owned by the daemon's user, or choose another --cache-dir",
        )
    try:
        folder.check_owner(cache_dir)
        if (cache_dir / layout.VERSION).exists():
            folder.read_version(cache_dir)
        if (cache_dir / layout.LOCK).exists():
            with (cache_dir / layout.LOCK).open() as lock:
                folder.take(lock.fileno(), cache_dir)
    except ConfigError as error:
        return problem_of(FOLDER, error)
    if not os.access(cache_dir, os.W_OK | os.X_OK):
        return problem(
            FOLDER,
            f"{cache_dir} cannot be written by uid {os.geteuid()}",
            "change its owner or mode, mount it writable, or choose another --cache-dir",
        )
    return _check_group(cache_dir)


def _check_group(cache_dir: Path) -> Finding:
    status = cache_dir.stat()
    whose = f"{cache_dir} of uid {status.st_uid}, group {status.st_gid}"
    needed = modes.S_IRGRP | modes.S_IXGRP | modes.S_ISGID
    if (cache_dir / layout.VERSION).exists() and status.st_mode & needed != needed:
        return warning(
            FOLDER,
            f"{whose} has mode {modes.S_IMODE(status.st_mode):o}, so that clients of the group "
            "cannot share it",
            f"chmod 2750 {cache_dir}",
        )
    return ok(FOLDER, f"{whose}; members of the group share it")


def check_files(cache_dir: Path) -> Finding:
    """Try what the store relies on, in a scratch folder."""
    there = disk.existing(cache_dir)
    kind, is_read_only = mounted(there)
    if is_read_only:
        return problem(FILES, f"{kind} at {there} is mounted read-only", "mount it writable")
    with tempfile.TemporaryDirectory(prefix=folder.SCRATCH, dir=there) as name:
        scratch = Path(name)
        lacking = [what for what, works in _NEEDED if not _does(works, scratch)]
        can_punch = disk.can_punch(scratch)
    if lacking:
        return problem(
            FILES,
            f"{kind} at {there} lacks {', '.join(lacking)}",
            "choose a --cache-dir on ext4, xfs or btrfs",
        )
    if kind in _NETWORKS or kind.startswith("fuse."):
        return problem(
            FILES, f"{there} is {kind}, over a network", "choose a --cache-dir on a local disk"
        )
    if kind in ("tmpfs", "ramfs"):
        return warning(
            FILES,
            f"{there} is {kind}: the cache is memory, and a reboot loses writes under way",
            "choose a --cache-dir on a disk, unless that is meant",
        )
    if kind == "overlay":
        return warning(
            FILES,
            f"{there} is a container's own layer: it is slower, and goes with the container",
            "mount a volume there",
        )
    if not can_punch:
        return warning(
            FILES,
            f"{kind} at {there} cannot punch holes: every object is a file of its own",
            "choose ext4, xfs or btrfs for many small objects",
        )
    return ok(FILES, f"{kind} at {there}: shared mappings, hard links, locks and holes work")


def _does(works: Callable[[Path], bool], scratch: Path) -> bool:
    try:
        return works(scratch)
    except OSError as error:
        if error.errno == errno.ENOSPC:  # a full disk says nothing about what it could do
            raise
        return False


def _maps_are_shared(scratch: Path) -> bool:
    with (scratch / "mapped").open("w+b", buffering=0) as file:
        os.posix_fallocate(file.fileno(), 0, disk.BLOCK)
        with mmap.mmap(file.fileno(), disk.BLOCK) as mapping:
            os.pwrite(file.fileno(), b"seen", 0)
            return mapping[:4] == b"seen"


def _links(scratch: Path) -> bool:
    file = scratch / "file"
    file.touch()
    (scratch / "link").hardlink_to(file)
    (scratch / "link").rename(file)
    return file.exists()


def _locks(scratch: Path) -> bool:
    with (scratch / "locked").open("w+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        wanted = FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 1, 0)
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, wanted)
        return True


_NEEDED: tuple[tuple[str, Callable[[Path], bool]], ...] = (
    ("shared mappings", _maps_are_shared),
    ("hard links", _links),
    ("locks", _locks),
)


def mounted(path: Path) -> tuple[str, bool]:
    """Return (kind of file system, whether it is read-only) of an existing path."""
    device = path.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    best, kind = "", "an unknown file system"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        # 36 35 98:0 /root /mount/point rw,noatime shared:1 - ext4 /dev/sda rw
        fields, _, rest = line.partition(" - ")
        _, _, where, _, point, *_ = fields.split()
        point = point.replace("\\040", " ")
        # By name: btrfs tells other device numbers for files than for its mounts.
        is_above = uris.has_prefix(str(path.resolve()), point)
        if is_above and (len(point) > len(best) or (len(point) == len(best) and where == number)):
            best, kind = point, rest.split()[0]
    return kind, bool(os.statvfs(path).f_flag & os.ST_RDONLY)


def check_space(
    cache_dir: Path, *, max_bytes: int, min_free_bytes: int, used_bytes: int | None = None
) -> Finding:
    """Compare the limits with the disk; *used_bytes*: what the cache has, None: look."""
    there = disk.existing(cache_dir)
    free_bytes = disk.free_bytes(there)
    room = f"{_size(free_bytes)} are free"
    if free_bytes <= min_free_bytes:
        return problem(
            SPACE,
            f"{room}, no more than min_free_bytes ({_size(min_free_bytes)}): nothing is cached",
            "free some, or lower min_free_bytes",
        )
    used = occupied_bytes(cache_dir) if used_bytes is None else used_bytes
    most_bytes = used + free_bytes - min_free_bytes
    if most_bytes < max_bytes:
        return warning(
            SPACE,
            f"max_bytes is {_size(max_bytes)}, but the disk has room for {_size(most_bytes)} "
            f"({_size(used)} in use by the cache, {room})",
            f"set max_bytes to {most_bytes} or less, or free some",
        )
    return ok(SPACE, f"{room}; max_bytes {_size(max_bytes)} fit, {_size(used)} are in use")


def occupied_bytes(cache_dir: Path) -> int:
    """Return what the files of a cache folder take on the disk; 0 if there is none."""
    total = 0
    for above, _, names in os.walk(cache_dir):
        total += sum(disk.allocated_bytes(Path(above, name)) for name in names)
    return total


def check_speed(cache_dir: Path, *, min_free_bytes: int) -> Finding:
    """Write, sync and read up to 128 MiB, in some seconds."""
    there = disk.existing(cache_dir)
    room_bytes = (disk.free_bytes(there) - min_free_bytes) // 4
    size_bytes = min(_TRIAL_BYTES, room_bytes // _PIECE_BYTES * _PIECE_BYTES)
    if size_bytes < _LEAST_TRIAL_BYTES:
        return skipped(SPEED, "there is too little room to try")
    with tempfile.TemporaryFile(dir=there, buffering=0) as file:  # without a name, where it can be
        fd = file.fileno()
        sync_s = _sync_s(fd)
        written_per_s, written_bytes = _write(fd, size_bytes)
        read_per_s = _read(fd, written_bytes)
    found = (
        f"writes {_size(int(written_per_s))}/s, reads {_size(int(read_per_s))}/s, "
        f"fsync {1000 * sync_s:.3g} ms"
    )
    slow = []
    if read_per_s < _SLOW_BYTES_PER_S:
        slow.append("hits of what is not in memory will be slow")
    if written_per_s < _SLOW_BYTES_PER_S:
        slow.append("misses will wait for the disk")
    if sync_s > _SLOW_SYNC_S:
        slow.append("each write waits for two fsyncs")
    if slow:
        return warning(SPEED, f"{found}: {', '.join(slow)}", "use a local NVMe disk")
    return ok(SPEED, found)


def _sync_s(fd: int) -> float:
    taken = []
    end = time.monotonic() + _TURN_S
    for number in range(_SYNCS):
        began = time.monotonic()
        os.pwrite(fd, os.urandom(disk.BLOCK), number * disk.BLOCK)
        os.fsync(fd)
        taken.append(time.monotonic() - began)
        if time.monotonic() > end:
            break
    return statistics.median(taken)


def _write(fd: int, size_bytes: int) -> tuple[float, int]:
    piece = memoryview(os.urandom(_PIECE_BYTES))
    began = time.monotonic()
    offset = 0
    while offset < size_bytes and time.monotonic() < began + _TURN_S:
        disk.pwrite_all(fd, piece, offset)
        os.fdatasync(fd)  # each time, so that a slow disk cannot have much to catch up with
        offset += len(piece)
    return offset / (time.monotonic() - began), offset


def _read(fd: int, size_bytes: int) -> float:
    os.posix_fadvise(fd, 0, size_bytes, os.POSIX_FADV_DONTNEED)
    began = time.monotonic()
    offset = 0
    while offset < size_bytes and time.monotonic() < began + _TURN_S:
        offset += len(os.pread(fd, _PIECE_BYTES, offset))
    return offset / (time.monotonic() - began)


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:.3g} GB" if size_bytes >= 1e9 else f"{size_bytes / 1e6:.3g} MB"


def is_there(origins: Iterable[OriginConfig], uri: str, timeout_s: float) -> bool:
    """Ask the origin of *uri*, once, whether there is an object or prefix of this name.

    Raises DaemonError or TimeoutError.
    """
    table = {origin.prefix: origin for origin in origins}
    try:
        found = uris.resolve(uri, table)
    except ValueError as error:
        raise InvalidPathError(str(error)) from error
    uri, _, config = found or (uri, "", fallback(uri))
    try:
        return asyncio.run(asyncio.wait_for(_is_there(config, uri), timeout_s))
    except asyncio.TimeoutError as error:  # which is another class before Python 3.11
        raise TimeoutError(f"no answer in {timeout_s:g} s") from error


async def _is_there(config: OriginConfig, uri: str) -> bool:
    driver = driver_of(config)
    try:
        try:
            await driver.head(uri)
        except ObjectNotFoundError:
            page, _ = await driver.page(uri, recursive=False, token=None)
            return bool(page.objects or page.prefixes)
        return True
    except ObjectNotFoundError:
        return False
    finally:
        await driver.close()
