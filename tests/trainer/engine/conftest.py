"""What trains in the tests of the loop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def training(tmp_path: Path) -> Any:
    """Makes runners, and runs them; see Training."""
    for name in ("torch", "cv2", "mmengine", "faster_coco_eval"):
        pytest.importorskip(name)
    from trainer.engine.line_training import Training

    return Training(tmp_path)
