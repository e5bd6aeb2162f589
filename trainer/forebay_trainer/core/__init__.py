"""What detectors are made of besides layers: anchors, boxes, masks and their selection."""

from forebay_trainer.core.anchor import (
    AnchorGenerator,
    anchor_inside_flags,
    build_anchor_generator,
    build_prior_generator,
    images_to_levels,
)
from forebay_trainer.core.bbox import (
    AssignResult,
    BboxOverlaps2D,
    DeltaXYWHBBoxCoder,
    MaxIoUAssigner,
    PseudoSampler,
    RandomSampler,
    SamplingResult,
    bbox2result,
    bbox2roi,
    bbox_flip,
    bbox_mapping,
    bbox_mapping_back,
    bbox_overlaps,
    build_assigner,
    build_bbox_coder,
    build_iou_calculator,
    build_sampler,
)
from forebay_trainer.core.masks import BitmapMasks, PolygonMasks, mask_target
from forebay_trainer.core.post_processing import multiclass_nms

__all__ = [
    "AnchorGenerator",
    "AssignResult",
    "BboxOverlaps2D",
    "BitmapMasks",
    "DeltaXYWHBBoxCoder",
    "MaxIoUAssigner",
    "PolygonMasks",
    "PseudoSampler",
    "RandomSampler",
    "SamplingResult",
    "anchor_inside_flags",
    "bbox2result",
    "bbox2roi",
    "bbox_flip",
    "bbox_mapping",
    "bbox_mapping_back",
    "bbox_overlaps",
    "build_anchor_generator",
    "build_assigner",
    "build_bbox_coder",
    "build_iou_calculator",
    "build_prior_generator",
    "build_sampler",
    "images_to_levels",
    "mask_target",
    "multiclass_nms",
]
