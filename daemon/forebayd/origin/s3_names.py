"""S3 URIs in pieces, and ETags as versions; shared by the S3 drivers."""

from __future__ import annotations

from forebayd.errors import ObjectNotFoundError


def split(uri: str) -> tuple[str, str]:
    """Return bucket and key of an object. Raises ObjectNotFoundError for a bare bucket."""
    bucket, _, key = uri.partition("://")[2].partition("/")
    if not key:
        raise ObjectNotFoundError(f"{uri} names a bucket, not an object")
    return bucket, key


def folder(uri: str) -> tuple[str, str, str]:
    """Return bucket, key prefix and the URI up to the key, of a URI that names a folder."""
    head, _, rest = uri.partition("://")
    bucket, _, prefix = rest.partition("/")
    if prefix and not prefix.endswith("/"):
        prefix += "/"
    return bucket, prefix, f"{head}://{bucket}/"


def version_of(etag: str | None, size_bytes: int, modified: float) -> str:
    return etag.strip('"') if etag else f"{size_bytes}-{int(modified * 1e9)}"


def if_match(version: str) -> str:
    return version if version.startswith("W/") else f'"{version}"'
