"""Proposals and their losses, on maps small enough to compute by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("cv2")

from forebay_trainer.models.dense_heads import RPNHead  # noqa: E402

TRAINING: dict[str, Any] = {
    "assigner": {"type": "MaxIoUAssigner", "pos_iou_thr": 0.7, "neg_iou_thr": 0.3},
    "sampler": {"type": "RandomSampler", "num": 100, "pos_fraction": 0.5}
    | {"add_gt_as_proposals": False},
    "allowed_border": -1,
    "pos_weight": -1,
}
TESTING = {
    "nms_pre": 100,
    "max_per_img": 100,
    "nms": {"type": "nms", "iou_threshold": 0.5},
    "min_bbox_size": 0,
}


def head(**options: Any) -> RPNHead:
    """One level of cells of 8 pixels, with one anchor of 8 x 8 around each cell's corner."""
    anchors = {"type": "AnchorGenerator", "scales": [1], "ratios": [1.0], "strides": [8]}
    given = {"anchor_generator": anchors, "train_cfg": TRAINING, "test_cfg": TESTING}
    return RPNHead(4, 4, **{**given, **options})


def metas(height: int = 16, width: int = 16) -> list[dict[str, Any]]:
    return [{"img_shape": (height, width, 3), "pad_shape": (16, 16, 3)}]


def test_proposals_are_sorted_cut_at_the_border_and_not_less_than_the_smallest_size() -> None:
    scores = torch.tensor([[0.0, 1.0], [3.0, 2.0]]).reshape(1, 1, 2, 2)
    nothing_moves = torch.zeros(1, 4, 2, 2)

    (proposals,) = head().get_bboxes([scores], [nothing_moves], metas())
    corners = [[0, 4, 4, 12], [4, 4, 12, 12], [4, 0, 12, 4], [0, 0, 4, 4]]
    assert proposals[:, :4].tolist() == corners
    assert proposals[:, 4].tolist() == pytest.approx([1 / (1 + math.exp(-s)) for s in (3, 2, 1, 0)])

    (large,) = head().get_bboxes(
        [scores], [nothing_moves], metas(), {**TESTING, "min_bbox_size": 4}
    )
    assert large[:, :4].tolist() == [[4, 4, 12, 12]]


def test_only_the_best_of_a_level_take_part_and_levels_do_not_suppress_each_other() -> None:
    scores = torch.tensor([[0.0, 1.0], [3.0, 2.0]]).reshape(1, 1, 2, 2)
    same = {"type": "AnchorGenerator", "scales": [1], "ratios": [1.0], "strides": [8, 8]}

    (proposals,) = head(anchor_generator=same).get_bboxes(
        [scores, scores], [torch.zeros(1, 4, 2, 2)] * 2, metas(), {**TESTING, "nms_pre": 1}
    )

    assert proposals[:, :4].tolist() == [[0, 4, 4, 12]] * 2


@pytest.mark.parametrize(
    ("boxes", "count"),
    [
        ([[-4.0, -4.0, 4.0, 4.0]], 4),  # one positive, three negatives
        ([], 5),  # four negatives, and a positive that is counted where there is none
    ],
)
def test_losses_are_divided_by_the_sampled_anchors(boxes: list[list[float]], count: int) -> None:
    losses = head().loss(
        [torch.zeros(1, 1, 2, 2)],
        [torch.zeros(1, 4, 2, 2)],
        [torch.tensor(boxes).reshape(-1, 4)],
        metas(),
    )

    assert losses["loss_rpn_cls"][0].item() == pytest.approx(4 * math.log(2) / count)
    assert losses["loss_rpn_bbox"][0].item() == 0


def test_anchors_outside_of_the_border_are_not_in_the_loss() -> None:
    training = {**TRAINING, "allowed_border": 0}  # leaves the anchor 4, 4, 12, 12 alone
    scores = torch.tensor([[50.0, 50.0], [50.0, 0.0]]).reshape(1, 1, 2, 2).requires_grad_()

    losses = head(train_cfg=training).loss(
        [scores], [torch.zeros(1, 4, 2, 2)], [torch.tensor([[4.0, 4.0, 12.0, 12.0]])], metas()
    )
    losses["loss_rpn_cls"][0].backward()

    assert losses["loss_rpn_cls"][0].item() == pytest.approx(math.log(2) / 2)
    assert scores.grad.flatten().tolist() == pytest.approx([0, 0, 0, -0.25])


def test_a_picture_without_any_anchor_inside_costs_nothing() -> None:
    scores = torch.ones(1, 1, 2, 2, requires_grad=True)

    losses = head(train_cfg={**TRAINING, "allowed_border": 0}).loss(
        [scores], [torch.zeros(1, 4, 2, 2)], [torch.tensor([[0.0, 0.0, 4.0, 4.0]])], metas(6, 6)
    )

    assert losses["loss_rpn_cls"][0].item() == 0
    losses["loss_rpn_cls"][0].backward()
    assert not scores.grad.any()


def test_positive_anchors_can_weigh_more_and_ignored_places_nothing() -> None:
    assigner = {**TRAINING["assigner"], "ignore_iof_thr": 0.5}
    training = {**TRAINING, "assigner": assigner, "pos_weight": 3.0}

    losses = head(train_cfg=training).loss(
        [torch.zeros(1, 1, 2, 2)],
        [torch.zeros(1, 4, 2, 2)],
        [torch.tensor([[-4.0, -4.0, 4.0, 4.0]])],
        metas(),
        [torch.tensor([[4.0, 4.0, 12.0, 12.0]])],
    )

    sampled = 3  # a positive, two negatives; the ignored one is neither
    assert losses["loss_rpn_cls"][0].item() == pytest.approx((3 + 2) * math.log(2) / sampled)
