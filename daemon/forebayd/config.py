"""The daemon's configuration: read and checked once, at start, into frozen dataclasses.

Flags, environment variables (``FOREBAY_…``) and the TOML file use the same words; flags win over the
environment, the environment over the file.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, slots=True)
class CredentialsConfig:
    """Where an origin's keys come from; never the keys themselves, which are not printed anywhere."""

    profile: str | None = None  # of the AWS configuration files
    access_key_env: str | None = None
    secret_key_env: str | None = None
    session_token_env: str | None = None
    file: Path | None = None  # an AWS credentials file
    anonymous: bool = False


@dataclass(frozen=True, slots=True)
class OriginConfig:
    """One origin: the URIs below a prefix."""

    prefix: str
    endpoint_url: str | None = None
    region: str | None = None
    addressing: Literal["path", "virtual"] = "path"
    ca_bundle: Path | None = None
    driver: Literal["obstore", "s3fs", "fsspec"] = "obstore"
    credentials: CredentialsConfig = field(default_factory=CredentialsConfig)
    freshness: Literal["immutable", "max_age", "always"] = "max_age"
    max_age_s: float = 300.0
    max_stale_s: float = 3600.0
    max_requests: int = 64  # in flight at once
    request_timeout_s: float = 30.0  # one attempt: no byte for so long
    deadline_s: float = 120.0  # all attempts of one request

    @property
    def identity(self) -> str:
        """Text of everything that makes the same URI another object elsewhere."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class DaemonConfig:
    """Everything the daemon was told."""

    cache_dir: Path
    max_bytes: int
    listen: tuple[str, ...]
    origins: tuple[OriginConfig, ...]
    path_mapping: dict[str, str] = field(default_factory=dict)
    packing_limit_bytes: int = 1 << 20
    block_bytes: int = 8 << 20
    segment_bytes: int = 256 << 20
    min_free_bytes: int = 1 << 30  # of the file system; fills stop below it
