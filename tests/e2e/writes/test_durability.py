"""What is acknowledged is on the disk, and outlives the daemon."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

import forebay
from support import remote_work, write_work
from support.remote import RemoteClient
from support.sizes import some_bytes
from support.spooled import contents, journal, wait_until, wait_until_empty

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from conftest import StartDaemon
    from support.ceph import Bucket
    from support.daemon import DaemonProcess
    from support.proxy import FaultProxy, Request

MIB = 1 << 20


# --- fsync ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SystemCall:
    """A line of a trace, or two: what was called, and when it came back."""

    pid: int
    name: str
    text: str  # arguments and result
    began: int  # number of the line
    ended: int

    @property
    def result(self) -> str:
        return self.text.rpartition(" = ")[2]


def parsed(trace: str) -> list[SystemCall]:
    calls: list[SystemCall] = []
    open_calls: dict[int, tuple[str, str, int]] = {}
    for number, line in enumerate(trace.splitlines()):
        head = re.match(r"\s*(\d+)\s+(.*)", line)
        if head is None:
            continue
        pid, rest = int(head[1]), head[2]
        resumed = re.match(r"<\.\.\. (\w+) resumed>(.*)", rest)
        if resumed is not None and pid in open_calls:
            name, text, began = open_calls.pop(pid)
            calls.append(SystemCall(pid, name, text + resumed[2], began, number))
        elif (called := re.match(r"(\w+)\((.*)", rest)) is not None:
            if "<unfinished ...>" in rest:
                text = called[2].replace("<unfinished ...>", "")
                open_calls[pid] = called[1], text, number
            else:
                calls.append(SystemCall(pid, called[1], called[2], number, number))
    return calls


@contextlib.contextmanager
def traced(out_file: Path, *pids: int) -> Iterator[None]:
    """Write what these processes and their threads ask of the disk into a file."""
    if shutil.which("strace") is None:
        pytest.skip("there is no strace: apt-get install strace")
    wanted = "fsync,fdatasync,rename,renameat,renameat2,access,faccessat,faccessat2"
    command = ["strace", "-f", "-y", "-s", "256", "-e", f"trace={wanted}", "-o", str(out_file)]
    for pid in pids:
        command += ["-p", str(pid)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)  # noqa: S603
    assert process.stderr is not None
    attached = 0
    while attached < len(pids):
        line = process.stderr.readline()
        if not line or "ptrace" in line:
            process.kill()
            process.wait()
            process.stderr.close()
            pytest.skip(f"may not trace here: {line.strip()}")
        attached += "attached" in line
    reader = threading.Thread(target=process.stderr.read)
    reader.start()
    try:
        yield
    finally:
        process.terminate()
        process.wait()
        reader.join()
        process.stderr.close()


def find(calls: list[SystemCall], what: str, wanted: Callable[[SystemCall], object]) -> SystemCall:
    found = [call for call in calls if wanted(call)]
    assert found, f"no {what} among {[(call.name, call.text) for call in calls]}"
    return found[0]


def assert_durable_before(trace: str, mark: str, daemon: DaemonProcess) -> SystemCall:
    """Check the order: rename into the journal, its folder's fsync, then the acknowledgement.

    Returns the fsync of the bytes, which came before all of them.
    """
    calls = parsed(trace)
    told = find(calls, "mark", lambda call: mark in call.text)
    rename = find(
        calls,
        "rename into the journal",
        lambda call: (
            call.name.startswith("rename")
            and re.search(r'spool/staging/\w+".*spool/\d{8}-\d{12}"', call.text)
        ),
    )
    staged = re.search(r"spool/staging/\w+", rename.text)
    assert staged is not None
    bytes_synced = find(
        calls,
        f"fsync of {staged[0]}",
        lambda call: call.name in ("fsync", "fdatasync") and staged[0] in call.text,
    )
    folder = re.escape(str(daemon.cache_dir / "spool"))
    folder_synced = find(
        calls,
        "fsync of the spool's folder after the rename",
        lambda call: (
            call.name == "fsync"
            and re.match(rf"\d+<{folder}>", call.text)
            and call.began > rename.ended
        ),
    )
    assert (bytes_synced.result, rename.result, folder_synced.result) == ("0", "0", "0")
    assert bytes_synced.ended < rename.began
    assert folder_synced.ended < told.began
    return bytes_synced


@pytest.mark.parametrize("write", [write_work.put_then_tell, write_work.open_then_tell])
@pytest.mark.parametrize("size", [100_000, 20 * MIB], ids=["small", "large"])
def test_bytes_and_folder_are_on_the_disk_before_the_acknowledgement(
    daemon: DaemonProcess,
    proxy: FaultProxy,
    bucket: Bucket,
    tmp_path: Path,
    write: Callable[..., None],
    size: int,
) -> None:
    proxy.reset(None, method=None, times=None)
    mark = "/acknowledged-by-the-daemon"
    with RemoteClient(daemon.address) as writer:
        pid = writer.do(remote_work.pid)
        writer.do(write, bucket.url("first"), b"1", mark)  # a file is staged ahead, as is usual
        with traced(tmp_path / "trace", daemon.pid, pid):
            writer.do(write, bucket.url("k"), some_bytes(size), mark)
    trace = (tmp_path / "trace").read_text()

    threads = {call.pid for call in parsed(trace) if mark in call.text}
    assert assert_durable_before(trace, mark, daemon).pid in threads, "the writer's own fsync"


def test_bytes_that_came_by_grpc_are_on_the_disk_before_the_acknowledgement(
    daemon: DaemonProcess, proxy: FaultProxy, bucket: Bucket, tmp_path: Path
) -> None:
    proxy.reset(None, method=None, times=None)
    mark = "/acknowledged-by-the-daemon"
    with RemoteClient(daemon.address, env={"FOREBAY_CACHE_DIR": str(tmp_path)}) as writer:
        pid = writer.do(remote_work.pid)
        with traced(tmp_path / "trace", daemon.pid, pid):
            writer.do(write_work.put_then_tell, bucket.url("k"), some_bytes(3 * MIB), mark)
    trace = (tmp_path / "trace").read_text()

    threads = {call.pid for call in parsed(trace) if mark in call.text}
    assert assert_durable_before(trace, mark, daemon).pid not in threads, "the daemon's fsync"


def test_a_remove_is_on_the_disk_before_the_acknowledgement(
    daemon: DaemonProcess, proxy: FaultProxy, bucket: Bucket, tmp_path: Path
) -> None:
    proxy.reset(None, method=None, times=None)
    mark = "/acknowledged-by-the-daemon"
    with RemoteClient(daemon.address) as writer:
        pid = writer.do(remote_work.pid)
        with traced(tmp_path / "trace", daemon.pid, pid):
            writer.do(write_work.remove_then_tell, bucket.url("k"), mark)

    assert_durable_before((tmp_path / "trace").read_text(), mark, daemon)


# --- another daemon ---------------------------------------------------------------------------


CONTENTS = {"empty": 0, "small": 100, "packed": 100_000, "folder/blob": 3 * MIB, "large": 12 * MIB}


@pytest.mark.parametrize("end", ["kill9", "stop"])
def test_pending_writes_are_there_at_once_after_a_restart(
    daemon: DaemonProcess, proxy: FaultProxy, bucket: Bucket, end: str
) -> None:
    reads = proxy.reset(None, method=None, times=None)
    writes = [
        proxy.fail(None, method=method, status=503, times=None)
        for method in ("PUT", "POST", "DELETE")
    ]
    bucket.put("gone", b"gone")
    bucket.put("there", b"there")
    with forebay.Client(daemon.address) as client:
        for name, size in CONTENTS.items():
            client.put(bucket.url(name), some_bytes(size))
        client.remove(bucket.url("gone"))
        getattr(daemon, end)()
        assert len(journal(daemon.cache_dir)) == len(CONTENTS) + 1
        daemon.start()

        # The same client and a new one, without the origin.
        with forebay.Client(daemon.address) as another:
            for each in (client, another):
                for name, size in CONTENTS.items():
                    assert each.get(bucket.url(name)) == some_bytes(size)
                    assert each.stat(bucket.url(name)).size_bytes == size
                    assert each.exists(bucket.url(name))
                with pytest.raises(FileNotFoundError):
                    each.get(bucket.url("gone"))
                with pytest.raises(FileNotFoundError):
                    each.stat(bucket.url("gone"))
        assert [upload.size_bytes for upload in client.uploads()] == [*CONTENTS.values(), 0]

        reads.remove()
        listed = {
            stat.uri: stat.size_bytes
            for stat in client.list(bucket.url(), recursive=True)
            if isinstance(stat, forebay.Stat)
        }
        assert listed == {bucket.url(name): size for name, size in CONTENTS.items()} | {
            bucket.url("there"): 5
        }
        flat = {
            entry if isinstance(entry, str) else entry.uri for entry in client.list(bucket.url())
        }
        assert flat == set(listed) - {bucket.url("folder/blob")} | {bucket.url("folder/")}
        assert client.check().problems == ()

        for fault in writes:
            fault.remove()
        client.settle_uploads([upload.id for upload in client.uploads()])
        client.flush()
        assert contents(bucket) == {name: some_bytes(size) for name, size in CONTENTS.items()} | {
            "there": b"there"
        }
        wait_until_empty(daemon.cache_dir)
        requests = client.stats().origin_requests
        for name, size in CONTENTS.items():
            assert client.get(bucket.url(name)) == some_bytes(size)
        assert client.stats().origin_requests == requests, "what was uploaded stays cached"
        assert client.check().problems == ()


def test_how_long_a_write_has_waited_is_known_after_restarts(
    daemon: DaemonProcess, proxy: FaultProxy, bucket: Bucket
) -> None:
    proxy.reset(None, method=None, times=None)
    with forebay.Client(daemon.address) as client:
        client.put(bucket.url("k"), b"data")
        wait_until(lambda: client.uploads()[0].age_s >= 2, "two seconds")
        for _ in range(3):
            before = client.uploads()[0].age_s
            daemon.kill9()
            daemon.start()
            assert client.uploads()[0].age_s >= before


def test_sigterm_uploads_what_it_can_and_keeps_the_rest(
    start_daemon: StartDaemon, proxy: FaultProxy, bucket: Bucket
) -> None:
    daemon = start_daemon(endpoint_url=proxy.url, shutdown_grace_s=10)
    fast = [f"fast/{number}" for number in range(5)]

    def is_fast(request: Request) -> bool:
        return "/fast/" in request.path

    fast_gate = proxy.gate(is_fast, method="PUT")
    slow_gate = proxy.gate("slow", method="PUT")
    with (
        forebay.Client(daemon.address) as client,
        forebay.Client(daemon.address, timeout_s=0.5) as hasty,
    ):
        # Half a second may be too short at first, and what was not told may still have been done.
        wait_until(lambda: is_put(hasty, bucket.url(fast[0]), fast[0].encode()), "a hasty write")
        for key in (*fast, "slow"):
            client.put(bucket.url(key), key.encode())
        fast_gate.wait_for(1)
        slow_gate.wait_for(1)
        stopping = threading.Thread(target=daemon.stop)
        stopping.start()
        wait_until(lambda: '"stopping"' in daemon.log or "stopping" in daemon.log, "the signal")
        fast_gate.release()
        with pytest.raises(forebay.ForebayError):
            hasty.put(bucket.url("refused"), b"refused")
        stopping.join()

        assert daemon.wait() == 0
        assert sorted(bucket.keys()) == fast
        assert len(journal(daemon.cache_dir)) == 1

        slow_gate.release()
        daemon.start()
        client.flush()
    assert sorted(bucket.keys()) == [*fast, "slow"]
    assert bucket.get("slow") == b"slow"


def is_put(client: forebay.Client, path: str, data: bytes) -> bool:
    with contextlib.suppress(forebay.ForebayError):
        client.put(path, data)
        return True
    return False


def test_sigterm_does_not_wait_for_what_cannot_go(
    start_daemon: StartDaemon, proxy: FaultProxy, bucket: Bucket
) -> None:
    daemon = start_daemon(endpoint_url=proxy.url, shutdown_grace_s=3600)
    proxy.fail("refused", method="PUT", status=403, times=None)
    with forebay.Client(daemon.address) as client:
        client.put(bucket.url("refused"), b"data")
        client.remove(bucket.url("blocked"), missing_ok=True)
        wait_until(lambda: client.uploads()[0].state == "failed", "the refusal")

        assert daemon.stop() == 0  # waits a minute at most
        assert len(journal(daemon.cache_dir)) == 2
