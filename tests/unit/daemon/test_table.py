"""The daemon's writer of the shared table."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

from forebay_protos import layout
from forebay_protos.table import PACKED, PINNED, Record
from forebayd.store.table import Table

if TYPE_CHECKING:
    from pathlib import Path

CACHE_ID = bytes(16)


def make_record(number: int, flags: int = PACKED) -> Record:
    fingerprint = random.Random(number).randbytes(16)  # not a secret
    return Record(fingerprint, number + 1, number, 4096, 0, flags)


def test_a_record_is_found_until_it_is_cleared(tmp_path: Path) -> None:
    table = Table.create(tmp_path, 1, CACHE_ID, 1024)
    record = make_record(1)

    table.put(record)
    found = table.find(record.fingerprint)
    table.clear(record.fingerprint)

    assert found is not None
    assert found[1] == record
    assert table.find(record.fingerprint) is None


def test_a_new_generation_takes_the_slot_of_the_old_one(tmp_path: Path) -> None:
    table = Table.create(tmp_path, 1, CACHE_ID, 1024)
    slot = table.put(make_record(1))

    assert table.put(make_record(1)._replace(generation=99)) == slot
    assert len(table.occupied()) == 1


def test_a_table_grows_without_losing_a_record_or_its_time(tmp_path: Path) -> None:
    table = Table.create(tmp_path, 1, CACHE_ID, 1024)
    records = [make_record(number) for number in range(20_000)]
    for record in records:
        slot = table.put(record)
        while slot is None:
            smaller, table = table, table.grown()
            smaller.remove_files()
            slot = table.put(record)
        table.recency[slot] = record.generation

    assert table.slots >= 20_000
    for record in records:
        found = table.find(record.fingerprint)
        assert found is not None
        assert found[1] == record
        assert table.recency[found[0]] == record.generation


def test_two_choices_fill_a_table_to_more_than_sixty_per_cent(tmp_path: Path) -> None:
    table = Table.create(tmp_path, 1, CACHE_ID, 1 << 14)
    number = 0
    while table.put(make_record(number)) is not None:
        number += 1

    assert number > 0.6 * table.slots


def test_a_replaced_table_is_empty_for_those_who_still_map_it(tmp_path: Path) -> None:
    table = Table.create(tmp_path, 1, CACHE_ID, 1024)
    record = make_record(1)
    table.put(record)
    attached = Table(tmp_path, 1)

    table.remove_files()

    assert attached.find(record.fingerprint) is None
    assert not (tmp_path / layout.table_name(1)).exists()


def test_the_oldest_come_in_order_and_pinned_ones_never(tmp_path: Path) -> None:
    table = Table.create(tmp_path, 1, CACHE_ID, 1024)
    for number in range(50):
        slot = table.put(make_record(number, PACKED | (PINNED if number % 10 == 0 else 0)))
        assert slot is not None
        table.recency[slot] = 1000 + (number * 37) % 50

    oldest = table.oldest(5)

    expected = sorted((1000 + (n * 37) % 50, n) for n in range(50) if n % 10)[:5]
    assert [time_ns for time_ns, _, _ in oldest] == [time_ns for time_ns, _ in expected]
    assert [fp for _, _, fp in oldest] == [make_record(n).fingerprint for _, n in expected]


def test_a_time_from_the_future_becomes_now(tmp_path: Path) -> None:
    table = Table.create(tmp_path, 1, CACHE_ID, 1024)
    slot = table.put(make_record(1))
    assert slot is not None
    table.recency[slot] = 2**63

    [(time_ns, _, _)] = table.oldest(1)

    assert time_ns <= time.time_ns()
    assert table.recency[slot] == time_ns


def test_due_are_those_past_their_time_and_in_use(tmp_path: Path) -> None:
    table = Table.create(tmp_path, 1, CACHE_ID, 1024)
    due, unused, fresh = make_record(1), make_record(2), make_record(3)
    for record, refresh_after_s, used_at_s in ((due, 50, 90), (unused, 50, 10), (fresh, 200, 90)):
        slot = table.put(record._replace(refresh_after_s=refresh_after_s))
        assert slot is not None
        table.recency[slot] = used_at_s * 10**9

    assert table.due(now_s=100, used_since_s=60) == [due.fingerprint]
