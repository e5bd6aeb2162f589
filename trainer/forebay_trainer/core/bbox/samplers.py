"""Which candidates a loss is computed of."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from forebay_trainer.registry import BBOX_SAMPLERS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from forebay_trainer.core.bbox.assigners import AssignResult

_log = logging.getLogger(__name__)


@dataclass
class SamplingResult:
    """The sampled candidates.

    ``pos_inds`` (p,) and ``neg_inds`` (q,) are indices into the candidates; ``pos_is_gt`` (p,) is
    1 where the candidate was a true box; ``pos_assigned_gt_inds`` (p,) is the index of its true
    box, ``pos_gt_bboxes`` (p, 4) that box, ``pos_gt_labels`` (p,) its label.
    """

    pos_inds: torch.Tensor
    neg_inds: torch.Tensor
    pos_bboxes: torch.Tensor
    neg_bboxes: torch.Tensor
    pos_is_gt: torch.Tensor
    num_gts: int
    pos_assigned_gt_inds: torch.Tensor
    pos_gt_bboxes: torch.Tensor
    pos_gt_labels: torch.Tensor | None

    @classmethod
    def of(
        cls,
        pos_inds: torch.Tensor,
        neg_inds: torch.Tensor,
        bboxes: torch.Tensor,
        gt_bboxes: torch.Tensor,
        assigned: AssignResult,
        is_gt: torch.Tensor,
    ) -> SamplingResult:
        """Look up what belongs to the sampled indices of *bboxes* (n, 4)."""
        true = assigned.gt_inds[pos_inds] - 1
        return cls(
            pos_inds=pos_inds,
            neg_inds=neg_inds,
            pos_bboxes=bboxes[pos_inds],
            neg_bboxes=bboxes[neg_inds],
            pos_is_gt=is_gt[pos_inds],
            num_gts=len(gt_bboxes),
            pos_assigned_gt_inds=true,
            pos_gt_bboxes=gt_bboxes.reshape(-1, 4)[true],
            pos_gt_labels=None if assigned.labels is None else assigned.labels[pos_inds],
        )

    @property
    def bboxes(self) -> torch.Tensor:
        """The positive boxes, then the negative ones: (p + q, 4)."""
        return torch.cat([self.pos_bboxes, self.neg_bboxes])


def _indices(mask: torch.Tensor) -> torch.Tensor:
    return mask.nonzero(as_tuple=False).squeeze(1)


def _say_unread(sampler: object, unread: Mapping[str, Any]) -> None:
    """Warn of arguments of another sampler, which a configuration may have taken over."""
    names = sorted(unread.keys() - {"context"})  # which heads offer
    if names:
        _log.warning("%s has no use for %s", type(sampler).__name__, ", ".join(names))


@BBOX_SAMPLERS.register_module()
class PseudoSampler:
    """Takes all candidates that were assigned to a true box or to the background."""

    def __init__(self, **unread: Any) -> None:
        _say_unread(self, unread)

    def sample(
        self,
        assign_result: AssignResult,
        bboxes: torch.Tensor,
        gt_bboxes: torch.Tensor,
        gt_labels: torch.Tensor | None = None,
        **_: Any,
    ) -> SamplingResult:
        return SamplingResult.of(
            _indices(assign_result.gt_inds > 0),
            _indices(assign_result.gt_inds == 0),
            bboxes,
            gt_bboxes,
            assign_result,
            bboxes.new_zeros(len(bboxes), dtype=torch.uint8),
        )


@BBOX_SAMPLERS.register_module()
class RandomSampler:
    """Takes *num* candidates at random, up to *pos_fraction* of them positive.

    Args:
        neg_pos_ub: up to so many times as many negative as positive ones; below 0 no limit.
        add_gt_as_proposals: the true boxes are candidates too, before the others.
    """

    def __init__(
        self,
        num: int,
        pos_fraction: float,
        neg_pos_ub: float = -1,
        add_gt_as_proposals: bool = True,
        **unread: Any,
    ) -> None:
        _say_unread(self, unread)
        self.num = num
        self.pos_fraction = pos_fraction
        self.neg_pos_ub = neg_pos_ub
        self.add_gt_as_proposals = add_gt_as_proposals

    def sample(
        self,
        assign_result: AssignResult,
        bboxes: torch.Tensor,
        gt_bboxes: torch.Tensor,
        gt_labels: torch.Tensor | None = None,
        **_: Any,
    ) -> SamplingResult:
        """Sample of candidates (n, 4 or 5). The true boxes are added to *assign_result* too."""
        bboxes = bboxes[:, :4]
        is_gt = bboxes.new_zeros(len(bboxes), dtype=torch.uint8)
        if self.add_gt_as_proposals and len(gt_bboxes):
            if gt_labels is None:
                raise ValueError("add_gt_as_proposals needs the labels of the true boxes")
            bboxes = torch.cat([gt_bboxes, bboxes])
            assign_result.add_gt_(gt_labels)
            is_gt = torch.cat([is_gt.new_ones(len(gt_bboxes)), is_gt])
        positive = self._choose(
            _indices(assign_result.gt_inds > 0), int(self.num * self.pos_fraction)
        )
        most = self.num - len(positive)
        if self.neg_pos_ub >= 0:
            most = min(most, int(self.neg_pos_ub * max(1, len(positive))))
        negative = self._choose(_indices(assign_result.gt_inds == 0), most)
        return SamplingResult.of(positive, negative, bboxes, gt_bboxes, assign_result, is_gt)

    @staticmethod
    def _choose(indices: torch.Tensor, most: int) -> torch.Tensor:
        if len(indices) <= most:
            return indices
        # drawn on the CPU, so that a seed gives the same sample on every device
        chosen = torch.randperm(len(indices))[:most].sort().values
        return indices[chosen.to(indices.device)]
