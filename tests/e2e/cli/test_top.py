"""``forebay top`` on real terminals: what it shows, how it fits, and how it leaves them."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
from typing import TYPE_CHECKING

import pytest
from rich.cells import cell_len

import forebay
from forebay.cli._top_history import History
from forebay.cli._top_view import View
from support.serving import serving
from support.terminal import Terminal

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import StartDaemon
    from support.ceph import Bucket
    from support.daemon import DaemonProcess
    from support.proxy import FaultProxy, Request
    from support.shell import Shell

LEAVE = b"\x1b[?7h\x1b[?25h\x1b[?1049l"
KIB = 1 << 10
SIZES = pytest.mark.parametrize(("columns", "lines"), [(80, 24), (200, 50)])


def environment(daemon: DaemonProcess) -> dict[str, str]:
    return {**os.environ, "TERM": "xterm-256color", "FOREBAY_ADDRESS": daemon.address}


def watching(
    daemon: DaemonProcess, *options: str, columns: int = 80, lines: int = 24, **env: str
) -> Terminal:
    return Terminal(
        *(sys.executable, "-m", "forebay", "top", *options),
        env={**environment(daemon), **env},
        columns=columns,
        lines=lines,
    )


# --- what it shows ----------------------------------------------------------------------------


@SIZES
def test_fills_and_uploads_that_are_held_are_shown(
    start_daemon: StartDaemon, proxy: FaultProxy, bucket: Bucket, columns: int, lines: int
) -> None:
    daemon = start_daemon(endpoint_url=proxy.url, block_bytes="64KiB", packing_limit_bytes="4KiB")
    bucket.put("train/a/large.bin", b"x" * (200 * KIB))
    large, small = bucket.url("train/a/large.bin"), bucket.url("runs/new.pth")

    def is_second_block(request: Request) -> bool:
        return request.range == f"bytes={64 * KIB}-{128 * KIB - 1}"

    with forebay.Client(daemon.address) as client:
        client.get(large, end=10)
        with proxy.gate(is_second_block), proxy.gate("new.pth", method="PUT") as put_gate:
            client.put(small, b"y" * (100 * KIB))
            readers = [
                threading.Thread(target=client.get, args=(large, 64 * KIB, 65 * KIB))
                for _ in range(2)
            ]
            for reader in readers:
                reader.start()
            put_gate.wait_for(1)
            with watching(daemon, "--interval", "0.1", columns=columns, lines=lines) as terminal:
                terminal.wait_for(
                    r"fills in flight: 1 +readers +since +cached",
                    r"train/a/large\.bin +2 .* 64\.0 KiB of 200\.0 KiB",
                    r"uploads: 1 +state",
                    r"runs/new\.pth +uploading +1 .* 0 B of 100\.0 KiB",
                    r"1 to upload, oldest [0-9]",
                )
        for reader in readers:
            reader.join()


def test_reads_of_one_interval_make_its_hit_ratio(
    daemon: DaemonProcess, uri: str, client: forebay.Client
) -> None:
    with watching(daemon, "--interval", "0.1") as terminal:
        terminal.wait_for(r"hit ratio +-")
        terminal.type("p")  # so that all reads fall between two looks
        terminal.wait_for("paused")
        for _ in range(4):
            client.get(f"{uri}/images/1.jpg")
        terminal.type("p")

        # The interval of the reads alone has a ratio; its bar stays while later ones have none.
        terminal.wait_until(lambda: b"75.0 %" in terminal.raw, "hit ratio of 75 %")
        terminal.wait_for(
            r"clients: [1-9]",
            rf"\n{re.escape(uri)[:20]}.*\n",
            rf"\n{os.getpid()} .*",
            r"origins +errors",
        )


def test_prefixes_are_sorted_as_asked(uri: str) -> None:
    config = f'[[origin]]\nprefix = "{uri}"\n'
    with serving(config=config, metrics_listen="off") as daemon:
        with forebay.Client(daemon.address) as client:
            client.get_many([f"{uri}/images/{number}.jpg" for number in (1, 2)])
            client.get(f"{uri}/weights.pth")
            rows = {row["prefix"]: row for row in client.stats().raw["prefixes"]}
        with watching(daemon, "--interval", "0.1", columns=200) as terminal:
            terminal.wait_for("q quit")
            images, whole = (re.escape(name) for name in (f"{uri}/images/", f"{uri}/ "))
            for key, title, order in (
                ("2", r"from origin\*", (whole, images)),
                ("1", r"objects\*", (images, whole)),
            ):
                terminal.type(key)
                terminal.wait_for(f"(?s){title}.*{order[0]}.*{order[1]}")

    assert {name: list(row.values())[1:] for name, row in rows.items()} == {
        f"{uri}/images/": [2, 11_000, 0],
        f"{uri}/": [1, 3 << 20, 0],
    }


def test_a_daemon_that_goes_and_comes_back_is_shown_as_such(
    start_daemon: StartDaemon, bucket: Bucket
) -> None:
    daemon = start_daemon()
    bucket.put("k", b"x")
    with (
        forebay.Client(daemon.address) as client,
        watching(daemon, "--interval", "0.1") as terminal,
    ):
        client.get(bucket.url("k"))
        terminal.wait_for(rf"pid {daemon.pid},", rf"{bucket.name}/ +1 +1 B")
        daemon.stop()
        terminal.wait_for("NO ANSWER for", "no Forebay daemon answers")
        daemon.start()
        terminal.wait_for(rf"pid {daemon.pid},", r"hit ratio +-")
        terminal.wait_until(lambda: "NO ANSWER" not in terminal.text, "an answer")
        client.evict(bucket.url("k"))
        client.get(bucket.url("k"))
        terminal.wait_for(rf"{bucket.name}/ +1 +1 B")

    # Its counters began anew, and nothing went backwards.
    assert not re.search(rb" -[0-9]", terminal.raw)


def test_a_daemon_that_hangs_is_shown_as_such(start_daemon: StartDaemon) -> None:
    daemon = start_daemon()
    with watching(daemon, "--interval", "0.1") as terminal:
        terminal.wait_for("hit ratio")
        os.kill(daemon.pid, signal.SIGSTOP)
        try:
            terminal.wait_for("NO ANSWER for")
            terminal.type("q")
            assert terminal.end() == 0
        finally:
            os.kill(daemon.pid, signal.SIGCONT)


# --- how it fits ------------------------------------------------------------------------------


def test_it_fits_every_size_whatever_objects_are_called(tmp_path: Path) -> None:
    names = ["\x1b[2J\x1b[31m/red", f"列车/図/{'長' * 80}", f"{'a' * 200}/b", "new\nline\t/x"]
    history = History(1.0)
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(b"x")
    config = f'[[origin]]\nprefix = "{tmp_path.as_uri()}"\n'
    with (
        serving(config=config, metrics_listen="off") as daemon,
        forebay.Client(daemon.address) as client,
    ):
        client.get_many([f"{tmp_path.as_uri()}/{name}" for name in names])
        for _ in range(2):
            history.add(client.stats().raw)
    assert len(history.now["prefixes"]) == len(names)
    view = View(daemon.address)

    for width in (*range(1, 60, 7), *range(60, 240, 9)):
        for height in (1, 5, 10, 24, 50):
            drawn = view.lines(history, width, height)
            assert len(drawn) == height
            for line in drawn:
                assert cell_len(line.plain) <= width
                assert line.plain.isprintable()


def test_it_follows_the_size_of_the_terminal(daemon: DaemonProcess) -> None:
    with watching(daemon, "--interval", "1000") as terminal:
        terminal.wait_until(lambda: terminal.display[23].startswith("q quit"), "the last line")
        for columns, lines in ((200, 50), (80, 24), (40, 10)):
            terminal.resize(columns, lines)
            last = "q quit" if lines > 10 else ""
            terminal.wait_until(
                lambda lines=lines, last=last: (  # type: ignore[misc]  # a default has no type
                    terminal.display[lines - 1].startswith(last)
                    and terminal.display[0].startswith("forebay ")
                ),
                f"{columns}x{lines}",
            )


def test_only_what_changes_is_sent(daemon: DaemonProcess) -> None:
    with watching(daemon, "--interval", "0.1") as terminal:
        heads: set[str] = set()

        def has_changed() -> bool:
            heads.add(terminal.display[0])
            return len(heads) > 3

        terminal.wait_until(has_changed, "a new head")

        assert terminal.raw.count(b"q quit") == 1
        terminal.type("\x0c")
        terminal.wait_until(lambda: terminal.raw.count(b"q quit") == 2, "everything anew")


# --- how it leaves the terminal ---------------------------------------------------------------


@pytest.mark.parametrize(("how", "code"), [("q", 0), ("\x03", 130), ("SIGTERM", 143)])
def test_the_terminal_is_left_as_it_was(daemon: DaemonProcess, how: str, code: int) -> None:
    with watching(daemon, "--interval", "0.1") as terminal:
        terminal.wait_for("q quit")
        assert terminal.is_cursor_hidden()
        assert terminal.modes != terminal.modes_before

        if how == "SIGTERM":
            os.kill(terminal.pid, signal.SIGTERM)
        else:
            terminal.type(how)

        assert terminal.end() == code
        assert terminal.modes == terminal.modes_before
        assert not terminal.is_cursor_hidden()
        head, _, after = terminal.raw.rpartition(LEAVE)
        assert head.count(b"\x1b[?1049h") == 1
        assert after.strip() == b""


def test_it_can_be_suspended(daemon: DaemonProcess) -> None:
    """By a shell with job control: alone in its session a program cannot be stopped."""
    with Terminal(
        *("bash", "--norc", "--noprofile", "-i"),
        env={**environment(daemon), "PS1": "$ "},
    ) as terminal:
        terminal.wait_for(r"\$")
        terminal.type(f"{sys.executable} -m forebay top --interval 0.1\n")
        terminal.wait_for("q quit")
        terminal.type("\x1a")
        terminal.wait_until(lambda: b"Stopped" in terminal.raw.rpartition(LEAVE)[2], "the shell")
        assert not terminal.is_cursor_hidden()
        terminal.type("fg\n")
        terminal.wait_until(lambda: terminal.raw.count(b"q quit") == 2, "the view again")
        terminal.type("q")
        terminal.wait_until(lambda: not terminal.is_cursor_hidden(), "the shell")
        assert terminal.raw.count(LEAVE) == 2


# --- without colours, without a terminal ------------------------------------------------------

_COLOUR = re.compile(rb"\x1b\[(?:\d+;)*[34]\d(?:;\d+)*m")


def test_colours_are_the_plain_ones_unless_nobody_wants_them(daemon: DaemonProcess) -> None:
    with watching(daemon) as terminal:
        terminal.wait_for("q quit")
        assert _COLOUR.search(terminal.raw)
        assert b"38;" not in terminal.raw
    with watching(daemon, NO_COLOR="1") as terminal:
        terminal.wait_for("q quit")
        assert not _COLOUR.search(terminal.raw)


def test_once_is_plain_text(shell: Shell, daemon: DaemonProcess, uri: str) -> None:
    shell.out("warm", uri)

    text = shell.out("top", "--once", "--interval", "0.1")

    assert text.startswith(f"forebay {forebay.__version__}  pid {daemon.pid},")
    assert "\x1b" not in text
    assert "q quit" not in text
    for asked in ("from cache", "hit ratio", "p95", "fills in flight", "busiest", "origins"):
        assert asked in text


@pytest.mark.parametrize("place", ["pipe", "dumb terminal"])
def test_without_a_screen_it_prints_again_and_again(
    shell: Shell, daemon: DaemonProcess, place: str
) -> None:
    if place == "pipe":
        with shell.start("top", "--interval", "0.1") as process:
            assert process.stdout is not None
            written = b""
            while written.count(b"hit ratio") < 3:
                written += process.stdout.readline()
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 130
    else:
        with watching(daemon, "--interval", "0.1", TERM="dumb") as terminal:
            terminal.wait_until(lambda: terminal.raw.count(b"hit ratio") > 2, "three frames")
            written = terminal.raw

    assert b"\x1b" not in written


def test_ascii_terminals_get_ascii(shell: Shell) -> None:
    shell.env["PYTHONIOENCODING"] = "ascii"

    text = shell.out("top", "--once", "--interval", "0.1")

    assert text.isascii()
    assert "--- " in text  # of a bar
