"""Suppression: plain torch against the definition, and against torchvision's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

torch = pytest.importorskip("torch")

from forebay_trainer.ops import batched_nms, native, nms, soft_nms  # noqa: E402
from forebay_trainer.ops.nms import torch_nms  # noqa: E402

if TYPE_CHECKING:
    from torch import Tensor


def crowded_boxes(count: int, seed: int) -> tuple[Tensor, Tensor]:
    dice = torch.Generator().manual_seed(seed)
    start = torch.rand(count, 2, generator=dice) * 100
    boxes = torch.cat([start, start + 5 + torch.rand(count, 2, generator=dice) * 40], dim=1)
    return boxes, torch.rand(count, generator=dice)


def iou(a: list[float], b: list[float]) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    both = width * height
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def by_definition(boxes: Tensor, scores: Tensor, threshold: float) -> list[int]:
    kept: list[int] = []
    for index in scores.argsort(descending=True).tolist():
        box = boxes[index].tolist()
        if all(iou(boxes[other].tolist(), box) <= threshold for other in kept):
            kept.append(index)
    return kept


@pytest.mark.parametrize("threshold", [0.5, 0.7])
def test_only_the_best_of_overlapping_boxes_stays(threshold: float) -> None:
    boxes, scores = crowded_boxes(600, seed=3)  # more than are compared at once

    kept = torch_nms(boxes, scores, threshold).tolist()

    assert kept == by_definition(boxes, scores, threshold)
    assert 256 < len(kept) < 600


def test_a_suppressed_box_suppresses_none() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [4, 0, 14, 10], [8, 0, 18, 10]])

    detections, kept = nms(boxes, torch.tensor([0.9, 0.8, 0.7]), 0.3)

    assert kept.tolist() == [0, 2]
    assert detections[:, 4].tolist() == pytest.approx([0.9, 0.7])


def test_boxes_of_low_score_are_not_looked_at() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10]])

    _, kept = nms(boxes, torch.tensor([0.2, 0.9, 0.3]), 0.5, score_threshold=0.2)

    assert kept.tolist() == [1, 2]


def test_boxes_without_area_stay() -> None:
    assert torch_nms(torch.zeros(2, 4), torch.tensor([0.1, 0.2]), 0.5).tolist() == [1, 0]


def test_no_boxes_give_no_detections() -> None:
    detections, kept = batched_nms(
        torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.long), {"iou_threshold": 0.5}
    )

    assert detections.shape == (0, 5)
    assert kept.shape == (0,)
    assert kept.dtype == torch.long


def test_groups_do_not_suppress_each_other() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [1, 0, 11, 10], [0, 0, 10, 10]])
    scores, groups = torch.tensor([0.7, 0.9, 0.8]), torch.tensor([0, 0, 1])
    config = {"type": "nms", "iou_thr": 0.5}  # the older name

    detections, kept = batched_nms(boxes, scores, groups, config)

    assert kept.tolist() == [1, 2]
    assert detections[0].tolist() == pytest.approx([1, 0, 11, 10, 0.9])
    assert batched_nms(boxes, scores, groups, {**config, "max_num": 1})[1].tolist() == [1]
    assert batched_nms(boxes, scores, groups, config, class_agnostic=True)[1].tolist() == [1]
    assert batched_nms(boxes, scores, groups, None)[1].tolist() == [1, 2, 0]


def test_soft_suppression_lowers_scores() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 5], [20, 20, 30, 30]])
    scores = torch.tensor([0.9, 0.8, 0.3])

    linear, kept = soft_nms(boxes, scores, iou_threshold=0.3)
    naive, _ = soft_nms(boxes, scores, iou_threshold=0.3, method="naive")

    assert kept.tolist() == [0, 1, 2]
    assert linear[:, 4].tolist() == pytest.approx([0.9, 0.8 * 0.5, 0.3])
    assert naive[:, 4].tolist() == pytest.approx([0.9, 0.3])


def test_an_unknown_type_is_named() -> None:
    with pytest.raises(ValueError, match="unknown nms type 'hard'"):
        batched_nms(torch.zeros(1, 4), torch.ones(1), torch.zeros(1), {"type": "hard"})


@pytest.mark.skipif(native.nms is None, reason="torchvision's operators do not load")
def test_torchvision_gives_the_same() -> None:
    boxes, scores = crowded_boxes(600, seed=4)

    assert torch_nms(boxes, scores, 0.5).tolist() == native.nms(boxes, scores, 0.5).tolist()
