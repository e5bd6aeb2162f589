"""Which true box each candidate is for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from forebay_trainer.core.bbox.builder import build_iou_calculator
from forebay_trainer.registry import BBOX_ASSIGNERS

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass
class AssignResult:
    """What n candidates were assigned to.

    ``gt_inds`` (n,): 1 + the index of the true box, 0 is background, -1 is neither.
    ``max_overlaps`` (n,): with the true box that overlaps it most; ``labels`` (n,): the true
    box's label, -1 without one.
    """

    num_gts: int
    gt_inds: torch.Tensor
    max_overlaps: torch.Tensor
    labels: torch.Tensor | None = None

    def add_gt_(self, gt_labels: torch.Tensor) -> None:
        """Put the true boxes before the candidates, each assigned to itself."""
        itself = torch.arange(1, len(gt_labels) + 1, device=self.gt_inds.device)
        self.gt_inds = torch.cat([itself, self.gt_inds])
        self.max_overlaps = torch.cat(
            [self.max_overlaps.new_ones(len(gt_labels)), self.max_overlaps]
        )
        if self.labels is not None:
            self.labels = torch.cat([gt_labels, self.labels])


@BBOX_ASSIGNERS.register_module()
class MaxIoUAssigner:
    """Assigns each candidate to the true box that overlaps it most.

    From *pos_iou_thr* it is positive, below *neg_iou_thr* (or within those two) background.

    Args:
        match_low_quality: then each true box gets the candidate that overlaps it most, if it does
            by *min_pos_iou*, even if that overlaps another more; with *gt_max_assign_all* all of
            them, if there are several that do so equally.
        ignore_iof_thr: candidates of which more than this share lies in one of the boxes to be
            ignored (crowds) are neither; not above 0, none are. Not *ignore_wrt_candidates*: of
            which they contain more than this share of one.
        gpu_assign_thr: with more true boxes than this, if above 0, it is computed on the CPU, as
            the overlaps may not fit the device.
    """

    def __init__(
        self,
        pos_iou_thr: float,
        neg_iou_thr: float | tuple[float, float],
        min_pos_iou: float = 0.0,
        gt_max_assign_all: bool = True,
        ignore_iof_thr: float = -1,
        ignore_wrt_candidates: bool = True,
        match_low_quality: bool = True,
        gpu_assign_thr: int = -1,
        iou_calculator: Mapping[str, Any] | None = None,
    ) -> None:
        self.pos_iou_thr = pos_iou_thr
        self.neg_range = (0, neg_iou_thr) if isinstance(neg_iou_thr, float | int) else neg_iou_thr
        self.min_pos_iou = min_pos_iou
        self.gt_max_assign_all = gt_max_assign_all
        self.ignore_iof_thr = ignore_iof_thr
        self.ignore_wrt_candidates = ignore_wrt_candidates
        self.match_low_quality = match_low_quality
        self.gpu_assign_thr = gpu_assign_thr
        self.iou_calculator = build_iou_calculator(iou_calculator or {"type": "BboxOverlaps2D"})

    def assign(
        self,
        bboxes: torch.Tensor,
        gt_bboxes: torch.Tensor,
        gt_bboxes_ignore: torch.Tensor | None = None,
        gt_labels: torch.Tensor | None = None,
    ) -> AssignResult:
        """Assign candidates (n, 4 or 5) to true boxes (k, 4)."""
        device = bboxes.device
        if 0 < self.gpu_assign_thr < len(gt_bboxes):
            bboxes, gt_bboxes = bboxes.cpu(), gt_bboxes.cpu()
        overlaps = self.iou_calculator(gt_bboxes, bboxes)
        if self.ignore_iof_thr > 0 and gt_bboxes_ignore is not None and len(gt_bboxes_ignore):
            ignored = self._in_ignored(bboxes, gt_bboxes_ignore.to(bboxes.device))
            overlaps[:, ignored] = -1
        gt_inds, max_overlaps = self._from_overlaps(overlaps)
        gt_inds, max_overlaps = gt_inds.to(device), max_overlaps.to(device)
        labels = None
        if gt_labels is not None:
            with_none = torch.cat([gt_labels.new_full((1,), -1), gt_labels])
            labels = with_none[gt_inds.clamp(min=0)]
        return AssignResult(len(gt_bboxes), gt_inds, max_overlaps, labels)

    def _in_ignored(self, bboxes: torch.Tensor, ignored: torch.Tensor) -> torch.Tensor:
        if self.ignore_wrt_candidates:
            shares = self.iou_calculator(bboxes, ignored, mode="iof").amax(dim=1)
        else:
            shares = self.iou_calculator(ignored, bboxes, mode="iof").amax(dim=0)
        return shares > self.ignore_iof_thr

    def _from_overlaps(self, overlaps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return gt_inds and max_overlaps, both (n,), of overlaps (k, n)."""
        true, candidates = overlaps.shape
        if true == 0 or candidates == 0:
            zeros = overlaps.new_zeros(candidates)
            return zeros.long(), zeros
        best, best_true = overlaps.max(dim=0)
        gt_inds = torch.full_like(best_true, -1)
        low, high = self.neg_range
        gt_inds[(best >= low) & (best < high)] = 0
        gt_inds = torch.where(best >= self.pos_iou_thr, best_true + 1, gt_inds)
        if self.match_low_quality:
            gt_inds = self._match_each(overlaps, gt_inds)
        return gt_inds, best

    def _match_each(self, overlaps: torch.Tensor, gt_inds: torch.Tensor) -> torch.Tensor:
        """Give each true box its best candidates; of two that want the same the later gets it."""
        most, candidate = overlaps.max(dim=1, keepdim=True)
        if self.gt_max_assign_all:
            wanted = overlaps == most
        else:
            wanted = torch.zeros_like(overlaps, dtype=torch.bool).scatter_(1, candidate, True)
        wanted &= most >= self.min_pos_iou
        true, candidates = wanted.nonzero(as_tuple=True)
        last = torch.zeros_like(gt_inds).scatter_reduce(0, candidates, true + 1, "amax")
        return torch.where(last > 0, last, gt_inds)
