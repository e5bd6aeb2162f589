"""What a test shows of itself where nobody looks at a terminal."""

from __future__ import annotations

import logging

import pytest

pytest.importorskip("torch")
pytest.importorskip("mmengine")

from forebay_trainer.engine import progress


def test_a_log_tells_how_far_it_is(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "TELL_EVERY_S", 0)
    caplog.set_level(logging.INFO)

    with progress.told_progress("testing", 3) as advance:
        for _ in range(3):
            advance()

    assert [line.partition(",")[0] for line in caplog.messages] == [
        "testing: 1 of 3",
        "testing: 2 of 3",
        "testing: 3 of 3",
    ]
