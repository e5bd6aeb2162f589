"""Cross entropy of classes, of independent yes-no questions, and of masks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

from forebay_trainer.models.losses.reduction import weight_reduce_loss
from forebay_trainer.registry import LOSSES

if TYPE_CHECKING:
    from collections.abc import Sequence

_NOTHING = -100  # ignored by torch, and no label


def _one_hot(labels: torch.Tensor, channels: int) -> torch.Tensor:
    """Return (n, channels) of n labels; a label outside, the background's, is a row of zeros."""
    return labels[:, None] == torch.arange(channels, device=labels.device)


@LOSSES.register_module()
class CrossEntropyLoss(nn.Module):
    """Cross entropy with softmax, with *use_sigmoid* per channel, with *use_mask* of masks.

    Labels equal to *ignore_index* count nothing; they are left out of the mean only with
    *avg_non_ignore*.
    """

    def __init__(
        self,
        use_sigmoid: bool = False,
        use_mask: bool = False,
        reduction: str = "mean",
        class_weight: Sequence[float] | None = None,
        ignore_index: int | None = None,
        loss_weight: float = 1.0,
        avg_non_ignore: bool = False,
    ) -> None:
        super().__init__()
        if use_sigmoid and use_mask:
            raise ValueError("CrossEntropyLoss: one of use_sigmoid and use_mask")
        self.use_sigmoid = use_sigmoid
        self.use_mask = use_mask
        self.reduction = reduction
        self.class_weight = class_weight
        self.ignore_index = ignore_index
        self.loss_weight = loss_weight
        self.avg_non_ignore = avg_non_ignore

    def forward(
        self,
        cls_score: torch.Tensor,
        label: torch.Tensor,
        weight: torch.Tensor | None = None,
        avg_factor: float | torch.Tensor | None = None,
        reduction_override: str | None = None,
        ignore_index: int | None = None,
    ) -> torch.Tensor:
        """Return the loss of scores (n, classes) for labels (n,).

        With *use_sigmoid* the labels may be of the scores' shape. With *use_mask* the scores are
        (n, classes, h, w), *label* is the target (n, h, w), and *weight* the class of each, whose
        score counts; the loss has shape (1,).
        """
        classes = None if self.class_weight is None else cls_score.new_tensor(self.class_weight)
        if self.use_mask:
            return self.loss_weight * self._of_masks(cls_score, label, weight, classes)
        ignored = self.ignore_index if ignore_index is None else ignore_index
        ignored = _NOTHING if ignored is None else ignored
        reduction = reduction_override or self.reduction
        if self.use_sigmoid:
            counted = (label >= 0) & (label != ignored)
            if label.dim() != cls_score.dim():
                label, counted = _one_hot(label, cls_score.size(-1)), counted[:, None]
                weight = None if weight is None else weight[:, None]
                counted = counted.expand_as(cls_score)
            loss = functional.binary_cross_entropy_with_logits(
                cls_score, label.to(cls_score), pos_weight=classes, reduction="none"
            )
            weight = counted.to(loss) if weight is None else weight * counted
        else:
            counted = label != ignored
            loss = functional.cross_entropy(
                cls_score, label, weight=classes, reduction="none", ignore_index=ignored
            )
        if avg_factor is None and self.avg_non_ignore and reduction == "mean":
            avg_factor = counted.sum()
        weight = None if weight is None else weight.float()
        return self.loss_weight * weight_reduce_loss(loss, weight, reduction, avg_factor)

    @staticmethod
    def _of_masks(
        pred: torch.Tensor,
        target: torch.Tensor,
        labels: torch.Tensor | None,
        classes: torch.Tensor | None,
    ) -> torch.Tensor:
        if labels is None:
            raise ValueError("the loss of masks needs the label of each")
        own = pred[torch.arange(len(pred), device=pred.device), labels]
        return functional.binary_cross_entropy_with_logits(own, target, weight=classes)[None]
