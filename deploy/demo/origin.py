"""The demo's S3: the real Ceph where it is installed, else a server written in Python."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING

from support.ceph import S3Endpoint, missing_binaries, running_ceph

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def running_origin() -> Iterator[tuple[S3Endpoint, str]]:
    """Start an origin; gives the endpoint and what to call it."""
    missing = missing_binaries()
    if not missing:
        with running_ceph() as ceph:
            yield ceph, "a real Ceph (one monitor, one OSD in memory, one S3 gateway)"
        return
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # a line a request, otherwise
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield (
            S3Endpoint(f"http://{host}:{port}", "key", "secret", "us-east-1"),
            f"moto, an S3 server in Python (Ceph is not installed: no {', '.join(missing)})",
        )
    finally:
        server.stop()
