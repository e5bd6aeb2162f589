"""``forebay serve``: runs the daemon. Only this module and ``doctor`` know ``forebayd``."""

from __future__ import annotations

import json
import logging
import sys
import time
from pathlib import Path
from typing import Any

import click

FOLDER = click.Path(path_type=Path, readable=False)  # what is wrong with one, the daemon says
MISSING = (
    "the daemon is not installed here ({name}): pip install 'forebay[daemon]' on the node that "
    "serves; clients need only forebay"
)
_STANDARD_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class _FieldsFormatter(logging.Formatter):
    """One line an event: time, level, logger, text, then the event's fields as key=value."""

    converter = staticmethod(time.gmtime)

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        fields = {k: v for k, v in vars(record).items() if k not in _STANDARD_FIELDS}
        if not fields:
            return line
        first, *traceback = line.split("\n")
        shown = " ".join(f"{key}={json.dumps(value, default=str)}" for key, value in fields.items())
        return "\n".join([f"{first} {shown}", *traceback])


def _log_to_stderr(level: str) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        _FieldsFormatter("%(asctime)sZ %(levelname)s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%S")
    )
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


@click.command()
@click.option(
    "--config", type=click.Path(path_type=Path), help="A TOML file; see the documentation."
)
@click.option("--cache-dir", type=FOLDER, help="Folder of the cache.")
@click.option("--max-bytes", help="Limit of the folder: bytes, or such as 500GB or 1.5TiB.")
@click.option(
    "--listen", multiple=True, help="unix:/path/to.sock or host:port; may be given several times."
)
@click.option("--endpoint-url", help="S3 endpoint, for Ceph: http://host:7480.")
@click.option("--region", help="S3 region.")
@click.option("--driver", type=click.Choice(["obstore", "s3fs"]), help="How S3 is read.")
@click.option("--freshness", type=click.Choice(["immutable", "max_age", "always"]))
@click.option("--max-age-s", help="After so long an object in use is looked up again.")
@click.option("--max-stale-s", help="How long after that it may be served meanwhile.")
@click.option("--tls-cert", type=click.Path(path_type=Path), help="For clients of host:port.")
@click.option("--tls-key", type=click.Path(path_type=Path), help="Of --tls-cert.")
@click.option(
    "--token-file", type=click.Path(path_type=Path), help="Holds what such clients must know."
)
@click.option("--metrics-listen", help="host:port of /metrics, /healthz, /readyz; or off.")
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
)
def serve(config: Path | None, log_level: str, listen: tuple[str, ...], **overrides: Any) -> None:
    """Run the cache daemon of this node until SIGTERM.

    Without options it caches s3:// from AWS_ENDPOINT_URL with the usual credentials. Every option
    is also an environment variable (FOREBAY_MAX_BYTES) and a word of the TOML file (max_bytes).

    \b
    Example:
      forebay serve --cache-dir /nvme/forebay --max-bytes 500GB --endpoint-url http://ceph:7480
    """
    try:
        from forebayd import server
        from forebayd.config import load
        from forebayd.errors import ConfigError
    except ModuleNotFoundError as error:
        raise click.ClickException(MISSING.format(name=error.name)) from error
    _log_to_stderr(log_level)
    try:
        server.run(load(config, {**overrides, "listen": listen or None}))
    except ConfigError as error:
        raise click.ClickException(str(error)) from error


def check_offline(cache_dir: Path, *, repair: bool) -> dict[str, Any]:
    """Check a cache folder that no daemon serves; returns problems and totals.

    Raises click.ClickException if a daemon has it or the daemon's package is missing.
    """
    try:
        from forebayd import offline
        from forebayd.errors import ConfigError
    except ModuleNotFoundError as error:
        raise click.ClickException(MISSING.format(name=error.name)) from error
    try:
        return offline.check(cache_dir, repair=repair)
    except ConfigError as error:
        raise click.ClickException(str(error)) from error
