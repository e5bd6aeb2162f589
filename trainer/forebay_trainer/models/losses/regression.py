"""Losses of box regression: of the encoded deltas, or of the boxes' overlap."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.nn import functional

from forebay_trainer.models.losses.reduction import RegressionLoss
from forebay_trainer.registry import LOSSES

if TYPE_CHECKING:
    import torch


@LOSSES.register_module()
class L1Loss(RegressionLoss):
    """``|pred - target|``."""

    def elementwise(self, pred: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return (pred - target).abs()


@LOSSES.register_module()
class SmoothL1Loss(RegressionLoss):
    """Quadratic below *beta*, ``|pred - target| - beta / 2`` above (arXiv 1504.08083)."""

    def __init__(
        self, beta: float = 1.0, reduction: str = "mean", loss_weight: float = 1.0
    ) -> None:
        super().__init__(reduction, loss_weight)
        self.beta = beta

    def elementwise(self, pred: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return functional.smooth_l1_loss(pred, target, reduction="none", beta=self.beta)
