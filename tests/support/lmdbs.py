"""LMDBs to be stored as objects."""

from __future__ import annotations

from typing import TYPE_CHECKING

import lmdb

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def make_lmdb(folder: Path, entries: Mapping[str, bytes]) -> None:
    """Make an LMDB of *entries* in a new folder."""
    folder.mkdir()
    with (
        lmdb.open(str(folder), map_size=1 << 20) as environment,
        environment.begin(write=True) as txn,
    ):
        for key, value in entries.items():
            txn.put(key.encode(), value)
