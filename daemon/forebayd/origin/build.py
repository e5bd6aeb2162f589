"""Puts origins together: the one place that knows drivers and the order of wrappers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import fsspec

from forebay_protos import uris
from forebayd.config import OriginConfig
from forebayd.errors import InvalidPathError
from forebayd.origin.limited import Limited
from forebayd.origin.observed import Observed, Unobserved
from forebayd.origin.retrying import Retrying

if TYPE_CHECKING:
    from forebayd.origin.base import Origin
    from forebayd.origin.driver import Driver
    from forebayd.origin.observed import Observer


def build(config: OriginConfig, observer: Observer | None = None) -> Origin:
    """Return the origin that *config* describes. To be called in the event loop that uses it.

    Nothing is connected or looked up before the first request.
    """
    observer = observer or Unobserved()
    observed = Observed(driver_of(config), observer, prefix=config.prefix)
    retrying = Retrying(
        observed,
        observer,
        prefix=config.prefix,
        endpoint=config.endpoint_name,
        attempts=config.max_attempts,
        deadline_s=config.deadline_s,
    )
    return Limited(retrying, max_requests=config.max_requests)


def driver_of(config: OriginConfig) -> Driver:
    """Return the bare driver. Each is imported only when an origin wants it."""
    if config.scheme == "file":
        from forebayd.origin.file_origin import FileDriver

        return FileDriver(config)
    if config.scheme != "s3":
        from forebayd.origin.fsspec_origin import FsspecDriver

        return FsspecDriver(config)
    if config.driver == "obstore":
        from forebayd.origin.obstore_origin import ObstoreDriver

        return ObstoreDriver(config)
    from forebayd.origin.s3fs_origin import S3fsDriver

    return S3fsDriver(config)


def fallback(uri: str) -> OriginConfig:
    """Return an origin with default settings for a URI of a scheme that is not configured.

    Raises InvalidPathError, naming the scheme, if fsspec does not know it either.
    """
    scheme = uris.without_cluster(uri).partition("://")[0].lower()
    if scheme not in fsspec.available_protocols():
        raise InvalidPathError(
            f"{uri}: no origin serves the scheme {scheme!r}, and fsspec does not know it"
        )
    return OriginConfig(prefix=f"{scheme}://", driver="fsspec")
