"""A Docker engine of the tests' own, and the images that they need, made without a registry.

The base image comes from Debian's packages by debootstrap. Needs root.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
BASE, IMAGE = "forebay-test-base", "forebay"
# Debian's, which builds by itself: a newer one that comes first in the path may lack its builder.
_DOCKER = "/usr/bin/docker"
BINARIES = ("dockerd", _DOCKER, "docker-compose", "debootstrap")
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")  # a proxy's may be among them
_STARTS_S, _HEALTHY_S = 60.0, 120.0
_BASE_PACKAGES = "python3,python3-venv,ca-certificates"


class Engine:
    """The engine; a context manager that leaves nothing running. ``env`` is for its clients."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="fb-docker-"))
        host = f"unix://{self.folder}/docker.sock"
        self.env = {**os.environ, "DOCKER_HOST": host}
        self._log = (self.folder / "dockerd.log").open("wb")
        self._process = subprocess.Popen(  # noqa: S603  # ours
            [
                *("dockerd", f"--host={host}", f"--data-root={self.folder}/data"),
                *(f"--exec-root={self.folder}/exec", f"--pidfile={self.folder}/pid"),
                *("--storage-driver=overlay2", "--bridge=none", "--iptables=false"),
                *("--ip6tables=false", "--ip-masq=false", "--ip-forward=false"),
            ],
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )

    def __enter__(self) -> Engine:
        deadline = time.monotonic() + _STARTS_S
        while self._start(_DOCKER, "version").wait() != 0:
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.__exit__()
                raise RuntimeError((self.folder / "dockerd.log").read_text()[-4000:])
            time.sleep(0.1)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _start(self, *command: str) -> subprocess.Popen[bytes]:
        quiet = subprocess.DEVNULL
        return subprocess.Popen(  # noqa: S603  # ours
            command, env=self.env, stdout=quiet, stderr=quiet
        )

    def run(self, *arguments: str, stdin: Any = None, timeout_s: float = 300.0) -> str:
        """Return what `docker` prints. Raises AssertionError with its errors."""
        return run(_DOCKER, *arguments, env=self.env, stdin=stdin, timeout_s=timeout_s)

    def interactive(self, *arguments: str) -> subprocess.Popen[str]:
        """Start `docker` with pipes for its standard input and output."""
        return subprocess.Popen(  # noqa: S603  # ours
            [_DOCKER, *arguments],
            env=self.env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def inspect(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.run("inspect", name))[0]
        return found

    def wait_for_health(self, container: str) -> None:
        deadline = time.monotonic() + _HEALTHY_S
        while (health := self.inspect(container)["State"]["Health"]["Status"]) != "healthy":
            assert time.monotonic() < deadline, f"{health}: {self.run('logs', container)}"
            time.sleep(0.2)

    # --- images ------------------------------------------------------------------------------

    def make_base(self) -> None:
        """Import a Debian of our own with Python in it."""
        root = self.folder / "base"
        run(
            "debootstrap", "--variant=minbase", f"--include={_BASE_PACKAGES}", "bookworm", str(root)
        )
        if _CERTIFICATES.exists():
            shutil.copy(_CERTIFICATES, f"{root}{_CERTIFICATES}")
        tar = ["tar", "-C", str(root), "--exclude=./var/cache/apt/archives/*.deb", "-c", "."]
        with subprocess.Popen(tar, stdout=subprocess.PIPE) as archive:  # noqa: S603  # ours
            self.run("import", "-", BASE, stdin=archive.stdout)
        shutil.rmtree(root)

    def build(self, image: str, *arguments: str) -> None:
        base = ["--build-arg", f"BASE_IMAGE={BASE}"]
        self.run("build", "--quiet", "--network=host", *base, "-t", image, *arguments)


class Project:
    """A compose project of a test."""

    def __init__(self, engine: Engine, command: str, name: str, **env: str) -> None:
        self.engine = engine
        self.name = name
        self._command = command
        self._env = {**engine.env, **env}
        self.options: list[str] = []

    def run(self, *arguments: str, timeout_s: float = 180.0) -> str:
        command = [self._command, "-p", self.name, *self.options, *arguments]
        return run(*command, env=self._env, cwd=ROOT, timeout_s=timeout_s)

    def container(self, service: str) -> str:
        """Return the container's id."""
        return self.run("ps", "-q", service).strip()

    def wait_for_health(self, service: str) -> None:
        self.engine.wait_for_health(self.container(service))


def run(
    *command: str,
    env: dict[str, str] | None = None,
    cwd: Path | None = None,
    stdin: Any = None,
    timeout_s: float = 300.0,
) -> str:
    """Return what a command prints. Raises AssertionError with its errors."""
    done = subprocess.run(  # noqa: S603  # ours
        command,
        env=env,
        cwd=cwd,
        stdin=subprocess.DEVNULL if stdin is None else stdin,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(command)}: {done.stdout[-2000:]}{done.stderr[-4000:]}"
    return done.stdout
