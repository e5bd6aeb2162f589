"""An engine with the images, for all tests here; each has a compose project of its own."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3  # type: ignore[import-untyped]  # ships no stubs
import pytest

from support.docker import BASE, BINARIES, IMAGE, Engine, Project
from support.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_PROGRAM = Path(__file__).with_name("program.py")
_V2 = Path(__file__).parents[2] / ".tools/docker-compose"
KEY, SECRET = "cephdevaccess", "cephdevsecret"  # of the throwaway Ceph

_numbers = itertools.count()


@pytest.hookimpl(tryfirst=True)  # before -m selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("docker")


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    missing = [name for name in BINARIES if shutil.which(name) is None]
    if missing or os.geteuid() != 0:
        pytest.skip(f"needs root and {' '.join(BINARIES)}; not there: {' '.join(missing)}")
    with Engine() as running:
        running.make_base()
        yield running


@pytest.fixture(scope="session", params=["docker-compose", str(_V2)], ids=["v1", "v2"])
def compose(request: pytest.FixtureRequest) -> str:
    command = str(request.param)
    if shutil.which(command) is None:
        pytest.skip(f"{command} is not there: deploy/dev/docker.sh installs it")
    return command


@pytest.fixture(scope="session")
def images(engine: Engine, compose: str) -> None:
    """The images, as this compose builds them."""
    env = {"BASE_IMAGE": BASE, "CEPH_BASE_IMAGE": BASE}
    project = Project(engine, compose, "build", **env)
    project.options += ["--profile", "ceph"]
    project.run("build", "forebay", "ceph", timeout_s=400)


class Node:
    """A compose project with a Ceph, and containers of clients."""

    def __init__(self, project: Project, endpoint_url: str) -> None:
        self.project = project
        self.s3 = boto3.client(
            "s3",
            endpoint_url=endpoint_url,
            aws_access_key_id=KEY,
            aws_secret_access_key=SECRET,
            region_name="us-east-1",
        )

    def volume(self, name: str) -> str:
        return f"{self.project.name}_forebay-{name}"

    def client(self, *options: str, uid: int = 20000) -> Client:
        """Start a container with the program; *options* are `docker run`'s."""
        return Client(self.project.engine, uid, options)

    def sharing(self, mode: str = "rw", uid: int = 20000) -> Client:
        """Start a client that shares the cache folder, and has no network."""
        return self.client(
            "--network=none",
            f"--volume={self.volume('cache')}:/var/cache/forebay:{mode}",
            f"--volume={self.volume('socket')}:/run/forebay:ro",
            uid=uid,
        )


class Client:
    """A client's container, a context manager; what it does are commands of its program."""

    def __init__(self, engine: Engine, uid: int, options: tuple[str, ...]) -> None:
        self._process = engine.interactive(
            *("run", "--rm", "-i", "--entrypoint=python3", f"--user={uid}:10423"),
            *(f"--volume={_PROGRAM}:/opt/program.py:ro", *options, IMAGE, "/opt/program.py"),
        )

    def call(self, name: str, *arguments: object) -> Any:
        """Return what a command does. Raises AssertionError with its error."""
        answer = self.answer(name, *arguments)
        assert "error" not in answer, answer["error"]
        return answer["result"]

    def answer(self, name: str, *arguments: object) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([name, *arguments]) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        with self._process as process:
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()


@pytest.fixture(scope="module")
def start_node(engine: Engine, images: None) -> Iterator[Callable[..., Node]]:
    """Start a compose project with the profile "ceph"; all is taken away at the end."""
    projects: list[Project] = []

    def start(compose: str, *files: str, **env: str) -> Node:
        port = free_port()
        endpoint_url = f"http://127.0.0.1:{port}"
        settings = {
            "AWS_ENDPOINT_URL": endpoint_url,
            "CEPH_PORT": str(port),
            "FOREBAY_METRICS_LISTEN": "off",
            "FOREBAY_MAX_BYTES": "2GB",
        }
        project = Project(engine, compose, f"forebay{next(_numbers)}", **settings | env)
        for file in files:
            project.options += ["-f", file]
        project.options += ["--profile", "ceph"]
        projects.append(project)
        project.run("up", "-d")
        project.wait_for_health("forebay")
        project.wait_for_health("ceph")
        return Node(project, endpoint_url)

    yield start
    for project in projects:
        project.run("down", "--volumes", "--timeout", "20")
