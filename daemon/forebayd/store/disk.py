"""What the kernel offers for files: allocated size, holes, free space."""

from __future__ import annotations

import ctypes
import errno
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

BLOCK = 4096  # what a small file really costs on ext4 and xfs
_KEEP_SIZE, _PUNCH = 0x01, 0x02
_IN_MEMORY = (0x0102_1994, 0x8584_58F6)  # tmpfs, ramfs
_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


def existing(path: Path) -> Path:
    """Return *path*, or the nearest folder above it that can be seen."""
    while not os.path.exists(path):  # noqa: PTH110  # False too where we may not look
        path = path.parent
    return path


def rounded(size_bytes: int) -> int:
    """Return *size_bytes* in whole disk blocks, at least one."""
    return max(BLOCK, -(-size_bytes // BLOCK) * BLOCK)


def punch(fd: int, offset: int, length: int) -> None:
    """Give the blocks of [offset, offset + length) back to the file system. Raises OSError."""
    _fallocate(fd, _KEEP_SIZE | _PUNCH, offset, length)


def allocate(path: Path, offset: int, length: int) -> None:
    """Take disk blocks for [offset, offset + length) of a file. Raises OSError."""
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        _fallocate(fd, 0, offset, length)
    finally:
        os.close(fd)


def _fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    if _libc.fallocate(fd, mode, offset, length) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def _is_in_memory(folder: Path) -> bool:
    status = ctypes.create_string_buffer(256)
    if _libc.statfs(os.fsencode(folder), status) != 0:
        return False
    kind = int.from_bytes(status.raw[: ctypes.sizeof(ctypes.c_long)], "little")
    return kind in _IN_MEMORY


def allocated_bytes(path: Path) -> int:
    """Return what *path* occupies on the disk, 0 if it is gone."""
    try:
        return path.stat().st_blocks * 512
    except FileNotFoundError:
        return 0


def can_punch(folder: Path) -> bool:
    """Tell whether a punched hole really frees blocks in this folder's file system.

    In memory it does, but a hole that a client reads through a mapping takes a page again there,
    and kills the client if there is none: such a file system counts as one that cannot.
    """
    if _is_in_memory(folder):
        return False
    probe = folder / f".probe-{os.getpid()}"
    fd = os.open(probe, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(fd, 0, 16 * BLOCK)  # written blocks may show only after a sync
        before = os.fstat(fd).st_blocks
        punch(fd, 0, 16 * BLOCK)
        return os.fstat(fd).st_blocks < before
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
            return False
        raise
    finally:
        os.close(fd)
        probe.unlink()


def pwrite_all(fd: int, data: memoryview, offset: int) -> None:
    """Write all of *data*; raises OSError (ENOSPC, EIO) with the file in an unknown state."""
    while data:
        written = os.pwrite(fd, data, offset)
        data = data[written:]
        offset += written


def free_bytes(folder: Path) -> int:
    """Return what an unprivileged process may still write to the file system of *folder*."""
    stats = os.statvfs(folder)
    return stats.f_bavail * stats.f_frsize
