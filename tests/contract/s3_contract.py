"""What every S3 origin must do beyond the contract of all origins; and places in a bucket."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import boto3  # type: ignore[import-untyped]  # ships no stubs
import pytest
from botocore.config import Config  # type: ignore[import-untyped]  # ships no stubs

from contract.origin_contract import OriginContract, Place
from forebayd.config import CredentialsConfig, OriginConfig
from forebayd.errors import ObjectNotFoundError

if TYPE_CHECKING:
    from support.ceph import Ceph

# Keys that only an object store can hold: folders' markers, what a path would fold, control
# characters, and the longest of all.
S3_KEYS = [
    "a//b",
    "/leading",
    "//two",
    "trailing/",
    "trailing//",
    "../up",
    "a/../b",
    "./a",
    "a/./b",
    ".",
    "..",
    "...",
    "a?b=c",
    "a#b",
    "a:b@c$d!",
    "a*b",
    'a"b',
    "a<b>&",
    "a[b]{c}|^`",
    "a\\b",
    "a\tb",
    "a\nb",
    "a\x7fb",
    " a ",
    "e\u0301",
    "\u00e9",
    "a%2Fb",
    "%",
    "k" * 1024,
    "é" * 512,
]


def bucket_client(endpoint_url: str, access_key: str, secret_key: str, region: str) -> Any:
    """Return a boto3 client, which ships no types: the way around the origin."""
    return boto3.client(
        "s3",
        endpoint_url=endpoint_url,
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
        region_name=region,
        config=Config(s3={"addressing_style": "path"}),
    )


def bucket_place(client: Any, bucket: str, config: OriginConfig) -> Place:
    """Return the place at the top of *bucket*."""

    def put(key: str, data: bytes) -> None:
        client.put_object(Bucket=bucket, Key=key, Body=data)

    return Place(config, f"{config.prefix}{bucket}/", put)


def ceph_config(ceph: Ceph, driver: str, monkeypatch: pytest.MonkeyPatch) -> OriginConfig:
    """Return the origin of all that is in *ceph*."""
    monkeypatch.setenv("CEPH_ACCESS", ceph.access_key)
    monkeypatch.setenv("CEPH_SECRET", ceph.secret_key)
    return OriginConfig(
        prefix="s3://",
        endpoint_url=ceph.endpoint_url,
        region=ceph.region,
        driver=driver,  # type: ignore[arg-type]  # one of the two
        credentials=CredentialsConfig(None, "CEPH_ACCESS", "CEPH_SECRET"),
    )


class S3OriginContract(OriginContract):
    """Subclass it with a ``place`` fixture whose root is the top of a fresh bucket."""

    keys = tuple(S3_KEYS)

    def test_every_key_is_read_and_listed_as_it_is(self, place: Place) -> None:
        for key in self.keys:
            place.put(key, key.encode())

        assert {key: place.get(key) for key in self.keys} == {
            key: key.encode() for key in self.keys
        }
        listed, _ = place.list("", recursive=True)
        assert {info.uri: (info.size_bytes, info.version) for info in listed} == {
            place.root + key: (info.size_bytes, info.version)
            for key in self.keys
            for info in [place.head(key)]
        }

    def test_marker_of_the_listed_folder_is_left_out(self, place: Place) -> None:
        place.put("folder/", b"")
        place.put("folder/k", b"1")
        place.put("folder/sub/", b"")

        assert place.names("folder") == {"folder/k", "folder/sub/"}
        assert place.names("folder", recursive=True) == {"folder/k", "folder/sub/"}

    def test_missing_bucket_is_not_found(self, place: Place) -> None:
        elsewhere = replace(place, root=f"{place.config.prefix}no-such-bucket-here/")

        with pytest.raises(ObjectNotFoundError, match="bucket"):
            elsewhere.get("k")
        with pytest.raises(ObjectNotFoundError, match="bucket"):
            elsewhere.names("")

    def test_bucket_is_no_object(self, place: Place) -> None:
        with pytest.raises(ObjectNotFoundError, match="names a bucket"):
            place.head("")

    def test_uris_of_a_cluster_keep_its_name(self, place: Place) -> None:
        prefix = "cluster:" + place.config.prefix
        bucket = place.root.removeprefix(place.config.prefix)
        named = replace(
            place, config=replace(place.config, prefix=prefix), root=f"{prefix}{bucket}"
        )
        place.put("folder/k", b"1")

        assert named.get("folder/k") == b"1"
        assert named.names("folder") == {"folder/k"}
