"""Writes at an S3 origin that misbehaves: nothing is sent twice, and the error says what is."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest

from contract.s3_contract import bucket_place
from contract.writing_contract import Upload, copy, delete, write
from forebayd.errors import AccessDeniedError, OriginUnavailableError, VersionChangedError
from forebayd.origin.build import build
from forebayd.origin.driver import TransientError
from support.proxy import FaultProxy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from contract.origin_contract import Place
    from forebayd.config import OriginConfig
    from forebayd.origin.base import Body, ObjectInfo, Origin

LARGE = bytes(3 << 20)


@dataclass(frozen=True)
class Scene:
    """A bucket behind a proxy."""

    place: Place
    proxy: FaultProxy

    @property
    def hasty(self) -> Place:
        """The same where three seconds of silence are too long: enough for a body to arrive."""
        return replace(self.place, config=replace(self.place.config, request_timeout_s=3))


@pytest.fixture(params=["obstore", "s3fs"])
def scene(
    request: pytest.FixtureRequest, moto_client: Any, moto_bucket: str, moto_config: OriginConfig
) -> Iterator[Scene]:
    assert moto_config.endpoint_url is not None
    with FaultProxy(moto_config.endpoint_url) as proxy:
        config = replace(
            moto_config,
            driver=request.param,
            endpoint_url=proxy.url,
            max_attempts=4,
        )
        place = bucket_place(moto_client, moto_bucket, config)
        yield Scene(place, proxy)
        place.runner.close()


TROUBLE = [
    pytest.param(lambda proxy: proxy.fail("k", method="PUT", status=500), id="500"),
    pytest.param(lambda proxy: proxy.fail("k", method="PUT", status=502), id="502"),
    pytest.param(lambda proxy: proxy.fail("k", method="PUT", status=503), id="slow-down"),
    pytest.param(
        lambda proxy: proxy.fail("k", method="PUT", status=400, code="RequestTimeout"),
        id="request-timeout",
    ),
    pytest.param(
        lambda proxy: proxy.fail("k", method="PUT", status=409, code="ConditionalRequestConflict"),
        id="conflict",
    ),
    pytest.param(lambda proxy: proxy.reset("k", method="PUT"), id="reset"),
    pytest.param(lambda proxy: proxy.gate("k", method="PUT", times=1), id="no-answer"),
]


@pytest.mark.parametrize("break_it", TROUBLE)
@pytest.mark.parametrize("data", [b"1", LARGE], ids=["small", "large"])
def test_passing_trouble_is_told_and_nothing_is_sent_twice(
    scene: Scene, break_it: Callable[[FaultProxy], object], data: bytes
) -> None:
    break_it(scene.proxy)

    with pytest.raises(TransientError):
        write(scene.hasty, "k", data)
    assert scene.proxy.count("PUT", "k") == 1


@pytest.mark.parametrize("break_it", TROUBLE)
def test_parts_are_not_sent_twice(scene: Scene, break_it: Callable[[FaultProxy], object]) -> None:
    upload = Upload(scene.place)
    break_it(scene.proxy)
    upload.place = scene.hasty

    with pytest.raises(TransientError):
        upload.put(1, b"12")
    assert scene.proxy.count("PUT", "k") == 1
    scene.proxy.clear()
    upload.place = scene.place
    # Whoever has the bytes sends them again.
    upload.complete(upload.put(1, b"12"))
    assert scene.place.get("k") == b"12"


def test_beginning_completing_and_copying_are_not_tried_again(scene: Scene) -> None:
    write(scene.place, "source", b"1")
    scene.proxy.fail("k", method="POST", status=500)
    with pytest.raises(TransientError):
        Upload(scene.place)
    upload = Upload(scene.place)
    tag = upload.put(1, b"1")
    scene.proxy.fail("k", method="POST", status=500)
    with pytest.raises(TransientError):
        upload.complete(tag)
    scene.proxy.forget()
    scene.proxy.fail("target", method="PUT", status=500)

    with pytest.raises(TransientError):
        copy(scene.place, "source", "target")
    assert scene.proxy.count("PUT") == 1


def test_what_may_be_done_twice_is_tried_again(scene: Scene) -> None:
    upload = Upload(scene.place)
    tag = upload.put(1, b"1")
    scene.proxy.fail("k", method="GET", status=503, times=2)
    assert upload.parts() == {1: (tag, 1)}

    scene.proxy.fail("k", method="DELETE", status=503, times=2)
    upload.abort()

    assert scene.proxy.count("GET", "k") == 3
    assert scene.proxy.count("DELETE", "k") == 3


def test_delete_without_an_answer_is_told(scene: Scene) -> None:
    """It may come after what is written next, and whoever writes that has to know."""
    scene.proxy.fail("k", method="DELETE", status=500, times=1)

    with pytest.raises(TransientError):
        delete(scene.place, "k")

    assert scene.proxy.count("DELETE", "k") == 1


def test_lasting_trouble_of_what_is_tried_again_names_its_cause(scene: Scene) -> None:
    upload = Upload(scene.place)
    scene.proxy.fail("k", method="DELETE", status=503, times=None)

    with pytest.raises(OriginUnavailableError, match="4 attempt") as caught:
        upload.abort()
    assert isinstance(caught.value.__cause__, TransientError)


@pytest.mark.parametrize(
    ("status", "code", "error", "text"),
    [
        (403, "AccessDenied", AccessDeniedError, "check the credentials"),
        (403, "QuotaExceeded", AccessDeniedError, "QuotaExceeded.*quota is used up"),
        (403, "RequestTimeTooSkewed", AccessDeniedError, "RequestTimeTooSkewed.*clock"),
        (412, "PreconditionFailed", VersionChangedError, "has changed"),
    ],
)
@pytest.mark.parametrize("data", [b"1", LARGE], ids=["small", "large"])
def test_what_the_origin_means_says_what_to_do(
    scene: Scene, status: int, code: str, error: type[Exception], text: str, data: bytes
) -> None:
    scene.proxy.fail("k", method="PUT", status=status, code=code)

    with pytest.raises(error, match=text):
        write(scene.place, "k", data)
    assert scene.proxy.count("PUT", "k") == 1


def test_conflict_that_stays_is_not_called_passing(scene: Scene) -> None:
    scene.proxy.fail("k", method="PUT", status=409, code="BucketNotEmpty")

    with pytest.raises(OriginUnavailableError, match="409 BucketNotEmpty") as caught:
        write(scene.place, "k", b"1")
    assert not isinstance(caught.value, TransientError)


def test_write_longer_than_its_deadline_ends(scene: Scene) -> None:
    scene.proxy.gate("k", method="PUT", times=1)
    config = replace(scene.place.config, deadline_s=0.3, request_timeout_s=30)

    with pytest.raises(TransientError, match=r"no answer from .* in 0\.3 s"):
        write(replace(scene.place, config=config), "k", b"1")


def test_bodies_are_signed_by_their_sha256(scene: Scene) -> None:
    for key, data in (("empty", b""), ("small", b"1"), ("large", LARGE)):
        write(scene.place, key, data)

    signed = [
        request.headers["x-amz-content-sha256"]
        for request in scene.proxy.requests
        if request.method == "PUT"
    ]
    assert signed == [
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b",
        "bbd05cf6097ac9b1f89ea29d2542c1b7b67ee46848393895f5a9e43fa1f621e5",
    ]


def test_slow_writes_keep_no_reader_waiting(scene: Scene) -> None:
    narrow = replace(scene.place, config=replace(scene.place.config, max_requests=1))
    write(narrow, "k", b"1")
    gate = scene.proxy.gate("slow", method="PUT")

    async def both(origin: Origin) -> Body:
        slow = asyncio.create_task(origin.put(narrow.root + "slow", LARGE))
        await asyncio.to_thread(gate.wait_for, 1)
        body = await origin.get_range(narrow.root + "k", 0, 10)
        assert not slow.done()
        gate.release()
        await slow
        return body

    assert bytes(narrow.use(both).data) == b"1"


@dataclass
class Notes:
    """An observer that writes down what it is told."""

    ended: list[tuple[str, int, str | None]] = field(default_factory=list)

    def request_ended(
        self,
        origin_prefix: str,
        operation: str,
        seconds: float,
        size_bytes: int,
        error_kind: str | None,
    ) -> None:
        self.ended.append((operation, size_bytes, error_kind))

    def request_retried(self, origin_prefix: str, operation: str) -> None:
        raise AssertionError(f"{operation} was tried again")


def test_writes_are_observed_with_what_was_sent(scene: Scene) -> None:
    notes = Notes()
    uri = f"{scene.place.root}k"

    async def work(_: Origin) -> ObjectInfo:
        origin = build(scene.place.config, notes)
        try:
            await origin.put(uri, b"12345")
            upload = await origin.begin_upload(uri)
            tag = await origin.put_part(uri, upload, 1, b"123")
            await origin.complete_upload(uri, upload, [tag])
            copied = await origin.copy(uri, uri + "2")
            await origin.delete(uri)
            return copied
        finally:
            await origin.close()

    scene.place.use(work)

    assert [note for note in notes.ended if note[0] != "head"] == [
        ("put", 5, None),
        ("begin", 0, None),
        ("put_part", 3, None),
        ("complete", 0, None),
        ("copy", 0, None),
        ("delete", 0, None),
    ]
