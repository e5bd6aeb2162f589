"""Fixed bytes of everything that daemon and client share, or that a later daemon must read.

A change that makes one of these fail needs another FORMAT_VERSION (in ``table``, ``counters`` or
``layout``), so that an old program refuses the new bytes clearly instead of misreading them.
"""

from __future__ import annotations

import dataclasses
import json

import pytest

from forebay_protos import counters, layout, table
from forebayd.store import rows

RECORD = table.Record(
    fingerprint=bytes(range(16)),
    generation=0x1122334455667788,
    place=table.packed_place(7, 3 * 4096),
    size_bytes=100_000,
    stale_after_ns=1_700_000_000_000_000_000,
    flags=table.PACKED | table.PINNED,
    block_shift=0,
    refresh_after_s=1_700_000_000,
)
RECORD_HEX = (
    "000102030405060708090a0b0c0d0e0f"
    "8877665544332211"
    "0300000007000000"
    "a086010000000000"
    "00002a36fe9c9717"
    "05000000"
    "00000000"
    "00f15365"
)


def test_a_record_has_these_64_bytes() -> None:
    data = table.pack_record(RECORD)

    assert table.FORMAT_VERSION == 1
    assert len(data) == table.RECORD_SIZE == 64
    assert data[:60].hex() == RECORD_HEX
    assert data[60:].hex() == "10b6ccc0"
    assert table.unpack_record(data) == RECORD


def test_the_identity_of_a_record_is_fingerprint_and_generation() -> None:
    other_place = table.pack_record(RECORD._replace(place=1, size_bytes=2, stale_after_ns=3))
    other_generation = table.pack_record(RECORD._replace(generation=5))
    identity = table.pack_record(RECORD)[: table.IDENTITY_SIZE]

    assert other_place[: table.IDENTITY_SIZE] == identity
    assert other_generation[: table.IDENTITY_SIZE] != identity


@pytest.mark.parametrize("at", range(64))
def test_a_torn_record_is_none(at: int) -> None:
    data = bytearray(table.pack_record(RECORD))
    data[at] ^= 0x40

    assert table.unpack_record(bytes(data)) is None


def test_an_empty_record_is_none() -> None:
    assert table.unpack_record(table.EMPTY) is None


def test_a_table_header_has_these_bytes() -> None:
    data = table.pack_header(bytes(range(16)), 1024, 3)

    assert len(data) == 4096
    assert data[:48].hex() == (
        "464f524542415954"
        "01000000"
        "00100000"
        "000102030405060708090a0b0c0d0e0f"
        "0004000000000000"
        "0300000000000000"
    )
    assert table.unpack_header(data) == table.Header(bytes(range(16)), 1024, 3)


def test_a_table_of_another_version_is_refused() -> None:
    data = bytearray(table.pack_header(bytes(16), 1024, 3))
    data[8] = 2

    with pytest.raises(ValueError, match="format 2, this program knows 1"):
        table.unpack_header(bytes(data))


def test_counters_have_these_columns() -> None:
    assert counters.FORMAT_VERSION == 1
    assert counters.ROW_SIZE == 128
    assert counters.ROW_FIELDS == (
        "hits",
        "hit_bytes",
        "table_misses",
        "retries",
        "timed_ns",
        "timed_until_2000_ns",
        "timed_until_5000_ns",
        "timed_until_10000_ns",
        "timed_until_20000_ns",
        "timed_until_50000_ns",
        "timed_until_100000_ns",
        "timed_until_500000_ns",
        "timed_until_2000000_ns",
        "timed_until_10000000_ns",
        "timed_longer",
    )
    assert counters.TIMED_ONE_IN == 64


def test_attach_json_has_these_keys() -> None:
    attachment = layout.Attachment(
        cache_id="ab" * 16,
        epoch=2,
        segment_bytes=1 << 28,
        path_mapping={"data/": "s3://b/"},
        origins=(layout.OriginRow("s3://", "http://x"),),
    )
    text = attachment.to_json()

    assert json.loads(text) == {
        "format": 1,
        "cache_id": "ab" * 16,
        "epoch": 2,
        "segment_bytes": 1 << 28,
        "path_mapping": {"data/": "s3://b/"},
        "origins": [{"prefix": "s3://", "identity": "http://x"}],
    }
    assert layout.Attachment.from_json(text) == attachment


def test_attach_json_of_another_format_is_refused() -> None:
    with pytest.raises(ValueError, match="use the same version of client and daemon"):
        layout.Attachment.from_json('{"format": 2}')


def test_names_and_fingerprints_in_a_cache_folder() -> None:
    key = layout.fingerprint_key("00" * 16, "http://127.0.0.1:7480")

    assert layout.FORMAT_VERSION == 1
    assert layout.segment_name(12) == "segments/00000012.seg"
    assert layout.blob_name(0xABC) == "blobs/0000000000000abc"
    assert key.hex() == "3f90f40aaa930df59f6b41488948d8e0"
    assert layout.fingerprint(key, "s3://bucket/key").hex() == "cf079f4f0f3f1543db1e527759a0b9de"


ENTRY = rows.Entry(
    fingerprint=bytes(range(16)),
    uri="s3://b/ü",
    version="etag",
    size_bytes=20 << 20,
    modified=1.5,
    generation=9,
    flags=table.BLOB,
    place=0,
    block_shift=23,
    present=0b101,
    charge_bytes=12 << 20,
    validated_at_ns=77,
)


def test_a_catalogue_row_has_these_bytes() -> None:
    row = rows.encode(ENTRY)

    assert row.hex() == (
        "0900000000000000000000000000000000004001000000000000c000000000004d00000000000000"
        "000000000000f83f020000001700000004000900010000006574616773333a2f2f622fc3bc05"
    )
    assert rows.decode(ENTRY.fingerprint, row) == ENTRY


@pytest.mark.parametrize("modified", [None, 0.0, 1_700_000_000.25])
def test_a_row_keeps_an_unknown_time_apart_from_zero(modified: float | None) -> None:
    entry = dataclasses.replace(ENTRY, modified=modified)

    assert rows.decode(entry.fingerprint, rows.encode(entry)) == entry
