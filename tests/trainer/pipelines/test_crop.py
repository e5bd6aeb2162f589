"""Sizes and places that crops draw, and which objects they keep."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("cv2")
pipelines = pytest.importorskip("forebay_trainer.datasets.pipelines")

if TYPE_CHECKING:
    from trainer.pipelines.conftest import MakeSample


def _image(height: int, width: int) -> Any:
    return np.zeros((height, width, 3), np.uint8)


@pytest.mark.parametrize(
    ("crop_type", "crop_size", "heights", "widths"),
    [
        ("absolute", (30, 50), (30, 30), (50, 50)),
        ("absolute", (300, 50), (60, 60), (50, 50)),  # not more than there is
        ("absolute_range", (20, 70), (20, 60), (20, 70)),
        ("relative", (0.5, 0.25), (30, 30), (20, 20)),
        ("relative_range", (0.5, 0.25), (30, 60), (20, 80)),
    ],
)
def test_crop_has_a_size_of_its_kind(
    crop_type: str,
    crop_size: tuple[float, float],
    heights: tuple[int, int],
    widths: tuple[int, int],
    make_sample: MakeSample,
) -> None:
    crop = pipelines.RandomCrop(crop_size, crop_type, allow_negative_crop=True)

    shapes = [crop(make_sample(_image(60, 80), []))["img_shape"] for _ in range(200)]

    for side, (low, high) in ((0, heights), (1, widths)):
        sizes = {shape[side] for shape in shapes}
        assert low <= min(sizes) <= low + 3
        assert high - 3 <= max(sizes) <= high


def test_crop_without_an_object_is_left_out_unless_allowed(make_sample: MakeSample) -> None:
    boxes = [[0, 0, 2, 2]]
    crop = pipelines.RandomCrop((10, 10))
    allowing = pipelines.RandomCrop((10, 10), allow_negative_crop=True)

    cropped = [crop(make_sample(_image(100, 100), boxes)) for _ in range(50)]
    negative = [allowing(make_sample(_image(100, 100), boxes)) for _ in range(50)]

    assert None in cropped
    assert all(len(each["gt_bboxes"]) == 1 for each in cropped if each is not None)
    assert all(each["img_shape"] == (10, 10, 3) for each in negative)
    empty = [each for each in negative if len(each["gt_bboxes"]) == 0]
    assert empty
    assert all(len(each["gt_labels"]) == len(each["gt_masks"]) == 0 for each in empty)


def test_boxes_are_recomputed_from_what_is_left_of_the_masks(make_sample: MakeSample) -> None:
    masks = pytest.importorskip("forebay_trainer.core.masks")
    # A triangle in a box: cut off at the bottom, it is narrower than the box.
    bitmap = np.tril(np.ones((40, 40), np.uint8))[None]
    sample = make_sample(_image(40, 40), [[0, 0, 40, 40]])
    sample["gt_masks"] = masks.BitmapMasks(bitmap, 40, 40)
    crop = pipelines.RandomCrop((20, 40), recompute_bbox=True)
    for _ in range(10):
        results = crop({**sample, "bbox_fields": ["gt_bboxes"]})
        last_row = results["gt_masks"].masks[0, -1].sum()
        assert results["gt_bboxes"].tolist() == [[0, 0, last_row, 20]]


def test_iou_crop_keeps_its_promise(make_sample: MakeSample) -> None:
    boxes = np.array([[30, 30, 60, 60], [50, 40, 90, 90]], np.float32)
    image = np.arange(100 * 100, dtype=np.int32).reshape(100, 100, 1).repeat(3, 2)
    crop = pipelines.MinIoURandomCrop(min_ious=(0.3,), bbox_clip_border=False)
    kept_some, kept_all = 0, 0
    for _ in range(60):
        results = crop(make_sample(image, boxes))
        height, width = results["img"].shape[:2]
        assert results["img_shape"] == results["img"].shape
        assert 0.5 - 0.05 <= height / width <= 2 + 0.1 or (height, width) == (100, 100)
        top, left = divmod(int(results["img"][0, 0, 0]), 100)
        original = boxes[results["gt_labels"]]
        np.testing.assert_allclose(results["gt_bboxes"] + [left, top] * 2, original)
        centres = (results["gt_bboxes"][:, :2] + results["gt_bboxes"][:, 2:]) / 2
        assert ((centres > 0) & (centres < (width, height))).all()
        assert len(results["gt_masks"]) == len(original) > 0
        kept_some += len(original) == 1
        kept_all += len(original) == 2
    assert kept_some
    assert kept_all


def test_iou_that_cannot_be_reached_is_drawn_anew(make_sample: MakeSample) -> None:
    crop = pipelines.MinIoURandomCrop(min_ious=(0.9,) * 8)

    shapes = [
        crop(make_sample(_image(100, 100), [[40, 40, 45, 45]]))["img"].shape for _ in range(60)
    ]

    # Left are the whole image and any IoU, each as often.
    assert shapes.count((100, 100, 3)) / 60 == pytest.approx(0.5, abs=0.2)


def test_expand_puts_the_image_somewhere_in_the_mean(make_sample: MakeSample) -> None:
    image = np.full((20, 30, 3), 200, np.uint8)
    expand = pipelines.Expand(mean=(1, 2, 3), ratio_range=(2, 4), prob=1.0)
    places = set()
    for _ in range(20):
        results = expand(make_sample(image, [[5, 5, 15, 15]]))
        left, top = (results["gt_bboxes"][0, :2] - 5).astype(int)
        inside = results["img"][top : top + 20, left : left + 30].copy()
        results["img"][top : top + 20, left : left + 30] = (3, 2, 1)  # of RGB, in BGR
        np.testing.assert_array_equal(inside, image)
        assert (results["img"] == (3, 2, 1)).all()
        assert results["gt_masks"].masks.shape[1:] == results["img"].shape[:2]
        assert results["gt_masks"].masks[0, top + 5 : top + 15, left + 5 : left + 15].all()
        places.add((left, top))
    assert len(places) > 10


def test_expand_does_it_as_often_as_told(make_sample: MakeSample) -> None:
    expand = pipelines.Expand(ratio_range=(2, 2), prob=0.25)

    sides = [expand(make_sample(_image(10, 10), []))["img"].shape[0] for _ in range(400)]

    assert sides.count(20) / 400 == pytest.approx(0.25, abs=0.06)
    assert set(sides) == {10, 20}
