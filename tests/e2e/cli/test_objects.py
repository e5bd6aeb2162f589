"""``forebay ls``, ``stat``, ``cat`` and ``cp``; help, and errors of one line."""

from __future__ import annotations

import os
import re
import signal
from typing import TYPE_CHECKING

import click
import pytest

import forebay
from forebay.cli import cli
from support.shell import WAIT_S, Shell, Store, tree
from support.some_files import FILES

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import StartDaemon
    from support.ceph import Bucket
    from support.proxy import FaultProxy


# --- help and usage ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(cli.commands))
def test_every_command_helps_with_an_example(name: str) -> None:
    command = cli.commands[name]
    with click.Context(command, info_name=name, parent=click.Context(cli, info_name="forebay")):
        text = command.get_help(click.get_current_context())

    assert re.search(rf"Examples?:\n +forebay {name}", text)


@pytest.mark.parametrize(
    "arguments",
    [("fetch",), ("get", "x"), ("cat",), ("stats", "--watch", "0"), ("evict",), ("ls", "--no")],
)
def test_wrong_usage_is_exit_code_2(arguments: tuple[str, ...]) -> None:
    Shell().usage_error(*arguments)


@pytest.mark.parametrize("seconds", ["0", "nan", "-1", "inf", "1e+300", "soon"])
@pytest.mark.parametrize(
    ("command", "option"),
    [
        (("ls", "s3://b"), "--timeout-s"),
        (("ping",), "--timeout-s"),
        (("stats",), "--watch"),
        (("uploads",), "--watch"),
        (("flush",), "--timeout"),
    ],
)
def test_seconds_that_are_none_are_wrong_usage(
    command: tuple[str, ...], option: str, seconds: str
) -> None:
    with pytest.raises(click.UsageError, match=re.escape(seconds)):
        cli.main([*command, f"{option}={seconds}"], standalone_mode=False)


def test_timeout_that_is_none_is_exit_code_2() -> None:
    for seconds in ("0", "nan", "-1"):
        assert "--timeout-s" in Shell().usage_error("stats", "--timeout-s", seconds)


def test_version_and_help_need_no_daemon() -> None:
    assert forebay.__version__ in Shell().out("--version")
    assert "forebay serve" in Shell().out("--help")


# --- names that are not UTF-8 -----------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        "ls",
        "stat",
        "cat k",
        "rm k",
        "mv k",
        "cp k",
        "flush k",
        "warm k",
        "evict k",
        "pin k",
        "unpin k",
        "uploads --retry",
    ],
)
def test_argument_that_is_not_utf_8_is_wrong_usage_before_anything_is_done(
    store: Store, command: str
) -> None:
    store.put("k")
    words = [store.uri("k") if word == "k" else word for word in command.split()]

    line = store.shell.error(*words, store.uri(os.fsdecode(b"b\xffd")), code=2)

    assert f"{store.uri('b')}\\xffd is not UTF-8" in line
    assert store.contents() == {"k": b"k"}


# --- looking at objects -----------------------------------------------------------------------


def test_ls_names_what_is_below(shell: Shell, uri: str) -> None:
    images = [f"{uri}/images/1.jpg", f"{uri}/images/2.jpg"]

    assert sorted(shell.out("ls", f"{uri}/images").split()) == [*images, f"{uri}/images/deep/"]
    assert sorted(shell.out("ls", "-R", f"{uri}/images/").split()) == [
        *images,
        f"{uri}/images/deep/3.jpg",
    ]
    assert shell.out("ls", images[0]).split() == images[:1]


def test_ls_long_has_sizes_for_people_and_what_is_cached(shell: Shell, uri: str) -> None:
    shell.run("cat", f"{uri}/images/1.jpg")

    rows = {line.split()[-1]: line for line in shell.out("ls", "-l", f"{uri}/images").splitlines()}

    assert "4.9 KiB" in rows[f"{uri}/images/1.jpg"]
    assert "100 %" in rows[f"{uri}/images/1.jpg"]
    assert "%" not in rows[f"{uri}/images/2.jpg"]
    assert f"{uri}/images/deep/" in rows


def test_ls_json_is_one_document(shell: Shell, uri: str) -> None:
    rows = shell.json("ls", f"{uri}/images")

    assert {row["uri"]: row["size_bytes"] for row in rows if "uri" in row} == {
        f"{uri}/images/1.jpg": 5000,
        f"{uri}/images/2.jpg": 6000,
    }
    assert [row for row in rows if "prefix" in row] == [{"prefix": f"{uri}/images/deep/"}]


@pytest.mark.parametrize("command", ["ls", "stat", "cat"])
def test_absent_object_is_one_line_that_names_it(shell: Shell, uri: str, command: str) -> None:
    assert f"{uri}/absent" in shell.error(command, f"{uri}/absent")


def test_path_without_scheme_is_explained(shell: Shell) -> None:
    assert "s3://" in shell.error("cat", "data/1.jpg")


def test_path_mapping_of_the_environment_is_used(shell: Shell, uri: str) -> None:
    shell.env["FOREBAY_PATH_MAPPING"] = f"data={uri}"

    assert shell.run("cat", "data/images/1.jpg")[1] == FILES["images/1.jpg"]


def test_stat_for_people_and_programs(shell: Shell, uri: str) -> None:
    shell.out("pin", f"{uri}/images")
    shell.run("cat", f"{uri}/images/1.jpg")

    text = shell.out("stat", f"{uri}/images/1.jpg")
    fields = shell.json("stat", f"{uri}/images/1.jpg")

    assert "4.9 KiB (5000 bytes)" in text
    assert "pinned" in text
    assert (fields["size_bytes"], fields["cached_bytes"], fields["is_pinned"]) == (5000, 5000, True)


def test_cat_writes_the_bytes_of_all(shell: Shell, uri: str) -> None:
    code, out, err = shell.run("cat", f"{uri}/weights.pth", f"{uri}/empty", f"{uri}/images/1.jpg")

    assert (code, err) == (0, "")
    assert out == FILES["weights.pth"] + FILES["images/1.jpg"]


def test_reader_that_has_seen_enough_ends_it_silently(shell: Shell, uri: str) -> None:
    for command in (("cat", *[f"{uri}/weights.pth"] * 3), ("stats", "--json", "--watch", "0.01")):
        with shell.start(*command) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            assert process.stdout.read(10)
            process.stdout.close()
            assert process.stderr.read() == b""
            assert process.wait(WAIT_S) == 1


# --- copies -----------------------------------------------------------------------------------


def test_cp_to_a_name_and_into_a_folder(shell: Shell, uri: str, tmp_path: Path) -> None:
    shell.out("cp", f"{uri}/weights.pth", f"{tmp_path}/mine")
    shell.out("cp", f"{uri}/weights.pth", str(tmp_path))
    shell.out("cp", f"{uri}/empty", f"{tmp_path}/new/folder/empty")

    assert (tmp_path / "mine").read_bytes() == FILES["weights.pth"]
    assert (tmp_path / "weights.pth").read_bytes() == FILES["weights.pth"]
    assert (tmp_path / "new/folder/empty").read_bytes() == b""


def test_cp_recursive_makes_the_sametree(shell: Shell, uri: str, tmp_path: Path) -> None:
    shell.out("cp", "-r", uri, f"{tmp_path}/copy")
    shell.out("cp", "-r", f"{uri}/images/", f"{tmp_path}/images")

    assert tree(tmp_path / "copy") == FILES
    assert tree(tmp_path / "images") == {
        name.removeprefix("images/"): data for name, data in FILES.items() if "images/" in name
    }


def test_cp_of_nothing_leaves_nothing(shell: Shell, uri: str, tmp_path: Path) -> None:
    shell.error("cp", f"{uri}/absent", f"{tmp_path}/absent")
    shell.error("cp", "-r", f"{uri}/absent", f"{tmp_path}/absent")

    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_cp_leaves_the_old_file_and_no_other(
    start_daemon: StartDaemon,
    proxy: FaultProxy,
    bucket: Bucket,
    tmp_path: Path,
    number: signal.Signals,
) -> None:
    daemon = start_daemon(endpoint_url=proxy.url)
    bucket.put("large", bytes(9 << 20))
    folder = tmp_path / "here"
    folder.mkdir()
    (folder / "large").write_bytes(b"old")
    second_block = proxy.gate(lambda request: (request.range or "").startswith("bytes=8388608-"))

    shell = Shell(FOREBAY_ADDRESS=daemon.address)
    with shell.start("cp", bucket.url("large"), str(folder)) as process:
        second_block.wait_for(1)
        process.send_signal(number)
        assert process.wait(WAIT_S) == 128 + number

    assert tree(folder) == {"large": b"old"}


def test_cp_recursive_copies_the_rest_when_some_fail(
    start_daemon: StartDaemon, proxy: FaultProxy, bucket: Bucket, tmp_path: Path
) -> None:
    daemon = start_daemon(endpoint_url=proxy.url)
    for key in ("set/a", "set/b", "set/sub/c", "set/../evil"):
        bucket.put(key, key.encode())
    proxy.fail("set/b", status=403, times=None)

    shell = Shell(FOREBAY_ADDRESS=daemon.address)
    code, _, err = shell.run("cp", "-r", bucket.url("set"), f"{tmp_path}/set")

    assert code == 1
    assert bucket.url("set/b") in err
    assert "'..' cannot be a file name" in err
    assert "2 of 4 objects could not be copied" in err
    assert tree(tmp_path / "set") == {"a": b"set/a", "sub/c": b"set/sub/c"}
    assert not (tmp_path / "evil").exists()
