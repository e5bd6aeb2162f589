"""Heads on regions, and their parts."""

from forebay_trainer.models.roi_heads.bbox_heads import (
    BBoxHead,
    ConvFCBBoxHead,
    Shared2FCBBoxHead,
    Shared4Conv1FCBBoxHead,
)
from forebay_trainer.models.roi_heads.cascade_roi_head import CascadeRoIHead
from forebay_trainer.models.roi_heads.mask_heads import FCNMaskHead
from forebay_trainer.models.roi_heads.roi_extractors import SingleRoIExtractor
from forebay_trainer.models.roi_heads.shared_heads import ResLayer
from forebay_trainer.models.roi_heads.standard_roi_head import StandardRoIHead

__all__ = [
    "BBoxHead",
    "CascadeRoIHead",
    "ConvFCBBoxHead",
    "FCNMaskHead",
    "ResLayer",
    "Shared2FCBBoxHead",
    "Shared4Conv1FCBBoxHead",
    "SingleRoIExtractor",
    "StandardRoIHead",
]
