"""Another version of the daemon on the same cache folder: the commit before this one, and back."""

from __future__ import annotations

import os
import subprocess
import tarfile
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import forebay

if TYPE_CHECKING:
    from conftest import StartDaemon
    from support.ceph import Bucket
    from support.proxy import FaultProxy

_ROOT = Path(__file__).parents[2]
_KEYS = [f"photos/{number}" for number in range(30)]


@pytest.fixture
def before(tmp_path: Path) -> dict[str, str]:
    """The environment of a daemon of the commit before this one."""
    archive = _git("archive", "HEAD~1")
    if archive is None:
        pytest.skip("git knows no commit before this one: there is no other version at hand")
    code = tmp_path / "before"
    with tarfile.open(fileobj=BytesIO(archive)) as tar:
        tar.extractall(code, filter="data")
    folders = [str(code / name) for name in ("client", "daemon", "protos")]
    return {"PYTHONPATH": os.pathsep.join(folders)}


def _git(*arguments: str) -> bytes | None:
    done = subprocess.run(["git", "-C", str(_ROOT), *arguments], capture_output=True, check=False)  # noqa: S603, S607  # ours
    return done.stdout if done.returncode == 0 else None


@pytest.mark.parametrize("is_upgrade", [True, False], ids=["upgrade", "back"])
def test_other_version_starts_warm_and_goes_on_with_uploads(
    start_daemon: StartDaemon,
    bucket: Bucket,
    proxy: FaultProxy,
    tmp_path: Path,
    before: dict[str, str],
    is_upgrade: bool,
) -> None:
    for key in _KEYS:
        bucket.put(key, key.encode() * 1000)
    bucket.put("large", bytes(9 << 20))
    uris = [bucket.url(key) for key in (*_KEYS, "large")]
    cache_dir = tmp_path / "cache"
    first, second = (before, {}) if is_upgrade else ({}, before)
    old = start_daemon(cache_dir=cache_dir, endpoint_url=proxy.url, env=first, shutdown_grace_s=0)
    with forebay.Client(old.address) as client:
        expected = client.get_many(uris)
        client.pin(bucket.url("photos/"))
        held = proxy.gate("checkpoint", method="PUT")
        client.put(bucket.url("checkpoint"), b"state")
    assert old.stop() == 0
    held.release()
    proxy.forget()

    new = start_daemon(cache_dir=cache_dir, endpoint_url=proxy.url, env=second)

    with forebay.Client(new.address) as client:
        assert client.get_many(uris) == expected
        assert client.stats().raw["pinned_prefixes"] == [bucket.url("photos/")]
        client.flush()
    assert proxy.count("GET") == 0
    assert bucket.get("checkpoint") == b"state"
