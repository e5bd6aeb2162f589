"""The image by itself."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from support.docker import BASE, IMAGE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.docker import Engine

_STATED_BYTES = 200e6  # deploy/Dockerfile says it, over the base


@pytest.fixture
def daemon(engine: Engine) -> Iterator[str]:
    """A daemon without an origin, on a root file system that nobody can write, with no rights."""
    options = ("--read-only", "--tmpfs=/tmp", "--network=none", "--cap-drop=ALL")
    container = engine.run("run", "-d", *options, IMAGE, "serve", "--max-bytes=1GB").strip()
    yield container
    engine.run("rm", "--force", "--volumes", container)


def test_daemon_becomes_healthy_with_no_rights(engine: Engine, daemon: str) -> None:
    engine.wait_for_health(daemon)

    told = json.loads(engine.run("exec", daemon, "forebay", "stats", "--json"))
    status = engine.run("exec", daemon, "cat", "/proc/1/status")
    assert told["pid"] == 1
    assert "Uid:\t10423\t10423\t10423\t10423\nGid:\t10423" in status
    assert "CapEff:\t0000000000000000" in status


def test_daemon_ends_well_when_it_is_stopped(engine: Engine, daemon: str) -> None:
    engine.wait_for_health(daemon)

    engine.run("stop", daemon)

    assert engine.inspect(daemon)["State"]["ExitCode"] == 0


def test_size_is_what_the_dockerfile_states(engine: Engine) -> None:
    added_bytes = engine.inspect(IMAGE)["Size"] - engine.inspect(BASE)["Size"]

    assert added_bytes == pytest.approx(_STATED_BYTES, rel=0.15)
