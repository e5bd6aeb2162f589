"""How long a cached version may be served without asking, by an origin's policy.

``immutable``: for ever. ``max_age``: the daemon looks it up again once it is *max_age_s* old and in
use; it is served meanwhile, until *max_stale_s* later. ``always``: never without asking.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from forebay_protos.table import NEVER_STALE

if TYPE_CHECKING:
    from forebayd.config import OriginConfig

_NEVER_S = 2**32 - 1


def validity(config: OriginConfig, validated_at_ns: int) -> tuple[int, int]:
    """Return (stale_after_ns, refresh_after_s) of a version last seen at *validated_at_ns*."""
    if config.freshness == "immutable":
        return NEVER_STALE, _NEVER_S
    if config.freshness == "always":
        return 0, _NEVER_S
    refresh_s = validated_at_ns / 1e9 + config.max_age_s
    stale_after_ns = int((refresh_s + config.max_stale_s) * 1e9)
    return min(NEVER_STALE, stale_after_ns), min(_NEVER_S, int(refresh_s))


def may_serve(config: OriginConfig, validated_at_ns: int) -> bool:
    """Tell whether a version last seen then may be served now without asking."""
    return time.time_ns() < validity(config, validated_at_ns)[0]
