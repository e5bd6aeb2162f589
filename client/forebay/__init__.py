"""Forebay's client: cached reads of Ceph/S3 at the speed of local files, and writes behind it.

import forebay

with forebay.Client(path_mapping={"data/coco": "s3://bucket/coco"}) as client:
    image = client.get("data/coco/train/1.jpg")
"""

from __future__ import annotations

from forebay._client import Client
from forebay._errors import (
    AccessDeniedError,
    CacheFullError,
    DaemonUnavailableError,
    DeadlineExceededError,
    ForebayError,
    InvalidPathError,
    ObjectExistsError,
    ObjectNotFoundError,
    OriginUnavailableError,
    SpoolFullError,
    StaleFileError,
    UploadFailedError,
)
from forebay._values import (
    CheckReport,
    Evicted,
    FlushProgress,
    Problem,
    Stat,
    Stats,
    Upload,
    WarmProgress,
)
from forebay._version import __version__

__all__ = [
    "AccessDeniedError",
    "CacheFullError",
    "CheckReport",
    "Client",
    "DaemonUnavailableError",
    "DeadlineExceededError",
    "Evicted",
    "FlushProgress",
    "ForebayError",
    "InvalidPathError",
    "ObjectExistsError",
    "ObjectNotFoundError",
    "OriginUnavailableError",
    "Problem",
    "SpoolFullError",
    "StaleFileError",
    "Stat",
    "Stats",
    "Upload",
    "UploadFailedError",
    "WarmProgress",
    "__version__",
]
