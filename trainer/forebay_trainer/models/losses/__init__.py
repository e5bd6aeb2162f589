"""Losses, by their names in configurations."""

from forebay_trainer.models.losses.accuracy import accuracy
from forebay_trainer.models.losses.cross_entropy import CrossEntropyLoss
from forebay_trainer.models.losses.reduction import RegressionLoss, weight_reduce_loss
from forebay_trainer.models.losses.regression import L1Loss, SmoothL1Loss

__all__ = [
    "CrossEntropyLoss",
    "L1Loss",
    "RegressionLoss",
    "SmoothL1Loss",
    "accuracy",
    "weight_reduce_loss",
]
