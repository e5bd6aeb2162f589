"""What ``docs/plugs.md`` shows runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from support.ceph import Bucket

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCUMENT = (Path(__file__).parents[2] / "docs" / "plugs.md").read_text()
SNIPPETS = [
    "\n" * DOCUMENT[: match.start(1)].count("\n") + match[1]
    for match in re.finditer(r"^```python\n(.*?)^```", DOCUMENT, re.DOTALL | re.MULTILINE)
]


@pytest.fixture
def datasets_bucket(ceph_client: Any) -> Iterator[None]:
    """The bucket that the document reads."""
    bucket = Bucket("datasets", ceph_client)
    ceph_client.create_bucket(Bucket=bucket.name)
    for number in range(3):
        bucket.put(f"coco/{number}.jpg", b"a photo")
    yield
    bucket.remove()


@pytest.mark.usefixtures("plugged", "datasets_bucket")
@pytest.mark.parametrize("snippet", SNIPPETS, ids=range(len(SNIPPETS)))
def test_snippet_runs(snippet: str) -> None:
    import forebay

    exec(compile(snippet, "plugs.md", "exec"), {"__name__": "document"})  # noqa: S102  # ours
    forebay.Client().flush("s3://datasets/")
