"""See ``forebay.petrel``."""

from forebay.petrel import (
    AccessDeniedError,
    CacheError,
    ClientError,
    Error,
    InvalidAccessKeyError,
    InvalidClusterNameError,
    InvalidDfsUriError,
    InvalidMcUriError,
    InvalidS3UriError,
    NoDefaultClusterNameError,
    NoSuchBucketError,
    ObjectNotFoundError,
    ResourceNotFoundError,
    RetriableError,
    ServerError,
    SignatureNotMatchError,
)

__all__ = [
    "AccessDeniedError",
    "CacheError",
    "ClientError",
    "Error",
    "InvalidAccessKeyError",
    "InvalidClusterNameError",
    "InvalidDfsUriError",
    "InvalidMcUriError",
    "InvalidS3UriError",
    "NoDefaultClusterNameError",
    "NoSuchBucketError",
    "ObjectNotFoundError",
    "ResourceNotFoundError",
    "RetriableError",
    "ServerError",
    "SignatureNotMatchError",
]
