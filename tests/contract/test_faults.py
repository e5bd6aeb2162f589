"""An S3 origin that misbehaves: what is tried again, what is raised, and what the error says."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest

from contract.origin_contract import Place, Runner
from contract.s3_contract import bucket_place
from forebayd.errors import (
    AccessDeniedError,
    ObjectNotFoundError,
    OriginUnavailableError,
    VersionChangedError,
)
from forebayd.origin.build import build
from support.ports import closed_port
from support.proxy import FaultProxy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from forebayd.config import OriginConfig
    from forebayd.origin.base import Body

DATA = bytes(range(256)) * 400


@dataclass(frozen=True)
class Scene:
    """An object behind a proxy; 4 attempts."""

    place: Place
    proxy: FaultProxy

    def hasty(self, **words: Any) -> Scene:
        """Return the same where half a second of silence is too long."""
        config = replace(self.place.config, request_timeout_s=0.5, **words)
        return replace(self, place=replace(self.place, config=config))

    def get(self, version: str | None = None) -> bytes:
        return self.place.get("k", 0, len(DATA), version)


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
        place.put("k", DATA)
        yield Scene(place, proxy)
        place.runner.close()


@pytest.mark.parametrize(
    "break_it",
    [
        pytest.param(lambda proxy: proxy.fail("k", status=500, times=2), id="500"),
        pytest.param(lambda proxy: proxy.fail("k", status=502, times=2), id="502"),
        pytest.param(lambda proxy: proxy.fail("k", status=503, times=2), id="slow-down"),
        pytest.param(lambda proxy: proxy.reset("k", times=2), id="reset"),
        pytest.param(lambda proxy: proxy.reset_mid_body("k", times=2), id="reset-mid-body"),
        pytest.param(lambda proxy: proxy.short_body("k", times=2), id="short-body"),
    ],
)
def test_passing_trouble_is_tried_again(
    scene: Scene, break_it: Callable[[FaultProxy], object]
) -> None:
    break_it(scene.proxy)

    assert scene.get() == DATA
    assert scene.proxy.gets("k") == 3


@pytest.mark.parametrize("hold", [FaultProxy.stall_body, FaultProxy.gate])
def test_passing_silence_is_tried_again(scene: Scene, hold: Callable[..., object]) -> None:
    hold(scene.proxy, "k", times=2)

    # A machine that is busy is silent, too.
    assert scene.hasty(max_attempts=10).get() == DATA
    assert scene.proxy.gets("k") >= 3


@pytest.mark.parametrize(
    ("status", "error"),
    [(403, AccessDeniedError), (404, ObjectNotFoundError), (412, VersionChangedError)],
)
def test_what_the_origin_means_is_not_tried_again(
    scene: Scene, status: int, error: type[Exception]
) -> None:
    scene.proxy.fail("k", status=status, times=None)

    with pytest.raises(error, match="k"):
        scene.get()
    assert scene.proxy.gets("k") == 1


def test_lasting_trouble_names_uri_endpoint_attempts_and_cause(scene: Scene) -> None:
    scene.proxy.fail("k", status=503, times=None)

    with pytest.raises(OriginUnavailableError) as caught:
        scene.get()

    text = str(caught.value)
    assert f"{scene.place.root}k: " in text
    assert scene.proxy.url in text
    assert "4 attempt" in text
    assert "503 SlowDown" in text
    assert scene.proxy.gets("k") == 4


def test_trouble_longer_than_the_deadline_ends(scene: Scene) -> None:
    scene.proxy.gate("k")

    with pytest.raises(OriginUnavailableError, match=r"attempt\(s\), \d+\.\d s"):
        scene.hasty(deadline_s=0.7).get()


def test_other_etag_than_asked_for_is_a_changed_version(scene: Scene) -> None:
    version = scene.place.head("k").version
    scene.proxy.change_etag("k", etag="other")

    with pytest.raises(VersionChangedError, match="other"):
        scene.get(version)


def test_overwritten_between_two_ranges_is_a_changed_version(scene: Scene) -> None:
    version = scene.place.head("k").version
    assert scene.place.get("k", 0, 100, version) == DATA[:100]
    scene.place.put("k", DATA[::-1])

    with pytest.raises(VersionChangedError):
        scene.place.get("k", 100, 200, version)


def test_listing_goes_on_after_trouble(scene: Scene) -> None:
    scene.place.put("folder/a", b"1")
    scene.proxy.fail(lambda request: "list-type" in request.query, status=503, times=2)

    assert scene.place.names("folder") == {"folder/a"}


def test_listing_that_is_no_listing_is_an_error(scene: Scene) -> None:
    def is_listing(request: object) -> bool:
        return "list-type" in getattr(request, "query", "")

    scene.proxy.short_body(is_listing, after_bytes=60, times=None)

    with pytest.raises(OriginUnavailableError):
        scene.place.names("")


@pytest.mark.parametrize("driver", ["obstore", "s3fs"])
def test_endpoint_where_nobody_listens_is_unavailable(
    moto_config: OriginConfig, driver: Any
) -> None:
    runner = Runner()

    with closed_port() as port:
        url = f"http://127.0.0.1:{port}"
        config = replace(moto_config, driver=driver, endpoint_url=url, max_attempts=2)
        with pytest.raises(OriginUnavailableError, match="2 attempt") as caught:
            runner.run(config, lambda origin: origin.get_range("s3://bucket/k", 0, 1))
    assert url in str(caught.value)
    runner.close()


@dataclass
class Notes:
    """An observer that writes down what it is told."""

    ended: list[tuple[str, str, int, str | None]] = field(default_factory=list)
    retried: list[tuple[str, str]] = field(default_factory=list)

    def request_ended(
        self,
        origin_prefix: str,
        operation: str,
        seconds: float,
        size_bytes: int,
        error_kind: str | None,
    ) -> None:
        assert seconds >= 0
        self.ended.append((origin_prefix, operation, size_bytes, error_kind))

    def request_retried(self, origin_prefix: str, operation: str) -> None:
        self.retried.append((origin_prefix, operation))


def test_every_request_is_observed(scene: Scene) -> None:
    notes = Notes()
    scene.proxy.fail("k", status=503)

    async def get() -> Body:
        origin = build(scene.place.config, notes)
        try:
            return await origin.get_range(f"{scene.place.root}k", 0, 100)
        finally:
            await origin.close()

    # An origin of its own, in the loop of the others.
    scene.place.runner.run(scene.place.config, lambda _: get())

    assert notes.ended == [
        ("s3://", "get", 0, "ORIGIN_UNAVAILABLE"),
        ("s3://", "get", 100, None),
    ]
    assert notes.retried == [("s3://", "get")]
