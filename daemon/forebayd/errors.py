"""Everything that can go wrong in the daemon, by what the caller can do about it.

DaemonError
|-- ObjectNotFoundError      no such object or bucket
|-- AccessDeniedError        the origin refused the credentials or the request
|-- InvalidPathError         the URI cannot be served as written
|-- OriginUnavailableError   the origin did not answer rightly, after all retries
|-- VersionChangedError      the object is no longer the version that was asked for
|-- CacheFullError           no space can be made
`-- ConfigError              the configuration or the cache folder does not do
"""

from __future__ import annotations

from forebay_protos import cache_pb2


class DaemonError(Exception):
    """Base of all; ``kind`` is how it travels to the client."""

    kind = cache_pb2.INTERNAL_ERROR


class ObjectNotFoundError(DaemonError):
    kind = cache_pb2.OBJECT_NOT_FOUND


class AccessDeniedError(DaemonError):
    kind = cache_pb2.ACCESS_DENIED


class InvalidPathError(DaemonError):
    kind = cache_pb2.INVALID_PATH


class OriginUnavailableError(DaemonError):
    kind = cache_pb2.ORIGIN_UNAVAILABLE


class VersionChangedError(DaemonError):
    kind = cache_pb2.VERSION_CHANGED


class CacheFullError(DaemonError):
    kind = cache_pb2.CACHE_FULL


class ConfigError(DaemonError):
    """The daemon cannot start like this; the text says which setting and what to do."""
