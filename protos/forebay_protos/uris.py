"""URIs as daemon and client both write them.

A canonical URI is ``scheme://rest`` or ``cluster:s3://rest``, scheme in lower case;
``forebay://rest`` is written for ``s3://rest``. A key is
opaque: ``//``, ``..``, ``%`` and ``+`` stay as they are, because in an object store they are names.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Mapping

_URI = re.compile(
    r"(?:(?P<cluster>[A-Za-z0-9_.-]+):)?(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<rest>.*)",
    re.DOTALL,
)
MAX_KEY_BYTES = 1024  # S3's limit

T = TypeVar("T")


def is_uri(path: str) -> bool:
    return "://" in path and _URI.fullmatch(path) is not None


def canonical(uri: str) -> str:
    """Return *uri* with its scheme in lower case and validated.

    Raises ValueError, with what to do, for a missing scheme or bucket, or too long a key.
    """
    match = _URI.fullmatch(uri)
    if match is None:
        raise ValueError(
            f"{uri!r} has no scheme and no path_mapping turns it into a URI: "
            "give s3://bucket/key, or map its prefix"
            + (" (a pathlib path has lost a '/': give a str)" if ":/" in uri else "")
        )
    cluster, scheme, rest = match.group("cluster", "scheme", "rest")
    scheme = scheme.lower()
    if scheme == "forebay":  # as fsspec knows us
        scheme = "s3"
    if cluster is not None and scheme != "s3":
        raise ValueError(f"{uri!r}: only s3 URIs take a cluster name (cluster:s3://bucket/key)")
    if "\0" in rest:
        raise ValueError(f"{uri!r} holds a NUL character")
    try:
        rest.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{uri!r} is not Unicode, as names of objects are") from error
    if scheme == "s3":
        bucket, _, key = rest.partition("/")
        if not bucket or bucket.endswith(":"):  # s3://s3://bucket
            raise ValueError(f"{uri!r} names no bucket: write s3://bucket/key")
        if len(key.encode()) > MAX_KEY_BYTES:
            raise ValueError(f"{uri[:80]!r}…: the key is longer than {MAX_KEY_BYTES} bytes")
    elif scheme == "file" and not rest.startswith("/"):
        raise ValueError(f"{uri!r} is not absolute: write file:///path")
    return f"{cluster}:{scheme}://{rest}" if cluster else f"{scheme}://{rest}"


def without_cluster(uri: str) -> str:
    """Return ``s3://…`` for ``cluster:s3://…``, anything else as it is."""
    return uri.split(":", 1)[1] if re.match(r"[^:/]+:s3://", uri) else uri


def has_prefix(uri: str, prefix: str) -> bool:
    """Tell whether *prefix* is *uri* or whole leading components of it; "" is a prefix of all."""
    return uri.startswith(prefix) and (
        not prefix or len(uri) == len(prefix) or prefix.endswith("/") or uri[len(prefix)] == "/"
    )


def longest_prefix(uri: str, table: Mapping[str, T]) -> tuple[str, T] | None:
    """Return the longest key of *table* that is a prefix of *uri*, with its value."""
    fits = [prefix for prefix in table if has_prefix(uri, prefix)]
    if not fits:
        return None
    best = max(fits, key=len)
    return best, table[best]


def resolve(uri: str, origins: Mapping[str, T]) -> tuple[str, str, T] | None:
    """Return (canonical URI, origin prefix, origin) for *uri*, or None if no origin serves it.

    ``cluster:s3://…`` belongs to an origin configured for that cluster; without one, to the origin
    of the plain ``s3://…``, under which it is then known.
    """
    uri = canonical(uri)
    found = longest_prefix(uri, origins)
    if found is None or not found[0]:
        uri = without_cluster(uri)
        found = longest_prefix(uri, origins)
    return None if found is None else (uri, *found)
