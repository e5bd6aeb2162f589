"""Boxes (x1, y1, x2, y2) in pixels: their overlaps, codes, assignment and sampling."""

from forebay_trainer.core.bbox.assigners import AssignResult, MaxIoUAssigner
from forebay_trainer.core.bbox.builder import (
    build_assigner,
    build_bbox_coder,
    build_iou_calculator,
    build_sampler,
)
from forebay_trainer.core.bbox.coders import DeltaXYWHBBoxCoder
from forebay_trainer.core.bbox.iou import BboxOverlaps2D, bbox_overlaps
from forebay_trainer.core.bbox.samplers import PseudoSampler, RandomSampler, SamplingResult
from forebay_trainer.core.bbox.transforms import (
    bbox2result,
    bbox2roi,
    bbox_flip,
    bbox_mapping,
    bbox_mapping_back,
)

__all__ = [
    "AssignResult",
    "BboxOverlaps2D",
    "DeltaXYWHBBoxCoder",
    "MaxIoUAssigner",
    "PseudoSampler",
    "RandomSampler",
    "SamplingResult",
    "bbox2result",
    "bbox2roi",
    "bbox_flip",
    "bbox_mapping",
    "bbox_mapping_back",
    "bbox_overlaps",
    "build_assigner",
    "build_bbox_coder",
    "build_iou_calculator",
    "build_sampler",
]
