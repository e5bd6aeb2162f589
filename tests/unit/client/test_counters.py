"""Rows of the shared counters: one owner each, growth, what a fork and a close do."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from forebay._counters import HITS, Counters
from forebay_protos.counters import GROW_ROWS, ROW_SIZE

if TYPE_CHECKING:
    from pathlib import Path


def make_file(path: Path, rows: int) -> Path:
    file = path / "counters"
    file.write_bytes(bytes(rows * ROW_SIZE))
    return file


def claimed(file: Path) -> Counters:
    counters = Counters(str(file))
    counters.claim()
    return counters


def hits(file: Path) -> list[int]:
    data = file.read_bytes()
    return [int.from_bytes(data[at : at + 8], "little") for at in range(0, len(data), ROW_SIZE)]


def test_each_owner_has_its_own_row_and_the_file_grows(tmp_path: Path) -> None:
    file = make_file(tmp_path, 2)
    owners = [claimed(file) for _ in range(5)]
    for number, owner in enumerate(owners):
        owner.row[HITS] += number + 1
    assert sorted(value for value in hits(file) if value) == [1, 2, 3, 4, 5]
    assert len(hits(file)) == 2 + GROW_ROWS


def test_a_row_goes_on_with_its_next_owner(tmp_path: Path) -> None:
    file = make_file(tmp_path, 1)
    first = claimed(file)
    first.row[HITS] += 10
    first.close()
    claimed(file).row[HITS] += 1
    assert hits(file) == [11]


def test_a_file_that_cannot_be_written_does_not_keep_a_client_from_counting(tmp_path: Path) -> None:
    counters = claimed(tmp_path / "missing")
    counters.row[HITS] += 1
    assert counters.row[HITS] == 1
    assert not counters.is_in(str(tmp_path / "missing"))


@pytest.mark.filterwarnings(
    # Python 3.12 and later, where a test before this one has left a thread.
    "ignore:This process .* is multi-threaded, use of fork:DeprecationWarning"
)
def test_a_forked_child_claims_a_row_of_its_own(tmp_path: Path) -> None:
    file = make_file(tmp_path, 4)
    counters = claimed(file)
    counters.row[HITS] += 1
    pid = os.fork()
    if pid == 0:  # only what follows runs in the child
        counters.after_fork_in_child()
        counters.row[HITS] += 2  # before it has a row
        counters.claim()
        counters.row[HITS] += 4
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    counters.row[HITS] += 1
    assert status == 0
    assert sorted(hits(file)) == [0, 0, 2, 6]


def test_a_row_of_another_file_is_known_as_such(tmp_path: Path) -> None:
    file = make_file(tmp_path, 1)
    counters = claimed(file)
    assert counters.is_in(str(file))
    file.unlink()
    make_file(tmp_path, 1)
    assert not counters.is_in(str(file))
