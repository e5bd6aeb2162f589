"""What every origin that can be written must do, beside the contract of reading."""

from __future__ import annotations

import asyncio
import mmap
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from contract.origin_contract import ODD_KEYS, Place, Runner
from forebayd.errors import (
    ObjectNotFoundError,
    UploadGoneError,
    VersionChangedError,
)
from forebayd.origin.base import ABSENT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Buffer

    from forebayd.origin.base import ObjectInfo, Origin

PART_BYTES = 5 << 20  # the least of S3

LARGE = bytes(range(256)) * (PART_BYTES // 128) + b"end"  # two parts and a bit


def write(place: Place, key: str, data: Buffer, expected: str | None = None) -> ObjectInfo:
    return place.use(lambda origin: origin.put(place.root + key, data, expected=expected))


def delete(place: Place, key: str) -> None:
    place.use(lambda origin: origin.delete(place.root + key))


def copy(place: Place, source: str, target: str) -> ObjectInfo:
    return place.use(lambda origin: origin.copy(place.root + source, place.root + target))


def seen(info: ObjectInfo) -> tuple[str, int, str]:
    """Return what a writer is told: the time is not."""
    return info.uri, info.size_bytes, info.version


class WritingContract:
    """Subclass it as ``TestSomething`` with a ``place`` fixture."""

    is_atomic = True  # whether the origin itself compares versions

    @pytest.fixture(autouse=True)
    def _close(self, place: Place) -> Iterator[None]:
        yield
        place.runner.close()

    def test_what_is_written_is_read_and_told(self, place: Place) -> None:
        told = write(place, "folder/new/k", b"12345")

        assert place.get("folder/new/k") == b"12345"
        assert seen(told) == seen(place.head("folder/new/k"))

    def test_overwriting_replaces_the_whole(self, place: Place) -> None:
        first = write(place, "k", b"0123456789")
        second = write(place, "k", b"new")

        assert place.get("k") == b"new"
        assert first.version != second.version

    def test_same_size_at_once_again_has_another_version(self, place: Place) -> None:
        versions = [write(place, "k", bytes([i])).version for i in range(5)]

        assert len(set(versions)) == 5

    def test_empty_object_is_written(self, place: Place) -> None:
        told = write(place, "k", b"")

        assert (told.size_bytes, place.get("k")) == (0, b"")
        assert seen(told) == seen(place.head("k"))

    @pytest.mark.parametrize("size_bytes", [1, 65536, 65537, (3 << 20) + 7])
    def test_view_of_a_mapped_file_is_written(self, place: Place, size_bytes: int) -> None:
        mapped = mmap.mmap(-1, size_bytes + 100)
        mapped[:] = (bytes(range(251)) * (len(mapped) // 251 + 1))[: len(mapped)]
        view = memoryview(mapped)[50 : 50 + size_bytes]

        told = write(place, "k", view)

        assert told.size_bytes == size_bytes
        assert place.get("k", 0, 1 << 30) == view

    def test_odd_keys_are_written_as_they_are(self, place: Place) -> None:
        keys = {f"odd/{key}" for key in ODD_KEYS}
        for key in keys:
            write(place, key, key.encode())

        assert place.names("odd", recursive=True) == keys
        assert {key for key in keys if place.get(key) == key.encode()} == keys

    def test_absent_is_expected_once(self, place: Place) -> None:
        write(place, "k", b"first", ABSENT)

        with pytest.raises(VersionChangedError, match="k"):
            write(place, "k", b"second", ABSENT)
        assert place.get("k") == b"first"
        delete(place, "k")
        write(place, "k", b"third", ABSENT)
        assert place.get("k") == b"third"

    def test_version_that_is_there_is_expected(self, place: Place) -> None:
        first = write(place, "k", b"first")

        second = write(place, "k", b"second", first.version)

        assert place.get("k") == b"second"
        assert write(place, "k", b"third", second.version).version != second.version

    def test_version_that_is_gone_is_refused(self, place: Place) -> None:
        first = write(place, "k", b"first")
        write(place, "k", b"second")

        for data in (b"third", bytes(1 << 20)):
            with pytest.raises(VersionChangedError, match="k"):
                write(place, "k", data, first.version)
        assert place.get("k") == b"second"
        delete(place, "k")
        with pytest.raises(VersionChangedError, match="k"):
            write(place, "k", b"third", first.version)
        with pytest.raises(ObjectNotFoundError):
            place.head("k")

    def test_one_of_many_that_expect_absence_wins(self, place: Place) -> None:
        if not self.is_atomic:
            pytest.skip("the origin compares no versions")

        async def race(origin: Origin) -> list[ObjectInfo | BaseException]:
            puts = (origin.put(place.root + "k", b"%d" % i, expected=ABSENT) for i in range(8))
            return await asyncio.gather(*puts, return_exceptions=True)

        ended = place.use(race)

        (winner,) = (i for i, result in enumerate(ended) if not isinstance(result, Exception))
        assert place.get("k") == b"%d" % winner
        lost = [result for result in ended if isinstance(result, Exception)]
        assert [type(error) for error in lost] == [VersionChangedError] * 7

    def test_deleted_is_gone_and_again_is_no_error(self, place: Place) -> None:
        write(place, "folder/k", b"1")

        delete(place, "folder/k")
        delete(place, "folder/k")
        delete(place, "never/was")

        with pytest.raises(ObjectNotFoundError):
            place.head("folder/k")
        assert place.names("folder") == set()

    def test_copy_is_another_object(self, place: Place) -> None:
        write(place, "a", b"12345")
        write(place, "folder/b", b"replaced")

        told = copy(place, "a", "folder/b")

        assert place.get("folder/b") == b"12345"
        assert seen(told) == seen(place.head("folder/b"))
        delete(place, "a")
        assert place.get("folder/b") == b"12345"

    def test_copy_of_an_empty_object(self, place: Place) -> None:
        write(place, "a", b"")

        assert copy(place, "a", "b").size_bytes == 0
        assert place.get("b") == b""

    def test_copy_onto_itself_changes_nothing(self, place: Place) -> None:
        write(place, "a", b"12345")

        copy(place, "a", "a")

        assert place.get("a") == b"12345"

    def test_copy_of_nothing_is_not_found(self, place: Place) -> None:
        with pytest.raises(ObjectNotFoundError, match="missing"):
            copy(place, "missing", "b")
        with pytest.raises(ObjectNotFoundError):
            place.head("b")

    def test_odd_keys_are_copied_as_they_are(self, place: Place) -> None:
        for key in ODD_KEYS:
            write(place, f"from/{key}", key.encode())
            copy(place, f"from/{key}", f"to/{key}")

        assert place.names("to", recursive=True) == {f"to/{key}" for key in ODD_KEYS}
        assert [place.get(f"to/{key}") for key in ODD_KEYS] == [key.encode() for key in ODD_KEYS]


class Upload:
    """An upload of "k" in parts."""

    def __init__(self, place: Place, key: str = "k") -> None:
        self.place = place
        self.uri = place.root + key
        self.id = place.use(lambda origin: origin.begin_upload(self.uri))

    def put(self, number: int, data: Buffer) -> str:
        return self.place.use(lambda origin: origin.put_part(self.uri, self.id, number, data))

    def parts(self) -> dict[int, tuple[str, int]]:
        return self.place.use(lambda origin: origin.parts(self.uri, self.id))

    def complete(self, *tags: str) -> ObjectInfo:
        return self.place.use(lambda origin: origin.complete_upload(self.uri, self.id, tags))

    def abort(self) -> None:
        self.place.use(lambda origin: origin.abort_upload(self.uri, self.id))


def part(number: int, size_bytes: int = PART_BYTES) -> bytes:
    return bytes([number]) * size_bytes


class PartsContract(WritingContract):
    """For origins with ``can_upload_parts``."""

    error_of_late_parts: type[Exception] = UploadGoneError
    tells_times = True  # moto: of 2010

    def test_it_says_that_it_can(self, place: Place) -> None:
        async def can(origin: Origin) -> bool:
            return origin.can_upload_parts

        assert place.use(can)

    @pytest.mark.parametrize("order", [(1, 2, 3), (3, 1, 2), (2, 3, 1), (3, 2, 1)])
    def test_parts_in_any_order_become_the_object(
        self, place: Place, order: tuple[int, ...]
    ) -> None:
        sent = {1: part(1), 2: part(2), 3: b"end"}
        upload = Upload(place, "folder/new/k")

        tags = {number: upload.put(number, sent[number]) for number in order}

        assert upload.parts() == {number: (tags[number], len(sent[number])) for number in sent}
        told = upload.complete(tags[1], tags[2], tags[3])
        assert seen(told) == seen(place.head("folder/new/k"))
        assert place.get("folder/new/k", 0, 1 << 30) == b"".join(sent.values())

    def test_parts_at_once_become_the_object(self, place: Place) -> None:
        upload = Upload(place)
        sent = [part(i) for i in range(5)] + [b"end"]

        async def put_all(origin: Origin) -> list[str]:
            puts = (
                origin.put_part(upload.uri, upload.id, number, data)
                for number, data in enumerate(sent, 1)
            )
            return await asyncio.gather(*puts)

        upload.complete(*place.use(put_all))

        assert place.get("k", 0, 1 << 30) == b"".join(sent)

    def test_repeated_part_replaces_the_first(self, place: Place) -> None:
        upload = Upload(place)
        upload.put(2, b"first")
        upload.put(1, part(1))
        first = upload.put(1, part(9))
        again = upload.put(1, part(9))
        second = upload.put(2, b"2nd")

        assert first == again
        assert upload.parts() == {1: (first, PART_BYTES), 2: (second, 3)}
        upload.complete(first, second)

        assert place.get("k", 0, 1 << 30) == part(9) + b"2nd"

    def test_single_small_part_will_do(self, place: Place) -> None:
        upload = Upload(place)

        told = upload.complete(upload.put(1, b"1"))

        assert seen(told) == seen(place.head("k"))
        assert place.get("k") == b"1"

    def test_nothing_is_seen_before_the_end(self, place: Place) -> None:
        write(place, "k", b"old")
        upload = Upload(place)
        tag = upload.put(1, b"new")

        assert place.get("k") == b"old"
        assert place.names("") == {"k"}
        upload.complete(tag)
        assert place.get("k") == b"new"

    def test_uploads_that_nobody_knows_can_be_found(self, place: Place) -> None:
        def unfinished(key: str) -> dict[str, float]:
            return dict(place.use(lambda origin: origin.uploads(place.root + key)))

        before = time.time()
        one, other = Upload(place, "folder/k"), Upload(place, "folder/k")
        finished = Upload(place, "folder/k")
        finished.complete(finished.put(1, b"whole"))

        found = unfinished("folder/k")
        assert set(found) == {one.id, other.id}
        if self.tells_times:
            assert all(before - 1.5 < began < time.time() + 1.5 for began in found.values())
        assert unfinished("elsewhere/k") == {}
        one.abort()
        assert set(unfinished("folder/k")) == {other.id}

    def test_another_process_goes_on(self, place: Place) -> None:
        upload = Upload(place)
        first = upload.put(2, b"end")
        upload.place = replace(place, runner=Runner())

        assert upload.parts() == {2: (first, 3)}
        second = upload.put(1, part(1))
        upload.complete(second, first)

        assert place.get("k", 0, 1 << 30) == part(1) + b"end"
        upload.place.runner.close()

    def test_other_tags_than_are_there_are_refused(self, place: Place) -> None:
        upload = Upload(place)
        old = upload.put(1, b"old")
        upload.put(1, b"new")

        with pytest.raises(UploadGoneError, match="k"):
            upload.complete(old)
        with pytest.raises(ObjectNotFoundError):
            place.head("k")

    def test_missing_part_is_refused(self, place: Place) -> None:
        upload = Upload(place)
        tag = upload.put(2, b"2")

        with pytest.raises(UploadGoneError, match="k"):
            upload.complete(tag, tag)

    def test_aborted_is_gone_and_again_is_no_error(self, place: Place) -> None:
        upload = Upload(place)
        tag = upload.put(1, b"1")

        upload.abort()
        upload.abort()

        with pytest.raises(UploadGoneError, match="k"):
            upload.parts()
        with pytest.raises(UploadGoneError, match="k"):
            upload.complete(tag)
        with pytest.raises(self.error_of_late_parts):
            upload.put(1, b"1")
        with pytest.raises(ObjectNotFoundError):
            place.head("k")

    def test_completed_is_gone(self, place: Place) -> None:
        upload = Upload(place)
        tag = upload.put(1, b"1")
        upload.complete(tag)

        with pytest.raises(UploadGoneError, match="k"):
            upload.complete(tag)
        with pytest.raises(self.error_of_late_parts):
            upload.put(1, b"2")
        upload.abort()

        assert place.get("k") == b"1"


class S3WritingContract(PartsContract):
    """Subclass it with a ``place`` fixture whose root is the top of a fresh bucket."""

    keys: tuple[str, ...]

    def test_every_key_is_written_as_it_is(self, place: Place) -> None:
        told = {key: write(place, key, key.encode()) for key in self.keys}

        listed, _ = place.list("", recursive=True)
        assert sorted(map(seen, listed)) == sorted(map(seen, told.values()))
        for key in self.keys:
            assert place.get(key) == key.encode()
            delete(place, key)
        assert place.names("", recursive=True) == set()

    def test_every_key_is_copied_as_it_is(self, place: Place) -> None:
        keys = [key for key in self.keys if len(key.encode()) < 1000]
        for key in keys:
            write(place, key, key.encode())
            copy(place, key, "to/" + key)

        assert {key: place.get("to/" + key) for key in keys} == {key: key.encode() for key in keys}

    def test_every_key_can_be_uploaded_in_parts(self, place: Place) -> None:
        # Ceph 16 answers 500 to the completion of the longest.
        keys = [key for key in self.keys if len(key.encode()) < 900]
        for key in keys:
            upload = Upload(place, key)
            upload.complete(upload.put(1, key.encode()))

        assert {key: place.get(key) for key in keys} == {key: key.encode() for key in keys}

    @pytest.mark.parametrize("key", ["large ä/k", "100%", "a+b", "a%20b"])
    def test_large_objects_are_copied_in_parts(
        self, place: Place, monkeypatch: pytest.MonkeyPatch, key: str
    ) -> None:
        write(place, "a b", LARGE[::-1])  # what the others' names are once decoded
        monkeypatch.setattr("forebayd.origin.s3_writes._LARGEST_COPY_BYTES", PART_BYTES)
        monkeypatch.setattr("forebayd.origin.s3_writes._COPY_PART_BYTES", PART_BYTES)
        write(place, key, LARGE)

        told = copy(place, key, "b")

        assert place.get("b", 0, 1 << 30) == LARGE
        assert seen(told) == seen(place.head("b"))
        assert told.version.endswith("-3")

    def test_missing_bucket_is_not_found(self, place: Place) -> None:
        write(place, "k", b"1")
        uri = f"{place.config.prefix}no-such-bucket-here/k"

        for request in (
            lambda origin: origin.put(uri, b"1"),
            lambda origin: origin.put(uri, b"1", expected=ABSENT),
            lambda origin: origin.put(uri, b"1", expected="0" * 32),
            lambda origin: origin.begin_upload(uri),
            lambda origin: origin.delete(uri),
            lambda origin: origin.copy(place.root + "k", uri),
        ):
            with pytest.raises(ObjectNotFoundError, match="no such bucket"):
                place.use(request)
