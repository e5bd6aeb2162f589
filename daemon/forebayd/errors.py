"""Everything that can go wrong in the daemon, by what the caller can do about it.

DaemonError
|-- ObjectNotFoundError      no such object or bucket
|-- AccessDeniedError        the origin refused the credentials or the request
|-- InvalidPathError         the URI cannot be served as written
|-- OriginUnavailableError   the origin did not answer rightly, after all retries
|-- VersionChangedError      the object is no longer the version that was asked for
|-- UploadGoneError          the upload in parts is no longer there, or not as it should be
|-- CacheFullError           no space can be made
|-- AlreadyExistsError       a create found an object
|-- SpoolFullError           no room for a write, and none to come
|-- UploadFailedError        the origin refused a write for good
|-- StageLostError           a staged file was taken back
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


class AppendedMeanwhileError(DaemonError):
    """As VersionChangedError, but another attempt would not do: the bytes begin with the old."""

    kind = cache_pb2.VERSION_CHANGED


class DamagedError(DaemonError):
    """A spooled file is not what its trailer says."""


class UploadGoneError(DaemonError):
    """Inside the daemon only: whoever sends the parts begins another upload."""


class CacheFullError(DaemonError):
    kind = cache_pb2.CACHE_FULL


class AlreadyExistsError(DaemonError):
    kind = cache_pb2.ALREADY_EXISTS


class SpoolFullError(DaemonError):
    kind = cache_pb2.SPOOL_FULL


class UploadFailedError(DaemonError):
    kind = cache_pb2.UPLOAD_FAILED


class StageLostError(DaemonError):
    kind = cache_pb2.STAGE_LOST


class ConfigError(DaemonError):
    """The daemon cannot start like this; the text says which setting and what to do."""
