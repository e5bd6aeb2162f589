"""Image, boxes and masks stay together, whatever moves them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("cv2")
pipelines = pytest.importorskip("forebay_trainer.datasets.pipelines")

if TYPE_CHECKING:
    import numpy.typing as npt

    from trainer.pipelines.conftest import MakeSample

_MOVES: list[dict[str, Any]] = [
    {"type": "Resize", "img_scale": [(300, 200), (400, 320)]},
    {"type": "Resize", "img_scale": (150, 250), "keep_ratio": False},
    {"type": "Resize", "img_scale": (200, 200), "ratio_range": (0.5, 2.0)},
    {"type": "RandomFlip", "flip_ratio": 1.0},
    {"type": "RandomFlip", "flip_ratio": 1.0, "direction": "vertical"},
    {"type": "RandomFlip", "flip_ratio": 1.0, "direction": "diagonal"},
    {"type": "Pad", "size_divisor": 32},
    {"type": "RandomCrop", "crop_size": (90, 120)},
    {"type": "RandomCrop", "crop_size": (0.5, 0.6), "crop_type": "relative_range"},
    {"type": "RandomCrop", "crop_size": (60, 120), "crop_type": "absolute_range"},
    {"type": "Expand", "mean": (0, 0, 0), "prob": 1.0},
    {"type": "MinIoURandomCrop"},
    {"type": "Rotate", "level": 8, "img_fill_val": 0, "prob": 1.0, "scale": 0.8},
    {"type": "Shear", "level": 10, "img_fill_val": 0, "prob": 1.0},
    {"type": "Shear", "level": 10, "img_fill_val": 0, "prob": 1.0, "direction": "vertical"},
    {"type": "Translate", "level": 3, "img_fill_val": 0, "prob": 1.0},
    {"type": "Translate", "level": 3, "img_fill_val": 0, "prob": 1.0, "direction": "vertical"},
]


def _extent(marked: npt.NDArray[Any]) -> list[int]:
    """Return the box around all that is not 0 in an H x W array."""
    rows, columns = np.flatnonzero(marked.any(1)), np.flatnonzero(marked.any(0))
    return [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]


@pytest.mark.parametrize(
    "transform", _MOVES, ids=lambda move: "-".join(map(str, move.values())).replace(" ", "")
)
def test_boxes_and_masks_are_where_the_objects_are(
    transform: dict[str, Any], make_sample: MakeSample
) -> None:
    compose = pipelines.Compose([transform])
    boxes = np.array([[40, 30, 100, 90], [120, 70, 180, 130]])
    compared = 0
    for _ in range(10):
        image = np.zeros((160, 200, 3), np.uint8)
        for channel, (left, top, right, bottom) in enumerate(boxes):
            image[top:bottom, left:right, channel] = 255
        results = compose(make_sample(image, boxes))
        if results is None:  # a crop without an object
            continue
        assert results["img_shape"][:2] <= results["img"].shape[:2]
        for box, label, mask in zip(
            results["gt_bboxes"], results["gt_labels"], results["gt_masks"].masks, strict=True
        ):
            seen = results["img"][..., label] > 127
            if seen.sum() > 100:
                assert box == pytest.approx(_extent(seen), abs=2.5)
                assert box == pytest.approx(_extent(mask), abs=2.5)
                assert (seen & (mask > 0)).sum() > 0.9 * (seen | (mask > 0)).sum()
                compared += 1
    assert compared >= 5


def test_what_leaves_the_image_is_dropped_with_its_label_and_mask(make_sample: MakeSample) -> None:
    sample = make_sample(np.zeros((100, 100, 3), np.uint8), [[0, 0, 30, 30], [60, 60, 90, 90]])
    sample["gt_bboxes_ignore"] = np.array([[5, 5, 20, 20]], np.float32)
    sample["bbox_fields"] = ["gt_bboxes_ignore", "gt_bboxes"]
    move = {"type": "Translate", "level": 4, "max_translate_offset": 100, "prob": 1.0}

    results = pipelines.Compose([{**move, "random_negative_prob": 1.0}])(sample)

    assert results["gt_bboxes"].tolist() == [[20, 60, 50, 90]]
    assert results["gt_labels"].tolist() == [1]
    assert len(results["gt_masks"]) == 1
    assert results["gt_masks"].areas.tolist() == [900]
    assert len(results["gt_bboxes_ignore"]) == 0


def test_polygons_move_as_bitmaps_do(make_sample: MakeSample) -> None:
    masks = pytest.importorskip("forebay_trainer.core.masks")
    boxes = [[20, 10, 60, 50]]
    moves = [
        {"type": "Resize", "img_scale": (180, 150)},
        {"type": "Rotate", "level": 5, "prob": 1.0, "random_negative_prob": 0.0},
        {"type": "RandomFlip", "flip_ratio": 1.0},
        {"type": "Translate", "level": 1, "prob": 1.0, "random_negative_prob": 0.0},
    ]
    image = np.zeros((100, 120, 3), np.uint8)
    outline = np.array([20, 10, 60, 10, 60, 50, 20, 50], float)
    polygons = masks.PolygonMasks([[outline]], 100, 120)

    as_bitmaps = pipelines.Compose(moves)(make_sample(image, boxes))["gt_masks"].to_ndarray() > 0
    moved = pipelines.Compose(moves)(make_sample(image, boxes, gt_masks=polygons))
    as_polygons = moved["gt_masks"].to_ndarray() > 0

    assert (as_bitmaps & as_polygons).sum() > 0.93 * (as_bitmaps | as_polygons).sum()
