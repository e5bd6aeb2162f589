"""The variables that a client reads, and what they mean."""

from __future__ import annotations

import os

VARIABLES = {
    "FOREBAY_ADDRESS": "The daemon: `unix:/path/to.sock` or `host:port`; by default its default.",
    "FOREBAY_CACHE_DIR": (
        "Where this process sees the daemon's cache folder, if not where the daemon does."
    ),
    "FOREBAY_PATH_MAPPING": "As `path_mapping`; goes before the daemon's.",
    "FOREBAY_CA": "Certificates by which the daemon's is checked, at `host:port`.",
    "FOREBAY_TOKEN_FILE": "Holds the token that a daemon at `host:port` asks for.",
}
# What `forebay exec` tells the programs below it; not for users.
OF_EXEC = ("FOREBAY_EXEC", "FOREBAY_EXEC_S3")


def values() -> tuple[str | None, ...]:
    """Return what they are now: clients that are kept are for these."""
    return tuple(map(os.environ.get, VARIABLES))
