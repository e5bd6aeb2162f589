"""The same pixels, boxes and masks as MMDetection 2.28.2 gave for the same image."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

pytest.importorskip("cv2")
pipelines = pytest.importorskip("forebay_trainer.datasets.pipelines")

if TYPE_CHECKING:
    from trainer.pipelines.conftest import MakeSample

_GOLDEN = sorted(Path(__file__).parent.parent.joinpath("golden").glob("pipeline_*.json"))


@pytest.mark.parametrize("path", _GOLDEN, ids=lambda path: path.stem)
def test_pipeline_gives_what_mmdetection_gave(path: Path, make_sample: MakeSample) -> None:
    golden = json.loads(path.read_text())
    y, x = np.mgrid[:240, :320].astype(float)
    image = np.stack([127 + 120 * np.sin(x / 23 + k) * np.cos(y / 17 - k) for k in range(3)], -1)
    image[60:120, 80:160] = (20, 200, 90)
    image[150:200, 200:300] = (240, 30, 60)
    sample = make_sample(image.round().astype(np.uint8), golden["boxes_in"])

    results = pipelines.Compose(golden["pipeline"])(sample)

    assert list(results["img"].shape) == golden["shape"]
    assert list(results["img_shape"]) == golden["img_shape"]
    assert list(results.get("pad_shape", results["img_shape"])) == golden["pad_shape"]
    scale_factor = results.get("scale_factor", 1.0)
    np.testing.assert_allclose(scale_factor, golden["scale_factor"], atol=1e-6)
    # A grey level, where the pipeline ends with normalized pixels.
    level = 1 / 57 if results["img"].dtype == np.float32 else 1
    sampled = results["img"][golden["sample_rows"]][:, golden["sample_cols"]]
    np.testing.assert_allclose(sampled, golden["sample"], atol=level)
    np.testing.assert_allclose(results["img"].mean((0, 1)), golden["mean"], atol=level / 50)
    np.testing.assert_allclose(results["img"].std((0, 1)), golden["std"], atol=level / 50)
    np.testing.assert_allclose(results["gt_bboxes"], golden["boxes"], atol=1e-3)
    assert results["gt_labels"].tolist() == golden["labels"]
    assert results["gt_masks"].areas.tolist() == golden["mask_areas"]
