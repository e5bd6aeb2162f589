"""A small data set: the names and bytes of some files."""

from __future__ import annotations

import random

FILES = {
    "images/1.jpg": random.Random(1).randbytes(5000),
    "images/2.jpg": random.Random(2).randbytes(6000),
    "images/deep/3.jpg": random.Random(3).randbytes(7000),
    "weights.pth": random.Random(4).randbytes(3 << 20),
    "empty": b"",
}
