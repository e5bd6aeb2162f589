"""Masks of a picture from the maps of detections."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("cv2")

from faster_coco_eval.core import mask as coco_mask  # noqa: E402

from forebay_trainer.models.roi_heads import FCNMaskHead  # noqa: E402
from forebay_trainer.models.roi_heads.mask_heads.paste import (  # noqa: E402
    encode_masks,
    paste_masks,
)


def test_a_full_map_fills_its_box_as_far_as_the_picture_goes() -> None:
    boxes = torch.tensor([[3.0, 5, 9, 8], [-4, 6, 4, 40], [100, 100, 120, 120], [5, 5, 5, 9]])

    masks = paste_masks(torch.ones(4, 28, 28), boxes, 12, 20, 0.5)

    for mask, (x1, y1, x2, y2) in zip(masks[:3], boxes.int().tolist()[:3], strict=True):
        expected = np.zeros((12, 20), dtype=bool)
        expected[max(y1, 0) : y2, max(x1, 0) : x2] = True
        assert (mask == expected).all()
    assert masks[3].shape == (12, 20)  # without extent there is no right answer, but no error


def test_a_map_is_stretched_to_its_box() -> None:
    """A ramp from 0 to 1 between the outer cells' centres passes 0.5 in the middle."""
    ramp = torch.linspace(0, 1, 4).expand(1, 4, 4)

    (mask,) = paste_masks(ramp, torch.tensor([[2.0, 0, 10, 4]]), 4, 12, 0.5)

    assert mask[1].nonzero()[0].tolist() == [6, 7, 8, 9]


def test_a_negative_threshold_leaves_grey_levels() -> None:
    (mask,) = paste_masks(torch.full((1, 4, 4), 0.5), torch.tensor([[2.0, 1, 10, 3]]), 4, 12, -1)

    assert mask.dtype == np.uint8
    # Pixels are half a cell; from the outer cells' centres on it falls to 0 within a cell.
    assert mask[1].tolist() == [0, 31, 95, *[127] * 6, 95, 31, 0]


def test_masks_are_by_class_and_of_the_picture_before_or_after_the_resize() -> None:
    head = FCNMaskHead(num_convs=0, in_channels=1, conv_out_channels=1, num_classes=3)
    maps = torch.zeros(2, 3, 28, 28)
    maps[0, 2] = maps[1, 0] = 1
    boxes, labels = torch.tensor([[0.0, 0, 4, 4], [2, 2, 6, 8]]), torch.tensor([2, 0])
    cfg = {"mask_thr_binary": 0.5}

    before = head.get_seg_masks(maps, boxes, labels, cfg, (10, 8, 3), 2.0, True)
    after = head.get_seg_masks(maps, boxes, labels, cfg, (10, 8, 3), 2.0, False)

    assert [len(masks) for masks in before] == [1, 0, 1]
    assert [mask.sum() for masks in before for mask in masks] == [24, 16]
    assert before[0][0].shape == (10, 8)
    assert after[0][0].shape == (20, 16)


def test_run_lengths_are_those_of_coco() -> None:
    mask = np.zeros((6, 5), dtype=bool)
    mask[2:4, 1:3] = True

    (encoded,), () = encode_masks([[mask], []])

    assert encoded["size"] == [6, 5]
    assert (coco_mask.decode(encoded) == mask).all()
    assert coco_mask.area(encoded) == 4
