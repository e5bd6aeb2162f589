"""A real Ceph for the tests, and buckets in it.

The cluster lives in one short folder and ends with this process, however that ends: a guard
process waits for the end of a pipe that only we hold open, then destroys the cluster.
"""

from __future__ import annotations

import contextlib
import fcntl
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3  # type: ignore[import-untyped]  # ships no stubs
from botocore.config import Config  # type: ignore[import-untyped]  # ships no stubs
from botocore.exceptions import ClientError  # type: ignore[import-untyped]  # ships no stubs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_SCRIPTS = Path(__file__).parents[2] / "deploy" / "ceph"
_BINARIES = ("ceph", "ceph-mon", "ceph-osd", "monmaptool", "radosgw", "radosgw-admin")
# The daemons' sockets lie below it, and a socket's path holds 107 bytes.
_LONGEST_FOLDER = 60
_STARTS = 3
_EMPTY_S = 60.0
_GUARD = 'cat >/dev/null; exec "$0" destroy "$1" >/dev/null 2>&1'


@dataclass(frozen=True, slots=True)
class S3Endpoint:
    """Where an S3 server answers, and to which keys."""

    endpoint_url: str
    access_key: str
    secret_key: str
    region: str

    def env(self) -> dict[str, str]:
        """Return the variables by which any S3 client finds it."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint_url,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": self.region,
        }

    def client(self) -> Any:
        """Return a boto3 client; it is slow to make, share it."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint_url,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name=self.region,
            config=Config(s3={"addressing_style": "path"}, max_pool_connections=32),
        )


class Ceph(S3Endpoint):
    """A running cluster's S3 gateway."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Bucket:
    """A bucket, reached without any code of ours."""

    name: str
    client: Any = field(repr=False)

    def url(self, key: str = "") -> str:
        return f"s3://{self.name}/{key}"

    def put(self, key: str, data: bytes) -> str:
        """Store an object and return its ETag without quotes."""
        reply = self.client.put_object(Bucket=self.name, Key=key, Body=data)
        return str(reply["ETag"]).strip('"')

    def get(self, key: str) -> bytes:
        reply = self.client.get_object(Bucket=self.name, Key=key)
        with contextlib.closing(reply["Body"]) as body:
            return bytes(body.read())

    def find(self, key: str) -> bytes | None:
        """Return an object's bytes, or None while there is none."""
        try:
            return self.get(key)
        except self.client.exceptions.NoSuchKey:
            return None

    def delete(self, key: str) -> None:
        self.client.delete_object(Bucket=self.name, Key=key)

    def keys(self, prefix: str = "") -> list[str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(
            Bucket=self.name, Prefix=prefix
        )
        return [entry["Key"] for page in pages for entry in page.get("Contents", ())]

    def delete_all(self, keys: Iterable[str] | None = None) -> None:
        left = list(self.keys() if keys is None else keys)
        while left:
            batch, left = left[:1000], left[1000:]
            self.client.delete_objects(
                Bucket=self.name,
                Delete={"Objects": [{"Key": key} for key in batch], "Quiet": True},
            )

    def remove(self) -> None:
        """Delete all that is in it, and the bucket.

        A daemon that still runs may upload meanwhile: what came in between goes, too.
        """
        deadline = time.monotonic() + _EMPTY_S
        while True:
            self.delete_all()
            try:
                self.client.delete_bucket(Bucket=self.name)
            except ClientError as error:
                is_filled = error.response["Error"]["Code"] == "BucketNotEmpty"
                if not is_filled or time.monotonic() > deadline:
                    raise
            else:
                return


def missing_binaries() -> list[str]:
    """Return which of Ceph's programs are not installed."""
    return [name for name in _BINARIES if shutil.which(name) is None]


@contextlib.contextmanager
def running_ceph() -> Iterator[Ceph]:
    """Start a cluster in memory and destroy it at the end."""
    script = str(_SCRIPTS / "ceph-dev.sh")
    parent = tempfile.gettempdir()
    if len(parent) > _LONGEST_FOLDER:
        parent = "/tmp"  # noqa: S108  # mkdtemp makes a folder of our own in it
    folder = tempfile.mkdtemp(prefix="fb-ceph-", dir=parent)
    guard = subprocess.Popen(  # noqa: S603  # our own script
        ["/bin/bash", "-c", _GUARD, script, folder],
        stdin=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for the tests; the guard comes after them
    )
    try:
        started = _start(script, folder)
        told = dict(line.split("=", 1) for line in started.stdout.splitlines())
        yield Ceph(
            told["AWS_ENDPOINT_URL"],
            told["AWS_ACCESS_KEY_ID"],
            told["AWS_SECRET_ACCESS_KEY"],
            told["AWS_DEFAULT_REGION"],
        )
    finally:
        assert guard.stdin is not None
        guard.stdin.close()
        guard.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _start(script: str, folder: str) -> subprocess.CompletedProcess[str]:
    """Run the script's start; again if a port that was free is taken when it is wanted.

    One after the other: the tests that run side by side each have a cluster.
    """
    with (Path(tempfile.gettempdir()) / "fb-ceph-start.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for attempt in range(1, _STARTS + 1):
            started = subprocess.run(  # noqa: S603  # our own script
                [script, "start", folder, "0"],
                env={"PATH": _system_path(), "CEPH_DEV_STORE": "memstore", "CEPH_DEV_SIZE": "8G"},
                stdout=subprocess.PIPE,
                check=attempt == _STARTS,
                text=True,
            )
            if started.returncode == 0:
                break
            subprocess.run(  # noqa: S603  # our own script
                [script, "destroy", folder], env={"PATH": _system_path()}, check=False
            )
    return started


def _system_path() -> str:
    # The command `ceph` is a program of the system's Python: keep virtual environments out.
    return "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
