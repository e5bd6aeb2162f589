"""Writes that meet a limit, an origin that refuses, a full disk, a stranger: told clearly, and
nothing acknowledged is lost.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import forebay
from support import remote_work
from support.remote import RemoteClient
from support.sizes import some_bytes
from support.spooled import contents, journal, spool_used, wait_until, wait_until_empty

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conftest import StartDaemon
    from e2e.conftest import FileOrigin, StartLocal
    from support.ceph import Bucket, Ceph
    from support.daemon import DaemonProcess
    from support.proxy import FaultProxy

MIB = 1 << 20


# --- an origin that refuses --------------------------------------------------------------------


@dataclass(frozen=True)
class Scene:
    """A daemon whose writes to ``url`` are refused until ``cure`` is called."""

    daemon: DaemonProcess
    url: str
    text: str  # that the error must match
    error: type[Exception]  # of a write-through
    cure: Callable[[], None]
    read_back: Callable[[], bytes]


def _read_only(start: StartDaemon, proxy: FaultProxy, bucket: Bucket, _: Ceph) -> Scene:
    daemon = start(endpoint_url=proxy.url)
    proxy.fail("k", method="PUT", status=403, times=None)
    text = "(?i)denied|403"
    return Scene(
        daemon,
        bucket.url("k"),
        text,
        forebay.AccessDeniedError,
        proxy.clear,
        lambda: bucket.get("k"),
    )


def _quota(start: StartDaemon, proxy: FaultProxy, bucket: Bucket, _: Ceph) -> Scene:
    daemon = start(endpoint_url=proxy.url)
    proxy.fail("k", method="PUT", status=403, code="QuotaExceeded", times=None)
    return Scene(
        daemon,
        bucket.url("k"),
        "(?i)quota",
        forebay.AccessDeniedError,
        proxy.clear,
        lambda: bucket.get("k"),
    )


def _skewed(start: StartDaemon, proxy: FaultProxy, bucket: Bucket, _: Ceph) -> Scene:
    daemon = start(endpoint_url=proxy.url)
    proxy.fail("k", method="PUT", status=403, code="RequestTimeTooSkewed", times=None)
    return Scene(
        daemon,
        bucket.url("k"),
        "(?i)clock",
        forebay.AccessDeniedError,
        proxy.clear,
        lambda: bucket.get("k"),
    )


def _no_bucket(start: StartDaemon, proxy: FaultProxy, bucket: Bucket, _: Ceph) -> Scene:
    name = f"{bucket.name}-not-yet"
    client = bucket.client

    def read() -> bytes:
        reply: Any = client.get_object(Bucket=name, Key="k")
        data = bytes(reply["Body"].read())
        client.delete_object(Bucket=name, Key="k")
        client.delete_bucket(Bucket=name)
        return data

    return Scene(
        start(),
        f"s3://{name}/k",
        f"(?i)bucket.*{name}|{name}.*bucket",
        forebay.ObjectNotFoundError,
        lambda: client.create_bucket(Bucket=name),
        read,
    )


def _wrong_keys(start: StartDaemon, _: FaultProxy, bucket: Bucket, ceph: Ceph) -> Scene:
    with tempfile.NamedTemporaryFile("w", prefix="fb-keys-", delete=False) as file:
        keys = Path(file.name)

    def write_keys(secret: str) -> None:
        keys.write_text(
            f"[default]\naws_access_key_id = {ceph.access_key}\naws_secret_access_key = {secret}\n"
        )

    write_keys("wrong")
    daemon = start(
        config=f'[[origin]]\nprefix = "s3://"\nendpoint_url = "{ceph.endpoint_url}"\n'
        f'region = "{ceph.region}"\ncredentials = {{ file = "{keys}" }}\n'
    )

    def cure() -> None:
        write_keys(ceph.secret_key)
        daemon.restart()
        keys.unlink()

    text = "(?i)credentials|signature|denied|403"
    return Scene(
        daemon, bucket.url("k"), text, forebay.AccessDeniedError, cure, lambda: bucket.get("k")
    )


REFUSALS = {
    "read-only": _read_only,
    "quota": _quota,
    "clock": _skewed,
    "no bucket": _no_bucket,
    "wrong keys": _wrong_keys,
}


@pytest.fixture(params=REFUSALS.values(), ids=list(REFUSALS))
def scene(
    request: pytest.FixtureRequest,
    start_daemon: StartDaemon,
    proxy: FaultProxy,
    bucket: Bucket,
    ceph: Ceph,
) -> Scene:
    made: Scene = request.param(start_daemon, proxy, bucket, ceph)
    return made


def test_what_the_origin_refuses_is_kept_and_loud_until_it_is_taken(scene: Scene) -> None:
    data = some_bytes(100_000)
    with forebay.Client(scene.daemon.address) as client:
        client.put(scene.url, data)  # acknowledged: it is durable here
        wait_until(lambda: client.uploads()[0].state == "failed", "the refusal")
        (upload,) = client.uploads()
        assert (upload.path, upload.size_bytes) == (scene.url, len(data))
        with pytest.raises(forebay.UploadFailedError, match=scene.text) as caught:
            client.flush()
        assert [each.id for each in caught.value.uploads] == [upload.id]
        assert scene.url in upload.last_error or scene.url in str(caught.value)
        assert client.get(scene.url) == data
        assert client.stats().raw["spool"]["overdue"]
        assert "failed for good" in scene.daemon.log

        scene.daemon.kill9()
        scene.daemon.start()
        wait_until(lambda: client.uploads()[0].state == "failed", "the refusal")
        assert client.get(scene.url) == data

        scene.cure()
        client.settle_uploads()
        client.flush()
        assert client.uploads() == []
        assert not client.stats().raw["spool"]["overdue"]
        assert client.get(scene.url) == data
        assert scene.read_back() == data


def test_write_through_is_told_at_once_and_leaves_nothing(scene: Scene) -> None:
    with forebay.Client(scene.daemon.address) as client:
        with pytest.raises(scene.error, match=scene.text):
            client.put(scene.url, b"data", mode="write_through")
        with pytest.raises(scene.error, match=scene.text), client.open(scene.url, "xb") as file:
            file.write(b"data")
        assert client.uploads() == []
        assert journal(scene.daemon.cache_dir) == []
    with forebay.Client(scene.daemon.address) as client:
        wait_until(lambda: spool_used(client) == 0, "an empty ledger")


def test_key_that_is_too_long_is_refused_clearly(start_daemon: StartDaemon, bucket: Bucket) -> None:
    """At once or after the origin was asked; it can only be discarded."""
    daemon = start_daemon()
    url = bucket.url("k" * 1025)
    with forebay.Client(daemon.address) as client:
        try:
            client.put(url, b"data")
        except forebay.InvalidPathError as error:
            assert "1024" in str(error) or "long" in str(error)  # noqa: PT017
        else:
            wait_until(lambda: client.uploads()[0].state == "failed", "the refusal")
            with pytest.raises(forebay.UploadFailedError, match=r"(?i)long|1024|name"):
                client.flush()
            client.settle_uploads(discard=True)
        with pytest.raises(forebay.ForebayError, match=r"(?i)long|1024|name"):
            client.put(url, b"data", mode="write_through")
        client.put(bucket.url("k" * 1024), b"data")
        client.flush()
        assert client.uploads() == []
    assert bucket.keys() == ["k" * 1024]
    wait_until_empty(daemon.cache_dir)


def test_remove_does_not_wait_for_an_origin_that_does_not_answer(
    start_daemon: StartDaemon, proxy: FaultProxy, bucket: Bucket
) -> None:
    """A hook is not to fail because the origin hangs: the remove will wait for it."""
    daemon = start_daemon(endpoint_url=proxy.url)
    bucket.put("old", b"old")
    gate = proxy.gate(None, method=None)
    with forebay.Client(daemon.address) as client:
        client.put(bucket.url("new"), b"new")
        client.remove(bucket.url("old"))
        with pytest.raises(FileNotFoundError):
            client.get(bucket.url("old"))
        gate.release()
        client.flush()
    assert bucket.keys() == ["new"]


# --- files -------------------------------------------------------------------------------------


def append(client: forebay.Client, path: str) -> None:
    with client.open(path, "ab") as file:
        file.write(b"more")


def test_files_are_not_written_unless_somebody_said_so(
    start_local: StartLocal, files: FileOrigin
) -> None:
    daemon = start_local()
    files.put("there", b"there")
    with forebay.Client(daemon.address) as client:
        writes: tuple[Callable[[], object], ...] = (
            lambda: client.put(files.url("k"), b"data"),
            lambda: client.put(files.url("k"), b"data", mode="write_through"),
            lambda: client.remove(files.url("there")),
            lambda: client.remove_tree(files.url()),
            lambda: client.copy(files.url("there"), files.url("k")),
            lambda: client.move(files.url("there"), files.url("k")),
            lambda: client.open(files.url("k"), "wb").close(),
            lambda: client.open(files.url("k"), "xb").close(),
            lambda: append(client, files.url("there")),
        )
        for write in writes:
            with pytest.raises(forebay.AccessDeniedError, match=r"read-only.*\[\[origin\]\]"):
                write()
        assert client.get(files.url("there")) == b"there"
    assert [path.name for path in files.folder.iterdir()] == ["there"]
    assert journal(daemon.cache_dir) == []


def test_files_of_a_configured_origin_are_written(
    start_local: StartLocal, files: FileOrigin
) -> None:
    daemon = start_local(config=f'[[origin]]\nprefix = "file://{files.folder}"\n')
    with forebay.Client(daemon.address) as client:
        client.put(files.url("folder/k"), b"data")
        client.flush()
        assert (files.folder / "folder" / "k").read_bytes() == b"data"
        client.move(files.url("folder/k"), files.url("moved"))
        assert (files.folder / "moved").read_bytes() == b"data"
        with client.open(files.url("moved"), "ab") as file:
            file.write(b" and more")
        client.flush()
        assert (files.folder / "moved").read_bytes() == b"data and more"
        client.remove(files.url("moved"))
        client.flush()
        assert not (files.folder / "moved").exists()


# --- a full disk -------------------------------------------------------------------------------


@pytest.fixture
def little_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 MiB."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount")
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "none", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode != 0:
        pytest.skip(f"may not mount here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)  # noqa: S603, S607


def write_too_much(client: forebay.Client, path: str) -> None:
    with client.open(path, "wb") as file:
        for _ in range(100):
            file.write(bytes(MIB))


@pytest.mark.parametrize("is_shared", [True, False], ids=["shared", "grpc"])
def test_full_disk_is_told_and_nothing_is_published(
    start_daemon: StartDaemon,
    bucket: Bucket,
    little_disk: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    is_shared: bool,
) -> None:
    daemon = start_daemon(cache_dir=little_disk / "cache", min_free_bytes=1)
    if not is_shared:
        monkeypatch.setenv("FOREBAY_CACHE_DIR", str(tmp_path))
    bucket.put("k", b"old")
    with forebay.Client(daemon.address) as client:
        with pytest.raises(forebay.SpoolFullError, match=r"(?i)disk|space"):
            client.put(bucket.url("k"), some_bytes(100 * MIB))
        with pytest.raises(forebay.SpoolFullError, match=r"(?i)disk|space"):
            write_too_much(client, bucket.url("k"))
        assert client.uploads() == []
        assert journal(daemon.cache_dir) == []
        assert client.get(bucket.url("k")) == b"old"

        client.put(bucket.url("k"), some_bytes(MIB))
        client.flush()
        assert bucket.get("k") == some_bytes(MIB)

        # Not a byte is left.
        with contextlib.suppress(OSError), (little_disk / "ballast").open("wb") as ballast:
            while True:
                ballast.write(bytes(4096))
                ballast.flush()
        writes: tuple[Callable[[], object], ...] = (
            lambda: client.put(bucket.url("k"), some_bytes(100_000)),
            lambda: client.remove(bucket.url("k")),
        )
        for write in writes:
            with pytest.raises(forebay.SpoolFullError, match=r"(?i)disk|space"):
                write()
        (little_disk / "ballast").unlink()
        client.put(bucket.url("k"), b"after")
        client.flush()
        assert client.check().problems == ()
    assert bucket.get("k") == b"after"


# --- users -------------------------------------------------------------------------------------

_GROUP = 31_001
_DAEMON = (31_005, _GROUP)
_MEMBER = (31_002, _GROUP)
_AS_DAEMON = ("setpriv", "--reuid", str(_DAEMON[0]), "--regid", str(_GROUP), "--clear-groups")


def _may(*command: str) -> bool:
    if os.geteuid() != 0 or shutil.which(command[0]) is None:
        return False
    return subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0  # noqa: S603


@pytest.mark.skipif(not _may(*_AS_DAEMON), reason="needs root, to be other users")
def test_another_user_of_the_group_writes_and_nobody_else_can_look(
    start_local: StartLocal, shared_dir: Path
) -> None:
    home = shared_dir / "daemon"
    origin = home / "origin"
    origin.mkdir(parents=True)
    for folder in (home, origin):
        os.chown(folder, *_DAEMON)
    home.chmod(0o755)
    origin.chmod(0o500)  # not yet to be written
    daemon = start_local(
        prefix=_AS_DAEMON,
        cache_dir=home / "cache",
        address=f"unix:{home}/sock",
        config=f'[[origin]]\nprefix = "file://{origin}"\n',
    )
    sizes = {"small": 100_000, "large": 20 * MIB}
    with (
        RemoteClient(daemon.address, user=_MEMBER) as member,
        RemoteClient(daemon.address, user=_MEMBER) as other,
    ):
        for name, size in sizes.items():
            member.do(remote_work.put, f"file://{origin}/{name}", some_bytes(size))
            assert other.do(remote_work.get, f"file://{origin}/{name}") == some_bytes(size)
        assert member.do(remote_work.is_attached)
        assert len(journal(daemon.cache_dir)) == len(sizes)
        for path in daemon.cache_dir.rglob("*"):
            with contextlib.suppress(FileNotFoundError):  # one that was there for a moment
                status = path.lstat()
                assert status.st_mode & 0o007 == 0, path
                assert status.st_gid == _GROUP, path
        # What is acknowledged is nobody's to change, what is being written is the group's.
        for name in journal(daemon.cache_dir):
            with pytest.raises(PermissionError):
                member.do(remote_work.open_for_writing, str(daemon.cache_dir / "spool" / name))
        origin.chmod(0o700)
        with forebay.Client(daemon.address) as client:
            wait_until(
                lambda: (client.settle_uploads(), not client.uploads())[1], "the end of the uploads"
            )
        for name, size in sizes.items():
            assert (origin / name).read_bytes() == some_bytes(size)
            assert member.do(remote_work.get, f"file://{origin}/{name}") == some_bytes(size)


def test_threads_of_one_client_write_at_once(start_daemon: StartDaemon, bucket: Bucket) -> None:
    daemon = start_daemon()
    together = threading.Barrier(8)
    with forebay.Client(daemon.address) as client, ThreadPoolExecutor(8) as pool:

        def write(number: int) -> None:
            together.wait()
            for n in range(10):
                client.put(bucket.url(f"{number}/{n}"), b"%d %d" % (number, n))

        list(pool.map(write, range(8)))
        client.flush()
    assert contents(bucket) == {
        f"{number}/{n}": b"%d %d" % (number, n) for number in range(8) for n in range(10)
    }
