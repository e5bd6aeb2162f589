"""A daemon in front of Ceph for each module, and a bucket with objects of many sizes."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import pytest

import forebay
from support.proxy import FaultProxy
from support.serving import serving
from support.sizes import SIZES, some_bytes
from support.spooled import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.ceph import Bucket, Ceph
    from support.daemon import DaemonProcess

_numbers = itertools.count()


@pytest.fixture(scope="module")
def origin(ceph: Ceph) -> Iterator[FaultProxy]:
    """Ceph, seen through a proxy that counts."""
    with FaultProxy(ceph.endpoint_url) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def daemon(ceph: Ceph, origin: FaultProxy) -> Iterator[DaemonProcess]:
    with serving(endpoint_url=origin.url, env=ceph.env(), max_bytes="600MB") as running:
        yield running


@pytest.fixture
def client(daemon: DaemonProcess, origin: FaultProxy) -> Iterator[forebay.Client]:
    """A client of a daemon that has cached nothing."""
    with forebay.Client(daemon.address) as connected:
        connected.evict(everything=True)
        origin.forget()
        yield connected
        # What a file that is read was filled ahead may still be under way.
        wait_until(lambda: connected.stats().raw["fills_in_flight"] == 0, "the end of all fills")
        assert connected.check().problems == ()
        assert connected.stats().raw["reserved_bytes"] == 0


@pytest.fixture(scope="module")
def sized(ceph_client: Any) -> Iterator[Bucket]:
    """A bucket with an object of each size."""
    from support.ceph import Bucket

    bucket = Bucket(f"sizes-{next(_numbers)}", ceph_client)
    ceph_client.create_bucket(Bucket=bucket.name)
    for name, size in SIZES.items():
        bucket.put(name, some_bytes(size))
    yield bucket
    bucket.remove()


@pytest.fixture
def tree(bucket: Bucket) -> Bucket:
    for key in ("a/1", "a/2", "a/b/3", "a/b/c/4", "ab/5", "top", "both", "both/inside"):
        bucket.put(key, key.encode())
    return bucket
