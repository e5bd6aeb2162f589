"""Builds what compares, codes, assigns and samples boxes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from forebay_trainer.registry import BBOX_ASSIGNERS, BBOX_CODERS, BBOX_SAMPLERS, IOU_CALCULATORS

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "BBOX_ASSIGNERS",
    "BBOX_CODERS",
    "BBOX_SAMPLERS",
    "IOU_CALCULATORS",
    "build_assigner",
    "build_bbox_coder",
    "build_iou_calculator",
    "build_sampler",
]


def build_assigner(cfg: Mapping[str, Any], **default_args: Any) -> Any:
    return BBOX_ASSIGNERS.build(cfg, default_args=default_args)


def build_sampler(cfg: Mapping[str, Any], **default_args: Any) -> Any:
    return BBOX_SAMPLERS.build(cfg, default_args=default_args)


def build_bbox_coder(cfg: Mapping[str, Any], **default_args: Any) -> Any:
    return BBOX_CODERS.build(cfg, default_args=default_args)


def build_iou_calculator(cfg: Mapping[str, Any], **default_args: Any) -> Any:
    return IOU_CALCULATORS.build(cfg, default_args=default_args)
