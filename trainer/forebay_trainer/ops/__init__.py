"""Operators of detectors: torchvision's where it loads, else the same in plain torch."""

from forebay_trainer.ops.nms import batched_nms, nms, soft_nms
from forebay_trainer.ops.roi_align import RoIAlign, roi_align

__all__ = ["RoIAlign", "batched_nms", "nms", "roi_align", "soft_nms"]
