"""The contract of writing, run by every origin that can be written; and what each has beyond it."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import fsspec
import pytest

from contract.origin_contract import Place, Runner
from contract.s3_contract import S3_KEYS, bucket_place, ceph_config
from contract.writing_contract import (
    PartsContract,
    S3WritingContract,
    Upload,
    WritingContract,
    copy,
    delete,
    write,
)
from forebayd.config import CredentialsConfig, OriginConfig
from forebayd.errors import (
    AccessDeniedError,
    InvalidPathError,
    OriginUnavailableError,
    UploadGoneError,
)
from forebayd.origin.driver import TransientError
from forebayd.origin.fallback import Fallback
from forebayd.origin.observed import Unobserved

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

    from forebayd.origin.base import Origin
    from support.ceph import Bucket, Ceph


def never_put(key: str, data: bytes) -> None:
    raise AssertionError(f"{key}, {len(data)} bytes: these tests write through the origin")


class TestMemory(WritingContract):
    is_atomic = False

    @pytest.fixture
    def place(self) -> Iterator[Place]:
        memory = fsspec.filesystem("memory")
        yield Place(OriginConfig("memory://", driver="fsspec"), "memory://top/", never_put)
        memory.store.clear()
        memory.pseudo_dirs[:] = [""]

    def test_it_takes_no_parts(self, place: Place) -> None:
        requests: list[Callable[[Origin], Awaitable[object]]] = [
            lambda origin: origin.begin_upload(place.root + "k"),
            lambda origin: origin.put_part(place.root + "k", "id", 1, b"1"),
            lambda origin: origin.parts(place.root + "k", "id"),
            lambda origin: origin.complete_upload(place.root + "k", "id", ["1"]),
        ]

        async def can(origin: Origin) -> bool:
            return origin.can_upload_parts

        assert not place.use(can)
        for request in requests:
            with pytest.raises(OriginUnavailableError, match="takes no uploads in parts"):
                place.use(request)


def test_web_pages_cannot_be_written() -> None:
    place = Place(OriginConfig("http://", driver="fsspec"), "http://127.0.0.1:9/", never_put)

    for use in (lambda: write(place, "k", b"1"), lambda: delete(place, "k")):
        with pytest.raises(AccessDeniedError, match="http:// cannot be written"):
            use()
    place.runner.close()


@pytest.mark.parametrize("scheme", ["file", "local"])
def test_local_files_that_nobody_configured_are_not_written(scheme: str, tmp_path: Path) -> None:
    uri = f"{scheme}://{tmp_path}/k"
    runner = Runner()
    requests: list[Callable[[Origin], Awaitable[object]]] = [
        lambda origin: origin.put(uri, b"1"),
        lambda origin: origin.delete(uri),
        lambda origin: origin.begin_upload(uri),
        lambda origin: origin.copy("memory://k", uri),
        lambda origin: origin.copy(uri, "memory://k"),
    ]

    for request in requests:
        with pytest.raises(InvalidPathError, match=r"\[\[origin\]\]"):
            runner.use(Fallback(Unobserved()), request)
    assert list(tmp_path.iterdir()) == []
    runner.close()


class TestFile(PartsContract):
    @pytest.fixture
    def place(self, tmp_path: Path) -> Place:
        return Place(OriginConfig("file://", driver="fsspec"), f"file://{tmp_path}/", never_put)

    @pytest.fixture(autouse=True)
    def _no_leftovers(self, tmp_path: Path, _close: None) -> Iterator[None]:
        yield
        left = {path.name for path in tmp_path.rglob(".forebay-*")}
        assert len([name for name in left if not name.endswith(".parts")]) <= 1

    def test_mode_is_the_umasks(self, place: Place, tmp_path: Path) -> None:
        before = os.umask(0o027)
        try:
            write(place, "k", b"1")
            upload = Upload(place, "parts")
            upload.complete(upload.put(1, b"1"))
        finally:
            os.umask(before)

        modes = [(tmp_path / name).stat().st_mode & 0o777 for name in ("k", "parts")]
        assert modes == [0o640, 0o640]

    def test_failed_write_leaves_nothing(self, place: Place, tmp_path: Path) -> None:
        (tmp_path / "folder").mkdir()
        write(place, "k", b"1")

        with pytest.raises(InvalidPathError, match="folder"):
            write(place, "folder", b"1")
        with pytest.raises(InvalidPathError, match="cannot be a folder"):
            write(place, "k/below", b"1")
        with pytest.raises(InvalidPathError, match="too long"):
            write(place, "k" * 300, b"1")
        with pytest.raises(InvalidPathError, match="'/'"):
            write(place, "k/", b"1")
        with pytest.raises(InvalidPathError, match="own"):
            write(place, ".forebay-k", b"1")

        assert {path.name for path in tmp_path.rglob("*")} == {"folder", "k"}

    def test_folder_is_not_deleted(self, place: Place, tmp_path: Path) -> None:
        (tmp_path / "folder").mkdir()

        delete(place, "folder")

        assert (tmp_path / "folder").is_dir()

    def test_folder_that_may_not_be_written_is_denied(self, place: Place, tmp_path: Path) -> None:
        if os.geteuid() == 0:
            pytest.skip("root may write everywhere")
        (tmp_path / "folder").mkdir(mode=0o555)

        with pytest.raises(AccessDeniedError, match="no right"):
            write(place, "folder/k", b"1")

    def test_aborted_upload_leaves_nothing(self, place: Place, tmp_path: Path) -> None:
        upload = Upload(place)
        upload.put(1, b"1")

        upload.abort()

        assert list(tmp_path.iterdir()) == []

    def test_completed_upload_leaves_one_file(self, place: Place, tmp_path: Path) -> None:
        upload = Upload(place)

        upload.complete(upload.put(1, b"1"))

        assert [path.name for path in tmp_path.iterdir()] == ["k"]

    def test_parts_of_different_sizes_do_not_fit(self, place: Place) -> None:
        upload = Upload(place)
        tags = [upload.put(1, b"12"), upload.put(2, b"1"), upload.put(3, b"1")]

        with pytest.raises(UploadGoneError, match="part 3"):
            upload.complete(*tags)
        with pytest.raises(UploadGoneError, match="differ in size"):
            upload.put(4, b"123")

    def test_half_a_line_in_the_journal_is_no_part(self, place: Place, tmp_path: Path) -> None:
        upload = Upload(place)
        tag = upload.put(1, b"12")
        journal = tmp_path / (upload.id + ".parts")
        journal.write_text(journal.read_text() + "2 2 2 0000")

        assert upload.parts() == {1: (tag, 2)}
        again = upload.put(2, b"34")
        upload.complete(tag, again)

        assert place.get("k") == b"1234"

    def test_upload_of_another_name_is_gone(self, place: Place, tmp_path: Path) -> None:
        (tmp_path / "victim").write_bytes(b"1")
        upload = Upload(place)
        upload.id = "../" + tmp_path.name + "/victim"

        with pytest.raises(UploadGoneError):
            upload.put(1, b"2")
        upload.abort()

        assert (tmp_path / "victim").read_bytes() == b"1"


class TestMotoByObstore(S3WritingContract):
    tells_times = False
    error_of_late_parts = TransientError  # moto answers 500
    # moto finds no key with a line's end.
    keys = tuple(key for key in S3_KEYS if "\n" not in key)

    @pytest.fixture
    def place(self, moto_client: Any, moto_bucket: str, moto_config: OriginConfig) -> Place:
        return bucket_place(moto_client, moto_bucket, moto_config)


class TestMotoByS3fs(TestMotoByObstore):
    @pytest.fixture
    def place(self, moto_client: Any, moto_bucket: str, moto_config: OriginConfig) -> Place:
        return bucket_place(moto_client, moto_bucket, replace(moto_config, driver="s3fs"))


@pytest.mark.s3
class TestCephByObstore(S3WritingContract):
    driver = "obstore"
    keys = tuple(S3_KEYS)

    @pytest.fixture
    def place(self, ceph: Ceph, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Place:
        config = ceph_config(ceph, self.driver, monkeypatch)
        return bucket_place(bucket.client, bucket.name, config)

    @pytest.mark.parametrize("size_bytes", [1, 3 << 20])
    def test_wrong_keys_are_denied(
        self, place: Place, monkeypatch: pytest.MonkeyPatch, size_bytes: int
    ) -> None:
        write(place, "k", b"1")
        monkeypatch.setenv("WRONG_ACCESS", "nobody")
        monkeypatch.setenv("WRONG_SECRET", "wrong")
        credentials = CredentialsConfig(None, "WRONG_ACCESS", "WRONG_SECRET")
        wrong = replace(place, config=replace(place.config, credentials=credentials))

        for use in (
            lambda: write(wrong, "k", bytes(size_bytes)),
            lambda: Upload(wrong),
            lambda: delete(wrong, "k"),
            lambda: copy(wrong, "k", "k2"),
        ):
            with pytest.raises(AccessDeniedError, match="check the credentials"):
                use()
        assert place.get("k") == b"1"

    def test_parts_are_listed_beyond_a_page(self, place: Place) -> None:
        upload = Upload(place)

        async def put_all(origin: Origin) -> list[str]:
            puts = (origin.put_part(upload.uri, upload.id, i, b"1") for i in range(1, 1004))
            return await asyncio.gather(*puts)

        tags = place.use(put_all)

        assert upload.parts() == {number: (tag, 1) for number, tag in enumerate(tags, 1)}

    def test_name_that_is_too_long_is_refused(self, place: Place) -> None:
        with pytest.raises(InvalidPathError, match="InvalidObjectName"):
            write(place, "k" * 1025, b"1")


@pytest.mark.s3
class TestCephByS3fs(TestCephByObstore):
    driver = "s3fs"
