"""S3 URIs in pieces, and ETags as versions; shared by the S3 drivers."""

from __future__ import annotations

import re

from forebayd.errors import InvalidPathError, ObjectNotFoundError

_BUCKET = re.compile(r"[A-Za-z0-9._:-]{1,255}")  # of all that S3 and Ceph (tenant:bucket) take


def split(uri: str) -> tuple[str, str]:
    """Return bucket and key of an object.

    Raises ObjectNotFoundError for a bare bucket, InvalidPathError for a name that none can have.
    """
    bucket, _, key = uri.partition("://")[2].partition("/")
    if not _BUCKET.fullmatch(bucket):
        raise InvalidPathError(f"{uri!r}: {bucket!r} cannot be a bucket's name")
    if not key:
        raise ObjectNotFoundError(f"{uri} names a bucket, not an object")
    return bucket, key


def folder(uri: str) -> tuple[str, str, str]:
    """Return bucket, key prefix and the URI up to the key, of a URI that names a folder."""
    head, _, rest = uri.partition("://")
    bucket, _, prefix = rest.partition("/")
    if not _BUCKET.fullmatch(bucket):
        raise InvalidPathError(f"{uri!r}: {bucket!r} cannot be a bucket's name")
    if prefix and not prefix.endswith("/"):
        prefix += "/"
    return bucket, prefix, f"{head}://{bucket}/"


def version_of(etag: str | None, size_bytes: int, modified: float) -> str:
    return etag.strip('"') if etag else f"{size_bytes}-{int(modified * 1e9)}"


def if_match(version: str) -> str:
    return version if version.startswith("W/") else f'"{version}"'
