"""From the loss of each element to what a model returns."""

from __future__ import annotations

import torch
from torch import nn

_EPSILON = torch.finfo(torch.float32).eps


def weight_reduce_loss(
    loss: torch.Tensor,
    weight: torch.Tensor | None = None,
    reduction: str = "mean",
    avg_factor: float | torch.Tensor | None = None,
) -> torch.Tensor:
    """Weight *loss* element by element, then reduce it by "none", "mean" or "sum".

    With *avg_factor*, a count of samples, "mean" divides the sum by it; it may be 0.
    """
    if weight is not None:
        loss = loss * weight
    if reduction == "none":
        return loss
    if avg_factor is None:
        return loss.mean() if reduction == "mean" else loss.sum()
    if reduction != "mean":
        raise ValueError(f"avg_factor goes with reduction 'mean', not with {reduction!r}")
    return loss.sum() / (avg_factor + _EPSILON)


class RegressionLoss(nn.Module):
    """A loss of predicted and true numbers, element by element of the same shape."""

    def __init__(self, reduction: str = "mean", loss_weight: float = 1.0) -> None:
        super().__init__()
        self.reduction = reduction
        self.loss_weight = loss_weight

    def elementwise(self, pred: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def forward(
        self,
        pred: torch.Tensor,
        target: torch.Tensor,
        weight: torch.Tensor | None = None,
        avg_factor: float | torch.Tensor | None = None,
        reduction_override: str | None = None,
    ) -> torch.Tensor:
        if target.numel() == 0:
            return self.loss_weight * pred.sum() * 0  # that every parameter has a gradient
        loss = self.elementwise(pred, target)
        reduction = reduction_override or self.reduction
        return self.loss_weight * weight_reduce_loss(loss, weight, reduction, avg_factor)
