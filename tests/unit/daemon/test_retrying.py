"""When a request is tried again, how long it waits, when it gives up. Time is the test's."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from forebayd.errors import (
    AccessDeniedError,
    DaemonError,
    InvalidPathError,
    ObjectNotFoundError,
    OriginUnavailableError,
    UploadGoneError,
    VersionChangedError,
)
from forebayd.origin.base import Body, ObjectInfo, Page
from forebayd.origin.driver import NotTakenError, TransientError, failure_of_status
from forebayd.origin.limited import Limited
from forebayd.origin.observed import Unobserved
from forebayd.origin.retrying import Retrying
from forebayd.origin.writes import WritesAround

if TYPE_CHECKING:
    from forebayd.origin.base import Origin

INFO = ObjectInfo("s3://b/k", 3, "v", None)


@dataclass
class Scripted(WritesAround):
    """A driver that fails as told, then answers."""

    can_upload_parts = True

    failures: list[Exception]
    calls: int = 0
    running: int = 0
    most: int = 0
    released: asyncio.Event | None = None

    async def _answer(self) -> None:
        self.calls += 1
        self.running += 1
        self.most = max(self.most, self.running)
        if self.released is not None:
            await self.released.wait()
        self.running -= 1
        if self.failures:
            raise self.failures.pop(0)

    async def head(self, uri: str) -> ObjectInfo:
        await self._answer()
        return INFO

    async def get_range(
        self, uri: str, start: int, end: int, *, version: str | None = None
    ) -> Body:
        await self._answer()
        return Body(INFO, b"123")

    async def page(
        self, prefix: str, *, recursive: bool, token: object | None
    ) -> tuple[Page, object | None]:
        await self._answer()
        return Page((INFO,), ()), "more" if token is None else None

    async def close(self) -> None:
        pass


@dataclass
class Clock:
    """Time that passes only by sleeping."""

    now: float = 0.0
    slept: list[float] = field(default_factory=list)

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def retrying(
    driver: Scripted, clock: Clock, *, attempts: int = 8, deadline_s: float = 100.0
) -> Retrying:
    return Retrying(
        driver,
        Unobserved(),
        prefix="s3://",
        endpoint="http://ceph",
        attempts=attempts,
        deadline_s=deadline_s,
        sleep=clock.sleep,
        jitter=lambda: 1.0,
        clock=clock,
    )


def test_pauses_double_up_to_a_limit() -> None:
    clock = Clock()
    driver = Scripted([TransientError("503")] * 7)

    assert asyncio.run(retrying(driver, clock).head("s3://b/k")) is INFO

    assert clock.slept == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0])


def test_gives_up_after_the_last_attempt() -> None:
    driver = Scripted([TransientError("503 SlowDown")] * 9)

    with pytest.raises(OriginUnavailableError) as caught:
        asyncio.run(retrying(driver, Clock(), attempts=3).get_range("s3://b/k", 0, 9))

    assert not isinstance(caught.value, TransientError)
    assert str(caught.value) == (
        "s3://b/k: no right answer from http://ceph in 3 attempt(s), 0.3 s; the last: 503 SlowDown"
    )
    assert driver.calls == 3


def test_gives_up_before_a_pause_that_passes_the_deadline() -> None:
    clock = Clock()
    driver = Scripted([TransientError("503")] * 99)

    with pytest.raises(OriginUnavailableError, match=r"in 4 attempt\(s\)"):
        asyncio.run(retrying(driver, clock, deadline_s=1.0).head("s3://b/k"))

    assert clock.now < 1.0


@pytest.mark.parametrize(
    "error",
    [
        AccessDeniedError("no"),
        ObjectNotFoundError("none"),
        VersionChangedError("other"),
        OriginUnavailableError("for good"),
    ],
)
def test_lasting_answers_are_not_tried_again(error: DaemonError) -> None:
    driver = Scripted([error])

    with pytest.raises(type(error)) as caught:
        asyncio.run(retrying(driver, Clock()).head("s3://b/k"))

    assert caught.value is error
    assert driver.calls == 1


def test_a_request_without_an_answer_is_cancelled_at_the_deadline() -> None:
    async def run() -> None:
        driver = Scripted([], released=asyncio.Event())
        await retrying(driver, Clock(), attempts=1, deadline_s=0.001).head("s3://b/k")

    with pytest.raises(OriginUnavailableError, match="the last: no answer in time"):
        asyncio.run(run())


def test_a_listing_is_tried_again_page_by_page() -> None:
    driver = Scripted([TransientError("1"), TransientError("2")])

    async def read(origin: Origin) -> int:
        return len([page async for page in origin.list("s3://b", recursive=True)])

    origin = Limited(retrying(driver, Clock()), max_requests=1)
    assert asyncio.run(read(origin)) == 2
    assert driver.calls == 4


def test_no_more_requests_at_once_than_allowed() -> None:
    async def run() -> Scripted:
        driver = Scripted([], released=asyncio.Event())
        origin = Limited(driver, max_requests=3)
        tasks = [asyncio.ensure_future(origin.head("s3://b/k")) for _ in range(10)]
        for _ in range(20):  # more turns than any of them needs to begin
            await asyncio.sleep(0)
        assert driver.released is not None
        driver.released.set()
        await asyncio.gather(*tasks)
        return driver

    driver = asyncio.run(run())

    assert (driver.calls, driver.most) == (10, 3)


@pytest.mark.parametrize(
    ("status", "detail", "kind"),
    [
        (400, "AuthorizationHeaderMalformed", OriginUnavailableError),
        (400, "RequestTimeout", TransientError),
        (400, "KeyTooLongError", InvalidPathError),
        (401, "", AccessDeniedError),
        (403, "SignatureDoesNotMatch", AccessDeniedError),
        (404, "NoSuchBucket", ObjectNotFoundError),
        (404, "NoSuchUpload", UploadGoneError),
        (408, "", TransientError),
        (409, "OperationAborted", TransientError),
        (409, "BucketNotEmpty", OriginUnavailableError),
        (412, "", VersionChangedError),
        (429, "", NotTakenError),
        (500, "", TransientError),
        (501, "NotImplemented", OriginUnavailableError),
        (503, "SlowDown", NotTakenError),
        (504, "", TransientError),
    ],
)
def test_statuses_mean_what_can_be_done(status: int, detail: str, kind: type[DaemonError]) -> None:
    error = failure_of_status("s3://b/k", status, detail)

    assert type(error) is kind
    assert detail in str(error) or kind in (
        ObjectNotFoundError,
        UploadGoneError,
        VersionChangedError,
    )
