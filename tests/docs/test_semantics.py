"""``docs/semantics.md``: each promise names a test, and every test that is named exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "semantics.md").read_text()
PROMISED, _, NOT_PROMISED = DOCUMENT.partition("\n## Not promised\n")
PROMISES = re.findall(r"^- (.*?)(?=^- |^\n|^#|\Z)", PROMISED, re.MULTILINE | re.DOTALL)
TESTS = re.findall(r"`(tests/[^`]*)`", DOCUMENT)


def test_there_are_promises_and_limits() -> None:
    assert len(PROMISES) > 20
    assert NOT_PROMISED


@pytest.mark.parametrize("promise", PROMISES)
def test_promise_names_a_test(promise: str) -> None:
    assert re.search(r"`tests/[^`]+::test_\w+`", promise), promise


@pytest.mark.parametrize("name", sorted(set(TESTS)))
def test_named_test_exists(name: str) -> None:
    path, _, test = name.partition("::")
    assert re.search(rf"^ *(async )?def {test}\(", (ROOT / path).read_text(), re.MULTILINE), name
