"""The configuration file of ``petrel_client``, as far as it means something here.

Keys and endpoints are the daemon's; which cluster ``s3://`` means is said by this file.
"""

from __future__ import annotations

import configparser
import functools
import logging
from pathlib import Path

log = logging.getLogger(__name__)

DEFAULT_PATH = "~/petreloss.conf"


def default_cluster(conf_path: str | None) -> str:
    """Return the cluster of URIs that name none, "" if the file does not say.

    Raises FileNotFoundError if a file that was asked for is not there; the default one may be
    missing. Raises ValueError for one that is no INI file.
    """
    path = Path(conf_path or DEFAULT_PATH).expanduser()
    try:
        status = path.stat()
    except OSError:
        if conf_path is None or conf_path == DEFAULT_PATH:
            return ""
        raise
    return _read(path, status.st_mtime_ns)


@functools.lru_cache(maxsize=8)
def _read(path: Path, _: int) -> str:
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        with path.open(encoding="utf-8") as file:
            parser.read_file(file)
    except (configparser.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a configuration file: {error}") from error
    cluster = parser.defaults().get("default_cluster", "").strip()
    log.info("clusters are the daemon's origins", extra={"file": str(path), "default": cluster})
    return cluster
