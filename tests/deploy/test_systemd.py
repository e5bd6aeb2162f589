"""The unit: systemd understands it, it is closed, and the daemon can live in it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import forebay
from forebayd.config import load
from support.daemon import DaemonProcess
from support.users import as_user, can_serve

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.ceph import Bucket, Ceph

FOLDER = Path(__file__).parents[2] / "deploy" / "systemd"
UNIT = (FOLDER / "forebay.service").read_text()

_needs_analyze = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed"
)


@pytest.fixture
def unit_file(tmp_path: Path) -> Path:
    """The unit with its drop-in, of a program that is there."""
    drop_in = tmp_path / "forebay.service.d" / "tls.conf"
    drop_in.parent.mkdir()
    drop_in.write_text((FOLDER / "tls.conf").read_text())
    unit = tmp_path / "forebay.service"
    unit.write_text(UNIT.replace("/opt/forebay/bin/forebay", "/bin/true"))
    return unit


def analyze(*arguments: str) -> str:
    """Return what systemd-analyze says, which must be no error."""
    done = subprocess.run(  # noqa: S603
        ["systemd-analyze", "--no-pager", *arguments],  # noqa: S607
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def settings(name: str) -> list[str]:
    """Return the values of a setting of the unit, in order."""
    return re.findall(rf"^{name}=(.*)$", UNIT, re.MULTILINE)


@_needs_analyze
def test_systemd_understands_every_line(unit_file: Path) -> None:
    assert analyze("verify", "--man=no", str(unit_file)) == ""


@_needs_analyze
def test_misspelt_setting_would_be_found(unit_file: Path) -> None:
    unit_file.write_text(unit_file.read_text().replace("ProtectHome=", "ProtectHomes="))

    assert "ProtectHomes" in analyze("verify", "--man=no", str(unit_file))


@_needs_analyze
def test_unit_is_closed_to_what_the_daemon_does_not_need(unit_file: Path) -> None:
    analyze("security", "--offline=true", "--threshold=20", str(unit_file))  # 2.0 of 10


def test_daemon_takes_the_configuration_and_has_time_to_end() -> None:
    config = load(FOLDER / "forebay.toml", {})

    assert int(*settings("TimeoutStopSec")) >= 2 * config.shutdown_grace_s + 30


# --- what the daemon asks of the kernel -------------------------------------------------------


@_needs_analyze
def test_daemon_asks_the_kernel_for_nothing_that_the_unit_forbids(
    shared_dir: Path, tmp_path: Path, ceph: Ceph, bucket: Bucket
) -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    user = as_user(10423, 10423)
    if not can_serve(user):
        pytest.skip("needs root, and a Python that others may run")
    owned = shared_dir / "owned"
    owned.mkdir()
    os.chown(owned, 10423, 10423)
    trace = tmp_path / "trace"
    daemon = DaemonProcess(
        cache_dir=owned / "cache",
        address=f"unix:{owned}/sock",
        log_file=tmp_path / "daemon.log",
        arguments=("--max-bytes", "1GB", "--endpoint-url", ceph.endpoint_url),
        env={**ceph.env(), "FOREBAY_METRICS_LISTEN": "off"},
        prefix=("strace", "-f", "-qq", "-s0", "-o", str(trace), *user),
    )
    bucket.put("read", b"x" * (9 << 20))

    daemon.start()
    try:
        with forebay.Client(daemon.address) as client:
            assert len(client.get(bucket.url("read"))) == 9 << 20
            client.put(bucket.url("written"), b"y" * (9 << 20))
            client.flush(timeout_s=60)
            client.evict(bucket.url("read"))
            os.kill(client.stats().raw["pid"], signal.SIGTERM)  # strace would keep it for itself
        assert daemon.wait() == 0
    finally:
        daemon.kill9()

    text = trace.read_text().split("execve(", 2)[2]  # the first one is setpriv's
    assert calls_in(text) - allowed_calls() == set()
    assert set(re.findall(r"socket\((AF_\w+)", text)) <= set(*map(str.split, settings(FAMILIES)))
    assert settings("MemoryDenyWriteExecute") == ["yes"]
    assert re.findall(r"mmap\(.*PROT_WRITE\|PROT_EXEC|mprotect\(.*PROT_EXEC", text) == []


FAMILIES = "RestrictAddressFamilies"


def calls_in(trace: str) -> set[str]:
    """Return the names of the system calls in what strace has written."""
    found = set(re.findall(r"^\d+ +(\w+)\(", trace, re.MULTILINE))
    assert {"openat", "fallocate", "accept4"} <= found
    return found


def allowed_calls() -> set[str]:
    """Return the names of the system calls that are left of the unit's filters."""
    allowed = set(calls_of("@default"))
    for line in settings("SystemCallFilter"):
        calls = {call for name in line.removeprefix("~").split() for call in calls_of(name)}
        allowed = allowed - calls if line.startswith("~") else allowed | calls
    return allowed


def calls_of(name: str) -> Iterator[str]:
    """Return the calls of a group, and of the groups in it."""
    if not name.startswith("@"):
        yield name
        return
    for line in analyze("syscall-filter", name).splitlines()[1:]:
        if not line.strip().startswith("#"):
            yield from calls_of(line.strip())
