"""Files mapped into memory without keeping a file descriptor.

``mmap.mmap`` holds a descriptor for each mapping before Python 3.13; a process that reads a large
cache has thousands of segments mapped, and a soft limit of 1,024 descriptors.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import weakref

_MAP_FAILED = ctypes.c_void_p(-1).value

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int64,
)
_libc.munmap.restype = ctypes.c_int
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)


def map_readonly(fd: int, size_bytes: int) -> memoryview:
    """Return the first *size_bytes* of a file, read-only; unmapped when the last view is gone.

    The file must be that long and stay so: an access beyond its end kills the process.
    """
    if size_bytes == 0:
        return memoryview(b"")
    address = _libc.mmap(None, size_bytes, mmap.PROT_READ, mmap.MAP_SHARED, fd, 0)
    if address == _MAP_FAILED:
        number = ctypes.get_errno()
        raise OSError(number, f"cannot map {size_bytes} bytes: {os.strerror(number)}")
    array = (ctypes.c_ubyte * size_bytes).from_address(address)
    # Every view holds the array, so it outlives them all. At exit the kernel unmaps.
    weakref.finalize(array, _libc.munmap, address, size_bytes).atexit = False
    return memoryview(array).cast("B").toreadonly()


class OpenFile:
    """A file descriptor that is closed when nobody refers to it any more.

    Closing it by hand could let a thread that is about to read from it read another file.
    """

    __slots__ = ("fd",)

    def __init__(self, path: str) -> None:
        self.fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        if hasattr(self, "fd"):
            os.close(self.fd)
