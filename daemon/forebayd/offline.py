"""Looking at a cache folder while no daemon serves it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from forebay_protos import layout
from forebayd.errors import ConfigError
from forebayd.store import check as comparison
from forebayd.store.folder import CacheFolder
from forebayd.store.store import Store

if TYPE_CHECKING:
    from pathlib import Path


def check(cache_dir: Path, *, repair: bool) -> dict[str, Any]:
    """Compare catalogue, table, files and totals of a folder; its limits do not matter here.

    Raises ConfigError if it is no cache folder or if a daemon serves it.
    """
    if not (cache_dir / layout.VERSION).exists():
        raise ConfigError(f"{cache_dir} is no cache folder of Forebay")
    folder = CacheFolder(cache_dir)
    try:
        attach = cache_dir / layout.ATTACH
        attachment = layout.Attachment.from_json(attach.read_text()) if attach.exists() else None
        store = Store(
            folder,
            max_bytes=1 << 62,
            segment_bytes=attachment.segment_bytes if attachment else 256 << 20,
            meta_bytes=0,
        )
        if attachment is not None:
            store.attachment = attachment
        try:
            report = asyncio.run(comparison.check(store, repair=repair))
            store.sync()
            folder.mark_clean()
        finally:
            store.close()
    finally:
        folder.close()
    return {
        "problems": [{"what": p.what, "repaired": p.repaired} for p in report.problems],
        "objects": report.objects,
        "bytes": report.bytes,
    }
