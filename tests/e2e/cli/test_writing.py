"""``forebay cp`` in every direction, ``rm``, ``mv``, ``mb``: what the origin then holds; errors."""

from __future__ import annotations

import array
import fcntl
import os
import shutil
import signal
import termios
import time
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import pytest

from support.shell import WAIT_S, Shell, Store, tree
from support.some_files import FILES
from support.spooled import contents, journal, wait_until

if TYPE_CHECKING:
    from conftest import StartDaemon
    from e2e.conftest import FileOrigin, StartLocal
    from support.ceph import Bucket, Ceph
    from support.daemon import DaemonProcess
    from support.proxy import FaultProxy

MIB = 1 << 20
_BAD = os.fsdecode(b"b\xffd")  # a file name, but none of an object
_WITHOUT_POWERS = ("setpriv", "--bounding-set", "-all")  # so that modes bind root, too


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A local folder with some files."""
    folder = tmp_path / "source"
    for name, data in FILES.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    return folder


# --- local files to objects -------------------------------------------------------------------


def test_file_becomes_the_object_of_a_name(store: Store, source: Path) -> None:
    assert store.shell.out("cp", f"{source}/weights.pth", store.uri("run/final.pth")) == ""

    assert store.contents() == {"run/final.pth": FILES["weights.pth"]}


def test_file_keeps_its_name_below_a_slash_and_below_a_prefix(store: Store, source: Path) -> None:
    store.put("there/x")

    store.shell.out("cp", f"{source}/empty", store.uri("new/"))
    store.shell.out("cp", f"{source}/images/1.jpg", store.uri("there"))

    assert store.contents() == {
        "new/empty": b"",
        "there/1.jpg": FILES["images/1.jpg"],
        "there/x": b"there/x",
    }


def test_file_keeps_its_name_in_a_bucket(
    start_daemon: StartDaemon, bucket: Bucket, source: Path
) -> None:
    shell = Shell(FOREBAY_ADDRESS=start_daemon().address)

    shell.out("cp", f"{source}/empty", f"s3://{bucket.name}")
    shell.out("cp", f"{source}/images/1.jpg", f"s3://{bucket.name}/")
    shell.out("cp", "-r", f"{source}/images", f"s3://{bucket.name}")
    shell.out("flush")

    assert contents(bucket) == {
        "1.jpg": FILES["images/1.jpg"],
        "2.jpg": FILES["images/2.jpg"],
        "deep/3.jpg": FILES["images/deep/3.jpg"],
        "empty": b"",
    }


def test_file_replaces_an_object_and_is_read_at_once(store: Store, source: Path) -> None:
    store.put("k")

    store.shell.out("cp", f"{source}/weights.pth", store.uri("k"))

    assert store.shell.run("cat", store.uri("k"))[1] == FILES["weights.pth"]


@pytest.mark.parametrize("slash", ["", "/"])
def test_folder_becomes_the_objects_below_a_prefix(store: Store, source: Path, slash: str) -> None:
    (source / "images/hollow").mkdir()

    store.shell.out("cp", "-r", f"{source}{slash}", store.uri(f"copy{slash}"))

    assert store.contents() == {f"copy/{name}": data for name, data in FILES.items()}


def test_single_file_may_be_copied_recursively(store: Store, source: Path) -> None:
    store.shell.out("cp", "-r", f"{source}/empty", store.uri("folder/"))

    assert store.contents() == {"folder/empty": b""}


def test_links_are_followed_but_not_round_in_a_circle(
    store: Store, source: Path, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "far").write_bytes(b"far")
    (source / "file").symlink_to(elsewhere / "far")
    (source / "folder").symlink_to(elsewhere)
    (source / "images/self").symlink_to(source / "images")
    (source / "images/root").symlink_to("/")
    for here, there in (("a", "b"), ("b", "a")):  # each leads into the other
        (source / here).mkdir()
        (source / here / "name").write_bytes(here.encode())
        (source / here / "to").symlink_to(source / there)

    store.shell.out("cp", "-r", str(source), store.uri("copy"))

    assert store.contents() == {f"copy/{name}": data for name, data in FILES.items()} | {
        "copy/file": b"far",
        "copy/folder/far": b"far",
        "copy/a/name": b"a",
        "copy/a/to/name": b"b",
        "copy/b/name": b"b",
        "copy/b/to/name": b"a",
    }


def test_files_that_fail_do_not_keep_the_others(store: Store, source: Path) -> None:
    (source / "images/gone").symlink_to("nowhere")
    (source / "images/loop").symlink_to("loop")
    os.mkfifo(source / "pipe")
    (source / "images/deep" / _BAD).write_bytes(b"")

    code, out, err = store.shell.run("cp", "-r", str(source), store.uri("copy"))

    assert (code, out) == (1, b"")
    assert "Traceback" not in err
    assert f"{source}/images/gone" in err
    assert f"{source}/images/loop" in err
    assert f"{source}/pipe is neither a file nor a folder" in err
    assert f"{store.uri('copy/images/deep/')}b\\xffd is not UTF-8" in err
    assert "4 of 9 objects could not be copied" in err.splitlines()[-1]
    assert store.contents() == {f"copy/{name}": data for name, data in FILES.items()}


@pytest.mark.skipif(
    os.geteuid() == 0 and shutil.which("setpriv") is None, reason="root may look everywhere"
)
def test_folder_that_may_not_be_looked_at_does_not_keep_the_others(
    store: Store, source: Path
) -> None:
    (source / "images").chmod(0)
    if os.geteuid() == 0:
        store.shell.prefix = _WITHOUT_POWERS

    try:
        code, _, err = store.shell.run("cp", "-r", str(source), store.uri("copy"))
    finally:
        (source / "images").chmod(0o700)

    assert code == 1
    assert f"Permission denied: '{source}/images'" in err
    assert "1 of 3 objects could not be copied" in err
    assert set(store.contents()) == {"copy/weights.pth", "copy/empty"}


def test_folder_without_files_is_told(store: Store, tmp_path: Path) -> None:
    (tmp_path / "hollow/deep").mkdir(parents=True)

    line = store.shell.error("cp", "-r", f"{tmp_path}/hollow", store.uri("copy"))

    assert f"nothing below {tmp_path}/hollow" in line
    assert store.contents() == {}


def test_wrong_usage_of_cp_is_explained(
    store: Store, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(source)
    store.put("k")
    usage_error = store.shell.usage_error

    assert "is a folder: use -r" in usage_error("cp", "images", store.uri("copy"))
    assert "are local" in usage_error("cp", "weights.pth", "elsewhere")
    assert "forebay cat" in usage_error("cp", store.uri("k"), "-")
    assert "/dev/stdin" in usage_error("cp", "-", store.uri("copy"))
    assert "same object" in usage_error("cp", store.uri("k"), store.uri())
    assert "into itself" in usage_error("cp", "-r", store.uri(), store.uri("copy"))
    assert "absent is no local file" in store.shell.error("cp", "absent", store.uri("copy"))
    assert store.contents() == {"k": b"k"}
    assert tree(source) == FILES


def test_standard_input_is_copied(store: Store) -> None:
    code, _, err = store.shell.run("cp", "/dev/stdin", store.uri("k"), typed=b"typed")

    assert (code, err) == (0, "")
    assert store.contents() == {"k": b"typed"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_upload_publishes_nothing(
    store: Store, stores: tuple[DaemonProcess, Path], tmp_path: Path, number: signal.Signals
) -> None:
    store.put("k")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    with (
        store.shell.start("cp", str(pipe), store.uri("k")) as process,
        pipe.open("wb", buffering=0) as half,
    ):
        for _ in range(20):
            half.write(bytes(MIB))
        wait_until(lambda: _is_read(half), "the end of what is in the pipe")
        process.send_signal(number)
        assert process.wait(WAIT_S) == 128 + number

    assert store.shell.run("cat", store.uri("k"))[1] == b"k"
    assert store.contents() == {"k": b"k"}
    wait_until(lambda: journal(stores[0].cache_dir) == [], "an empty journal")


def _is_read(pipe: BinaryIO) -> bool:
    left = array.array("i", [0])
    fcntl.ioctl(pipe, termios.FIONREAD, left)
    return left[0] == 0


# --- objects to local files -------------------------------------------------------------------


@pytest.mark.parametrize("target", ["new/deep/", "there", "there/"])
def test_object_keeps_its_name_in_a_folder(store: Store, tmp_path: Path, target: str) -> None:
    store.put("sub/k")
    (tmp_path / "there").mkdir()

    store.shell.out("cp", store.uri("sub/k"), f"{tmp_path}/{target}")

    assert tree(tmp_path) == {f"{target.rstrip('/')}/k": b"sub/k"}


def test_prefix_becomes_a_folder(store: Store, tmp_path: Path) -> None:
    names = ("set/a", "set/sub/b", "set/sub/sub/c")
    store.put(*names, "settle")
    (tmp_path / "old").mkdir()
    (tmp_path / "old/a").write_bytes(b"old")

    store.shell.out("cp", "-r", store.uri("set"), f"{tmp_path}/new/")
    store.shell.out("cp", "-r", store.uri("set/"), f"{tmp_path}/old")

    expected = {name.removeprefix("set/"): name.encode() for name in names}
    assert tree(tmp_path / "new") == tree(tmp_path / "old") == expected


def test_link_stays_one_and_what_it_leads_to_is_replaced_whole(
    store: Store, tmp_path: Path
) -> None:
    store.put("k")
    (tmp_path / "far").mkdir()
    (tmp_path / "far/file").write_bytes(b"longer than what comes")
    (tmp_path / "link").symlink_to("far/file")
    (tmp_path / "dangling").symlink_to("far/new")
    before = (tmp_path / "far/file").stat().st_ino

    store.shell.out("cp", store.uri("k"), f"{tmp_path}/link")
    store.shell.out("cp", store.uri("k"), f"{tmp_path}/dangling")

    assert (tmp_path / "link").readlink() == Path("far/file")
    assert (tmp_path / "dangling").is_symlink()
    assert tree(tmp_path / "far") == {"file": b"k", "new": b"k"}
    assert (tmp_path / "far/file").stat().st_ino != before, "written over, not replaced"


def test_object_is_written_to_a_device_or_a_pipe(store: Store, tmp_path: Path) -> None:
    (store.folder / "k").write_bytes(FILES["weights.pth"])

    assert store.shell.run("cp", store.uri("k"), "/dev/stdout")[1] == FILES["weights.pth"]
    assert store.shell.run("cp", store.uri("k"), "/dev/null")[0] == 0
    assert Path("/dev/null").is_char_device()

    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with store.shell.start("cp", store.uri("k"), str(pipe)) as process:
        assert pipe.read_bytes() == FILES["weights.pth"]
        assert process.wait(WAIT_S) == 0
    assert pipe.is_fifo()


def test_local_name_that_is_not_utf_8_is_one(store: Store, tmp_path: Path) -> None:
    store.put("k")

    store.shell.out("cp", store.uri("k"), f"{tmp_path}/{_BAD}")
    store.shell.out("cp", f"{tmp_path}/{_BAD}", store.uri("copy"))

    assert (tmp_path / _BAD).read_bytes() == b"k"
    assert store.contents() == {"k": b"k", "copy": b"k"}
    line = store.shell.error("cp", f"{tmp_path}/{_BAD}", store.uri("new/"), code=2)
    assert "b\\xffd is not UTF-8" in line


# --- objects to objects -----------------------------------------------------------------------


def test_object_is_copied_to_a_name_and_into_a_prefix(store: Store) -> None:
    store.put("k", "there/x")

    store.shell.out("cp", store.uri("k"), store.uri("other"))
    store.shell.out("cp", store.uri("k"), store.uri("there"))
    store.shell.out("cp", store.uri("k"), store.uri("new/"))

    copies = {name: b"k" for name in ("k", "other", "there/k", "new/k")}
    assert store.contents() == {**copies, "there/x": b"there/x"}


def test_prefix_is_copied_to_another(store: Store) -> None:
    names = ("set/a", "set/sub/b", "settle")
    store.put(*names)

    store.shell.out("cp", "-r", store.uri("set"), store.uri("copy/"))

    assert store.contents() == {name: name.encode() for name in names} | {
        "copy/a": b"set/a",
        "copy/sub/b": b"set/sub/b",
    }


def test_interrupted_recursive_copy_begins_no_other(
    start_daemon: StartDaemon, proxy: FaultProxy, bucket: Bucket
) -> None:
    for number in range(16):
        bucket.put(f"set/{number}", b"data")
    shell = Shell(FOREBAY_ADDRESS=start_daemon(endpoint_url=proxy.url).address)
    gate = proxy.gate(None, method="PUT")

    with shell.start("cp", "-r", bucket.url("set"), bucket.url("copy")) as process:
        gate.wait_for(1)
        process.send_signal(signal.SIGINT)
        wait_until(lambda: not _is_pending(process.pid, signal.SIGINT), "the interrupt")
        time.sleep(2)  # from the signal to what it raises: Python tells nobody
        gate.release()
        assert process.wait(WAIT_S) == 128 + signal.SIGINT

    shell.out("flush")
    assert len(bucket.keys("copy/")) <= 8, "those that were under way"


def _is_pending(pid: int, number: signal.Signals) -> bool:
    """Tell whether a signal has not come to a process yet."""
    words = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
    )
    return any(int(words[name], 16) >> (number - 1) & 1 for name in ("SigPnd", "ShdPnd"))


def test_copy_of_nothing_is_told(store: Store) -> None:
    assert store.uri("absent") in store.shell.error("cp", store.uri("absent"), store.uri("k"))
    line = store.shell.error("cp", "-r", store.uri("absent"), store.uri("k"))
    assert "nothing below" in line
    assert store.contents() == {}


# --- an origin that is not written to ---------------------------------------------------------


def test_read_only_origin_is_one_line_that_says_what_to_do(
    shell: Shell, uri: str, origin: Path, source: Path
) -> None:
    single = [
        ["cp", f"{source}/empty", f"{uri}/new"],
        ["cp", f"{uri}/empty", f"{uri}/new"],
        ["mv", f"{uri}/empty", f"{uri}/new"],
        ["rm", f"{uri}/empty"],
        ["rm", "-r", f"{uri}/images"],
    ]
    for arguments in single:
        line = shell.error(*arguments)
        assert "read-only" in line
        assert "[[origin]]" in line
    code, _, err = shell.run("cp", "-r", f"{source}/images", f"{uri}/new")
    assert code == 1
    assert err.count("read-only") == 3
    assert "3 of 3 objects could not be copied" in err
    assert "Traceback" not in err
    assert tree(origin) == FILES


# --- rm and mv --------------------------------------------------------------------------------


def test_rm_removes_several_at_once_for_readers(store: Store) -> None:
    store.put("a", "b", "kept")

    assert store.shell.out("rm", store.uri("a"), store.uri("b")) == ""

    assert store.shell.out("ls", store.uri()).split() == [store.uri("kept")]
    assert store.contents() == {"kept": b"kept"}


def test_rm_of_what_is_missing_fails_and_the_others_go(store: Store) -> None:
    store.put("a", "b")

    line = store.shell.error("rm", store.uri("a"), store.uri("absent"), store.uri("b"))

    assert store.uri("absent") in line
    assert store.contents() == {}


def test_rm_recursive_takes_the_tree_and_nothing_beside_it(
    start_daemon: StartDaemon, bucket: Bucket
) -> None:
    shell = Shell(FOREBAY_ADDRESS=start_daemon().address)
    for key in ("set/a", "set/sub/b", "settle", "other/c"):
        bucket.put(key, key.encode())

    shell.out("rm", "-r", bucket.url("set"), bucket.url("other/"))

    assert bucket.url("absent") in shell.error("rm", "-r", bucket.url("absent"))
    shell.out("rm", "-r", "--missing-ok", bucket.url("absent"))
    shell.out("flush")
    assert contents(bucket) == {"settle": b"settle"}


def test_rm_recursive_removes_files_of_an_origin_of_files(
    start_local: StartLocal, files: FileOrigin
) -> None:
    daemon = start_local(config=f'[[origin]]\nprefix = "file://{files.folder}"\n')
    store = Store(Shell(FOREBAY_ADDRESS=daemon.address), files.folder)
    store.put("set/a", "set/sub/b", "settle")

    store.shell.out("rm", "-r", store.uri("set"))

    assert store.contents() == {"settle": b"settle"}


def test_rm_without_r_leaves_a_prefix(store: Store) -> None:
    store.put("set/a")

    assert store.uri("set") in store.shell.error("rm", store.uri("set"))

    assert store.contents() == {"set/a": b"set/a"}


def test_rm_missing_ok_takes_nothing_for_done(store: Store) -> None:
    store.put("a")

    store.shell.out("rm", "--missing-ok", store.uri("absent"), store.uri("a"))

    assert store.contents() == {}


def test_rm_goes_after_what_was_written_before(store: Store, source: Path) -> None:
    store.shell.out("cp", f"{source}/weights.pth", store.uri("k"))
    store.shell.out("rm", store.uri("k"))

    assert store.contents() == {}


def test_mv_gives_another_name(store: Store) -> None:
    store.put("part")

    store.shell.out("mv", store.uri("part"), store.uri("sub/whole"))

    assert tree(store.folder) == {"sub/whole": b"part"}, "it is done when the command ends"
    assert store.uri("part") in store.shell.error("stat", store.uri("part"))


@pytest.mark.parametrize("target", ["there", "there/", "new/"])
def test_mv_into_a_folder_keeps_the_name(store: Store, target: str) -> None:
    store.put("k", "there/x")

    store.shell.out("mv", store.uri("k"), store.uri(target))

    assert store.contents() == {f"{target.rstrip('/')}/k": b"k", "there/x": b"there/x"}


def test_mv_that_cannot_be_is_explained(store: Store) -> None:
    store.put("set/k")
    usage_error, error = store.shell.usage_error, store.shell.error

    assert "same object" in usage_error("mv", store.uri("set/k"), store.uri("set/k"))
    assert "same object" in usage_error("mv", store.uri("set/k"), store.uri("set"))
    assert "is a prefix" in error("mv", store.uri("set"), store.uri("other"))
    assert store.uri("absent") in error("mv", store.uri("absent"), store.uri("k"))
    assert store.contents() == {"set/k": b"set/k"}


def test_mb_makes_a_bucket(ceph: Ceph, start_daemon: StartDaemon) -> None:
    shell = Shell(FOREBAY_ADDRESS=start_daemon().address)
    url = "s3://made-by-the-command-line"
    assert "no such bucket" in shell.error("ls", url)

    shell.out("mb", url)
    shell.out("mb", f"{url}/any/key")  # it is there

    ceph.client().delete_bucket(Bucket=url.removeprefix("s3://"))
