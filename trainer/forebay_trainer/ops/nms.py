"""Non-maximum suppression: of boxes that overlap, only the one with the best score stays."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import torch

from forebay_trainer.ops import native

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Suppress = Callable[..., tuple[torch.Tensor, torch.Tensor]]

_BLOCK = 256  # boxes; the overlaps of a block with all others are in memory at once
_MOST_AT_ONCE = 10_000  # boxes


def _areas(boxes: torch.Tensor) -> torch.Tensor:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def _ious(boxes: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Return the overlaps (m, n); NaN of two boxes without area."""
    start = torch.maximum(boxes[:, None, :2], others[None, :, :2])
    end = torch.minimum(boxes[:, None, 2:], others[None, :, 2:])
    overlap = (end - start).clamp_(min=0).prod(dim=-1)
    return overlap / (_areas(boxes)[:, None] + _areas(others) - overlap)


def _first_of_each(suppresses: torch.Tensor) -> torch.Tensor:
    """Return which of m boxes stay, the best first; *suppresses* (m, m) has what each would
    suppress of the later ones.

    Those that stay are a fixed point of "no better one that stays suppresses me". Each round is
    right for at least one more box, and mostly for all after a few.
    """
    stay = torch.ones(len(suppresses), dtype=torch.bool, device=suppresses.device)
    while True:
        now = ~(suppresses & stay[:, None]).any(dim=0)
        if torch.equal(now, stay):
            return stay
        stay = now


def torch_nms(boxes: torch.Tensor, scores: torch.Tensor, iou_threshold: float) -> torch.Tensor:
    """:func:`nms_indices` in plain torch."""
    order = scores.argsort(descending=True, stable=True)
    kept = []
    while len(order):
        block, rest = order[:_BLOCK], order[_BLOCK:]
        over = _ious(boxes[block], boxes[order]) > iou_threshold
        stay = _first_of_each(over[:, : len(block)].triu(diagonal=1))
        kept.append(block[stay])
        order = rest[~over[stay, len(block) :].any(dim=0)]
    return torch.cat(kept) if kept else order


def nms_indices(boxes: torch.Tensor, scores: torch.Tensor, iou_threshold: float) -> torch.Tensor:
    """Return the indices of the boxes (n, 4) that stay, the best score first.

    A box goes if its intersection over union with a better one that stays exceeds the threshold.
    """
    found: torch.Tensor = (native.nms or torch_nms)(boxes, scores, iou_threshold)
    return found


def _with_scores(boxes: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    return torch.cat([boxes, scores[:, None]], dim=-1)


def nms(
    boxes: torch.Tensor,
    scores: torch.Tensor,
    iou_threshold: float,
    score_threshold: float = 0.0,
    max_num: int = -1,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the detections (k, 5) that stay, each with its score, and their indices (k,).

    With *score_threshold* above 0 those above it only, with *max_num* above 0 no more than that.
    """
    if score_threshold > 0:
        high = (scores > score_threshold).nonzero().squeeze(1)
        keep = high[nms_indices(boxes[high], scores[high], iou_threshold)]
    else:
        keep = nms_indices(boxes, scores, iou_threshold)
    keep = keep[:max_num] if max_num > 0 else keep
    return _with_scores(boxes[keep], scores[keep]), keep


def soft_nms(
    boxes: torch.Tensor,
    scores: torch.Tensor,
    iou_threshold: float = 0.3,
    sigma: float = 0.5,
    min_score: float = 1e-3,
    method: str = "linear",
    max_num: int = -1,
) -> tuple[torch.Tensor, torch.Tensor]:
    """As :func:`nms`, but what overlaps a better box loses score (arXiv 1704.04503).

    By *method* "linear" it is multiplied by 1 - IoU above *iou_threshold*, by "gaussian" by
    exp(-IoU² / sigma), by "naive" it becomes 0 above the threshold. A box stays while its score
    is not below *min_score*; it has the reduced one.
    """
    left, score = torch.arange(len(boxes), device=boxes.device), scores.clone()
    kept: list[torch.Tensor] = []
    while len(left) and (max_num <= 0 or len(kept) < max_num):
        best = int(score[left].argmax())
        index = left[best]
        kept.append(index)
        left = torch.cat([left[:best], left[best + 1 :]])
        iou = _ious(boxes[index][None], boxes[left])[0]
        if method == "gaussian":
            factor = (-(iou**2) / sigma).exp()
        else:
            factor = torch.where(iou > iou_threshold, 1 - iou if method == "linear" else 0.0, 1.0)
        score[left] *= factor
        left = left[score[left] >= min_score]
    keep = torch.stack(kept) if kept else left
    return _with_scores(boxes[keep], score[keep]), keep


_METHODS: dict[str, Suppress] = {"nms": nms, "soft_nms": soft_nms}


def check_nms(nms_cfg: Mapping[str, Any]) -> None:
    """Raise ValueError or TypeError if :func:`batched_nms` cannot do what is asked for."""
    suppress, options = _method(nms_cfg)
    arguments = {key: options[key] for key in options.keys() - {"class_agnostic", "split_thr"}}
    inspect.signature(suppress).bind(None, None, **arguments)


def _method(nms_cfg: Mapping[str, Any]) -> tuple[Suppress, dict[str, Any]]:
    """Return the function that is named, and the other options."""
    options = dict(nms_cfg)
    if "iou_thr" in options:  # its name in older configurations, as in mmcv
        options["iou_threshold"] = options.pop("iou_thr")
    kind = options.pop("type", "nms")
    if kind not in _METHODS:
        raise ValueError(f"unknown nms type {kind!r}; known are {', '.join(sorted(_METHODS))}")
    return _METHODS[kind], options


def batched_nms(
    boxes: torch.Tensor,
    scores: torch.Tensor,
    idxs: torch.Tensor,
    nms_cfg: Mapping[str, Any] | None,
    class_agnostic: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Suppress among the boxes (n, 4) of the same group only: of the same class, or level.

    *idxs* (n,) has the groups. *nms_cfg* names the function and has its arguments; None suppresses
    nothing. Returns the detections (k, 5), the best first, and their indices (k,).
    """
    if nms_cfg is None:
        order = scores.argsort(descending=True)
        return _with_scores(boxes[order], scores[order]), order
    suppress, options = _method(nms_cfg)
    class_agnostic = options.pop("class_agnostic", class_agnostic)
    at_once = options.pop("split_thr", _MOST_AT_ONCE)
    most = options.pop("max_num", -1)
    apart = boxes
    if not class_agnostic and len(boxes):
        # Far apart, boxes of two groups do not overlap. Upstream rounds them so, and decides so.
        apart = boxes + (idxs.to(boxes) * (boxes.max() + boxes.new_ones(())))[:, None]
    if class_agnostic or (native.nms is not None and len(boxes) < at_once):
        detections, keep = suppress(apart, scores, **options)
    else:
        groups = [(idxs == group).nonzero().squeeze(1) for group in idxs.unique()]
        found = [suppress(apart[group], scores[group], **options) for group in groups]
        chosen = [group[kept] for group, (_, kept) in zip(groups, found, strict=True)]
        keep = torch.cat([torch.zeros_like(idxs[:0], dtype=torch.long), *chosen])
        detections = torch.cat([apart.new_zeros(0, 5), *(each for each, _ in found)])
    score = detections[:, 4]
    order = score.argsort(descending=True, stable=True)
    order = order[:most] if most > 0 else order
    keep = keep[order]
    return _with_scores(boxes[keep], score[order]), keep
