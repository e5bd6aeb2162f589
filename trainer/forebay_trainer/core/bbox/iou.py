"""How much boxes overlap."""

from __future__ import annotations

import torch

from forebay_trainer.registry import IOU_CALCULATORS


def _areas(boxes: torch.Tensor) -> torch.Tensor:
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def bbox_overlaps(
    bboxes1: torch.Tensor,
    bboxes2: torch.Tensor,
    mode: str = "iou",
    is_aligned: bool = False,
    eps: float = 1e-6,
) -> torch.Tensor:
    """Return the overlaps of boxes (..., m, 4) with boxes (..., n, 4): (..., m, n).

    With *is_aligned* m equals n, and it is that of each pair: (..., m). *mode* "iou" is the
    intersection over the union, "iof" over the first box's area, "giou" the generalized one
    (arXiv 1902.09630). A smaller denominator than *eps*, in square pixels, is taken as that.
    """
    if mode not in ("iou", "iof", "giou"):
        raise ValueError(f"overlap mode {mode!r}; known are iou, iof, giou")
    areas1, areas2 = _areas(bboxes1), _areas(bboxes2)
    if not is_aligned:
        bboxes1, areas1 = bboxes1[..., :, None, :], areas1[..., :, None]
        bboxes2, areas2 = bboxes2[..., None, :, :], areas2[..., None, :]
    start = torch.maximum(bboxes1[..., :2], bboxes2[..., :2])
    end = torch.minimum(bboxes1[..., 2:], bboxes2[..., 2:])
    overlap = (end - start).clamp(min=0).prod(dim=-1)
    union = areas1.expand_as(overlap) if mode == "iof" else areas1 + areas2 - overlap
    union = union.clamp(min=eps)
    if mode != "giou":
        return overlap / union
    around = torch.maximum(bboxes1[..., 2:], bboxes2[..., 2:])
    around = around - torch.minimum(bboxes1[..., :2], bboxes2[..., :2])
    hull = around.clamp(min=0).prod(dim=-1).clamp(min=eps)
    return overlap / union - (hull - union) / hull


@IOU_CALCULATORS.register_module()
class BboxOverlaps2D:
    """:func:`bbox_overlaps` of boxes (n, 4), or (n, 5) with a score, which is not looked at."""

    def __call__(
        self,
        bboxes1: torch.Tensor,
        bboxes2: torch.Tensor,
        mode: str = "iou",
        is_aligned: bool = False,
    ) -> torch.Tensor:
        return bbox_overlaps(bboxes1[..., :4], bboxes2[..., :4], mode, is_aligned)
