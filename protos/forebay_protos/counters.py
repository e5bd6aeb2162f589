"""Counters of hits that were made without the daemon: file ``counters``, a row a client process.

A row is 128 bytes, 16 little-endian uint64, which only ever grow. A process claims a row with an
open-file-description lock on the row's first byte, adds to it, and leaves it as it is: the next
process that gets the row goes on from there, so the column sums are totals that survive every
client. The lock goes with the process, whatever its pid, uid or pid namespace. When every row is
taken, the file grows; it never shrinks, and it is allocated, not sparse: a store into a hole of a
full disk would kill the process.
"""

from __future__ import annotations

import struct

FORMAT_VERSION = 1
FLOCK = struct.Struct("hhqqi4x")
"""``struct flock`` of fcntl(2): type, whence, start, length, pid (0 for these locks)."""

ROW_SIZE = 128
TIMED_ONE_IN = 64
"""Of so many hits a process makes, one is timed."""

HIT_BOUNDS_NS = (2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 500_000, 2_000_000, 10_000_000)
"""Upper bounds of the buckets of timed hits; one more bucket takes the rest."""

ROW_FIELDS = (
    "hits",
    "hit_bytes",
    "table_misses",
    "retries",
    "timed_ns",  # the sum of the timed hits
    *(f"timed_until_{bound}_ns" for bound in HIT_BOUNDS_NS),  # in this bucket, not cumulative
    "timed_longer",
)
"""Columns in order; the rest of the row is zero and for later fields."""

GROW_ROWS = 512
