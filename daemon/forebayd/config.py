"""The daemon's configuration: read and checked once, at start, into frozen dataclasses.

Flags, environment variables (``FOREBAY_…``) and the TOML file use the same words; flags win over
the environment, the environment over the file. :func:`load` puts them together, ``settings.py``
knows how each word is written. Nothing here holds a secret.
"""

from __future__ import annotations

import logging
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal
from urllib.parse import urlsplit

from forebay_protos import addresses, uris
from forebayd import settings
from forebayd.errors import ConfigError
from forebayd.store import disk

if TYPE_CHECKING:
    from collections.abc import Mapping

log = logging.getLogger(__name__)

DEFAULT_METRICS_LISTEN = "127.0.0.1:9423"
_DEFAULT_PREFIXES = ("s3://", "file://", "http://", "https://")
_SHARE_OF_FREE_SPACE = 0.8


@dataclass(frozen=True, slots=True)
class CredentialsConfig:
    """Where an origin's keys come from; never the keys themselves."""

    profile: Annotated[str | None, "A profile of the AWS configuration files."] = None
    access_key_env: Annotated[str | None, "The variable that holds the access key."] = None
    secret_key_env: Annotated[str | None, "The variable that holds the secret key."] = None
    session_token_env: Annotated[str | None, "The variable that holds a session token."] = None
    file: Annotated[Path | None, "A credentials file as AWS has it."] = None
    anonymous: Annotated[bool, "Ask without keys."] = False


@dataclass(frozen=True, slots=True)
class OriginConfig:
    """One origin: the URIs below a prefix."""

    prefix: Annotated[str, "The URIs that it serves: `s3://`, `s3://bucket`, `file:///data`."]
    endpoint_url: Annotated[
        str | None,
        "Where S3 is; by default `AWS_ENDPOINT_URL_S3` or `AWS_ENDPOINT_URL`, without them AWS.",
    ] = None
    region: Annotated[str | None, "By default `AWS_REGION` or `AWS_DEFAULT_REGION`."] = None
    addressing: Annotated[
        Literal["path", "virtual"], "Where the bucket stands: in the path or in the host."
    ] = "path"
    ca_bundle: Annotated[Path | None, "Certificates by which the endpoint's is checked."] = None
    driver: Annotated[
        Literal["obstore", "s3fs", "fsspec"], "What reads it; of all but S3 always fsspec."
    ] = "obstore"
    credentials: CredentialsConfig = field(default_factory=CredentialsConfig)
    account: Annotated[
        str | None, "Any text: whose buckets these are, where names depend on the keys."
    ] = None
    freshness: Annotated[
        Literal["immutable", "max_age", "always"],
        "When an object is looked up again: never, after `max_age_s`, for each read.",
    ] = "max_age"
    max_age_s: Annotated[float, "After so long an object in use is looked up again."] = 300.0
    max_stale_s: Annotated[float, "How long after that it may be served meanwhile."] = 3600.0
    write_mode: Annotated[
        Literal["write_back", "write_through", "read_only"],
        "When a write returns: once it is durable on the node, or in the origin; or not at all.",
    ] = "write_back"
    max_requests: Annotated[int, "So many in flight at once, reads and writes each."] = 64
    request_timeout_s: Annotated[float, "An attempt without a byte for so long has failed."] = 30.0
    deadline_s: Annotated[float, "For all attempts of one request."] = 120.0
    max_attempts: Annotated[int, "Of one request."] = 8

    @property
    def scheme(self) -> str:
        """The scheme of its URIs, without a cluster's name."""
        return uris.without_cluster(self.prefix).partition("://")[0]

    @property
    def endpoint_name(self) -> str:
        """What a message calls the place that is asked."""
        return self.endpoint_url or ("AWS S3" if self.scheme == "s3" else self.prefix)

    @property
    def identity(self) -> str:
        """Text of everything that makes the same URI another object elsewhere.

        Driver, addressing and keys are not part of it: they lead to the same objects. Where they do
        not (Ceph's tenants have bucket names of their own), ``account`` tells them apart.
        """
        if self.scheme != "s3":
            return self.scheme
        place = _normal(self.endpoint_url) if self.endpoint_url else f"aws {self.region or ''}"
        return f"s3 {place} {self.account or ''}".strip()


@dataclass(frozen=True, slots=True)
class DaemonConfig:
    """Everything the daemon was told."""

    cache_dir: Annotated[
        Path,
        "Folder of the cache, on a local disk; by default `/var/cache/forebay` of root, else "
        "`forebay` in `$XDG_CACHE_HOME` or `~/.cache`.",
    ]
    max_bytes: Annotated[
        int, "Limit of all that lies in it, writes included; by default 80 % of what is free."
    ]
    listen: Annotated[
        tuple[str, ...],
        "`unix:/path/to.sock` or `host:port`, several by commas or as a list; by default "
        "`forebay.sock` in `/run/forebay` of root, else in `$XDG_RUNTIME_DIR/forebay` or "
        "`/tmp/forebay-<uid>`.",
    ]
    origins: tuple[OriginConfig, ...]
    path_mapping: Annotated[
        dict[str, str],
        "Prefixes of paths, and the URIs that take their place; in one text as `FROM=TO,FROM=TO` "
        "or JSON.",
    ] = field(default_factory=dict)
    packing_limit_bytes: Annotated[int, "Smaller objects share segment files."] = 1 << 20
    block_bytes: Annotated[
        int, "Larger objects are read and cached in blocks of it; a power of two."
    ] = 8 << 20
    segment_bytes: Annotated[int, "Size of a segment file."] = 256 << 20
    min_free_bytes: Annotated[int, "Of the file system: nothing is cached while less is free."] = (
        1 << 30
    )
    spool_max_bytes: Annotated[
        int | None, "Part of `max_bytes` for writes under way; by default half."
    ] = None
    uploads_at_once: Annotated[int, "Of one origin."] = 8
    upload_part_bytes: Annotated[int, "Larger objects are uploaded in parts of it."] = 8 << 20
    upload_parts_at_once: Annotated[int, "Each is in memory meanwhile."] = 8
    upload_max_age_s: Annotated[float, "Writes that wait for longer are reported."] = 600.0
    request_lingers_s: Annotated[
        float, "An origin may still do so late what it has not answered."
    ] = 60.0
    shutdown_grace_s: Annotated[float, "For uploads, when the daemon is told to stop."] = 10.0
    tls_cert: Annotated[
        Path | None, "Certificate, with its chain, of listeners that are `host:port`."
    ] = None
    tls_key: Annotated[Path | None, "Its key."] = None
    token_file: Annotated[
        Path | None, "Holds the token that clients of such listeners must tell."
    ] = None
    metrics_listen: Annotated[
        str, '`host:port` of `/metrics`, `/healthz` and `/readyz`, or "off".'
    ] = DEFAULT_METRICS_LISTEN


_ORIGIN_WORDS = settings.parsers(OriginConfig)
_CREDENTIALS_WORDS = settings.parsers(CredentialsConfig)
_DAEMON_WORDS = settings.parsers(DaemonConfig)
# Words of an origin that may also stand outside of its table, for all origins that lack them.
_SHARED_WORDS = {
    name: parse for name, parse in _ORIGIN_WORDS.items() if name not in ("prefix", "account")
} | {"profile": _CREDENTIALS_WORDS["profile"]}
_TOP_WORDS = _DAEMON_WORDS | _SHARED_WORDS


def load(config_file: Path | None, overrides: Mapping[str, object]) -> DaemonConfig:
    """Return the configuration of *config_file*, the environment and *overrides* (the flags).

    Overrides that are None do not count. Raises ConfigError, naming setting, value and cure.
    """
    table = settings.read_toml(config_file) if config_file is not None else {}
    source = str(config_file)
    origin_tables = settings.tables(table.pop("origin", []), f"{source}: origin")
    told = settings.parse(table, _TOP_WORDS, source)
    told |= settings.parse(settings.environment(_TOP_WORDS), _TOP_WORDS, "environment")
    settings.warn_of_variables(_TOP_WORDS)
    told |= settings.parse(
        {name: value for name, value in overrides.items() if value is not None},
        _TOP_WORDS,
        "command line",
    )
    shared = {name: told.pop(name) for name in _SHARED_WORDS if name in told}
    told.setdefault("cache_dir", addresses.default_cache_dir())
    if "listen" not in told:
        try:
            told["listen"] = (addresses.default_address(),)
        except ValueError as error:
            raise ConfigError(str(error)) from error
    is_local = all(address.startswith("unix:") for address in told["listen"])  # type: ignore[attr-defined]
    origins = _origins(origin_tables, shared, source, is_local=is_local)
    if "max_bytes" not in told:
        told["max_bytes"] = _share_of_free_space(Path(str(told["cache_dir"])))
    config = DaemonConfig(origins=origins, **told)  # type: ignore[arg-type]  # parsed by field
    _check(config)
    return config


def _origins(
    tables: list[dict[str, object]], shared: dict[str, object], source: str, *, is_local: bool
) -> tuple[OriginConfig, ...]:
    """Return the configured origins, then those that everybody has."""
    origins: dict[str, OriginConfig] = {}
    for table in tables:
        origin = _origin(table, shared, source)
        if origin.prefix in origins:
            raise ConfigError(f"{source}: two origins have the prefix {origin.prefix!r}: keep one")
        origins[origin.prefix] = origin
    for prefix in _DEFAULT_PREFIXES:
        # Behind a unix socket stands our group; behind a port, anybody on the machine, who is not
        # to read the daemon's user's files unless somebody says so.
        if prefix not in origins and (is_local or prefix != "file://"):
            table = {"prefix": prefix}
            if prefix != "s3://":
                # Our group is not to write files in the daemon's name unless somebody says so.
                table["write_mode"] = "read_only"
            origins[prefix] = _origin(table, shared, "default")
    return tuple(origins.values())


def _origin(table: dict[str, object], shared: dict[str, object], source: str) -> OriginConfig:
    where = f"{source}: origin {table.get('prefix', '')}".rstrip()
    settings.check_words(table, [*_ORIGIN_WORDS, "credentials"], where)
    if "prefix" not in table:
        raise ConfigError(f'{where}: prefix is missing, such as prefix = "s3://"')
    table = dict(table)
    credentials = settings.table(table.pop("credentials", {}), f"{where}: credentials")
    told = shared | settings.parse(table, _ORIGIN_WORDS, where)
    named = settings.parse(credentials, _CREDENTIALS_WORDS, f"{where}: credentials")
    profile = told.pop("profile", None)
    prefix = _prefix(str(told.pop("prefix")), where)
    if uris.without_cluster(prefix).startswith("s3://"):
        if profile is not None and not named:
            named = {"profile": profile}
        told.setdefault("endpoint_url", _first_variable("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"))
        told.setdefault("region", _first_variable("AWS_REGION", "AWS_DEFAULT_REGION"))
    else:
        # Words of S3, shared with all origins, that mean nothing here.
        told = {name: told[name] for name in told if name in table or name not in _S3_WORDS}
        told.setdefault("driver", "fsspec")
    origin = OriginConfig(
        prefix=prefix,
        credentials=CredentialsConfig(**named),  # type: ignore[arg-type]  # parsed by field
        **told,  # type: ignore[arg-type]  # the same
    )
    _check_origin(origin, where)
    return origin


_S3_WORDS = ("endpoint_url", "region", "addressing", "ca_bundle", "driver")


def _prefix(text: str, where: str) -> str:
    """Return a prefix in canonical form: "s3://", "s3://bucket", "cluster:s3://", "file:///data"."""
    cluster, _, scheme = text.partition("://")[0].rpartition(":")
    rest = text.partition("://")[2]
    if "://" not in text or not scheme:
        raise ConfigError(
            f'{where}: prefix {text!r} is no URI: write "s3://bucket" or "file:///data"'
        )
    prefix = f"{cluster}:" if cluster else ""
    prefix += f"{scheme.lower()}://"
    if cluster and scheme.lower() != "s3":
        raise ConfigError(f"{where}: prefix {text!r}: only s3 takes a cluster's name")
    return prefix + (rest.rstrip("/") or ("/" if rest else ""))


def _check_origin(origin: OriginConfig, where: str) -> None:
    if origin.scheme == "s3":
        if origin.driver == "fsspec":
            raise ConfigError(f'{where}: driver "fsspec" is not for S3: write "obstore" or "s3fs"')
        if origin.endpoint_url is not None:
            _check_endpoint(origin.endpoint_url, where)
    elif origin.driver != "fsspec":
        raise ConfigError(f'{where}: driver "{origin.driver}" is for S3 only: leave it out')
    if min(origin.request_timeout_s, origin.deadline_s) <= 0:
        raise ConfigError(f"{where}: request_timeout_s and deadline_s must be more than 0")
    if origin.ca_bundle is not None and not origin.ca_bundle.is_file():
        raise ConfigError(f"{where}: ca_bundle {str(origin.ca_bundle)!r} is not a file")
    credentials = origin.credentials
    if credentials.file is not None and not credentials.file.is_file():
        raise ConfigError(f"{where}: credentials: file {str(credentials.file)!r} is not a file")
    if bool(credentials.access_key_env) != bool(credentials.secret_key_env):
        raise ConfigError(
            f"{where}: credentials: access_key_env and secret_key_env belong together: give both"
        )


def _check_endpoint(endpoint_url: str, where: str) -> None:
    shown = _without_password(endpoint_url)
    try:
        parts = urlsplit(endpoint_url)
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_url = False
    if not is_url:
        raise ConfigError(
            f"{where}: endpoint_url {shown!r} is not http://host:port or https://host:port"
        )
    if parts.username or parts.password:
        raise ConfigError(f"{where}: endpoint_url {shown!r} must not hold keys: use credentials")
    if parts.query or parts.fragment:
        raise ConfigError(f"{where}: endpoint_url {shown!r} must end with the host, port or path")


def _check(config: DaemonConfig) -> None:
    """Raise ConfigError for values that are right alone and wrong together."""
    for prefix, target in config.path_mapping.items():
        try:
            uris.canonical(target)
        except ValueError as error:  # noqa: PERF203
            raise ConfigError(f"path_mapping: {prefix!r} leads to no URI: {error}") from error
    if not config.listen:
        raise ConfigError("listen names no address: give unix:/path/to.sock or host:port")
    for address in config.listen:
        try:
            path = addresses.socket_path(address)
        except ValueError as error:
            raise ConfigError(f"listen: {error}") from error
        if path is None and not addresses.is_loopback(address) and config.token_file is None:
            raise ConfigError(
                f"listen {address!r}: TCP beyond this machine needs tls_cert, tls_key and "
                "token_file: set them, or listen on 127.0.0.1 or on a unix socket"
            )
    if (config.tls_cert is None) is not (config.tls_key is None):
        raise ConfigError("tls_cert and tls_key belong together: give both")
    if config.token_file is not None and config.tls_cert is None:
        raise ConfigError("token_file: a token is told over TLS only: give tls_cert and tls_key")
    _check_metrics(config.metrics_listen)
    if config.block_bytes & (config.block_bytes - 1) or config.block_bytes < 4096:
        raise ConfigError(f"block_bytes {config.block_bytes} is no power of two from 4096 on")
    if config.packing_limit_bytes > config.block_bytes:
        raise ConfigError(
            f"packing_limit_bytes {config.packing_limit_bytes} is more than block_bytes "
            f"{config.block_bytes}: a packed object is one block"
        )
    if config.upload_part_bytes < 5 << 20:
        raise ConfigError(f"upload_part_bytes {config.upload_part_bytes} is less than S3's 5 MiB")
    if config.spool_max_bytes is not None and not (
        1 << 20 <= config.spool_max_bytes <= config.max_bytes
    ):
        raise ConfigError(
            f"spool_max_bytes {config.spool_max_bytes} must be 1 MiB at least and no more than "
            f"max_bytes {config.max_bytes}, of which it is a part"
        )
    if config.packing_limit_bytes > config.segment_bytes:
        raise ConfigError(
            f"packing_limit_bytes {config.packing_limit_bytes} is more than segment_bytes "
            f"{config.segment_bytes}: a packed object lies in one segment"
        )


def _check_metrics(address: str) -> None:
    host, _, port = address.rpartition(":")
    if address != "off" and not (host and port.isdigit() and 0 < int(port) < 65536):
        raise ConfigError(f'metrics_listen {address!r}: give host:port, or "off"')


def _share_of_free_space(cache_dir: Path) -> int:
    """Return the default limit: most of what is free now where the cache folder is."""
    existing = disk.existing(cache_dir)
    free_bytes = shutil.disk_usage(existing).free
    max_bytes = int(free_bytes * _SHARE_OF_FREE_SPACE)
    log.info(
        "max_bytes is not set: taking %d, %d %% of the %d bytes that are free at %s",
        max_bytes,
        _SHARE_OF_FREE_SPACE * 100,
        free_bytes,
        existing,
    )
    return max_bytes


def _first_variable(*names: str) -> str | None:
    return next((value for name in names if (value := os.environ.get(name))), None)


def _normal(endpoint_url: str) -> str:
    """Return an endpoint's URL in the one form by which it is compared."""
    parts = urlsplit(endpoint_url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return f"{parts.scheme}://{parts.hostname}:{port}{parts.path.rstrip('/')}"


def _without_password(url: str) -> str:
    head, at, rest = url.rpartition("@")
    return f"{head.partition('://')[0]}://…@{rest}" if at else url
