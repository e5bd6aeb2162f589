"""``forebay flush``, ``uploads`` and what ``stats`` says of the spool: pending, failed, settled."""

from __future__ import annotations

import json
import re
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

import forebay
from support.shell import WAIT_S, Shell
from support.some_files import FILES
from support.spooled import wait_until

if TYPE_CHECKING:
    from conftest import StartDaemon
    from support.ceph import Bucket
    from support.proxy import FaultProxy

_IMAGE = FILES["images/1.jpg"]


@dataclass(frozen=True)
class Spool:
    """A daemon whose origin can be made to wait and to refuse."""

    shell: Shell
    address: str
    proxy: FaultProxy
    bucket: Bucket

    def put(self, key: str, data: bytes = _IMAGE) -> None:
        with forebay.Client(self.address) as client:
            client.put(self.bucket.url(key), data)

    def put_refused(self, key: str) -> str:
        """Write what the origin refuses for good; returns the id of the upload."""
        self.proxy.fail(key, method="PUT", status=403, times=None)
        self.put(key)
        with forebay.Client(self.address) as client:
            wait_until(
                lambda: any(
                    upload.path == self.bucket.url(key) and upload.state == "failed"
                    for upload in client.uploads()
                ),
                "the refusal",
            )
            return next(u.id for u in client.uploads() if u.path == self.bucket.url(key))


@pytest.fixture
def spool(start_daemon: StartDaemon, proxy: FaultProxy, bucket: Bucket) -> Spool:
    daemon = start_daemon(endpoint_url=proxy.url, upload_max_age_s=600)
    return Spool(Shell(FOREBAY_ADDRESS=daemon.address), daemon.address, proxy, bucket)


# --- flush ------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_json", [False, True], ids=["text", "json"])
def test_flush_waits_and_says_what_was_uploaded(spool: Spool, is_json: bool) -> None:
    gate = spool.proxy.gate(None, method="PUT")
    spool.put("a")
    spool.put("b")

    line = spool.shell.error("flush", "--timeout", "3")
    assert "2 uploads with 10000 bytes are left after 3 s" in line
    assert f"{spool.bucket.url('a')}, {spool.bucket.url('b')};" in line
    with spool.shell.start("flush", *(["--json"] if is_json else [])) as process:
        gate.wait_for(1)
        assert process.poll() is None
        gate.release()
        out, err = process.communicate(timeout=WAIT_S)

    assert (process.returncode, err) == (0, b"")
    if is_json:
        # How many are left when it begins to look is a race with the gate's opening.
        assert json.loads(out)["failed"] == []
    else:
        assert re.fullmatch(rb"uploaded [0-2] writes, [0-9.]+ (KiB|B)\n", out)
    assert spool.bucket.get("a") == spool.bucket.get("b") == _IMAGE
    assert spool.shell.json("flush") == {"uploads": 0, "bytes": 0, "failed": []}


def test_flush_of_a_path_waits_for_nothing_else(spool: Spool) -> None:
    gate = spool.proxy.gate("other/a", method="PUT")
    spool.put("other/a")
    spool.put("run/b")

    spool.shell.out("flush", spool.bucket.url("run/"))
    assert spool.bucket.keys() == ["run/b"]
    assert "1 uploads" in spool.shell.error(
        "flush", "--timeout", "3", spool.bucket.url("run"), spool.bucket.url("other")
    )

    gate.release()
    spool.shell.out("flush")
    assert spool.bucket.keys() == ["other/a", "run/b"]


def test_flush_shows_what_failed_for_good(spool: Spool) -> None:
    upload = spool.put_refused("k")

    code, out, err = spool.shell.run("flush")
    assert (code, out) == (1, b"")
    header, row, line = err.splitlines()
    assert header.split() == [
        "id", "what", "state", "size", "done", "age", "attempts", "path", "error"
    ]  # fmt: skip
    assert row.split()[:5] == [upload, "put", "failed", "4.9", "KiB"]
    assert spool.bucket.url("k") in row
    assert line.startswith("forebay: uploads failed for good: 1")
    assert "--retry" in line

    code, out, err = spool.shell.run("flush", "--json")
    (failed,) = json.loads(out)["failed"]
    assert (code, err) == (1, "")
    assert (failed["id"], failed["path"], failed["state"]) == (
        upload, spool.bucket.url("k"), "failed"
    )  # fmt: skip


# --- uploads ----------------------------------------------------------------------------------


def test_uploads_of_an_idle_node_are_none(spool: Spool) -> None:
    assert spool.shell.out("uploads") == "everything is in the origin\n"
    assert spool.shell.json("uploads") == {"uploads": [], "is_overdue": False}


def test_pending_uploads_are_listed_and_are_no_failure(spool: Spool) -> None:
    gate = spool.proxy.gate(None, method="PUT")
    spool.put("[bold]k")  # no markup
    gate.wait_for(1)
    with forebay.Client(spool.address) as client:
        client.remove(spool.bucket.url("[bold]k"))

    text = spool.shell.out("uploads")
    document = spool.shell.json("uploads")

    put, removal = document["uploads"]
    assert document["is_overdue"] is False
    assert (put["kind"], put["state"], put["size_bytes"]) == ("put", "uploading", len(_IMAGE))
    assert (removal["kind"], removal["state"]) == ("remove", "waiting")
    assert put["path"] == removal["path"] == spool.bucket.url("[bold]k")
    _, *rows, summary = text.splitlines()
    assert [row.split()[0] for row in rows] == [put["id"], removal["id"]]
    assert all(spool.bucket.url("[bold]k") in row for row in rows)
    assert summary.split() == ["2", "uploads,", "4.9", "KiB", "left"]
    gate.release()
    spool.shell.out("flush")


def test_upload_that_is_too_old_is_exit_code_1(
    start_daemon: StartDaemon, proxy: FaultProxy, bucket: Bucket
) -> None:
    daemon = start_daemon(endpoint_url=proxy.url, upload_max_age_s=0.2)
    spool = Spool(Shell(FOREBAY_ADDRESS=daemon.address), daemon.address, proxy, bucket)
    gate = proxy.gate(None, method="PUT")
    spool.put("k")
    wait_until(lambda: spool.shell.run("uploads")[0] == 1, "an upload that is too old")

    code, out, _ = spool.shell.run("uploads")
    assert (code, out.decode().rstrip().endswith("; overdue")) == (1, True)
    code, out, _ = spool.shell.run("uploads", "--json")
    assert (code, json.loads(out)["is_overdue"]) == (1, True)
    assert "overdue: see `forebay uploads`" in spool.shell.out("stats")
    gate.release()
    spool.shell.out("flush")
    assert spool.shell.out("uploads") == "everything is in the origin\n"
    assert re.search(r"write backlog +none *\n", spool.shell.out("stats"))


def test_failed_upload_is_exit_code_1_until_it_is_tried_again(spool: Spool) -> None:
    upload = spool.put_refused("k")

    code, out, err = spool.shell.run("uploads")
    assert (code, err) == (1, "")
    row = rf"{upload} +put +failed .*{spool.bucket.url('k')} +.*(?i:denied|403)"
    assert re.search(row, out.decode())

    spool.proxy.clear()
    assert spool.shell.out("uploads", "--retry") == "trying again: 1 uploads\n"
    spool.shell.out("flush")
    assert spool.shell.json("uploads")["uploads"] == []
    assert spool.bucket.get("k") == _IMAGE


def test_single_failed_uploads_are_tried_again(spool: Spool) -> None:
    one, other = spool.put_refused("one"), spool.put_refused("other")
    spool.proxy.clear()

    assert spool.shell.json("uploads", "--retry", one) == {"uploads": 1}

    spool.shell.out("flush", spool.bucket.url("one"))
    assert spool.bucket.keys() == ["one"]
    code, out, _ = spool.shell.run("uploads", "--json")
    assert (code, [each["id"] for each in json.loads(out)["uploads"]]) == (1, [other])


def test_discard_asks_before_it_loses_anything(spool: Spool) -> None:
    upload = spool.put_refused("k")
    spool.put_refused("kept")

    for typed in (b"", b"n\n", b"\n"):
        code, out, err = spool.shell.run("uploads", "--discard", upload, typed=typed)
        assert (code, out) == (128 + signal.SIGINT, b"")
        assert spool.bucket.url("k") in err
        assert spool.bucket.url("kept") not in err
        assert "Lose what these wrote?" in err
    assert len(json.loads(spool.shell.run("uploads", "--json")[1])["uploads"]) == 2

    code, out, _ = spool.shell.run("uploads", "--discard", upload, typed=b"y\n")
    assert (code, out) == (0, b"discarded: 1 uploads\n")
    (left,) = json.loads(spool.shell.run("uploads", "--json")[1])["uploads"]
    assert left["path"] == spool.bucket.url("kept")
    assert spool.bucket.url("k") in spool.shell.error("cat", spool.bucket.url("k"))


def test_discard_that_is_sure_asks_nothing(spool: Spool) -> None:
    ids = [spool.put_refused(key) for key in ("a", "b")]

    assert spool.shell.json("uploads", "--discard", "--yes", *ids) == {"uploads": 2}

    assert spool.shell.out("uploads") == "everything is in the origin\n"
    assert spool.bucket.keys() == []


def test_unknown_id_is_told_and_nothing_is_done(spool: Spool) -> None:
    upload = spool.put_refused("k")

    for flags in (("--retry",), ("--discard",), ("--discard", "--yes")):
        assert "no upload has the id none" in spool.shell.error("uploads", *flags, upload, "none")

    (left,) = json.loads(spool.shell.run("uploads", "--json")[1])["uploads"]
    assert (left["id"], left["state"]) == (upload, "failed")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--discard",), "--discard needs the ids"),
        (("00000001-000000000001",), "ids go with --retry or --discard"),
        (("--retry", "--discard", "x"), "one of --watch, --retry and --discard"),
        (("--retry", "--watch", "1"), "one of --watch, --retry and --discard"),
        (("--watch", "0"), "--watch"),
        (("--watch", "nan"), "--watch"),
    ],
)
def test_wrong_usage_of_uploads_is_explained(arguments: tuple[str, ...], says: str) -> None:
    assert says in Shell().usage_error("uploads", *arguments)


def test_watched_uploads_are_lines_for_programs_and_end_with_ctrl_c(spool: Spool) -> None:
    gate = spool.proxy.gate(None, method="PUT")
    with spool.shell.start("uploads", "--json", "--watch", "0.05") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert json.loads(process.stdout.readline()) == {"uploads": [], "is_overdue": False}
        spool.put("k")
        seen: set[str] = set()
        while "uploading" not in seen:
            seen |= {upload["state"] for upload in json.loads(process.stdout.readline())["uploads"]}
        gate.release()
        while json.loads(process.stdout.readline())["uploads"]:
            pass
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read().splitlines()
        err = process.stderr.read()
        assert process.wait(WAIT_S) == 128 + signal.SIGINT

    assert err.strip() == b""
    assert all(json.loads(line)["uploads"] == [] for line in rest)


# --- stats ------------------------------------------------------------------------------------


def test_stats_show_the_backlog_its_age_the_rate_and_failures(spool: Spool) -> None:
    spool.put("done", bytes(600_000))
    spool.shell.out("flush")
    spool.put_refused("refused")
    gate = spool.proxy.gate("waits", method="PUT")
    spool.put("waits")
    gate.wait_for(1)

    section = spool.shell.json("stats")["spool"]
    text = spool.shell.out("stats")

    assert (section["backlog_uploads"], section["backlog_bytes"]) == (2, 2 * len(_IMAGE))
    assert 0 < section["oldest_age_s"] < WAIT_S
    assert (section["uploads_done"], section["uploads_failed"]) == (1, 1)
    assert section["uploaded_bytes"] == section["uploaded_bytes_last_minute"] == 600_000
    assert 0 < section["spool_used_bytes"] < section["spool_max_bytes"]
    assert section["overdue"] is True, "what failed for good is to be looked at"
    rows = {row[:18].strip(): row[18:] for row in text.splitlines()}
    assert re.search(r"2 uploads, 9\.8 KiB, oldest [0-9.]+ m?s; overdue", rows["write backlog"])
    assert re.search(
        r"1 done \(585\.9 KiB\), 9\.8 KiB/s in the last minute, 1 failed", rows["uploads"]
    )
    assert "of 476.8 MiB" in rows["spool"]
    gate.release()
    spool.proxy.clear()
    spool.shell.out("uploads", "--retry")
    spool.shell.out("flush")
    assert spool.shell.json("stats")["spool"]["backlog_uploads"] == 0
