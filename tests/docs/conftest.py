"""What the documents' snippets run on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def datasets_bucket(ceph_client: Any) -> Iterator[None]:
    """The bucket that the README and the pages read and write."""
    from support.ceph import Bucket

    bucket = Bucket("datasets", ceph_client)
    ceph_client.create_bucket(Bucket=bucket.name)
    bucket.put("coco/train2017/000000000009.jpg", b"\xff\xd8 a photo")
    yield
    bucket.remove()
