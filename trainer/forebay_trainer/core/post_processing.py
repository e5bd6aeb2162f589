"""From scores and boxes of all candidates to detections."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

from forebay_trainer.ops import batched_nms

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Literal

    import torch

    Detections = tuple[torch.Tensor, torch.Tensor]


@overload
def multiclass_nms(
    multi_bboxes: torch.Tensor,
    multi_scores: torch.Tensor,
    score_thr: float,
    nms_cfg: Mapping[str, Any] | None,
    max_num: int = -1,
    score_factors: torch.Tensor | None = None,
    return_inds: Literal[False] = False,
) -> Detections: ...
@overload
def multiclass_nms(
    multi_bboxes: torch.Tensor,
    multi_scores: torch.Tensor,
    score_thr: float,
    nms_cfg: Mapping[str, Any] | None,
    max_num: int = -1,
    score_factors: torch.Tensor | None = None,
    *,
    return_inds: Literal[True],
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]: ...
def multiclass_nms(
    multi_bboxes: torch.Tensor,
    multi_scores: torch.Tensor,
    score_thr: float,
    nms_cfg: Mapping[str, Any] | None,
    max_num: int = -1,
    score_factors: torch.Tensor | None = None,
    return_inds: bool = False,
) -> tuple[torch.Tensor, ...]:
    """Return the detections (k, 5), the best first, and their labels (k,).

    Args:
        multi_bboxes: (n, 4), or (n, classes * 4) with a box of each class.
        multi_scores: (n, classes + 1), the last of the background.
        score_thr: only higher scores are looked at.
        max_num: of detections; below 0 all.
        score_factors: (n,); scores are multiplied by it after the threshold.
        return_inds: return also the indices (k,) of the detections in the flattened (n * classes).
    """
    scores = multi_scores[:, :-1]
    classes = scores.size(1)
    candidates, labels = (scores > score_thr).nonzero(as_tuple=True)
    boxes = multi_bboxes.reshape(len(scores), multi_bboxes.size(1) // 4, 4)
    boxes = boxes[candidates, labels if boxes.size(1) > 1 else 0]
    score = scores[candidates, labels]
    if score_factors is not None:
        score = score * score_factors[candidates]
    detections, keep = batched_nms(boxes, score, labels, nms_cfg)
    if max_num > 0:
        detections, keep = detections[:max_num], keep[:max_num]
    if return_inds:
        return detections, labels[keep], candidates[keep] * classes + labels[keep]
    return detections, labels[keep]
