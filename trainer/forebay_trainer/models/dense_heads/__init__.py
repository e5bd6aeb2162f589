"""Heads on every place of the feature maps."""

from forebay_trainer.models.dense_heads.rpn_head import RPNHead

__all__ = ["RPNHead"]
