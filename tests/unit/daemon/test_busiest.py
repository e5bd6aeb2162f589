"""Prefixes that are busy: which folder counts for an object, how many, and for how long."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from forebay_protos.table import PACKED, Record
from forebayd.busiest import Busiest
from forebayd.store.table import Table

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("uri", "prefix"),
    [
        ("s3://bucket/key", "s3://bucket/"),
        ("s3://bucket/a/key", "s3://bucket/a/"),
        ("s3://bucket/a/b/c/d/key", "s3://bucket/a/b/"),
        ("s3://data/coco/train/1/2/key", "s3://data/coco/train/1/"),
        ("file:///tmp/a/b/c/key", "file:///tmp/a/b/"),
        ("memory://a/b/c/key", "memory://a/b/c/"),
    ],
)
def test_an_object_counts_for_two_folders_below_its_bucket_or_origin(uri: str, prefix: str) -> None:
    assert Busiest(["s3://", "s3://data/coco", "file://"]).prefix(uri) == prefix


def test_what_is_told_is_bounded_and_the_busiest() -> None:
    busiest = Busiest(["s3://"])
    for number in range(5_000):
        busiest.received(f"s3://bucket/{number}/key", 1)
    for number in (3, 7):
        busiest.received(f"s3://bucket/{number}/key", number)
    busiest.sent("s3://runs/1/model.pth", 1000)

    rows = busiest.rows(["s3://eval/a", "s3://eval/b", "s3://bucket/3/key"], each=10.0)

    assert rows[0] == {
        "prefix": "s3://eval/", "objects_used": 20, "received_bytes": 0, "sent_bytes": 0,
    }  # fmt: skip
    by_prefix = {row["prefix"]: row for row in rows}
    assert by_prefix["s3://bucket/7/"]["received_bytes"] == 8
    assert by_prefix["s3://bucket/3/"]["objects_used"] == 10
    assert by_prefix["s3://runs/1/"]["sent_bytes"] == 1000
    assert len(rows) <= 3 * 16


def test_what_is_older_than_a_minute_is_forgotten() -> None:
    busiest = Busiest(["s3://"])
    busiest.received("s3://bucket/key", 5)
    for _ in range(12):
        busiest.tick()
    assert [row["received_bytes"] for row in busiest.rows([], 1.0)] == [5]

    busiest.tick()

    assert busiest.rows([], 1.0) == []


def test_a_sample_stands_for_all_that_was_used(tmp_path: Path) -> None:
    table = Table.create(tmp_path, 1, bytes(16), slots=1 << 13)
    moment = time.time_ns()
    for number in range(4_000):
        fingerprint = number.to_bytes(8, "little") * 2
        assert table.put(Record(fingerprint, number + 1, 0, 1, 0, PACKED)) is not None
    table.recency[:] = moment - 1
    for number in range(1_000):
        found = table.find(number.to_bytes(8, "little") * 2)
        assert found is not None
        table.recency[found[0]] = moment

    few, each = table.used_since(moment, 100)
    everything, alone = table.used_since(moment, 2_000)

    assert len(set(few)) == 100
    assert each == pytest.approx(10)
    assert {int.from_bytes(one[:8], "little") for one in everything} == set(range(1_000))
    assert alone == 1
