"""Clients of other hosts: a container that has the port, and no folder of the node."""

from __future__ import annotations

import hashlib
import shutil
from typing import TYPE_CHECKING

import pytest

from support.certificates import issue, make_authority
from support.docker import ROOT
from support.ports import free_address

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .conftest import Client, Node

_TOKEN = "of the test"  # noqa: S105  # hides nothing
_DATA = bytes(range(256)) * 80_000


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a daemon's secrets, and of what its clients need."""
    authority = make_authority(tmp_path_factory.mktemp("tls") / "secrets")
    certificate, key = issue(authority)
    certificate.rename(authority.folder / "daemon.pem")
    key.rename(authority.folder / "daemon.key")
    (authority.folder / "token").write_text(_TOKEN)
    (authority.folder / "wrong-token").write_text("another")
    for file in authority.folder.iterdir():
        shutil.chown(file, group=10423)
        file.chmod(0o640)
    return authority.folder


@pytest.fixture(scope="module")
def address() -> str:
    return free_address()


@pytest.fixture(scope="module")
def node(start_node: Callable[..., Node], secrets: Path, address: str) -> Node:
    files = [str(ROOT / "docker-compose.yml"), str(ROOT / "deploy/compose/remote.yml")]
    env = {"FOREBAY_SECRETS": str(secrets), "FOREBAY_REMOTE_LISTEN": address}
    started = start_node("docker-compose", *files, **env)
    started.s3.create_bucket(Bucket="bucket")
    started.s3.put_object(Bucket="bucket", Key="large", Body=_DATA)
    return started


@pytest.fixture
def start_remote(node: Node, secrets: Path, address: str) -> Callable[[str], Client]:
    """Start a client without a folder, with the token of a file."""

    def start(token: str) -> Client:
        return node.client(
            "--network=host",
            f"--volume={secrets}:/secrets:ro",
            f"--env=FOREBAY_ADDRESS={address}",
            "--env=FOREBAY_CA=/secrets/ca.pem",
            f"--env=FOREBAY_TOKEN_FILE=/secrets/{token}",
        )

    return start


def test_bytes_go_both_ways_without_the_folder(
    node: Node, start_remote: Callable[[str], Client]
) -> None:
    with start_remote("token") as client:
        assert client.call("who")["pid"] == 1
        (found,) = client.call("digests", ["s3://bucket/large"])
        written = client.call("write", "s3://bucket/checkpoint.pth", 20_000_000)

    assert found == hashlib.md5(_DATA, usedforsecurity=False).hexdigest()
    arrived = node.s3.get_object(Bucket="bucket", Key="checkpoint.pth")["Body"].read()
    assert hashlib.md5(arrived, usedforsecurity=False).hexdigest() == written


def test_wrong_token_is_refused(start_remote: Callable[[str], Client]) -> None:
    with start_remote("wrong-token") as client:
        answer = client.answer("digests", ["s3://bucket/large"])

    assert "the token is wrong" in answer["error"]
