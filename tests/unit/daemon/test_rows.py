"""What an entry knows of its blocks."""

from __future__ import annotations

import pytest

from forebay_protos.table import BLOB, PACKED, groups_mask
from forebayd.store.rows import Entry

MIB = 1 << 20


def make_blob(size_bytes: int, present: int = 0, block_shift: int = 23) -> Entry:
    return Entry(
        fingerprint=bytes(16),
        uri="s3://b/k",
        version="v",
        size_bytes=size_bytes,
        modified=None,
        generation=1,
        flags=BLOB,
        place=0,
        block_shift=block_shift,
        present=present,
        charge_bytes=0,
        validated_at_ns=0,
    )


def test_missing_blocks_are_those_the_range_touches() -> None:
    blob = make_blob(40 * MIB, present=0b00010)

    assert blob.missing_blocks(0, 40 * MIB) == [0, 2, 3, 4]
    assert blob.missing_blocks(8 * MIB, 16 * MIB) == []
    assert blob.missing_blocks(8 * MIB - 1, 16 * MIB + 1) == [0, 2]
    assert blob.missing_blocks(5, 5) == []


@pytest.mark.parametrize(
    ("present", "cached"), [(0, 0), (0b001, 8 * MIB), (0b100, 4 * MIB), (0b111, 20 * MIB)]
)
def test_cached_bytes_count_the_short_last_block(present: int, cached: int) -> None:
    assert make_blob(20 * MIB, present).cached_bytes == cached


def test_a_packed_object_is_always_complete() -> None:
    packed = make_blob(5)
    packed = Entry(**{**{f: getattr(packed, f) for f in Entry.__slots__}, "flags": PACKED})

    assert packed.is_complete
    assert packed.missing_blocks(0, 5) == []


@pytest.mark.parametrize("blocks", [1, 2, 63, 64, 65, 128, 1000])
def test_a_record_shows_a_range_as_present_only_if_every_block_is(blocks: int) -> None:
    """For every single missing block, no range that needs it may look present to a client."""
    shift, size = 12, blocks * 4096 - 1
    everything = (1 << blocks) - 1
    for missing in {0, blocks // 2, blocks - 1}:
        place = make_blob(size, everything & ~(1 << missing), shift).record(0, 0).place
        needed = groups_mask(missing << shift, min(size, (missing + 1) << shift), size, shift)
        assert needed & ~place
    whole = make_blob(size, everything, shift).record(0, 0).place
    assert groups_mask(0, size, size, shift) & ~whole == 0
