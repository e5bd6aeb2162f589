"""``forebay ping``, ``stats``, ``warm``, ``evict``, ``pin``, ``check`` and ``serve``."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import signal
from typing import TYPE_CHECKING

import pytest

import forebay
from support.ports import free_port
from support.serving import serving
from support.shell import WAIT_S, Shell
from support.some_files import FILES

if TYPE_CHECKING:
    from pathlib import Path

    from support.daemon import DaemonProcess


# --- is it there, and what does it do? --------------------------------------------------------


def test_ping_tells_version_and_pid(shell: Shell, daemon: DaemonProcess) -> None:
    assert f"forebay {forebay.__version__} (pid {daemon.pid})" in shell.out("ping")
    assert shell.json("ping")["pid"] == daemon.pid


@pytest.mark.parametrize("command", [("ping",), ("stats",), ("ls", "s3://b/"), ("evict", "--all")])
def test_no_daemon_is_exit_code_3(tmp_path: Path, command: tuple[str, ...]) -> None:
    address = f"unix:{tmp_path}/none.sock"

    line = Shell().error(*command, "--address", address, "--timeout-s", "1", code=3)

    assert address in line
    assert "forebay serve" in line


def test_ping_of_a_daemon_that_hangs_is_exit_code_3(shell: Shell, daemon: DaemonProcess) -> None:
    os.kill(daemon.pid, signal.SIGSTOP)
    try:
        shell.error("ping", "--timeout-s", "0.5", code=3)
    finally:
        os.kill(daemon.pid, signal.SIGCONT)


def test_address_that_is_none_is_explained() -> None:
    assert "host:port" in Shell().error("ping", "--address", "nonsense")


def test_stats_answer_what_an_operator_asks(shell: Shell, daemon: DaemonProcess, uri: str) -> None:
    before = shell.json("stats")
    with forebay.Client(daemon.address) as client:
        client.get(f"{uri}/images/1.jpg")
        client.get(f"{uri}/images/1.jpg")
        client.get(f"{uri}/weights.pth")
        client.evict(f"{uri}/images/1.jpg")
        with pytest.raises(FileNotFoundError):
            client.get(f"{uri}/absent")
        raw = shell.json("stats")
    text = shell.out("stats")

    def grown(name: str) -> int:
        return int(raw["since_start"][name] - before["since_start"][name])

    sizes = len(FILES["images/1.jpg"]), len(FILES["weights.pth"])
    assert (grown("hits"), grown("misses")) == (1, 2)
    assert (grown("hit_bytes"), grown("miss_bytes")) == (sizes[0], sum(sizes))
    assert grown("origin_bytes") == sum(sizes)
    for window in ("since_start", "last_minute", "total"):
        assert 0 < raw[window]["hit_ratio"] < 1
        assert 0 < raw[window]["byte_hit_ratio"] < 1
    assert raw["origin_latency_s"]["p50"] <= raw["origin_latency_s"]["p99"]
    assert raw["fill_latency_s"]["count"] - before["fill_latency_s"]["count"] == 2
    assert raw["objects"] == 1
    assert sizes[1] <= raw["used_bytes"] <= raw["max_bytes"] == 10**9
    assert raw["evictions"]["asked"]["objects"] >= 1
    assert raw["evictions"]["asked"]["bytes"] >= sizes[0]
    assert raw["errors"]["OBJECT_NOT_FOUND"] >= 1
    assert raw["attached_clients"] >= 1
    assert (raw["fills_in_flight"], raw["deduplicated_fills"]) == (0, before["deduplicated_fills"])
    for asked in [
        "hits", "misses", "hit ratio, objects", "hit ratio, bytes", "since start", "last minute",
        "served from the cache", "read from the origin", "origin latency", "p50", "p99",
        "in flight", "joined", "evictions", "asked:", "object_not_found:", "objects",
        "attached clients", "MiB of 953.7 MiB", "served while stale", "fill latency",
    ]:  # fmt: skip
        assert asked in text


def test_hits_of_clients_that_are_gone_are_counted(shell: Shell, uri: str) -> None:
    before = shell.json("stats")["since_start"]["hits"]

    for _ in range(3):
        shell.out("stat", f"{uri}/images/1.jpg")
        assert shell.run("cat", f"{uri}/images/1.jpg")[1] == FILES["images/1.jpg"]

    assert shell.json("stats")["since_start"]["hits"] - before == 2


def test_watched_stats_are_lines_for_programs_and_end_with_ctrl_c(shell: Shell) -> None:
    with shell.start("stats", "--json", "--watch", "0.05") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        rounds = [json.loads(process.stdout.readline()) for _ in range(3)]
        process.send_signal(signal.SIGINT)
        err = process.stderr.read()
        assert process.wait(WAIT_S) == 128 + signal.SIGINT

    assert rounds[0]["uptime_s"] < rounds[1]["uptime_s"] < rounds[2]["uptime_s"]
    assert err.strip() == b""


# --- what is cached ---------------------------------------------------------------------------


def test_warm_shows_its_progress_on_a_terminal(shell: Shell, uri: str) -> None:
    ours, theirs = pty.openpty()
    shell.env |= {"TERM": "xterm", "NO_COLOR": "1", "COLUMNS": "160"}
    with shell.start("warm", uri, stderr=theirs) as process:
        os.close(theirs)
        assert process.stdout is not None
        shown = _read_terminal(ours)  # first: a bar that is drawn often fills the terminal
        out = process.stdout.read()

    assert b"5 objects are cached, 3.0 MiB" in out
    assert "5/5 objects" in shown
    assert re.search(r"3\.0/3\.0 MiB.* [0-9,]+/s.* [0-9]:[0-9]{2}:[0-9]{2}", shown)


def _read_terminal(fd: int) -> str:
    """Return what was written to a terminal whose other end is closed."""
    pieces = []
    with contextlib.suppress(OSError), open(fd, "rb", 0) as file:
        while piece := file.read(1 << 16):
            pieces.append(piece)
    return b"".join(pieces).decode()


def test_warm_into_a_log_file_is_a_result_without_a_bar(shell: Shell, uri: str) -> None:
    code, out, err = shell.run("warm", uri)

    assert (code, err) == (0, "")
    assert out.decode() == "5 objects are cached, 3.0 MiB\n"


def test_warm_json_counts(shell: Shell, uri: str) -> None:
    (result,) = shell.json("warm", f"{uri}/images")

    assert (result["objects_done"], result["objects_total"], result["bytes_done"]) == (3, 3, 18000)


def test_warm_of_what_is_not_there_fails(shell: Shell, uri: str) -> None:
    code, _, err = shell.run("warm", f"{uri}/absent")

    assert code == 1
    assert f"{uri}/absent" in err
    assert "Traceback" not in err


def test_evict_drops_a_prefix_or_all(shell: Shell, uri: str) -> None:
    shell.out("warm", uri)

    assert "evicted 3 objects, 24.0 KiB" in shell.out("evict", f"{uri}/images")
    assert shell.json("evict", "--all")["objects"] == 2
    assert shell.json("stats")["objects"] == 0
    assert shell.run("evict", "--all", uri)[0] == 2


def test_pin_and_unpin(shell: Shell, uri: str) -> None:
    shell.out("warm", f"{uri}/images")

    assert "pinned 3 cached objects" in shell.out("pin", f"{uri}/images")
    assert shell.json("stats")["pinned_prefixes"] == [f"{uri}/images"]
    assert f"{uri}/images" in shell.out("stats")
    assert shell.json("unpin", f"{uri}/images") == {"objects": 3}
    assert shell.json("stats")["pinned_prefixes"] == []


@pytest.mark.parametrize("pinned", ["images", "images/"])
@pytest.mark.parametrize("named", ["images", "images/"])
def test_slash_at_the_end_does_not_matter_to_unpin(
    shell: Shell, uri: str, pinned: str, named: str
) -> None:
    shell.out("pin", f"{uri}/{pinned}")

    shell.out("unpin", f"{uri}/{named}")

    assert shell.json("stats")["pinned_prefixes"] == []


def test_unpin_of_what_is_not_pinned_says_so_and_unpins_the_others(shell: Shell, uri: str) -> None:
    shell.out("warm", f"{uri}/images")
    shell.out("pin", f"{uri}/images", f"{uri}/weights.pth")

    code, out, err = shell.run("unpin", f"{uri}/imag", f"{uri}/images/deep", f"{uri}/images")

    assert (code, out) == (1, b"unpinned 3 cached objects\n")
    assert err.splitlines() == [
        f"forebay: {uri}/imag is not pinned",
        f"forebay: {uri}/images/deep is not pinned",
    ]
    assert shell.json("stats")["pinned_prefixes"] == [f"{uri}/weights.pth"]


def test_check_finds_and_repairs_damage(shell: Shell, daemon: DaemonProcess, uri: str) -> None:
    shell.out("warm", uri)
    assert "5 objects" in shell.out("check")
    (blob,) = (daemon.cache_dir / "blobs").iterdir()
    blob.unlink()

    code, out, _ = shell.run("check")
    assert code == 1
    assert f"{uri}/weights.pth" in out.decode()
    (problem,) = shell.json("check", "--repair")["problems"]
    assert problem["repaired"] is True

    assert "clean" in shell.out("check")
    assert shell.run("cat", f"{uri}/weights.pth")[1] == FILES["weights.pth"]


@pytest.mark.parametrize("end", ["stop", "kill9"])
def test_check_of_a_folder_that_nobody_serves(uri: str, end: str) -> None:
    with serving() as daemon:
        shell = Shell(FOREBAY_ADDRESS=daemon.address)
        shell.out("warm", uri)
        folder = str(daemon.cache_dir)
        assert str(daemon.pid) in shell.error("check", "--cache-dir", folder)
        getattr(daemon, end)()

        assert shell.json("check", "--cache-dir", folder) == {
            "problems": [],
            "objects": 5,
            "bytes": shell.json("check", "--cache-dir", folder)["bytes"],
        }
        (blob,) = (daemon.cache_dir / "blobs").iterdir()
        blob.unlink()
        assert shell.run("check", "--cache-dir", folder)[0] == 1
        assert "(repaired)" in shell.out("check", "--cache-dir", folder, "--repair")

        daemon.start()
        assert "clean" in shell.out("check")
        assert shell.json("stats")["objects"] == 4


def test_check_of_another_folder_touches_nothing(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("keep")

    assert "no cache folder" in Shell().error("check", "--cache-dir", str(tmp_path))

    assert [file.name for file in tmp_path.iterdir()] == ["mine"]


# --- serve ------------------------------------------------------------------------------------


def test_serve_takes_flags_over_environment_over_file(tmp_path: Path) -> None:
    config = 'max_bytes = "10MB"\nblock_bytes = "64KiB"\npacking_limit_bytes = "16KiB"\n'
    with serving(config=config, max_bytes="30MB", env={"FOREBAY_MAX_BYTES": "20MB"}) as daemon:
        assert Shell().json("stats", "--address", daemon.address)["max_bytes"] == 30_000_000


def test_serve_listens_on_several_addresses(uri: str) -> None:
    port = free_port()
    config = f'[[origin]]\nprefix = "{uri}"\n'
    with serving(config=config, arguments=("--listen", f"127.0.0.1:{port}")) as daemon:
        for address in (daemon.address, f"127.0.0.1:{port}"):
            shell = Shell(FOREBAY_ADDRESS=address)
            assert shell.json("ping")["pid"] == daemon.pid
            assert shell.run("cat", f"{uri}/images/1.jpg")[1] == FILES["images/1.jpg"]


def test_a_port_serves_no_local_files_that_nobody_configured(uri: str) -> None:
    port = free_port()
    with serving(arguments=("--listen", f"127.0.0.1:{port}")) as daemon:
        code, out, error = Shell(FOREBAY_ADDRESS=daemon.address).run("cat", f"{uri}/images/1.jpg")

    assert (code, out) == (1, b"")
    assert "[[origin]]" in str(error)


def test_serve_reads_several_origins_and_a_mapping_from_toml(origin: Path, uri: str) -> None:
    config = f"""
        path_mapping = {{ "data" = "{uri}" }}

        [[origin]]
        prefix = "{uri}/images"
        freshness = "immutable"

        [[origin]]
        prefix = "s3://coco"
        endpoint_url = "http://127.0.0.1:9"
        credentials = {{ anonymous = true }}
    """
    with serving(config=config) as daemon:
        shell = Shell(FOREBAY_ADDRESS=daemon.address)

        assert shell.run("cat", "data/images/1.jpg")[1] == FILES["images/1.jpg"]
        prefixes = {row["prefix"]: row for row in shell.json("stats")["origins"]}

    assert {f"{uri}/images", "s3://coco", "s3://", "file://"} <= {
        prefix.rstrip("/") if prefix.count("/") > 2 else prefix for prefix in prefixes
    }


@pytest.mark.parametrize(
    ("config", "flags", "says"),
    [
        ("max_byte = 1", (), "did you mean 'max_bytes'"),
        ('[[origin]]\nprefix = "s3://b"\nendpont_url = "http://h:1"', (), "'endpoint_url'"),
        ("max_bytes = ", (), "is not TOML"),
        ("", ("--max-bytes", "5XB"), "500GB"),
        ("", ("--listen", "0.0.0.0:7000"), "127.0.0.1"),
        ("", ("--endpoint-url", "ceph:7480"), "http://host:port"),
    ],
)
def test_serve_refuses_what_it_does_not_understand(
    tmp_path: Path, config: str, flags: tuple[str, ...], says: str
) -> None:
    file = tmp_path / "forebay.toml"
    file.write_text(config)

    line = Shell().error(
        "serve", "--config", str(file), "--cache-dir", str(tmp_path / "cache"),
        "--max-bytes", "1GB", *flags,
    )  # fmt: skip

    assert says in line
    assert not (tmp_path / "cache").exists()
