"""Changes to pipelines."""

from __future__ import annotations

import copy

import pytest

pytest.importorskip("torch")
pytest.importorskip("cv2")
pytest.importorskip("faster_coco_eval")

from forebay_trainer.datasets import replace_ImageToTensor


def test_a_test_pipeline_for_batches_pads_its_images() -> None:
    def pipeline(last: dict[str, object]) -> list[dict[str, object]]:
        inner = [{"type": "Resize", "keep_ratio": True}, last, {"type": "Collect", "keys": ["img"]}]
        return [
            {"type": "LoadImageFromFile"},
            {"type": "MultiScaleFlipAug", "img_scale": (8, 8), "transforms": inner},
        ]

    given = pipeline({"type": "ImageToTensor", "keys": ["img"]})
    before = copy.deepcopy(given)

    assert replace_ImageToTensor(given) == pipeline({"type": "DefaultFormatBundle"})
    assert given == before
