"""Cache folders that are not as they should be: told clearly, or worked around, never believed."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import threading
from typing import TYPE_CHECKING

import pytest

import forebay
from support import remote_work as work
from support.remote import RemoteClient

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from .conftest import FileOrigin, StartLocal

_MIB = 1 << 20

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount file systems")


@contextlib.contextmanager
def _mounted(target: Path, *arguments: str) -> Iterator[Path]:
    """Mount something at *target*; skips where that is not allowed."""
    target.mkdir(exist_ok=True)
    command = ["mount", *arguments, str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode != 0:
        pytest.skip(f"cannot mount here: {done.stderr.strip()}")
    try:
        yield target
    finally:
        subprocess.run(["umount", "--lazy", str(target)], check=True)  # noqa: S603, S607


@contextlib.contextmanager
def _image(shared_dir: Path, kind: str, size_bytes: int) -> Iterator[Path]:
    """Mount a new file system of a kind from a file."""
    if shutil.which(f"mkfs.{kind}") is None:
        pytest.skip(f"mkfs.{kind} is not installed")
    image = shared_dir / f"{kind}.image"
    with image.open("wb") as file:
        file.truncate(size_bytes)
    subprocess.run([f"mkfs.{kind}", "-q", str(image)], check=True, capture_output=True)  # noqa: S603
    with _mounted(shared_dir / kind, "-o", "loop", str(image)) as folder:
        yield folder


def _refusal(start_local: StartLocal, cache_dir: Path, **settings: object) -> str:
    """Return what a daemon says that refuses to start on *cache_dir*."""
    daemon = start_local(cache_dir=cache_dir, wait=False, **settings)  # type: ignore[arg-type]  # of the caller
    assert daemon.wait() != 0
    assert "Traceback" not in daemon.log
    return daemon.log


# --- refused ----------------------------------------------------------------------------------


def test_folder_of_a_newer_version_is_refused_and_left_alone(
    start_local: StartLocal, files: FileOrigin
) -> None:
    daemon = start_local()
    with forebay.Client(daemon.address) as client:
        client.get(files.put("a", b"bytes"))
    daemon.stop()
    (daemon.cache_dir / "VERSION").write_text("99\n")
    before = sorted(daemon.cache_dir.rglob("*"))

    text = _refusal(start_local, daemon.cache_dir)

    assert "version 99" in text
    assert "upgrade" in text
    assert sorted(daemon.cache_dir.rglob("*")) == before


@pytest.mark.parametrize("content", ["", "one", "-1", "1.5"])
def test_folder_with_no_version_in_its_file_is_refused(
    start_local: StartLocal, shared_dir: Path, content: str
) -> None:
    folder = shared_dir / "cache"
    folder.mkdir()
    (folder / "VERSION").write_text(content)
    assert "VERSION" in _refusal(start_local, folder)


@needs_root
def test_folder_of_another_owner_is_refused(start_local: StartLocal, shared_dir: Path) -> None:
    folder = shared_dir / "cache"
    folder.mkdir()
    os.chown(folder, 31_002, 31_002)
    text = _refusal(start_local, folder)
    assert "uid 31002" in text
    assert "--cache-dir" in text
    assert list(folder.iterdir()) == []


def test_folder_with_foreign_files_is_refused_and_they_stay(
    start_local: StartLocal, shared_dir: Path
) -> None:
    folder = shared_dir / "photos"
    folder.mkdir()
    (folder / "holiday.jpg").write_bytes(b"precious")
    text = _refusal(start_local, folder)
    assert "not Forebay's" in text
    assert [path.name for path in folder.iterdir()] == ["holiday.jpg"]


def test_foreign_files_in_a_cache_folder_are_never_removed(
    start_local: StartLocal, files: FileOrigin
) -> None:
    daemon = start_local()
    daemon.kill9()
    (daemon.cache_dir / "notes.txt").write_text("mine")
    (daemon.cache_dir / "table.notes").write_text("mine too")
    (daemon.cache_dir / "catalogue" / "data.mdb").write_bytes(b"damaged" * 1000)
    daemon.start()
    with forebay.Client(daemon.address) as client:
        assert client.get(files.put("a", b"bytes")) == b"bytes"
    assert (daemon.cache_dir / "notes.txt").read_text() == "mine"


def test_file_in_place_of_the_folder_is_refused(start_local: StartLocal, shared_dir: Path) -> None:
    (shared_dir / "cache").write_bytes(b"precious")
    assert "--cache-dir" in _refusal(start_local, shared_dir / "cache")
    assert (shared_dir / "cache").read_bytes() == b"precious"


@needs_root
def test_read_only_folder_is_refused(start_local: StartLocal, shared_dir: Path) -> None:
    with _mounted(shared_dir / "read-only", "-t", "tmpfs", "-o", "ro", "none") as folder:
        text = _refusal(start_local, folder)
    assert "Read-only file system" in text
    assert "--cache-dir" in text


def test_second_daemon_on_the_folder_is_refused_and_told_the_pid(
    start_local: StartLocal, files: FileOrigin
) -> None:
    first = start_local()
    text = _refusal(start_local, first.cache_dir)
    assert f"pid {first.pid}" in text
    with forebay.Client(first.address) as client:
        assert client.get(files.put("a", b"bytes")) == b"bytes", "the first one goes on"


def test_second_daemon_on_the_socket_is_refused_and_the_first_goes_on(
    start_local: StartLocal, files: FileOrigin, shared_dir: Path
) -> None:
    first = start_local()
    text = _refusal(start_local, shared_dir / "another", address=first.address)
    assert first.address.removeprefix("unix:") in text
    assert "--listen" in text
    with forebay.Client(first.address) as client:
        assert client.get(files.put("a", b"bytes")) == b"bytes"


def test_second_daemon_on_the_port_is_refused(
    start_local: StartLocal, shared_dir: Path, free_port: int
) -> None:
    start_local(tcp=f"127.0.0.1:{free_port}")
    text = _refusal(start_local, shared_dir / "another", tcp=f"127.0.0.1:{free_port}")
    assert f"127.0.0.1:{free_port}" in text


def test_socket_of_a_killed_daemon_is_taken_over(
    start_local: StartLocal, files: FileOrigin
) -> None:
    first = start_local()
    first.kill9()
    second = start_local(address=first.address)
    with forebay.Client(second.address) as client:
        assert client.get(files.put("a", b"bytes")) == b"bytes"


@pytest.mark.parametrize("max_bytes", [1, 4096, 1_000_000])
def test_limit_that_leaves_no_room_for_objects_is_refused(
    start_local: StartLocal, shared_dir: Path, max_bytes: int
) -> None:
    text = _refusal(start_local, shared_dir / "cache", max_bytes=max_bytes)
    assert f"max_bytes {max_bytes}" in text
    assert "at least" in text


def test_smallest_limit_that_is_taken_caches(start_local: StartLocal, files: FileOrigin) -> None:
    daemon = start_local(max_bytes="8MiB")
    path = files.put("a", b"bytes")
    with forebay.Client(daemon.address) as client:
        assert [client.get(path) for _ in range(3)] == [b"bytes"] * 3
        assert (client.stats().misses, client.stats().hits) == (1, 2)


# --- other file systems -----------------------------------------------------------------------


def _fill_and_read(client: forebay.Client, files: FileOrigin) -> None:
    """Read small and large objects cold and warm, more than fits into 16 MiB."""
    small = {files.put(f"small/{n}", bytes([n]) * 5000): bytes([n]) * 5000 for n in range(50)}
    large = {
        files.put(f"large/{n}", bytes([n]) * (3 * _MIB)): bytes([n]) * (3 * _MIB) for n in range(8)
    }
    for path, data in [*small.items(), *large.items()] * 2:
        assert client.get(path) == data
        assert client.apply(path, bytes) == data
    assert client.get_many(small) == list(small.values())
    for path, data in large.items():
        with client.open(path) as file:
            assert file.read() == data


@needs_root
def test_tmpfs_works(start_local: StartLocal, files: FileOrigin, shared_dir: Path) -> None:
    with _mounted(shared_dir / "tmpfs", "-t", "tmpfs", "-o", "size=64m", "none") as folder:
        daemon = start_local(cache_dir=folder, max_bytes="24MiB", min_free_bytes="1MiB")
        with forebay.Client(daemon.address) as client:
            _fill_and_read(client, files)
            stats = client.stats()
            assert stats.hits > 50
            assert client.check().problems == ()
        daemon.kill9()


@needs_root
@pytest.mark.parametrize("kind", ["ext2", "vfat"])
def test_file_system_that_cannot_punch_holes_works(
    start_local: StartLocal, files: FileOrigin, shared_dir: Path, kind: str
) -> None:
    with _image(shared_dir, kind, 64 * _MIB) as folder:
        cache_dir = folder / "cache"
        daemon = start_local(cache_dir=cache_dir, max_bytes="24MiB", min_free_bytes="1MiB")
        with forebay.Client(daemon.address) as client:
            _fill_and_read(client, files)
            assert client.stats().hits > 50
            assert client.stats().raw["evictions"]["space"]["objects"] > 0
            assert client.check().problems == ()
            daemon.restart()
            _fill_and_read(client, files)
        daemon.kill9()


# --- a full disk ------------------------------------------------------------------------------


def _fill_up(folder: Path) -> None:
    """Leave no byte free."""
    with (folder / "ballast").open("ab", buffering=0) as file:
        for size in (_MIB, 4096, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(b"\1" * size)


@needs_root
@pytest.mark.parametrize("kind", ["tmpfs", "ext4"])
def test_full_disk_leaves_readers_with_the_origin(
    start_local: StartLocal, files: FileOrigin, shared_dir: Path, kind: str
) -> None:
    with contextlib.ExitStack() as stack:
        if kind == "tmpfs":
            disk = _mounted(shared_dir / "tmpfs", "-t", "tmpfs", "-o", "size=32m", "none")
        else:
            disk = _image(shared_dir, "ext4", 48 * _MIB)
        folder = stack.enter_context(disk)
        daemon = start_local(cache_dir=folder / "cache", max_bytes="1GB", min_free_bytes="1")
        cached = {files.put(f"cached/{n}", bytes([n]) * 9000): bytes([n]) * 9000 for n in range(20)}
        client = stack.enter_context(RemoteClient(daemon.address))
        assert client.do(work.get_many, list(cached)) == list(cached.values())

        _fill_up(folder)

        for n in range(60):
            small, large = bytes([n]) * 9000, bytes([n]) * (2 * _MIB)
            assert client.do(work.get, files.put(f"small/{n}", small)) == small
            if n % 6 == 0:
                path = files.put(f"large/{n}", large)
                assert client.do(work.get, path) == large
                assert client.do(work.open_and_read, path) == large
                assert client.do(work.apply_bytes, path) == large
        for path, data in cached.items():
            assert client.do(work.get, path) == data
        with RemoteClient(daemon.address) as late:
            assert late.do(work.get_many, list(cached)) == list(cached.values())
        errors = client.do(work.raw_stats)["errors"]
        assert sum(errors.get(name, 0) for name in ("cache_write", "disk_floor")) > 0

        (folder / "ballast").unlink()

        for n in range(20):
            data = bytes([n]) * 7000
            path = files.put(f"later/{n}", data)
            assert client.do(work.get, path) == data
            assert client.do(work.get, path) == data
        after = client.do(work.raw_stats)
        assert after["objects"] >= 20, "it caches again once there is room"
        daemon.kill9()


@needs_root
def test_floor_of_free_space_is_kept(
    start_local: StartLocal, files: FileOrigin, shared_dir: Path
) -> None:
    with _mounted(shared_dir / "tmpfs", "-t", "tmpfs", "-o", "size=64m", "none") as folder:
        daemon = start_local(cache_dir=folder / "cache", max_bytes="1GB", min_free_bytes="32MiB")
        with forebay.Client(daemon.address) as client:
            for n in range(30):
                data = bytes([n]) * (2 * _MIB)
                assert client.get(files.put(f"{n}", data)) == data
                space = os.statvfs(folder)
                assert space.f_bavail * space.f_frsize >= 32 * _MIB
        daemon.kill9()


@needs_root
def test_view_of_an_evicted_object_is_no_death_on_a_full_tmpfs(
    start_local: StartLocal, files: FileOrigin, shared_dir: Path
) -> None:
    """There a mapped hole takes a page when it is read, and there is none: SIGBUS."""
    with _mounted(shared_dir / "tmpfs", "-t", "tmpfs", "-o", "size=32m", "none") as folder:
        daemon = start_local(cache_dir=folder / "cache", max_bytes="24MiB", min_free_bytes="1")
        data = bytes(range(256)) * 256
        for key in ("packed", "blob"):
            path = files.put(key, data * (1 if key == "packed" else 32))
            expected = data * (1 if key == "packed" else 32)
            with RemoteClient(daemon.address) as reader, forebay.Client(daemon.address) as client:
                for _ in range(3):
                    assert reader.do(work.apply_bytes, path) == expected
                    assert reader.do(work.get, path) == expected
                go_on = shared_dir / f"go-on-{key}"
                reader.start(work.apply_when_told, path, str(shared_dir / key), str(go_on))
                _wait_for(shared_dir / key)

                client.evict(path)
                _fill_up(folder)
                go_on.touch()

                assert reader.result() == expected
            (folder / "ballast").unlink()
        daemon.kill9()


def _wait_for(path: Path) -> None:
    over = threading.Event()
    for _ in range(6000):
        if path.exists():
            return
        over.wait(0.01)
    raise AssertionError(f"{path} never came")


# --- damage -----------------------------------------------------------------------------------


def _damage_nothing_left(path: Path) -> None:
    path.write_bytes(b"")


def _damage_garbage(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"\xa5garbage" * (path.stat().st_size // 8))


def _damage_head(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"\xa5garbage" * 1024)


def _damage_cut(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(min(path.stat().st_size // 2, 3 * 4096))


def _damage_removed(path: Path) -> None:
    path.unlink()


_DAMAGES = [
    _damage_nothing_left,
    _damage_garbage,
    _damage_head,
    _damage_cut,
    _damage_removed,
]


@pytest.mark.parametrize("stop", ["kill9", pytest.param("clean", marks=pytest.mark.stress)])
@pytest.mark.parametrize("damage", _DAMAGES, ids=lambda damage: damage.__name__[8:])
@pytest.mark.parametrize(
    "name", ["catalogue/data.mdb", "table", "recency", "attach.json", "counters", "ID", "BOOT"]
)
def test_damaged_file_costs_entries_at_most(
    start_local: StartLocal,
    files: FileOrigin,
    name: str,
    damage: Callable[[Path], None],
    stop: str,
) -> None:
    """The daemon starts, serves right bytes and caches again, for clients old and new."""
    daemon = start_local()
    contents = {files.put(f"{n}", bytes([n]) * 6000): bytes([n]) * 6000 for n in range(40)}
    contents[files.put("large", b"l" * (3 * _MIB))] = b"l" * (3 * _MIB)
    with forebay.Client(daemon.address) as client:
        for _ in range(2):
            assert client.get_many(contents) == list(contents.values())
        daemon.stop() if stop == "clean" else daemon.kill9()
        (path,) = (
            path
            for path in daemon.cache_dir.glob(name if "." in name or "/" in name else f"{name}*")
        )
        damage(path)

        daemon.start()

        for _ in range(3):
            assert client.get_many(contents) == list(contents.values())
        with RemoteClient(daemon.address) as other:
            assert other.do(work.get_many, list(contents)) == list(contents.values())
            misses = client.stats().misses
            assert other.do(work.get_many, list(contents)) == list(contents.values())
            assert client.stats().misses == misses, "everything is cached (again)"
        client.check(repair=True)
        assert client.check().problems == ()
    assert "Segmentation" not in daemon.log


@pytest.mark.parametrize("part", ["segments", "blobs"])
def test_check_finds_files_that_are_missing_and_readers_get_right_bytes(
    start_local: StartLocal, files: FileOrigin, part: str
) -> None:
    daemon = start_local(packing_limit_bytes="64KiB")
    size = 5000 if part == "segments" else 100_000
    contents = {files.put(f"{n}", bytes([n]) * size): bytes([n]) * size for n in range(10)}
    with forebay.Client(daemon.address) as client:
        client.get_many(contents)
    for path in (daemon.cache_dir / part).iterdir():
        path.unlink()
    with forebay.Client(daemon.address) as client:
        report = client.check()
        assert len(report.problems) >= 10
        assert all("is missing" in problem.what for problem in report.problems[:10])

        with RemoteClient(daemon.address) as reader:
            assert reader.do(work.get_many, list(contents)) == list(contents.values())

        client.check(repair=True)
        assert client.check().problems == ()
        assert client.get_many(contents) == list(contents.values())
        misses = client.stats().misses
        assert client.get_many(contents) == list(contents.values())
        assert client.stats().misses == misses


def test_check_finds_a_segment_that_was_cut_and_a_blob_that_was_cut(
    start_local: StartLocal, files: FileOrigin
) -> None:
    daemon = start_local(packing_limit_bytes="64KiB", segment_bytes="1MiB")
    contents = {files.put(f"{n}", bytes([n]) * 5000): bytes([n]) * 5000 for n in range(10)}
    contents[files.put("blob", b"b" * 300_000)] = b"b" * 300_000
    with forebay.Client(daemon.address) as client:
        client.get_many(contents)
    daemon.kill9()
    for part in ("segments", "blobs"):
        for path in (daemon.cache_dir / part).iterdir():
            with path.open("r+b") as file:
                file.truncate(4096)
    daemon.start()
    with forebay.Client(daemon.address) as client:
        told = " ".join(problem.what for problem in client.check().problems)
        assert "segment" in told
        assert "blob" in told
        assert client.get_many(contents) == list(contents.values())
        client.check(repair=True)
        assert client.check().problems == ()
        assert client.get_many(contents) == list(contents.values())
