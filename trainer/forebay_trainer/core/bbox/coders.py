"""Boxes as offsets from others, which is what a network predicts."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from forebay_trainer.registry import BBOX_CODERS

if TYPE_CHECKING:
    from collections.abc import Sequence

    Four = Sequence[float]


def _center_and_size(boxes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return (boxes[..., :2] + boxes[..., 2:]) * 0.5, boxes[..., 2:] - boxes[..., :2]


@BBOX_CODERS.register_module()
class DeltaXYWHBBoxCoder:
    """Codes a box by the shift of its centre, in sizes of the other box, and the logarithm of its
    relative size (arXiv 1311.2524), both less *target_means* and divided by *target_stds*.

    *clip_border*: decoded boxes are cut at the image's border. *add_ctr_clamp*: they move by
    *ctr_clamp* pixels at most, each way, and may become as small as is predicted.
    """

    def __init__(
        self,
        target_means: Four = (0.0, 0.0, 0.0, 0.0),
        target_stds: Four = (1.0, 1.0, 1.0, 1.0),
        clip_border: bool = True,
        add_ctr_clamp: bool = False,
        ctr_clamp: float = 32,
    ) -> None:
        self.means = target_means
        self.stds = target_stds
        self.clip_border = clip_border
        self.farthest = ctr_clamp if add_ctr_clamp else None

    def encode(self, bboxes: torch.Tensor, gt_bboxes: torch.Tensor) -> torch.Tensor:
        """Return the deltas (n, 4) from boxes to the true ones, both (n, 4)."""
        center, size = _center_and_size(bboxes.float())
        true_center, true_size = _center_and_size(gt_bboxes.float())
        deltas = torch.cat([(true_center - center) / size, (true_size / size).log()], dim=-1)
        return (deltas - deltas.new_tensor(self.means)) / deltas.new_tensor(self.stds)

    def decode(
        self,
        bboxes: torch.Tensor,
        pred_bboxes: torch.Tensor,
        max_shape: Sequence[int] | None = None,
        wh_ratio_clip: float = 16 / 1000,
    ) -> torch.Tensor:
        """Return the boxes, (n, 4) or (n, classes * 4), that deltas of that shape give from boxes
        (n, 4).

        They are cut at *max_shape* (height, width, ...), and no more than ``1 / wh_ratio_clip``
        times larger or smaller than before.
        """
        deltas = pred_bboxes.to(bboxes.dtype).reshape(len(bboxes), pred_bboxes.size(1) // 4, 4)
        deltas = deltas * deltas.new_tensor(self.stds) + deltas.new_tensor(self.means)
        center, size = _center_and_size(bboxes[:, None, :4])
        limit = abs(math.log(wh_ratio_clip))
        shift, growth = size * deltas[..., :2], deltas[..., 2:].clamp(max=limit)
        if self.farthest is None:
            growth = growth.clamp(min=-limit)
        else:
            shift = shift.clamp(-self.farthest, self.farthest)
        center, half = center + shift, size * growth.exp() * 0.5
        start, end = center - half, center + half
        if self.clip_border and max_shape is not None:
            border = start.new_tensor([max_shape[1], max_shape[0]])
            origin = torch.zeros_like(border)
            start, end = start.clamp(origin, border), end.clamp(origin, border)
        return torch.cat([start, end], dim=-1).reshape(pred_bboxes.shape)
