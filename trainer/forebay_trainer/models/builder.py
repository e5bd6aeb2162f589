"""Builds the parts of a model from configurations; ``type`` is a registered name or a class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from forebay_trainer.registry import (
    BACKBONES,
    DETECTORS,
    HEADS,
    LOSSES,
    MODELS,
    NECKS,
    ROI_EXTRACTORS,
    SHARED_HEADS,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

__all__ = [
    "BACKBONES",
    "DETECTORS",
    "HEADS",
    "LOSSES",
    "MODELS",
    "NECKS",
    "ROI_EXTRACTORS",
    "SHARED_HEADS",
    "build_backbone",
    "build_detector",
    "build_head",
    "build_loss",
    "build_neck",
    "build_roi_extractor",
    "build_shared_head",
]


def _build(cfg: Mapping[str, Any]) -> nn.Module:
    return MODELS.build(cfg)


build_backbone = build_neck = build_roi_extractor = build_shared_head = build_head = build_loss = (
    _build
)


def build_detector(
    cfg: Mapping[str, Any],
    train_cfg: Mapping[str, Any] | None = None,
    test_cfg: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Build a detector from ``model`` of a configuration.

    Old configurations have ``train_cfg`` and ``test_cfg`` beside ``model``, new ones inside it.
    Raises ValueError if one is in both places.
    """
    outside = {"train_cfg": train_cfg, "test_cfg": test_cfg}
    for name, value in outside.items():
        if value is not None and cfg.get(name) is not None:
            raise ValueError(f"{name} is given inside and outside of model")
    given = {name: value for name, value in outside.items() if value is not None}
    return DETECTORS.build(cfg, default_args=given)
