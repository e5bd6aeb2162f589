"""What each anchor of a picture shall predict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

BACKGROUND = 1  # the label after the only class, "object"


@dataclass(frozen=True)
class AnchorTargets:
    """Targets of the A anchors of one picture; a weight of 0 takes an anchor out of the loss."""

    labels: Tensor  # (A,), 0 is an object
    label_weights: Tensor  # (A,)
    boxes: Tensor  # (A, 4), encoded or absolute
    box_weights: Tensor  # (A, 4)
    # Both at least 1, as upstream counts them.
    positives: int
    negatives: int


def anchor_targets(
    anchors: Tensor,
    usable: Tensor,
    gt_bboxes: Tensor,
    gt_bboxes_ignore: Tensor | None,
    *,
    assigner: Any,
    sampler: Any,
    coder: Any | None,
    pos_weight: float,
) -> AnchorTargets:
    """Assign and sample the *usable* of the anchors (A, 4) of a picture.

    The boxes to reach are encoded by *coder*, or stay absolute without one.
    """
    places = usable.nonzero().squeeze(1)
    labels = places.new_full((len(anchors),), BACKGROUND)
    label_weights = anchors.new_zeros(len(anchors))
    boxes = torch.zeros_like(anchors)
    box_weights = torch.zeros_like(anchors)

    candidates = anchors[places]
    assigned = assigner.assign(candidates, gt_bboxes, gt_bboxes_ignore, None)
    sampled = sampler.sample(assigned, candidates, gt_bboxes)
    positive, negative = places[sampled.pos_inds], places[sampled.neg_inds]

    labels[positive] = 0
    label_weights[positive] = pos_weight if pos_weight > 0 else 1.0
    label_weights[negative] = 1.0
    box_weights[positive] = 1.0
    if len(positive):
        reach = sampled.pos_gt_bboxes
        boxes[positive] = coder.encode(sampled.pos_bboxes, reach) if coder is not None else reach
    return AnchorTargets(
        labels,
        label_weights,
        boxes,
        box_weights,
        max(len(positive), 1),
        max(len(negative), 1),
    )
