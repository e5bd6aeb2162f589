"""What the spool tells the cache, so that the node's readers see what was written."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from forebay_protos import spool
    from forebayd.cache.origins import Target
    from forebayd.origin.base import ObjectInfo
    from forebayd.spool.order import Upload

log = logging.getLogger(__name__)


class Shown(Protocol):
    """The cache, as the spool knows it."""

    def written(self, upload: Upload) -> None:
        """A write is durable now: what was cached of it is out of date."""

    def arrived(self, upload: Upload, info: ObjectInfo | None) -> None:
        """The origin has it since a moment ago, as *info*; its file is about to be removed."""

    def uploaded(self, upload: Upload, info: ObjectInfo) -> None:
        """The origin has it, and the journal no longer."""

    def unknown(self, upload: Upload) -> None:
        """It is not going to be, or was not seen by us: show what the origin has."""

    def check_base(self, target: Target, trailer: spool.Trailer) -> None:
        """Raise VersionChangedError if an append is not to what readers see now."""


def tell(what: Callable[[], None]) -> None:
    """Tell the cache something; its troubles are not the write's."""
    try:
        what()
    except Exception:
        log.exception("the cache does not take in what was written")
