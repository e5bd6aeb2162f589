"""``open(path, "a…")``: what was there, and then what is new, whoever else appends."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from support.sizes import some_bytes

if TYPE_CHECKING:
    import forebay
    from e2e.conftest import FileOrigin

MIB = 1 << 20


def append(client: forebay.Client, path: str, data: bytes) -> None:
    with client.open(path, "ab") as file:
        file.write(data)


def test_append_to_nothing_makes_an_object(either: forebay.Client, files: FileOrigin) -> None:
    append(either, files.url("a"), b"first")
    append(either, files.url("empty"), b"")

    assert either.get(files.url("a")) == b"first"
    assert either.get(files.url("empty")) == b""


@pytest.mark.parametrize("base", [0, 10, 3 * MIB, 40 * MIB])
@pytest.mark.parametrize("size", [1, 5 * MIB])
def test_append_follows_what_the_origin_has(
    either: forebay.Client, files: FileOrigin, base: int, size: int
) -> None:
    path = files.put("a", some_bytes(base))

    append(either, path, b"x" * size)

    assert either.get(path) == some_bytes(base) + b"x" * size
    either.flush()
    assert (files.folder / "a").read_bytes() == some_bytes(base) + b"x" * size


def test_lines_of_a_log_follow_one_another(either: forebay.Client, files: FileOrigin) -> None:
    path = files.url("log")
    for number in range(30):
        with either.open(path, "a") as file:
            file.write(f"step {number}: lóss\n")
    either.flush()

    lines = [f"step {number}: lóss" for number in range(30)]
    assert (files.folder / "log").read_text().splitlines() == lines
    with either.open(path, "r") as file:
        assert file.read().splitlines() == lines


def test_append_of_nothing_changes_nothing(either: forebay.Client, files: FileOrigin) -> None:
    path = files.put("a", b"as it is")
    version = either.stat(path).version

    append(either, path, b"")

    either.flush()
    assert either.stat(path).version == version


def test_append_after_a_remove_begins_anew(either: forebay.Client, files: FileOrigin) -> None:
    path = files.put("a", b"old")
    either.remove(path)
    append(either, path, b"new")
    assert either.get(path) == b"new"

    either.flush()
    assert (files.folder / "a").read_bytes() == b"new"


def test_append_takes_what_was_written_while_it_was_open(
    either: forebay.Client, files: FileOrigin
) -> None:
    either.put(files.url("a"), b"before ")
    with either.open(files.url("a"), "ab") as file:
        file.write(b"appended")
        either.put(files.url("a"), b"meanwhile ")

    assert either.get(files.url("a")) == b"meanwhile appended"


def test_nothing_is_lost_among_many_appenders(
    shared: forebay.Client, unshared: forebay.Client, files: FileOrigin
) -> None:
    path, rounds = files.url("log"), 15

    def write(name: str) -> None:
        client = shared if name in "ab" else unshared
        for number in range(rounds):
            append(client, path, f"{name}{number}\n".encode())

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, "abcd"))
    shared.flush()

    lines = (files.folder / "log").read_text().split()
    for name in "abcd":
        assert [line for line in lines if line[0] == name] == [f"{name}{n}" for n in range(rounds)]
    assert len(lines) == 4 * rounds
    assert shared.get(path).decode().split() == lines
