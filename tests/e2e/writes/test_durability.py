"""What is acknowledged is on the disk, and outlives the daemon."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import subprocess
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
import pytest

import forebay
from forebay_protos import cache_pb2 as pb
from forebay_protos import cache_pb2_grpc, spool
from support import remote_work, write_work
from support.remote import RemoteClient
from support.sizes import some_bytes
from support.spooled import contents, journal, unfinished, wait_until, wait_until_empty

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from conftest import StartDaemon
    from support.ceph import Bucket
    from support.daemon import DaemonProcess
    from support.proxy import FaultProxy, Request

MIB = 1 << 20
PART = 5 * MIB


@pytest.fixture
def daemon(start_daemon: StartDaemon, proxy: FaultProxy) -> DaemonProcess:
    return start_daemon(
        endpoint_url=proxy.url, max_attempts=2, upload_part_bytes=PART, shutdown_grace_s="0.2"
    )


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
    daemon = start_daemon(endpoint_url=proxy.url, shutdown_grace_s=6)
    fast = [f"fast/{number}" for number in range(5)]

    def is_fast(request: Request) -> bool:
        return "/fast/" in request.path

    fast_gate = proxy.gate(is_fast, method="PUT")
    slow_gate = proxy.gate("slow", method="PUT")
    with (
        forebay.Client(daemon.address) as client,
        forebay.Client(daemon.address, timeout_s=0.5) as hasty,
    ):
        for key in (*fast, "slow"):
            client.put(bucket.url(key), key.encode())
        hasty.put(bucket.url("slow"), b"slow")
        fast_gate.wait_for(1)
        slow_gate.wait_for(1)
        stopping = threading.Thread(target=daemon.stop)
        stopping.start()
        wait_until(lambda: '"stopping"' in daemon.log or "stopping" in daemon.log, "the signal")
        with pytest.raises(forebay.ForebayError):
            hasty.put(bucket.url("refused"), b"refused")
        fast_gate.release()
        stopping.join()

        assert daemon.wait() == 0
        assert sorted(bucket.keys()) == fast
        assert len(journal(daemon.cache_dir)) == 1

        slow_gate.release()
        daemon.start()
        client.flush()
    assert sorted(bucket.keys()) == [*fast, "slow"]
    assert bucket.get("slow") == b"slow"


def test_sigterm_does_not_wait_for_what_cannot_go(
    start_daemon: StartDaemon, proxy: FaultProxy, bucket: Bucket
) -> None:
    daemon = start_daemon(endpoint_url=proxy.url, shutdown_grace_s=3600)
    proxy.fail("refused", method="PUT", status=403, times=None)
    with forebay.Client(daemon.address) as client:
        client.put(bucket.url("refused"), b"data")
        client.remove(bucket.url("blocked"), missing_ok=True)
        wait_until(lambda: client.uploads()[0].state == "failed", "the refusal")

        assert daemon.stop() == 0  # waits 30 s at most
        assert len(journal(daemon.cache_dir)) == 2


# --- parts ------------------------------------------------------------------------------------


def part_of(request: Request) -> int:
    """Return which part of an upload is sent, 0 if none is."""
    found = re.search(r"partNumber=(\d+)", request.query)
    return int(found[1]) if found and request.method == "PUT" else 0


def parts_sent(proxy: FaultProxy) -> list[int]:
    return sorted(filter(None, map(part_of, proxy.requests)))


@pytest.mark.parametrize("end", ["kill9", "stop"])
def test_interrupted_upload_in_parts_goes_on_where_it_was(
    daemon: DaemonProcess, proxy: FaultProxy, bucket: Bucket, end: str
) -> None:
    data = some_bytes(4 * PART + 1000)
    gate = proxy.gate(lambda request: part_of(request) >= 4, method="PUT")
    with forebay.Client(daemon.address) as client:
        client.put(bucket.url("k"), data)
        wait_until(lambda: client.uploads()[0].uploaded_bytes == 3 * PART, "three parts")
        getattr(daemon, end)()
        assert unfinished(bucket) == ["k"]
        gate.remove()  # what is held stays so
        proxy.forget()
        daemon.start()
        assert client.get(bucket.url("k")) == data
        client.flush()

        assert parts_sent(proxy) == [4, 5]
        assert bucket.get("k") == data
        gate.release()
        assert unfinished(bucket) == []
        assert client.get(bucket.url("k")) == data
        assert client.check().problems == ()
    wait_until_empty(daemon.cache_dir)


def test_parts_that_failed_are_sent_again_and_no_others(
    daemon: DaemonProcess, proxy: FaultProxy, bucket: Bucket
) -> None:
    data = some_bytes(4 * PART)
    gate = proxy.gate(lambda request: part_of(request) == 4, method="PUT", times=1)
    with forebay.Client(daemon.address) as client:
        client.put(bucket.url("k"), data)
        wait_until(lambda: client.uploads()[0].uploaded_bytes == 3 * PART, "three parts")
        proxy.forget()
        proxy.reset(lambda request: part_of(request) == 4, method="PUT", times=2)
        daemon.kill9()
        daemon.start()
        client.flush()

    assert parts_sent(proxy) == [4, 4, 4]
    assert bucket.get("k") == data
    gate.release()


def test_nothing_is_to_be_seen_of_an_upload_before_its_end(
    daemon: DaemonProcess, proxy: FaultProxy, bucket: Bucket
) -> None:
    bucket.put("k", b"old")
    gate = proxy.gate(lambda request: "uploadId" in request.query, method="POST")
    with forebay.Client(daemon.address) as client:
        client.put(bucket.url("k"), some_bytes(3 * PART))
        gate.wait_for(1)
        assert bucket.get("k") == b"old"
        gate.release()
        client.flush()
    assert bucket.get("k") == some_bytes(3 * PART)


@pytest.mark.parametrize("is_running", [True, False], ids=["running", "waiting"])
def test_discard_ends_the_upload_in_parts(
    daemon: DaemonProcess, proxy: FaultProxy, bucket: Bucket, is_running: bool
) -> None:
    if is_running:
        gate = proxy.gate(lambda request: part_of(request) == 2, method="PUT")
    else:
        proxy.reset(lambda request: part_of(request) == 2, method="PUT", times=None)
    with forebay.Client(daemon.address) as client:
        client.put(bucket.url("k"), some_bytes(3 * PART))
        if is_running:
            gate.wait_for(1)
        else:
            wait_until(lambda: client.uploads()[0].last_error, "a failure")
        assert unfinished(bucket) == ["k"]

        client.settle_uploads([client.uploads()[0].id], discard=True)
        proxy.clear()

        wait_until(lambda: unfinished(bucket) == [], "the end of the upload in parts")
        assert bucket.keys() == []
        assert client.uploads() == []
        with pytest.raises(FileNotFoundError):
            client.get(bucket.url("k"))
    wait_until_empty(daemon.cache_dir)


def test_upload_in_parts_that_was_skipped_for_a_later_write_is_ended(
    daemon: DaemonProcess, proxy: FaultProxy, bucket: Bucket
) -> None:
    proxy.reset(lambda request: part_of(request) == 2, method="PUT", times=None)
    with forebay.Client(daemon.address) as client:
        client.put(bucket.url("k"), some_bytes(3 * PART))
        wait_until(
            lambda: client.uploads()[0].last_error and client.uploads()[0].state == "waiting",
            "a failure",
        )
        client.put(bucket.url("k"), b"later")
        client.flush()

        assert bucket.get("k") == b"later"
        wait_until(lambda: unfinished(bucket) == [], "the end of the upload in parts", 10)
    wait_until_empty(daemon.cache_dir)


def test_upload_in_parts_that_somebody_ended_is_begun_anew(
    daemon: DaemonProcess, proxy: FaultProxy, bucket: Bucket
) -> None:
    data = some_bytes(3 * PART)
    gate = proxy.gate(lambda request: part_of(request) == 2, method="PUT", times=1)
    with forebay.Client(daemon.address) as client:
        client.put(bucket.url("k"), data)
        gate.wait_for(1)
        daemon.kill9()
        reply: Any = bucket.client.list_multipart_uploads(Bucket=bucket.name)
        for upload in reply["Uploads"]:
            bucket.client.abort_multipart_upload(
                Bucket=bucket.name, Key="k", UploadId=upload["UploadId"]
            )
        gate.release()
        daemon.start()
        client.flush()

    assert bucket.get("k") == data
    assert unfinished(bucket) == []


# --- calls that are repeated ------------------------------------------------------------------


class RawWriter:
    """A client of the protocol that repeats its calls."""

    def __init__(self, daemon: DaemonProcess) -> None:
        self._daemon = daemon
        self._fds: list[int] = []

    def _call(self, method: str, request: Any) -> Any:
        with grpc.insecure_channel(
            self._daemon.address, options=[("grpc.use_local_subchannel_pool", 1)]
        ) as channel:
            stub = cache_pb2_grpc.CacheStub(channel)
            return getattr(stub, method)(request, timeout=30, wait_for_ready=True)

    def stage(self, kind: str, uri: str, data: bytes, **words: Any) -> pb.CommitRequest:
        """Write a staged file, and return what commits it."""
        trailer = spool.Trailer(kind, uri, len(data), **words)
        whole = data + trailer.to_bytes()
        reply = self._call("Stage", pb.StageRequest(uri=uri, size_bytes=len(whole)))
        fd = os.open(self._daemon.cache_dir / reply.file, os.O_RDWR)
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._fds.append(fd)
        os.pwrite(fd, whole, 0)
        os.ftruncate(fd, len(whole))
        os.fsync(fd)
        return pb.CommitRequest(file=reply.file, operation=trailer.operation)

    def commit(self, request: pb.CommitRequest) -> str:
        return str(self._call("Commit", request).version)

    def change(self, request: pb.ChangeRequest) -> None:
        self._call("Change", request)

    def close(self) -> None:
        for fd in self._fds:
            os.close(fd)


@pytest.fixture
def raw(daemon: DaemonProcess) -> Iterator[RawWriter]:
    with contextlib.closing(RawWriter(daemon)) as writer:
        yield writer


def test_repeated_commit_of_a_pending_write_does_nothing_twice(
    daemon: DaemonProcess, raw: RawWriter, proxy: FaultProxy, bucket: Bucket
) -> None:
    gate = proxy.gate("first", method="PUT")
    with forebay.Client(daemon.address) as client:
        client.put(bucket.url("first"), b"first")
        gate.wait_for(1)
        client.put(bucket.url("barrier"), b"")
        request = raw.stage(spool.PUT, bucket.url("k"), b"once")
        raw.commit(request)
        raw.commit(request)
        assert [each.path for each in client.uploads()].count(bucket.url("k")) == 1
        daemon.kill9()
        raw_before = journal(daemon.cache_dir)
        proxy.clear()
        daemon.start()
        raw.commit(request)
        client.flush()
        raw.commit(request)

        assert len(raw_before) == 3
        assert bucket.get("k") == b"once"
        assert proxy.count("PUT", "k") <= 2  # the second if the kill cut the first
    wait_until_empty(daemon.cache_dir)


@pytest.mark.parametrize("is_killed", [False, True], ids=["", "killed"])
def test_repeated_commit_of_a_finished_write_does_not_undo_a_later_one(
    daemon: DaemonProcess, raw: RawWriter, proxy: FaultProxy, bucket: Bucket, is_killed: bool
) -> None:
    with forebay.Client(daemon.address) as client:
        request = raw.stage(spool.PUT, bucket.url("k"), b"first")
        raw.commit(request)
        client.flush()
        client.put(bucket.url("k"), b"later")
        client.flush()
        if is_killed:
            daemon.kill9()
            daemon.start()
        raw.commit(request)
        client.flush()

        assert bucket.get("k") == client.get(bucket.url("k")) == b"later"
        assert proxy.count("PUT", "k") == 2


@pytest.mark.parametrize("is_killed", [False, True], ids=["", "killed"])
def test_repeated_remove_does_not_remove_what_was_written_since(
    daemon: DaemonProcess, raw: RawWriter, bucket: Bucket, is_killed: bool
) -> None:
    bucket.put("k", b"old")
    request = pb.ChangeRequest(
        operation=spool.new_operation(), kind=pb.ChangeRequest.REMOVE, uri=bucket.url("k")
    )
    with forebay.Client(daemon.address) as client:
        raw.change(request)
        client.flush()
        client.put(bucket.url("k"), b"new")
        client.flush()
        if is_killed:
            daemon.kill9()
            daemon.start()
        raw.change(request)
        client.flush()

        assert bucket.get("k") == client.get(bucket.url("k")) == b"new"


def test_repeated_create_and_write_through_are_answered_as_the_first_time(
    daemon: DaemonProcess, raw: RawWriter, proxy: FaultProxy, bucket: Bucket
) -> None:
    create = raw.stage(spool.CREATE, bucket.url("created"), b"1")
    through = raw.stage(spool.PUT, bucket.url("through"), b"2", mode="write_through")
    first = raw.commit(create), raw.commit(through)

    assert (raw.commit(create), raw.commit(through)) == first
    assert all(first)
    assert (bucket.get("created"), bucket.get("through")) == (b"1", b"2")
    assert (proxy.count("PUT", "created"), proxy.count("PUT", "through")) == (1, 1)


def test_create_whose_daemon_died_before_the_answer_is_its_own(
    daemon: DaemonProcess, raw: RawWriter, proxy: FaultProxy, bucket: Bucket
) -> None:
    """The origin has it, the daemon that knew is gone: whoever repeats the call is the winner."""
    request = raw.stage(spool.CREATE, bucket.url("k"), b"mine")
    gate = proxy.gate("k", method="PUT", times=1)
    commit = threading.Thread(target=lambda: suppressed(raw, request))
    commit.start()
    gate.wait_for(1)
    daemon.kill9()
    commit.join()
    gate.release()
    wait_until(lambda: bucket.keys() == ["k"], "the object")
    daemon.start()

    raw.commit(request)

    assert bucket.get("k") == b"mine"


def suppressed(raw: RawWriter, request: pb.CommitRequest) -> None:
    with contextlib.suppress(grpc.RpcError):
        raw.commit(request)
