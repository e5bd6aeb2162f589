"""The S3 origins' contract: both drivers, at moto, at moto through faults, at a real Ceph."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from contract.s3_contract import S3_KEYS, S3OriginContract, bucket_place, ceph_config
from forebayd.config import CredentialsConfig
from forebayd.errors import AccessDeniedError
from support.proxy import FaultProxy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from contract.origin_contract import Place
    from forebayd.config import OriginConfig
    from support.ceph import Bucket, Ceph
    from support.proxy import Request


class TestMotoByObstore(S3OriginContract):
    @pytest.fixture
    def place(self, moto_client: Any, moto_bucket: str, moto_config: OriginConfig) -> Place:
        return bucket_place(moto_client, moto_bucket, moto_config)

    # moto finds no key with a line's end.
    keys = tuple(key for key in S3_KEYS if "\n" not in key)


class TestMotoByS3fs(TestMotoByObstore):
    @pytest.fixture
    def place(self, moto_client: Any, moto_bucket: str, moto_config: OriginConfig) -> Place:
        return bucket_place(moto_client, moto_bucket, replace(moto_config, driver="s3fs"))


class _OneIn:
    """Picks every nth request for a fault."""

    def __init__(self, number: int) -> None:
        self._seen = itertools.count(1)
        self._number = number

    def __call__(self, _: Request) -> bool:
        return next(self._seen) % self._number == 0


class TestFaulty(TestMotoByObstore):
    """Resets, short bodies and SlowDown now and then must not be seen at all."""

    @pytest.fixture
    def place(
        self, moto_client: Any, moto_bucket: str, moto_config: OriginConfig
    ) -> Iterator[Place]:
        assert moto_config.endpoint_url is not None
        with FaultProxy(moto_config.endpoint_url) as proxy:
            proxy.fail(_OneIn(7), method=None, times=None)
            proxy.reset(_OneIn(6), method=None, times=None)
            proxy.short_body(_OneIn(5), times=None)
            # Of requests at once one may meet many faults in a row: 3 in 7 attempts meet one.
            config = replace(moto_config, endpoint_url=proxy.url, max_attempts=20)
            yield bucket_place(moto_client, moto_bucket, config)


@pytest.mark.s3
class TestCephByObstore(S3OriginContract):
    driver = "obstore"

    @pytest.fixture
    def place(self, ceph: Ceph, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Place:
        config = ceph_config(ceph, self.driver, monkeypatch)
        return bucket_place(bucket.client, bucket.name, config)

    def test_wrong_keys_are_denied(self, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
        place.put("k", b"1")
        monkeypatch.setenv("WRONG_ACCESS", "nobody")
        monkeypatch.setenv("WRONG_SECRET", "wrong")
        credentials = CredentialsConfig(None, "WRONG_ACCESS", "WRONG_SECRET")
        wrong = replace(place, config=replace(place.config, credentials=credentials))

        with pytest.raises(AccessDeniedError, match="k"):
            wrong.get("k")
        with pytest.raises(AccessDeniedError):
            wrong.names("")

    def test_listing_goes_on_after_a_page(self, place: Place) -> None:
        keys = {f"many/{i:04d}" for i in range(1003)}
        for key in keys:
            place.put(key, b"")

        assert place.names("many") == keys


@pytest.mark.s3
class TestCephByS3fs(TestCephByObstore):
    driver = "s3fs"
