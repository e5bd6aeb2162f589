"""Clients that the kernel keeps apart from the daemon: other namespaces, users, mounts, hosts."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

import forebay
from support import remote_work as work
from support.remote import RemoteClient

if TYPE_CHECKING:
    from pathlib import Path

    from support.daemon import DaemonProcess

    from .conftest import FileOrigin, StartLocal

_GROUP = 31_001  # of the daemon and its clients; nobody's on any machine
_MEMBER = (31_002, _GROUP)
_STRANGER = (31_003, 31_004)
_OWN_PIDS = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
_GROUP_OF_DAEMON = ("setpriv", "--regid", str(_GROUP), "--clear-groups")


def _may(*command: str) -> bool:
    """Tell whether a command of the system runs here."""
    if shutil.which(command[0]) is None:
        return False
    return subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0  # noqa: S603


_needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or not _may(*_GROUP_OF_DAEMON), reason="needs root, to be other users"
)
_needs_pid_namespaces = pytest.mark.skipif(
    not _may(*_OWN_PIDS), reason="may not make pid namespaces here (needs root)"
)
_needs_mounts = pytest.mark.skipif(
    not _may("unshare", "--mount"), reason="may not make mount namespaces here (needs root)"
)


def _mounted_read_only(folder: Path) -> tuple[str, ...]:
    """Return a command that runs another with *folder* mounted read-only."""
    script = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'
    return "unshare", "--mount", "sh", "-c", script, str(folder)


def _hidden(folder: Path) -> tuple[str, ...]:
    """Return a command that runs another with an empty folder mounted over *folder*."""
    return "unshare", "--mount", "sh", "-c", 'mount -t tmpfs none "$0" && exec "$@"', str(folder)


def _misses(daemon: DaemonProcess) -> int:
    with forebay.Client(daemon.address) as client:
        return client.stats().misses


# --- pid namespaces ---------------------------------------------------------------------------


@_needs_pid_namespaces
def test_client_and_daemon_that_are_both_pid_1(start_local: StartLocal, files: FileOrigin) -> None:
    daemon = start_local(prefix=_OWN_PIDS)
    files.put("small", b"small")
    files.put("large", b"l" * (3 << 20))
    with contextlib.ExitStack() as stack:
        clients = [
            stack.enter_context(RemoteClient(daemon.address, prefix=_OWN_PIDS)) for _ in range(3)
        ]
        for client in clients:
            assert client.do(work.pid) == 1
            for _ in range(2):
                assert client.do(work.get, files.url("small")) == b"small"
                assert client.do(work.get, files.url("large")) == b"l" * (3 << 20)
                assert client.do(work.local_files, files.url("large")) == {"": b"l" * (3 << 20)}

        stats = clients[0].do(work.raw_stats)

    assert stats["pid"] == 1
    assert stats["attached_clients"] == 3
    assert stats["since_start"]["misses"] == 2
    assert stats["since_start"]["hits"] >= 3 * 2 * 2 - 2


@_needs_pid_namespaces
def test_lease_of_a_client_in_another_pid_namespace_is_kept(
    start_local: StartLocal, files: FileOrigin
) -> None:
    """The daemon must not take the holder for dead because its pid means nothing here."""
    daemon = start_local()
    path = files.put("large", b"l" * (3 << 20))
    with (
        RemoteClient(daemon.address, prefix=_OWN_PIDS) as holder,
        forebay.Client(daemon.address) as client,
    ):
        local = holder.do(work.hold_local_path, path)
        client.evict(path)
        assert holder.do(work.read_file, local) == b"l" * (3 << 20)
        holder.do(work.release_local_path)
        assert client.stats().raw["leases"] == 0


# --- users ------------------------------------------------------------------------------------


@_needs_root
def test_another_user_of_the_group_hits_and_is_counted(
    start_local: StartLocal, files: FileOrigin
) -> None:
    daemon = start_local(prefix=_GROUP_OF_DAEMON)
    files.put("small", b"small")
    files.put("folder/large", b"l" * (3 << 20))
    files.put("folder/below/small", b"below")
    with RemoteClient(daemon.address, user=_MEMBER) as member:
        assert member.do(work.get, files.url("small")) == b"small"
        assert member.do(work.is_attached)
        assert member.do(work.get_many, [files.url("small")] * 5) == [b"small"] * 5
        assert member.do(work.open_and_read, files.url("folder/large")) == b"l" * (3 << 20)
        assert member.do(work.apply_bytes, files.url("folder/large")) == b"l" * (3 << 20)
        assert member.do(work.local_files, files.url("folder")) == {
            "large": b"l" * (3 << 20),
            "below/small": b"below",
        }
        stats = member.do(work.raw_stats)
        assert stats["attached_clients"] == 1
        assert stats["since_start"]["hits"] >= 6
        daemon.kill9()
        assert member.do(work.get, files.url("small")) == b"small"


@_needs_root
def test_member_of_the_group_may_change_nothing_but_counters_and_times(
    start_local: StartLocal, files: FileOrigin
) -> None:
    daemon = start_local(prefix=_GROUP_OF_DAEMON)
    with RemoteClient(daemon.address, user=_MEMBER) as member:
        member.do(work.get, files.put("small", b"small"))
        member.do(work.get, files.put("large", b"l" * (3 << 20)))
        cached = [path for path in daemon.cache_dir.rglob("*") if path.is_file()]
        assert len(cached) > 10
        for path in cached:
            if path.name == "counters" or path.name.startswith("recency."):
                continue
            with pytest.raises(PermissionError):
                member.do(work.open_for_writing, str(path))
        with pytest.raises(PermissionError):
            member.do(work.listed, str(daemon.cache_dir / "catalogue"))


@_needs_root
def test_user_outside_of_the_group_reads_over_tcp_and_never_the_files(
    start_local: StartLocal, files: FileOrigin, free_port: int
) -> None:
    path = files.put("a", b"bytes")
    config = f'[[origin]]\nprefix = "{path.rpartition("/")[0]}"\n'
    daemon = start_local(prefix=_GROUP_OF_DAEMON, tcp=f"127.0.0.1:{free_port}", config=config)
    with RemoteClient(f"127.0.0.1:{free_port}", user=_STRANGER) as stranger:
        assert stranger.do(work.get, path) == b"bytes"
        assert stranger.do(work.get, path) == b"bytes"
        assert not stranger.do(work.is_attached)
        with pytest.raises(PermissionError):
            stranger.do(work.listed, str(daemon.cache_dir))
        with pytest.raises(PermissionError):
            stranger.do(work.read_file, str(daemon.cache_dir / "attach.json"))
    with RemoteClient(
        f"127.0.0.1:{free_port}", user=_STRANGER, env={"FOREBAY_CACHE_DIR": str(daemon.cache_dir)}
    ) as stranger:
        assert stranger.do(work.get, path) == b"bytes"
        assert not stranger.do(work.is_attached)


@_needs_root
def test_user_outside_of_the_group_is_told_why_the_socket_is_closed_to_him(
    start_local: StartLocal, files: FileOrigin
) -> None:
    daemon = start_local(prefix=_GROUP_OF_DAEMON)
    path = files.put("a", b"bytes")
    with (
        RemoteClient(daemon.address, user=_STRANGER) as stranger,
        pytest.raises(forebay.ForebayError, match=r"(?i)permission denied.*group") as caught,
    ):
        stranger.do(work.get, path)
    assert daemon.address in str(caught.value)


# --- mounts -----------------------------------------------------------------------------------


@_needs_mounts
def test_client_with_a_read_only_mount_of_the_folder_hits(
    start_local: StartLocal, files: FileOrigin
) -> None:
    daemon = start_local()
    files.put("small", b"small")
    files.put("large", b"l" * (3 << 20))
    prefix = _mounted_read_only(daemon.cache_dir)
    with RemoteClient(daemon.address, prefix=prefix) as client:
        with pytest.raises(OSError, match="Read-only"):
            client.do(work.write_file, str(daemon.cache_dir / "x"))
        assert client.do(work.get, files.url("small")) == b"small"
        assert client.do(work.get, files.url("large")) == b"l" * (3 << 20)
        misses = _misses(daemon)
        assert client.do(work.is_attached)
        for _ in range(3):
            assert client.do(work.get, files.url("small")) == b"small"
            assert client.do(work.get, files.url("large"), 5, 10) == b"lllll"
            assert client.do(work.apply_bytes, files.url("large")) == b"l" * (3 << 20)
            assert client.do(work.open_and_read, files.url("large")) == b"l" * (3 << 20)
            assert client.do(work.local_files, files.url("large")) == {"": b"l" * (3 << 20)}
        assert _misses(daemon) == misses
        daemon.kill9()
        assert client.do(work.get, files.url("small")) == b"small"


@_needs_mounts
def test_what_only_a_read_only_client_uses_may_leave_the_cache_and_comes_back(
    start_local: StartLocal, files: FileOrigin
) -> None:
    """It cannot note its accesses, so what it reads may leave early."""
    daemon = start_local(max_bytes="16MB")
    path = files.put("mine", b"mine" * 1000)
    others = [files.put(f"{number}", bytes(1 << 20)) for number in range(30)]
    prefix = _mounted_read_only(daemon.cache_dir)
    with (
        RemoteClient(daemon.address, prefix=prefix) as client,
        forebay.Client(daemon.address) as writer,
    ):
        for other in others:
            assert client.do(work.get, path) == b"mine" * 1000
            writer.get(other)
        assert writer.stats().raw["evictions"]["space"]["objects"] > 0


@_needs_mounts
def test_client_with_another_path_of_the_folder_hits(
    start_local: StartLocal, files: FileOrigin, shared_dir: Path
) -> None:
    daemon = start_local()
    path = files.put("a", b"bytes")
    elsewhere = shared_dir / "elsewhere"
    elsewhere.mkdir()
    script = 'mount --bind "$0" "$1" && mount -t tmpfs none "$0" && shift && exec "$@"'
    prefix = ("unshare", "--mount", "sh", "-c", script, str(daemon.cache_dir), str(elsewhere))
    environment = {"FOREBAY_CACHE_DIR": str(elsewhere)}
    with RemoteClient(daemon.address, prefix=prefix, env=environment) as client:
        assert client.do(work.listed, str(daemon.cache_dir)) == []
        assert client.do(work.get, path) == b"bytes"
        assert client.do(work.is_attached)
        assert client.do(work.local_files, path) == {"": b"bytes"}
        misses = _misses(daemon)
        assert client.do(work.get_many, [path] * 10) == [b"bytes"] * 10
        assert _misses(daemon) == misses
        assert client.do(work.raw_stats)["attached_clients"] == 1


def test_folder_of_another_daemon_is_not_believed(
    start_local: StartLocal, files: FileOrigin
) -> None:
    """``FOREBAY_CACHE_DIR`` names a folder that is not the one of the daemon that answers."""
    one, other = start_local(freshness="immutable"), start_local(freshness="immutable")
    path = files.put("a", b"old")
    with forebay.Client(other.address) as client:
        client.get(path)
    files.put("a", b"new")

    with RemoteClient(one.address, env={"FOREBAY_CACHE_DIR": str(other.cache_dir)}) as client:
        assert client.do(work.get, path) == b"new"
        assert client.do(work.get, path) == b"new"
        assert not client.do(work.is_attached)


# --- no folder at all -------------------------------------------------------------------------


@_needs_mounts
def test_client_that_cannot_see_the_folder_reads_everything_through_the_daemon(
    start_local: StartLocal, files: FileOrigin
) -> None:
    daemon = start_local(block_bytes="1MiB")
    small, large = b"0123456789", bytes(range(256)) * (9 << 12)
    files.put("folder/small", small)
    files.put("folder/large", large)
    files.put("folder/below/empty", b"")
    url = files.url
    with RemoteClient(daemon.address, prefix=_hidden(daemon.cache_dir)) as client:
        for _ in range(2):
            assert client.do(work.get, url("folder/small")) == small
            assert client.do(work.get, url("folder/large")) == large
            assert client.do(work.get, url("folder/below/empty")) == b""
            assert client.do(work.get, url("folder/small"), 2, 5) == b"234"
            assert client.do(work.get, url("folder/small"), -3) == b"789"
            assert client.do(work.get, url("folder/small"), 8, 99) == b"89"
            assert client.do(work.get, url("folder/small"), 99, 100) == b""
            assert (
                client.do(work.get, url("folder/large"), 1 << 20, (3 << 20) + 7)
                == (large[1 << 20 : (3 << 20) + 7])
            )
            assert (
                client.do(work.get, url("folder/large"), -(5 << 20), -1) == large[-(5 << 20) : -1]
            )
            wanted = [url("folder/small"), url("folder/large")] * 3
            assert client.do(work.get_many, wanted) == [small, large] * 3
            assert client.do(work.apply_bytes, url("folder/large")) == large
            assert client.do(work.open_and_read, url("folder/large")) == large
            assert client.do(work.open_and_read, url("folder/small")) == small
            assert client.do(work.local_files, url("folder/large")) == {"": large}
            assert client.do(work.local_files, url("folder")) == {
                "small": small,
                "large": large,
                "below/empty": b"",
            }
        assert not client.do(work.is_attached)
        stats = client.do(work.raw_stats)
        with pytest.raises(FileNotFoundError):
            client.do(work.get, url("folder/none"))
        with pytest.raises(FileNotFoundError):
            client.do(work.local_files, url("folder/none"))
    assert stats["since_start"]["origin_bytes"] < 2 * len(large), "the daemon has cached it"
