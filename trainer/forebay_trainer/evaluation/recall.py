"""Recall of proposals."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from forebay_trainer.evaluation.overlaps import pairwise_iou
from forebay_trainer.evaluation.tables import ascii_table, say

if TYPE_CHECKING:
    import logging
    from collections.abc import Sequence

    from forebay_trainer.evaluation.overlaps import Array


def eval_recalls(
    gts: Sequence[Array],
    proposals: Sequence[Array],
    proposal_nums: Sequence[int] = (100, 300, 1000),
    iou_thrs: Sequence[float] = (0.5,),
    logger: logging.Logger | str | None = None,
    use_legacy_coordinate: bool = False,
) -> Array:
    """Return which share of the boxes is found: (numbers of proposals, thresholds).

    Args:
        gts: of each image, boxes (n, 4).
        proposals: of each image, boxes (k, 4), or with scores (k, 5).
        proposal_nums: how many of the best proposals of an image are looked at.
        iou_thrs: overlaps with which a box is found.
        logger: as ``say`` has it.
        use_legacy_coordinate: boxes end with their last pixel, not behind it.
    """
    extra = 1.0 if use_legacy_coordinate else 0.0
    overlaps = []
    for truths, found in zip(gts, proposals, strict=True):
        # Upstream's order of equal scores, which decides what is among the best.
        order = np.argsort(found[:, 4])[::-1] if found.shape[1] == 5 else slice(None)
        overlaps.append(pairwise_iou(truths, found[order], extra))
    recalls = np.zeros((len(proposal_nums), len(iou_thrs)))
    for row, number in enumerate(proposal_nums):
        best = np.concatenate([_assigned(each[:, :number]) for each in overlaps])
        recalls[row] = [(best >= threshold).sum() / max(len(best), 1) for threshold in iou_thrs]
    head = ["", *map(str, iou_thrs)]
    rows = [
        [str(number), *(f"{value:.3f}" for value in values)]
        for number, values in zip(proposal_nums, recalls, strict=True)
    ]
    say(f"\n{ascii_table([head, *rows])}", logger)
    return recalls


def _assigned(overlaps: Array) -> Array:
    """Return the overlap (n,) of each box with a proposal of its own, best pairs first."""
    left = overlaps.copy()
    best = np.zeros(len(left))
    for _ in range(min(left.shape)):
        box, proposal = np.unravel_index(left.argmax(), left.shape)
        best[box] = left[box, proposal]
        left[box, :] = left[:, proposal] = -1
    return best
