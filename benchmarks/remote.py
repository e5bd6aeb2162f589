"""A client without the cache folder: cached bytes by gRPC over loopback, with TLS and a token.

Beside it the same without TLS, and the local file. The client is a process that does not see the
folder (a mount namespace with nothing there), as a container without the volume. Needs root.
Run: python benchmarks/remote.py
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import common

from support import remote_work
from support.certificates import issue, make_authority
from support.ports import free_address
from support.remote import RemoteClient
from support.serving import serving

if TYPE_CHECKING:
    from collections.abc import Iterator

SIZE_BYTES, ROUNDS = 512 << 20, 7


@contextlib.contextmanager
def remote_client(folder: Path, *, has_tls: bool, **settings: object) -> Iterator[RemoteClient]:
    """Yield a client that reaches a daemon by its port alone."""
    address = free_address()
    env = {"FOREBAY_CA": f"{folder}/tls/ca.pem", "FOREBAY_TOKEN_FILE": f"{folder}/token"}
    config = f'metrics_listen = "off"\n[[origin]]\nprefix = "{folder.as_uri()}/"\n'
    listen = ("--listen", address)
    with serving(max_bytes="4GB", config=config, arguments=listen, **settings) as daemon:
        hide = f'mount -t tmpfs none {daemon.cache_dir} && exec "$@"'
        prefix = ("unshare", "--mount", "sh", "-c", hide, "sh")
        with RemoteClient(address, prefix=prefix, env=env if has_tls else None) as client:
            yield client


def read_file(path: Path) -> float:
    buffer = bytearray(8 << 20)
    began = time.perf_counter()
    with path.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass
    return time.perf_counter() - began


def measure(folder: Path, rounds: int) -> dict[str, Any]:
    path = folder / "object"
    with path.open("wb") as file:
        for _ in range(SIZE_BYTES >> 20):
            file.write(os.urandom(1 << 20))
    certificate, key = issue(make_authority(folder / "tls"))
    (folder / "token").write_text("of the benchmark")
    secrets = {"tls_cert": certificate, "tls_key": key, "token_file": folder / "token"}
    uri = path.as_uri()
    with (
        remote_client(folder, has_tls=True, **secrets) as tls,
        remote_client(folder, has_tls=False) as plain,
    ):
        for client in (tls, plain):
            client.do(remote_work.read_seconds, uri)  # fills
            assert not client.do(remote_work.is_attached), "the client sees the folder"
        seconds = common.side_by_side(
            {
                "open_tls": lambda: tls.do(remote_work.read_seconds, uri),
                "get_tls": lambda: tls.do(remote_work.get_seconds, uri),
                "open_plain": lambda: plain.do(remote_work.read_seconds, uri),
                "get_plain": lambda: plain.do(remote_work.get_seconds, uri),
                "file": lambda: read_file(path),
            },
            rounds,
        )
    rates = {
        f"{name}_gb_per_s": round(SIZE_BYTES / 1e9 / statistics.median(taken), 3)
        for name, taken in seconds.items()
    }
    raw = {name: [round(value, 4) for value in taken] for name, taken in seconds.items()}
    return {**rates, "size_bytes": SIZE_BYTES, "rounds_s": raw}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("needs root, to hide the cache folder from the client")
    with tempfile.TemporaryDirectory(prefix="fb-") as folder:
        common.report("remote", measure(Path(folder), options.rounds))


if __name__ == "__main__":
    main()
