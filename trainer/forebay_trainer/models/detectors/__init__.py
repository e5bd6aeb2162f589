"""Whole detectors."""

from forebay_trainer.models.detectors.base import BaseDetector
from forebay_trainer.models.detectors.rpn import RPN
from forebay_trainer.models.detectors.two_stage import (
    CascadeRCNN,
    FasterRCNN,
    MaskRCNN,
    TwoStageDetector,
)

__all__ = ["RPN", "BaseDetector", "CascadeRCNN", "FasterRCNN", "MaskRCNN", "TwoStageDetector"]
