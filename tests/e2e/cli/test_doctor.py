"""``forebay doctor``: each check finds what is wrong, says what to do, and changes nothing."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import forebay
from support.certificates import issue, make_authority
from support.ports import closed_port
from support.serving import serving
from support.shell import WAIT_S, Shell, tree

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.ceph import Bucket, Ceph
    from support.daemon import DaemonProcess
    from support.proxy import FaultProxy

ROOT = Path(__file__).parents[3]
_GROUP, _STRANGER = 31_001, 31_003
_ABSENT = "s3://no-such-bucket/"

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


class Doctor:
    """Runs ``forebay doctor --json``."""

    def __init__(self, shell: Shell) -> None:
        self.shell = shell

    def __call__(self, *arguments: str) -> tuple[int, dict[str, dict[str, str]]]:
        """Return the exit code, and the findings by the name of their check."""
        code, out, err = self.shell.run("doctor", "--json", *arguments)
        assert "Traceback" not in err
        findings = json.loads(out)
        by_check = {finding["check"]: finding for finding in findings}
        assert len(by_check) == len(findings)
        assert code == any(finding["level"] == "problem" for finding in findings)
        for finding in findings:
            assert bool(finding["todo"]) == (finding["level"] in ("warning", "problem")), finding
        return code, by_check


@pytest.fixture
def cache_dir(short_dir: Path) -> Path:
    return short_dir / "cache"


@pytest.fixture
def bare(cache_dir: Path) -> Doctor:
    """A doctor where no daemon runs."""
    return Doctor(Shell(FOREBAY_CACHE_DIR=str(cache_dir), FOREBAY_ADDRESS="unix:/nowhere/x.sock"))


# --- with a daemon ----------------------------------------------------------------------------


def test_healthy_node_has_no_problem(daemon: DaemonProcess, shell: Shell) -> None:
    code, found = Doctor(shell)()

    assert code == 0
    for check in ("python", "kernel", "daemon", "version", "uploads", "errors", "shared folder"):
        assert found[check]["level"] == "ok", found[check]
    assert str(daemon.pid) in found["daemon"]["found"]
    assert str(daemon.cache_dir) in found["shared folder"]["found"]
    assert found["disk space"]["level"] in ("ok", "warning")
    assert "fsync" in found["disk speed"]["found"]


def test_findings_are_lines_for_people(shell: Shell) -> None:
    lines = shell.out("doctor").splitlines()

    assert all(line.split()[0] in ("ok", "skipped", "warning", "problem") for line in lines)
    assert any(line.startswith("ok      version: ") for line in lines)


def test_no_daemon_is_a_problem_and_the_rest_is_looked_at(bare: Doctor, cache_dir: Path) -> None:
    code, found = bare()

    assert code == 1
    assert found["daemon"]["level"] == "problem"
    assert "no Forebay daemon answers" in found["daemon"]["found"]
    assert "forebay serve" in found["daemon"]["found"] + found["daemon"]["todo"]
    assert found["cache folder"]["level"] == "ok"
    assert not cache_dir.exists()


def test_other_version_is_told(shell: Shell, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "client" / "forebay", tmp_path / "forebay")
    (tmp_path / "forebay" / "_version.py").write_text('__version__ = "9.9.9"\n')
    # Before an editable install of this one.
    shell.env["PYTHONPATH"] = f"{tmp_path}:{os.pathsep.join(sys.path)}"

    _, found = Doctor(shell)()

    assert found["version"]["level"] == "warning"
    assert "9.9.9" in found["version"]["found"]
    assert forebay.__version__ in found["version"]["found"]


def test_failed_upload_is_a_problem(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    folder.mkdir()
    (folder / "file").write_bytes(b"no folder")
    with serving(config=f'[[origin]]\nprefix = "{folder.as_uri()}"\n') as daemon:
        shell = Shell(FOREBAY_ADDRESS=daemon.address)
        with forebay.Client(daemon.address) as client:
            client.put(f"{folder.as_uri()}/file/below", b"cannot be")
            with pytest.raises(forebay.UploadFailedError):
                client.flush(timeout_s=60)

        _, found = Doctor(shell)()

    assert found["uploads"]["level"] == "problem"
    assert "forebay uploads" in found["uploads"]["todo"]


@needs_root
def test_user_outside_of_the_group_is_told_why_the_folder_is_not_shared(
    tmp_path: Path, free_port: int
) -> None:
    address = f"127.0.0.1:{free_port}"
    with serving(arguments=("--listen", address)) as daemon:
        shell = Shell(FOREBAY_ADDRESS=address, PYTHONPATH=os.pathsep.join(sys.path))
        shell.prefix = (
            "setpriv",
            "--reuid",
            str(_STRANGER),
            "--regid",
            str(_STRANGER),
            "--clear-groups",
        )
        daemon.cache_dir.parent.chmod(0o755)

        _, found = Doctor(shell)()

    assert found["shared folder"]["level"] == "warning"
    assert f"uid {_STRANGER}" in found["shared folder"]["found"]
    assert "group" in found["shared folder"]["todo"]
    assert found["disk"]["level"] == "skipped"


@needs_root
def test_read_only_mount_of_the_folder_is_told(daemon: DaemonProcess, shell: Shell) -> None:
    script = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'
    shell.prefix = ("unshare", "--mount", "sh", "-c", script, str(daemon.cache_dir))

    _, found = Doctor(shell)()

    assert found["shared folder"]["level"] == "warning"
    assert "read-only" in found["shared folder"]["found"]
    assert found["disk speed"]["level"] == "skipped"


def test_folder_that_cannot_be_seen_is_told(daemon: DaemonProcess, shell: Shell) -> None:
    shell.env["FOREBAY_CACHE_DIR"] = "/nowhere/at/all"

    _, found = Doctor(shell)()

    assert found["shared folder"]["level"] == "warning"
    assert "/nowhere/at/all is not there" in found["shared folder"]["found"]
    assert "FOREBAY_CACHE_DIR" in found["shared folder"]["todo"]


# --- the folder and the disk ------------------------------------------------------------------


def test_nothing_is_left_behind(bare: Doctor, cache_dir: Path) -> None:
    cache_dir.mkdir()
    bare("--cache-dir", str(cache_dir))
    assert tree(cache_dir) == {}
    assert list(cache_dir.iterdir()) == []


def test_nothing_is_left_behind_by_ctrl_c(bare: Doctor, cache_dir: Path) -> None:
    cache_dir.mkdir()
    process = bare.shell.start("doctor", "--cache-dir", str(cache_dir))
    assert process.stdout is not None
    with process:
        while b"disk space" not in process.stdout.readline():
            pass
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=WAIT_S)
    assert list(cache_dir.iterdir()) == []


@needs_root
def test_folder_that_may_not_be_written_is_a_problem(bare: Doctor, short_dir: Path) -> None:
    folder = short_dir / "theirs"
    folder.mkdir()
    folder.chmod(0o555)
    os.chown(folder, _STRANGER, _STRANGER)
    short_dir.chmod(0o755)
    bare.shell.env["PYTHONPATH"] = os.pathsep.join(sys.path)
    bare.shell.prefix = ("setpriv", "--reuid", str(_STRANGER), "--clear-groups")

    _, found = bare("--cache-dir", str(folder))

    assert found["cache folder"]["level"] == "problem"
    assert "cannot be written" in found["cache folder"]["found"]
    assert found["disk speed"]["level"] == "skipped"


@needs_root
def test_folder_of_somebody_else_is_a_problem(bare: Doctor, cache_dir: Path) -> None:
    cache_dir.mkdir()
    os.chown(cache_dir, _STRANGER, _STRANGER)

    _, found = bare("--cache-dir", str(cache_dir))

    assert found["cache folder"]["level"] == "problem"
    assert f"uid {_STRANGER}" in found["cache folder"]["found"]


def test_folder_that_a_daemon_has_is_a_problem(bare: Doctor, daemon: DaemonProcess) -> None:
    _, found = bare("--cache-dir", str(daemon.cache_dir))

    assert found["cache folder"]["level"] == "problem"
    assert "in use by the daemon with pid" in found["cache folder"]["found"]


def test_folder_of_other_files_is_a_problem(bare: Doctor, cache_dir: Path) -> None:
    cache_dir.mkdir()
    (cache_dir / "holiday.jpg").write_bytes(b"precious")

    _, found = bare("--cache-dir", str(cache_dir))

    assert found["cache folder"]["level"] == "problem"
    assert "not Forebay's" in found["cache folder"]["found"]


@pytest.fixture
def small_tmpfs(short_dir: Path) -> Iterator[Path]:
    folder = short_dir / "tmpfs"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=32m", "none", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:  # noqa: S603
        pytest.skip("cannot mount here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)  # noqa: S603, S607


@needs_root
def test_full_disk_is_a_problem(bare: Doctor, small_tmpfs: Path) -> None:
    bare.shell.env["FOREBAY_MIN_FREE_BYTES"] = "1MB"
    cache_dir = small_tmpfs / "cache"
    with (small_tmpfs / "filler").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, os.statvfs(small_tmpfs).f_bavail * 4096)

    _, found = bare("--cache-dir", str(cache_dir), "--max-bytes", "20MB")

    assert found["disk space"]["level"] == "problem"
    assert "min_free_bytes" in found["disk space"]["found"]
    assert found["disk speed"]["level"] == "skipped"


@needs_root
def test_limit_beyond_the_disk_and_memory_as_disk_are_told(bare: Doctor, small_tmpfs: Path) -> None:
    bare.shell.env["FOREBAY_MIN_FREE_BYTES"] = "1MB"

    _, found = bare("--cache-dir", str(small_tmpfs / "cache"), "--max-bytes", "1GB")

    assert found["disk space"]["level"] == "warning"
    assert "max_bytes" in found["disk space"]["todo"]
    assert found["file system"]["level"] == "warning"
    assert "tmpfs" in found["file system"]["found"]


def test_few_open_files_are_told(bare: Doctor, cache_dir: Path) -> None:
    bare.shell.prefix = ("sh", "-c", 'ulimit -n 256 && exec "$0" "$@"')
    _, found = bare("--cache-dir", str(cache_dir))
    assert found["open files"]["level"] == "warning"
    assert "256" in found["open files"]["found"]


def test_configuration_that_is_wrong_is_a_problem(bare: Doctor, tmp_path: Path) -> None:
    config = tmp_path / "forebay.toml"
    config.write_text('max_bites = "1GB"\n')

    _, found = bare("--config", str(config))

    assert "max_bites" in found["configuration"]["found"]
    assert "max_bytes" in found["configuration"]["todo"]


def test_address_and_options_of_serve_exclude_each_other(bare: Doctor) -> None:
    bare.shell.usage_error("doctor", "--address", "unix:/x.sock", "--cache-dir", "/x")


# --- the origins ------------------------------------------------------------------------------


def _with_keys(bare: Doctor, ceph: Ceph, **changed: str) -> Doctor:
    bare.shell.env.update({**ceph.env(), **changed})
    return bare


def test_endpoint_keys_clock_and_bucket_are_right(
    bare: Doctor, ceph: Ceph, bucket: Bucket, cache_dir: Path
) -> None:
    bucket.put("there/object", b"bytes")
    doctor = _with_keys(bare, ceph)

    code, found = doctor("--cache-dir", str(cache_dir), bucket.url("there"), _ABSENT)

    assert code == 0
    assert found["endpoint of s3://"]["level"] == "ok"
    assert found["clock"]["level"] == "ok"
    assert found[bucket.url("there")]["level"] == "ok"
    assert found[_ABSENT]["level"] == "warning"


def test_keys_are_tried_without_a_bucket(bare: Doctor, ceph: Ceph, cache_dir: Path) -> None:
    _, found = _with_keys(bare, ceph)("--cache-dir", str(cache_dir))
    assert found["keys of s3://"]["level"] == "ok"


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "wr0ngsecret"}, "SignatureDoesNotMatch"),
        ({"AWS_ACCESS_KEY_ID": "wr0ngaccess"}, "InvalidAccessKeyId"),
    ],
)
def test_wrong_keys_are_a_problem_and_never_shown(
    bare: Doctor, ceph: Ceph, cache_dir: Path, wrong: dict[str, str], code: str
) -> None:
    doctor = _with_keys(bare, ceph, **wrong)

    _, found = doctor("--cache-dir", str(cache_dir))

    assert found["keys of s3://"]["level"] == "problem"
    assert code in found["keys of s3://"]["found"]
    told = json.dumps(found)
    assert ceph.secret_key not in told
    assert not [value for value in wrong.values() if value in told]


@pytest.mark.parametrize(("ahead_s", "level"), [(0, "ok"), (120, "warning"), (-1200, "problem")])
def test_clocks_that_disagree_are_told(
    bare: Doctor, ceph: Ceph, proxy: FaultProxy, cache_dir: Path, ahead_s: int, level: str
) -> None:
    proxy.change_date(seconds=-ahead_s)
    doctor = _with_keys(bare, ceph, AWS_ENDPOINT_URL=proxy.url)

    _, found = doctor("--cache-dir", str(cache_dir))

    assert found["clock"]["level"] == level
    if ahead_s:
        assert ("ahead" if ahead_s > 0 else "behind") in found["clock"]["found"]


def test_endpoint_where_nobody_listens_is_a_problem(bare: Doctor, cache_dir: Path) -> None:
    with closed_port() as port:
        url = f"http://127.0.0.1:{port}"
        _, found = bare("--cache-dir", str(cache_dir), "--endpoint-url", url)
    assert found["endpoint of s3://"]["level"] == "problem"
    assert "nothing listens" in found["endpoint of s3://"]["found"]
    assert "keys of s3://" not in found


def test_endpoint_that_is_silent_ends_in_time(bare: Doctor, cache_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        _, found = bare("--cache-dir", str(cache_dir), "--endpoint-url", url, "--timeout-s", "0.5")
    assert found["endpoint of s3://"]["level"] == "problem"
    assert "no answer" in found["endpoint of s3://"]["found"]


def test_endpoint_without_an_address_is_a_problem(bare: Doctor, cache_dir: Path) -> None:
    _, found = bare("--cache-dir", str(cache_dir), "--endpoint-url", "http://ceph.invalid:7480")
    assert found["endpoint of s3://"]["level"] == "problem"
    assert "ceph.invalid" in found["endpoint of s3://"]["found"]


def test_certificate_that_is_not_trusted_is_a_problem_until_its_ca_is_named(
    bare: Doctor, tmp_path: Path, cache_dir: Path
) -> None:
    authority = make_authority(tmp_path / "ca")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*issue(authority))
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever).start()
        try:
            url = f"https://127.0.0.1:{server.server_port}"
            arguments = ("--cache-dir", str(cache_dir), "--endpoint-url", url)
            _, refused = bare(*arguments)
            bare.shell.env["FOREBAY_CA_BUNDLE"] = str(authority.file)
            _, taken = bare(*arguments)
        finally:
            server.shutdown()

    assert refused["endpoint of s3://"]["level"] == "problem"
    assert "ca_bundle" in refused["endpoint of s3://"]["todo"]
    assert taken["endpoint of s3://"]["level"] == "ok"


def test_daemon_is_asked_with_its_keys(
    bare: Doctor, ceph: Ceph, bucket: Bucket, proxy: FaultProxy
) -> None:
    bucket.put("coco/1.jpg", b"a photo")
    mapping = {"data/coco/": bucket.url("coco"), "data/none/": bucket.url("none")}
    with serving(
        endpoint_url=proxy.url, env=ceph.env(), path_mapping=mapping, metrics_listen="off"
    ) as daemon:
        bare.shell.env["FOREBAY_ADDRESS"] = daemon.address
        del bare.shell.env["FOREBAY_CACHE_DIR"]

        _, found = bare()

        assert found["endpoint of s3://"]["level"] == "ok"
        assert found["path mapping data/coco/"]["level"] == "ok"
        assert found["path mapping data/none/"]["level"] == "warning"

        proxy.close()
        code, found = bare("--timeout-s", "3")

    assert code == 1
    assert found["endpoint of s3://"]["level"] == "problem"
    assert found["path mapping data/coco/"]["level"] == "problem"
