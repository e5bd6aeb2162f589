"""The origin misbehaves, and a client behind a real daemon sees the right bytes or the right error.

Every test ends with a cache that is clean, holds no reservation, and gives the right bytes.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

import forebay
from support.ports import closed_port
from support.proxy import FaultProxy, Request
from support.serving import serving
from support.spooled import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.ceph import Bucket, Ceph

BLOCK = 64 << 10
PACKED = random.Random(1).randbytes(10_000)
BLOB = random.Random(2).randbytes(4 * BLOCK + 1000)
OTHER_BLOB = random.Random(3).randbytes(len(BLOB))
ATTEMPTS = 3
SETTINGS: dict[str, Any] = {
    "block_bytes": BLOCK,
    "packing_limit_bytes": BLOCK // 4,
    "max_attempts": ATTEMPTS,
    "freshness": "immutable",  # so that nothing but the tests asks the origin
}
# Where silence is the trouble. A busy machine is silent, too: one attempt more is for that.
HASTY: dict[str, Any] = {**SETTINGS, "request_timeout_s": 1, "max_attempts": ATTEMPTS + 1}

_keys = itertools.count()


@dataclass(frozen=True)
class Scene:
    """A client of a daemon whose way to Ceph leads through the proxy."""

    client: forebay.Client
    proxy: FaultProxy
    bucket: Bucket

    def put(self, data: bytes) -> str:
        """Store an object under a new key and return the key."""
        key = f"o-{next(_keys)}"
        self.bucket.put(key, data)
        return key

    def get(self, key: str) -> bytes:
        return self.client.get(self.bucket.url(key))

    def list(self) -> list[forebay.Stat | str]:
        return [*self.client.list(self.bucket.url())]


@dataclass(frozen=True)
class Node:
    client: forebay.Client
    proxy: FaultProxy


@contextlib.contextmanager
def running(ceph: Ceph, driver: str, settings: dict[str, Any]) -> Iterator[Node]:
    with (
        FaultProxy(ceph.endpoint_url) as proxy,
        serving(endpoint_url=proxy.url, env=ceph.env(), driver=driver, **settings) as daemon,
        forebay.Client(daemon.address) as client,
    ):
        yield Node(client, proxy)


@pytest.fixture(scope="module", params=["obstore", "s3fs"])
def node(request: pytest.FixtureRequest, ceph: Ceph) -> Iterator[Node]:
    """One daemon for all tests of a driver."""
    with running(ceph, request.param, SETTINGS) as made:
        yield made


@pytest.fixture(scope="module", params=["obstore", "s3fs"])
def hasty_node(request: pytest.FixtureRequest, ceph: Ceph) -> Iterator[Node]:
    """One that takes a second of silence for a failure."""
    with running(ceph, request.param, HASTY) as made:
        yield made


@pytest.fixture
def scene(node: Node, bucket: Bucket) -> Iterator[Scene]:
    yield from clean(node, bucket)


@pytest.fixture
def hasty(hasty_node: Node, bucket: Bucket) -> Iterator[Scene]:
    yield from clean(hasty_node, bucket)


def clean(node: Node, bucket: Bucket) -> Iterator[Scene]:
    """Give a scene, and look at what is left of it."""
    node.proxy.forget()
    yield Scene(node.client, node.proxy, bucket)
    node.proxy.clear()
    # A block of a version that was replaced may still be asked for when its reader has moved on.
    wait_until(lambda: node.client.stats().raw["fills_in_flight"] == 0, "the end of all fills")
    assert node.client.stats().raw["reserved_bytes"] == 0
    assert node.client.check().problems == ()


def block_of(key: str, number: int) -> Callable[[Request], bool]:
    """Match the GET of one block."""
    return lambda request: (
        request.names(key) and (request.range or "").startswith(f"bytes={number * BLOCK}-")
    )


PASSING = [
    pytest.param(lambda proxy, match: proxy.fail(match, status=500, times=2), id="500"),
    pytest.param(lambda proxy, match: proxy.fail(match, status=503, times=2), id="slow-down"),
    pytest.param(lambda proxy, match: proxy.reset(match, times=2), id="reset"),
    pytest.param(lambda proxy, match: proxy.reset_mid_body(match, times=2), id="reset-mid-body"),
    pytest.param(lambda proxy, match: proxy.short_body(match, times=2), id="short-body"),
]


@pytest.mark.parametrize("break_it", PASSING)
def test_passing_trouble_is_retried_unseen(
    scene: Scene, break_it: Callable[[FaultProxy, object], object]
) -> None:
    small, large = scene.put(PACKED), scene.put(BLOB)
    break_it(scene.proxy, small)
    break_it(scene.proxy, block_of(large, 2))

    assert scene.get(small) == PACKED
    assert scene.get(large) == BLOB

    assert scene.proxy.gets(small) == 3
    assert scene.proxy.gets(large) == 5 + 2
    scene.proxy.clear()
    assert [scene.get(small), scene.get(large)] == [PACKED, BLOB]
    assert scene.proxy.gets(small) == 3


@pytest.mark.parametrize("hold", [FaultProxy.stall_body, FaultProxy.gate])
def test_passing_silence_is_retried_unseen(hasty: Scene, hold: Callable[..., object]) -> None:
    small, large = hasty.put(PACKED), hasty.put(BLOB)
    hold(hasty.proxy, small, times=2)
    hold(hasty.proxy, block_of(large, 2), times=2)

    assert hasty.client.get_many(map(hasty.bucket.url, (small, large))) == [PACKED, BLOB]

    assert hasty.proxy.gets(small) >= 3
    assert hasty.proxy.gets(large) >= 5 + 2
    hasty.proxy.clear()
    before = hasty.proxy.gets(small)
    assert [hasty.get(small), hasty.get(large)] == [PACKED, BLOB]
    assert hasty.proxy.gets(small) == before


LASTING = [
    pytest.param(lambda p, m: p.fail(m, status=500, times=None), "InternalError", id="500"),
    pytest.param(lambda p, m: p.fail(m, status=503, times=None), "SlowDown", id="slow-down"),
    pytest.param(lambda p, m: p.reset_mid_body(m, times=None), "", id="reset-mid-body"),
    pytest.param(lambda p, m: p.short_body(m, times=None), "", id="short-body"),
]


@pytest.mark.parametrize("data", [PACKED, BLOB], ids=["packed", "blob"])
@pytest.mark.parametrize(("break_it", "cause"), LASTING)
def test_lasting_trouble_is_an_error_that_names_uri_endpoint_and_cause(
    scene: Scene,
    break_it: Callable[[FaultProxy, object], object],
    cause: str,
    data: bytes,
) -> None:
    key = scene.put(data)
    break_it(scene.proxy, key if data is PACKED else block_of(key, 1))

    raises_unavailable(scene, key, ATTEMPTS, cause)

    scene.proxy.clear()
    assert scene.get(key) == data


@pytest.mark.parametrize("data", [PACKED, BLOB], ids=["packed", "blob"])
def test_lasting_silence_is_such_an_error_too(hasty: Scene, data: bytes) -> None:
    key = hasty.put(data)
    hasty.proxy.stall_body(key if data is PACKED else block_of(key, 1), times=None)

    raises_unavailable(hasty, key, ATTEMPTS + 1, "")

    hasty.proxy.clear()
    assert hasty.get(key) == data


def raises_unavailable(scene: Scene, key: str, attempts: int, cause: str) -> None:
    with pytest.raises(forebay.OriginUnavailableError) as caught:
        scene.get(key)

    text = str(caught.value)
    assert scene.bucket.url(key) in text
    assert scene.proxy.url in text
    assert f"{attempts} attempt" in text
    assert cause in text
    assert text.split("the last: ")[1]


@pytest.mark.parametrize(
    ("status", "error", "cause"),
    [
        (403, forebay.AccessDeniedError, "AccessDenied"),
        (404, forebay.ObjectNotFoundError, "no such object"),
    ],
)
def test_refusal_and_absence_are_not_retried_and_not_remembered(
    scene: Scene, status: int, error: type[Exception], cause: str
) -> None:
    key = scene.put(PACKED)
    scene.proxy.fail(key, status=status, method=None, times=None)

    with pytest.raises(error, match=cause) as caught:
        scene.get(key)

    assert scene.bucket.url(key) in str(caught.value)
    assert scene.proxy.count(key=key) == 1
    scene.proxy.clear()
    assert scene.get(key) == PACKED


@pytest.mark.parametrize(("status", "error"), [(403, PermissionError), (404, FileNotFoundError)])
def test_block_that_is_refused_keeps_no_other_block_wrong(
    scene: Scene, status: int, error: type[Exception]
) -> None:
    key = scene.put(BLOB)
    scene.proxy.fail(block_of(key, 3), status=status, times=None)

    with pytest.raises(error):
        scene.get(key)

    scene.proxy.clear()
    assert scene.get(key) == BLOB


def test_missing_bucket_is_named_as_such(scene: Scene) -> None:
    with pytest.raises(forebay.ObjectNotFoundError, match="no such bucket") as caught:
        scene.client.get("s3://no-such-bucket-here/k")

    assert "s3://no-such-bucket-here/k" in str(caught.value)


def test_answer_of_another_version_in_between_is_not_mixed_in(scene: Scene) -> None:
    key = scene.put(BLOB)
    scene.proxy.change_etag(block_of(key, 2), times=1)

    assert scene.get(key) == BLOB


def test_object_that_seems_to_change_for_ever_is_a_stale_file_error(scene: Scene) -> None:
    key = scene.put(BLOB)
    scene.proxy.change_etag(block_of(key, 2), times=None)

    with pytest.raises(forebay.StaleFileError, match=key):
        scene.get(key)

    scene.proxy.clear()
    assert scene.get(key) == BLOB


def test_object_replaced_between_its_ranges_is_read_as_one_version(scene: Scene) -> None:
    key = scene.put(BLOB)
    with scene.proxy.gate(block_of(key, 2), times=1) as gate, ThreadPoolExecutor(1) as pool:
        reading = pool.submit(scene.get, key)
        gate.wait_for(1)
        scene.bucket.put(key, OTHER_BLOB)
        gate.release()

        assert reading.result(60) == OTHER_BLOB

    assert scene.get(key) == OTHER_BLOB


def test_open_file_reads_one_version_or_raises(scene: Scene) -> None:
    # Longer than what a client asks for at the opening, so that its end is not cached then.
    first, second = (random.Random(seed).randbytes(9 << 20) for seed in (4, 5))
    key = scene.put(first)
    with scene.client.open(scene.bucket.url(key)) as file:
        scene.bucket.put(key, second)
        file.seek(-BLOCK, os.SEEK_END)

        with pytest.raises(forebay.StaleFileError, match=key):
            file.read(BLOCK)

    assert scene.get(key) == second


def test_all_readers_of_a_failing_object_fail_and_recover(scene: Scene) -> None:
    key = scene.put(PACKED)
    scene.proxy.fail(key, status=503, times=None)
    with ThreadPoolExecutor(8) as pool:
        reading = [pool.submit(scene.get, key) for _ in range(8)]

        errors = [each.exception(60) for each in reading]

    assert {type(error) for error in errors} == {forebay.OriginUnavailableError}
    scene.proxy.clear()
    assert scene.get(key) == PACKED


def test_reader_that_gives_up_leaves_nothing_behind(scene: Scene) -> None:
    key = scene.put(BLOB)
    gate = scene.proxy.gate(block_of(key, 1))
    address = scene.client._node.channel.address
    with (
        ThreadPoolExecutor(1) as pool,
        # It has to reach the daemon in that time, on a machine that may be busy.
        forebay.Client(address, timeout_s=3) as hasty,
    ):
        reading = pool.submit(hasty.get, scene.bucket.url(key))
        gate.wait_for(1)
        with pytest.raises(TimeoutError):
            reading.result()

    gate.release()

    assert scene.get(key) == BLOB


def test_get_many_fills_the_others_and_raises_the_first_error(scene: Scene) -> None:
    keys = [scene.put(PACKED) for _ in range(6)]
    scene.proxy.fail(keys[4], status=403, times=None)
    scene.proxy.fail(keys[1], status=500, times=None)

    with pytest.raises(forebay.OriginUnavailableError, match=keys[1]):
        scene.client.get_many(scene.bucket.url(key) for key in keys)

    assert [bool(scene.client.stat(scene.bucket.url(key)).cached_bytes) for key in keys] == [
        True, False, True, True, False, True,
    ]  # fmt: skip


def test_warm_goes_on_after_failures_and_lists_them(scene: Scene) -> None:
    keys = [scene.put(PACKED) for _ in range(5)]
    scene.proxy.fail(keys[2], status=503, times=None)

    result = scene.client.warm(scene.bucket.url())

    assert (result.objects_done, result.objects_failed) == (4, 1)
    ((uri, reason),) = result.failures
    assert uri == scene.bucket.url(keys[2])
    assert "SlowDown" in reason


def is_listing(request: Request) -> bool:
    return "list-type=2" in request.query


def test_listing_survives_passing_trouble(scene: Scene) -> None:
    keys = [scene.put(b"x") for _ in range(3)]
    scene.proxy.fail(is_listing, status=503, times=2)

    listed = {entry if isinstance(entry, str) else entry.uri for entry in scene.list()}

    assert listed == {scene.bucket.url(key) for key in keys}


def test_listing_that_fails_is_not_an_empty_one(scene: Scene) -> None:
    scene.put(b"x")
    scene.proxy.fail(is_listing, status=500, times=None)

    with pytest.raises(forebay.OriginUnavailableError):
        scene.list()

    scene.proxy.clear()
    assert len(scene.list()) == 1


def test_stat_that_is_refused_is_not_absence(scene: Scene) -> None:
    key = scene.put(b"x")
    scene.proxy.fail(key, status=403, method=None, times=None)

    with pytest.raises(PermissionError):
        scene.client.exists(scene.bucket.url(key))

    scene.proxy.clear()
    assert scene.client.exists(scene.bucket.url(key))


def test_trouble_is_counted_by_kind(scene: Scene) -> None:
    key = scene.put(PACKED)
    before = scene.client.stats().raw
    scene.proxy.fail(key, status=503, times=1)

    scene.get(key)

    after = scene.client.stats().raw
    kind = "ORIGIN_UNAVAILABLE"
    assert after["errors"].get(kind, 0) - before["errors"].get(kind, 0) == 1
    retries = [raw["since_start"]["origin_retries"] for raw in (before, after)]
    assert retries[1] - retries[0] == 1


# --- origins that never work ------------------------------------------------------------------


@pytest.mark.parametrize("driver", ["obstore", "s3fs"])
def test_endpoint_where_nothing_listens_is_named(driver: str) -> None:
    keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    with (
        closed_port() as port,
        serving(
            endpoint_url=f"http://127.0.0.1:{port}", env=keys, driver=driver, max_attempts=2
        ) as daemon,
        forebay.Client(daemon.address) as client,
    ):
        for read in (client.get, client.stat, lambda path: list(client.list(path))):
            with pytest.raises(forebay.OriginUnavailableError) as caught:
                read("s3://bucket/k")
            assert "s3://bucket/k" in str(caught.value)
            assert f"http://127.0.0.1:{port}" in str(caught.value)


@pytest.mark.parametrize("driver", ["obstore", "s3fs"])
@pytest.mark.parametrize(
    ("variable", "cause"),
    [("AWS_SECRET_ACCESS_KEY", "SignatureDoesNotMatch"), ("AWS_ACCESS_KEY_ID", "InvalidAccessKey")],
)
def test_wrong_keys_are_refused_and_never_shown(
    ceph: Ceph, bucket: Bucket, driver: str, variable: str, cause: str
) -> None:
    bucket.put("k", PACKED)
    wrong = {**ceph.env(), variable: "WRONG0123456789SECRET"}
    with (
        serving(endpoint_url=ceph.endpoint_url, env=wrong, driver=driver) as daemon,
        forebay.Client(daemon.address) as client,
    ):
        with pytest.raises(forebay.AccessDeniedError, match=cause) as caught:
            client.get(bucket.url("k"))
        text = str(caught.value) + daemon.log

    assert bucket.url("k") in str(caught.value)
    if variable == "AWS_SECRET_ACCESS_KEY":
        assert wrong[variable] not in text
