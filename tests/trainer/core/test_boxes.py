"""Overlaps, codes, flips and results of boxes."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch")

from forebay_trainer.core import (  # noqa: E402
    DeltaXYWHBBoxCoder,
    bbox2result,
    bbox2roi,
    bbox_overlaps,
    multiclass_nms,
)


def test_overlaps_of_each_with_each() -> None:
    boxes = torch.tensor([[0.0, 0, 4, 4], [2, 2, 4, 4]])
    others = torch.tensor([[2.0, 0, 6, 4], [10, 10, 12, 12], [0, 0, 4, 4]])

    assert bbox_overlaps(boxes, others).tolist() == [
        pytest.approx([8 / 24, 0, 1]),
        pytest.approx([4 / 16, 0, 4 / 16]),
    ]
    assert bbox_overlaps(boxes, others, "iof")[1].tolist() == pytest.approx([1, 0, 1])
    # around both there are 24 and 144 square pixels
    assert bbox_overlaps(boxes, others, "giou")[0].tolist() == pytest.approx(
        [8 / 24, -(144 - 20) / 144, 1]
    )


def test_overlaps_pair_by_pair_and_of_nothing() -> None:
    boxes = torch.tensor([[0.0, 0, 4, 4], [0, 0, 0, 0]])

    assert bbox_overlaps(boxes, boxes, is_aligned=True).tolist() == [1, 0]
    assert bbox_overlaps(boxes, torch.zeros(0, 4)).shape == (2, 0)


def test_a_box_is_coded_by_shift_and_size() -> None:
    coder = DeltaXYWHBBoxCoder(target_means=(0.5, 0, 0, 0), target_stds=(0.1, 0.1, 0.2, 0.2))
    boxes, true = torch.tensor([[0.0, 0, 10, 20]]), torch.tensor([[5.0, 0, 25, 20]])

    deltas = coder.encode(boxes, true)

    expected = [(1.0 - 0.5) / 0.1, 0, math.log(2) / 0.2, 0]  # its centre is 10 pixels to the right
    assert deltas[0].tolist() == pytest.approx(expected)
    torch.testing.assert_close(coder.decode(boxes, deltas), true)


def test_decoded_boxes_of_all_classes_stay_in_the_image() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [20, 20, 30, 30]])
    deltas = torch.tensor([[0.0, 0, 0, 0, 1, 1, 0, 0], [0, 0, 0, 0, 0, -9, 9, 0]])

    cut = DeltaXYWHBBoxCoder().decode(boxes, deltas, max_shape=(25, 40, 3))
    whole = DeltaXYWHBBoxCoder(clip_border=False).decode(boxes, deltas, max_shape=(25, 40, 3))

    assert cut[0].tolist() == [0, 0, 10, 10, 10, 10, 20, 20]
    assert cut[1].tolist() == [20, 20, 30, 25, 0, 0, 40, 0]
    width = 10 * 1000 / 16  # no box grows more
    assert whole[1, 4:].tolist() == pytest.approx(
        [25 - width / 2, -70, 25 + width / 2, -60], rel=1e-5
    )


def test_boxes_may_be_kept_from_moving_far_and_then_shrink_to_nothing() -> None:
    coder = DeltaXYWHBBoxCoder(add_ctr_clamp=True, ctr_clamp=4)
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 10]])

    moved = coder.decode(boxes, torch.tensor([[9.0, -0.2, 0, 0], [-9, 0, -50, 0]]))

    assert moved.tolist() == [[4, -2, 14, 8], pytest.approx([1, 0, 1, 10])]


def test_half_precision_deltas_place_boxes_exactly() -> None:
    boxes = torch.tensor([[3000.25, 10, 3010.25, 20]])

    decoded = DeltaXYWHBBoxCoder().decode(boxes, torch.zeros(1, 4).half())

    assert decoded.tolist() == boxes.tolist()


def test_decoding_no_boxes() -> None:
    assert DeltaXYWHBBoxCoder().decode(torch.zeros(0, 4), torch.zeros(0, 320)).shape == (0, 320)


def test_a_clipped_box_still_teaches_its_free_side() -> None:
    deltas = torch.zeros(1, 4, requires_grad=True)
    coder = DeltaXYWHBBoxCoder()

    coder.decode(torch.tensor([[-5.0, 0, 5, 10]]), deltas, (20, 20))[0, :3:2].sum().backward()

    assert deltas.grad is not None
    assert deltas.grad[0].tolist() == [10, 0, 5, 0]  # of the right side only


def test_boxes_of_images_become_regions() -> None:
    rois = bbox2roi([torch.ones(2, 5), torch.zeros(0, 4), torch.full((1, 4), 7.0)])

    assert rois.tolist() == [[0, 1, 1, 1, 1], [0, 1, 1, 1, 1], [2, 7, 7, 7, 7]]


def test_detections_are_returned_by_class() -> None:
    detections = torch.arange(10.0).reshape(2, 5)

    result = bbox2result(detections, torch.tensor([2, 0]), 3)

    assert [len(boxes) for boxes in result] == [1, 0, 1]
    assert result[2].tolist() == [[0, 1, 2, 3, 4]]
    nothing = bbox2result(torch.zeros(0, 5), torch.zeros(0), 2)
    assert [boxes.shape for boxes in nothing] == [(0, 5), (0, 5)]


def test_detections_of_many_classes() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [1, 0, 11, 10], [30, 30, 40, 40]])
    scores = torch.tensor([[0.9, 0.2, 0.0], [0.8, 0.3, 0.0], [0.05, 0.06, 0.9]])

    found, labels, indices = multiclass_nms(
        boxes, scores, 0.05, {"type": "nms", "iou_threshold": 0.5}, return_inds=True
    )

    assert labels.tolist() == [0, 1, 1]
    assert found[:, 4].tolist() == pytest.approx([0.9, 0.3, 0.06])
    assert indices.tolist() == [0, 3, 5]
    assert len(multiclass_nms(boxes, scores, 0.05, {"iou_threshold": 0.5}, 2)[0]) == 2
    assert multiclass_nms(boxes, scores, 0.95, {"iou_threshold": 0.5})[0].shape == (0, 5)


def test_each_class_may_have_its_own_box() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10, 50, 50, 60, 60]])

    found, labels = multiclass_nms(
        boxes,
        torch.tensor([[0.4, 0.5, 0.1]]),
        0.1,
        {"iou_threshold": 0.5},
        score_factors=torch.tensor([0.5]),
    )

    assert labels.tolist() == [1, 0]
    assert found[0].tolist() == pytest.approx([50, 50, 60, 60, 0.25])
