"""Objects of the sizes at which something changes: pages, the packing limit, blocks."""

from __future__ import annotations

import random

MIB = 1 << 20
SIZES = {
    "0": 0,
    "1": 1,
    "4095": 4095,
    "4096": 4096,
    "4097": 4097,
    "1MiB-1": MIB - 1,  # the last that is packed, and the first that is not
    "1MiB": MIB,
    "1MiB+1": MIB + 1,
    "8MiB-1": 8 * MIB - 1,  # one block, and two
    "8MiB": 8 * MIB,
    "8MiB+1": 8 * MIB + 1,
    "20MiB": 20 * MIB,
}


def some_bytes(size: int) -> bytes:
    """Return bytes that are the same each time for a size."""
    return random.Random(size).randbytes(size)
