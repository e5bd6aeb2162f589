"""Samples as a data set hands them to a pipeline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pytest

if TYPE_CHECKING:
    import numpy.typing as npt


class MakeSample(Protocol):
    def __call__(self, image: npt.NDArray[Any], boxes: Any, **more: Any) -> dict[str, Any]: ...


@pytest.fixture
def make_sample() -> MakeSample:
    """Make the dict of an image with boxes, labels 0, 1, …, and masks that fill the boxes."""
    masks = pytest.importorskip("forebay_trainer.core.masks")

    def make(image: npt.NDArray[Any], boxes: Any, **more: Any) -> dict[str, Any]:
        height, width = image.shape[:2]
        rectangles = np.array(boxes, np.float32).reshape(-1, 4)
        bitmaps = np.zeros((len(rectangles), height, width), np.uint8)
        for bitmap, (left, top, right, bottom) in zip(bitmaps, rectangles.astype(int), strict=True):
            bitmap[top:bottom, left:right] = 1
        return {
            "filename": "image.png",
            "ori_filename": "image.png",
            "img": image,
            "img_shape": image.shape,
            "ori_shape": image.shape,
            "img_fields": ["img"],
            "gt_bboxes": rectangles,
            "gt_labels": np.arange(len(rectangles)),
            "gt_masks": masks.BitmapMasks(bitmaps, height, width),
            "bbox_fields": ["gt_bboxes"],
            "mask_fields": ["gt_masks"],
            **more,
        }

    return make


@pytest.fixture(autouse=True)
def _dice() -> None:
    """Every test throws the same."""
    np.random.seed(0)
