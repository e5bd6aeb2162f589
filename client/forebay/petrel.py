"""What ``petrel_client`` offers, answered by the node's daemon.

``forebay exec`` puts packages named ``petrel_client`` and ``aoss_client`` on the path of the
program below it; both are this module. The interface is that of the SDK as programs use it: what is
not there, and what may not be read, is None.
"""

from __future__ import annotations

import io
import logging
import re
from typing import IO, TYPE_CHECKING, Any

from forebay import _client, _errors
from forebay._petrel_conf import default_cluster
from forebay._values import Stat
from forebay_protos import uris

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from typing_extensions import Buffer

log = logging.getLogger("petrel_client")

_S3_URI = re.compile(r"^(?:(?P<cluster>[^:]+):)?s3://(?P<bucket>[^/]+)/?(?P<key>.*)$", re.I | re.S)
_RANGE = re.compile(r"^(?:bytes=)?(\d*)-(\d*)$")


# --- errors, as petrel_client.common.exception names them ---------------------------------------


class Error(Exception):
    """Base of the SDK's errors."""


class RetriableError(Error):
    """Another attempt may do."""


class ClientError(Error):
    """A fault of the caller."""


class InvalidAccessKeyError(ClientError):
    """Never raised here: keys are the daemon's."""


class SignatureNotMatchError(ClientError):
    """Never raised here: keys are the daemon's."""


class InvalidS3UriError(ClientError, ValueError):
    """The URI is none of ``s3://bucket/key`` or ``cluster:s3://bucket/key``."""


class InvalidDfsUriError(ClientError):
    """Never raised here."""


class InvalidMcUriError(ClientError):
    """Never raised here."""


class InvalidClusterNameError(ClientError):
    """Never raised here: unknown clusters are the default one."""


class NoDefaultClusterNameError(ClientError):
    """Never raised here: the daemon has a default."""


class AccessDeniedError(ClientError):
    """The origin refused what was to be written."""


class ResourceNotFoundError(ClientError):
    """There is no such thing."""


class NoSuchBucketError(ResourceNotFoundError):
    """There is no such bucket."""


class ObjectNotFoundError(ResourceNotFoundError):
    """There is no such object."""


class ServerError(Error):
    """A fault of the server."""


class CacheError(Error):
    """Never raised here: the cache is Forebay's."""


# --- the client -------------------------------------------------------------------------------


class Client:
    """The SDK's client. Safe with threads and under fork, picklable."""

    def __init__(self, conf_path: str | None = None, *args: Any, **kwargs: Any) -> None:
        """Make a client.

        *conf_path*: the SDK's configuration; its default cluster counts, keys and endpoints are the
        daemon's. Other arguments (``enable_mc``, ``mc_key_cb``) are for a cache that is not used.
        """
        del args, kwargs
        self._conf_path = conf_path
        self._cluster = default_cluster(conf_path)
        self._client = _client.Client()

    def __reduce__(self) -> tuple[type[Client], tuple[str | None]]:
        return type(self), (self._conf_path,)

    def _uri(self, uri: str) -> str:
        """Return a URI with its cluster; mapped paths are none, and the client's."""
        if not isinstance(uri, str):
            raise TypeError(f"the first argument is the URI, a str, not {type(uri).__name__}")
        match = _S3_URI.match(uri)
        if match is not None and match["cluster"] is None and self._cluster:
            return f"{self._cluster}:{uri}"
        return uri

    def _checked(self, uri: str) -> str:
        """Return ``_uri`` of what can be one. Raises InvalidS3UriError."""
        path = self._uri(uri)
        try:
            self._client._uri(path)
        except _errors.InvalidPathError as error:
            raise InvalidS3UriError(str(error)) from error
        return path

    # --- reading -----------------------------------------------------------------------------

    def get(
        self,
        uri: str,
        *,
        update_cache: bool = False,
        enable_stream: bool = False,
        range: str | tuple[int, int] | None = None,  # the SDK's name
        **_: Any,
    ) -> Any:
        """Return an object's bytes, None if it is not there or may not be read.

        Args:
            uri: ``s3://bucket/key``, ``cluster:s3://bucket/key`` or a mapped path.
            update_cache: ask the origin whether the cached version is the current one.
            enable_stream: return a file instead.
            range: as in HTTP: ``"0-99"`` or ``(0, 99)`` is the first hundred bytes.
        """
        path = self._uri(uri)
        try:
            if update_cache:
                self._drop_if_stale(path)
            if enable_stream and range is None:
                return self._client.open(path, "rb")
            data = self._client.get(path, *_limits(range))
            return io.BytesIO(data) if enable_stream else data
        except _errors.ObjectNotFoundError:
            log.debug("there is no object %s", uri)
        except _errors.AccessDeniedError as error:
            log.error("%s", error)  # nothing is known that it does not say
        except _errors.InvalidPathError as error:
            raise InvalidS3UriError(str(error)) from error
        return None

    Get = get

    def _drop_if_stale(self, path: str) -> None:
        current = self._client._stat(path, fresh=True)
        if self._client._stat(path).version != current.version:
            self._client.evict(path)

    def GetAndUpdate(self, uri: str, **kwargs: Any) -> Any:  # the SDK's name
        """Return an object's current bytes, whatever is cached."""
        return self.get(uri, **{**kwargs, "update_cache": True})

    get_and_update = GetAndUpdate

    def get_with_info(self, uri: str, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """Return an object's bytes, None if it is not there, and what is known of it."""
        data = self.get(uri, **kwargs)
        if data is None:
            return None, {}
        found = self._client.stat(self._uri(uri))
        return data, {"size": found.size_bytes, "etag": found.version, "modified": found.modified}

    def contains(self, uri: str) -> bool:
        """Tell whether there is an object of this name."""
        return self._client.isfile(self._checked(uri))

    def isdir(self, uri: str) -> bool:
        """Tell whether there are objects below this name."""
        return self._client.isdir(self._checked(uri))

    def list(self, uri: str, **_: Any) -> Iterator[str]:
        """Yield the names below a prefix; those of prefixes end with a slash."""
        path = self._client._uri(self._checked(uri)).rstrip("/") + "/"
        plain = uris.without_cluster(path)
        entries = self._client.list(path)
        for name in sorted(entry if isinstance(entry, str) else entry.uri for entry in entries):
            yield name.removeprefix(path).removeprefix(plain)

    def get_file_iterator(self, uri: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield (``bucket/key``, what S3 lists of it) of all objects below a prefix."""
        for entry in self._client.list(self._uri(uri), recursive=True):
            if isinstance(entry, Stat):
                bucket_and_key = entry.uri.partition("://")[2]
                key = bucket_and_key.partition("/")[2]
                yield bucket_and_key, {"Key": key, "Size": entry.size_bytes, "ETag": entry.version}

    # --- writing -----------------------------------------------------------------------------

    def put(self, uri: str, content: Buffer | str | IO[bytes], **_: Any) -> None:
        """Write an object, a str as UTF-8; it is durable on this node when this returns."""
        read = getattr(content, "read", None)
        data: Buffer | str = content if read is None else read()  # type: ignore[assignment]
        try:
            self._client.put(self._uri(uri), data)
        except _errors.AccessDeniedError as error:
            raise AccessDeniedError(str(error)) from error
        except _errors.InvalidPathError as error:
            raise InvalidS3UriError(str(error)) from error

    def put_with_info(
        self, uri: str, content: Buffer | str | IO[bytes], **kwargs: Any
    ) -> tuple[None, dict[str, Any]]:
        """As ``put``; returns (its result, nothing known of it yet)."""
        self.put(uri, content, **kwargs)
        return None, {}

    def delete(self, uri: str, **_: Any) -> None:
        """Remove an object, if there is one."""
        self._client.remove(self._checked(uri), missing_ok=True)

    # --- what needs the origin's keys --------------------------------------------------------

    def create_bucket(self, uri: str, **_: Any) -> bool:
        """Create a bucket, unless it is there. Returns True."""
        self._client.create_bucket(self._uri(uri))
        return True

    def generate_presigned_url(
        self, uri: str, client_method: str = "get_object", expires_in: int = 3600
    ) -> str:
        """Return a URL with which anybody may do *client_method* to the object for a while."""
        return self._client.presign(self._uri(uri), client_method, expires_in)

    def generate_presigned_post(
        self,
        uri: str,
        fields: Mapping[str, str] | None = None,
        conditions: Sequence[Any] | None = None,
        expires_in: int = 3600,
    ) -> dict[str, Any]:
        """Return ``url`` and ``fields`` of a form that writes the object."""
        return self._client.presign_form(self._uri(uri), fields, conditions, expires_in)

    @staticmethod
    def set_count_disp(count_disp: int) -> None:
        """Do nothing: what was read is counted by the daemon (``forebay stats``)."""
        del count_disp


MixedClient = Client


def _limits(
    wanted: str | tuple[int, int] | None,
) -> tuple[int | None, int | None]:
    """Return a range of HTTP as (start, end), half-open."""
    if wanted is None:
        return None, None
    if isinstance(wanted, str):
        match = _RANGE.match(wanted)
        if match is None or not (match[1] or match[2]):
            raise ValueError(
                f"range {wanted!r}: give 'first-last', 'first-', '-count' or (first, last)"
            )
        if not match[1]:
            return -int(match[2]) or None, None if int(match[2]) else 0
        return int(match[1]), int(match[2]) + 1 if match[2] else None
    first, last = wanted
    return first, last + 1
