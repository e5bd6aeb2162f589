"""What the tests of writes look at: the spool's folder, the origin's unfinished uploads."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import forebay
    from support.ceph import Bucket

_LONGEST_S = 60.0  # a machine that is busy with other tests
_ALWAYS_THERE = {"EPOCH", "commit", "staging"}


def wait_until(condition: Callable[[], object], what: str, longest_s: float = _LONGEST_S) -> None:
    """Return once *condition* holds. Raises AssertionError with *what* if it never does."""
    deadline = time.monotonic() + longest_s
    while not condition():
        assert time.monotonic() < deadline, f"never came: {what}"
        time.sleep(0.02)


def journal(cache_dir: Path) -> list[str]:
    """Return the files of acknowledged writes, in order."""
    return [name for name in _all(cache_dir) if not name.endswith(".parts")]


def _all(cache_dir: Path) -> list[str]:
    """Return what lies in the spool beside what always does."""
    return sorted({path.name for path in (cache_dir / "spool").iterdir()} - _ALWAYS_THERE)


def wait_until_empty(cache_dir: Path) -> None:
    """Wait until the spool's folder holds nothing: files go a moment after their flush."""
    wait_until(lambda: _all(cache_dir) == [], "an empty spool")


def spool_used(client: forebay.Client) -> int:
    """Return how many bytes the spool's ledger counts."""
    return int(client.stats().raw["spool"]["spool_used_bytes"])


def unfinished(bucket: Bucket) -> list[str]:
    """Return the keys that have an upload in parts at the origin which nobody has ended."""
    reply: Any = bucket.client.list_multipart_uploads(Bucket=bucket.name)
    return [upload["Key"] for upload in reply.get("Uploads", ())]


def contents(bucket: Bucket) -> dict[str, bytes]:
    """Return the bytes of every object."""
    keys = bucket.keys()
    return {key: bucket.get(key) for key in keys}
