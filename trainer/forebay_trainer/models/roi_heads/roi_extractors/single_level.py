"""Pools the features of regions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from forebay_trainer import ops
from forebay_trainer.models.utils import BaseModule
from forebay_trainer.registry import ROI_EXTRACTORS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@ROI_EXTRACTORS.register_module()
class SingleRoIExtractor(BaseModule):
    """Pools each region from the one level that fits its size, as in FPN, arXiv 1612.03144.

    A region of less than twice *finest_scale* (the root of its area, in pixels) is pooled from
    level 0, each doubling is a level more.
    """

    def __init__(
        self,
        roi_layer: Mapping[str, Any],
        out_channels: int,
        featmap_strides: Sequence[int],
        finest_scale: int = 56,
        init_cfg: Any = None,
    ) -> None:
        super().__init__(init_cfg)
        options = dict(roi_layer)
        if (kind := options.pop("type")) != "RoIAlign":
            raise ValueError(f"roi_layer is of type RoIAlign, not {kind!r}")
        self.roi_layers = nn.ModuleList(
            ops.RoIAlign(spatial_scale=1 / stride, **options) for stride in featmap_strides
        )
        self.out_channels = out_channels
        self.featmap_strides = featmap_strides
        self.finest_scale = finest_scale

    @property
    def num_inputs(self) -> int:
        return len(self.featmap_strides)

    def forward(self, feats: Sequence[Tensor], rois: Tensor) -> Tensor:
        """Return the features (R, C, h, w) of rois (R, 5): index in the batch, and corners.

        A level without a region takes part with an empty result, so that in distributed training
        every rank has a gradient for the same parameters.
        """
        if len(feats) == 1:
            pooled: Tensor = self.roi_layers[0](feats[0], rois)
            return pooled
        levels = self.map_roi_levels(rois, len(feats))
        places = [(levels == level).nonzero().squeeze(1) for level in range(len(feats))]
        parts = [
            layer(feat, rois[place])
            for layer, feat, place in zip(self.roi_layers, feats, places, strict=True)
        ]
        return torch.cat(parts)[torch.cat(places).argsort()]

    def map_roi_levels(self, rois: Tensor, num_levels: int) -> Tensor:
        """Return the level (R,) of each region."""
        scale = ((rois[:, 3] - rois[:, 1]) * (rois[:, 4] - rois[:, 2])).sqrt()
        levels = (scale / self.finest_scale + 1e-6).log2().floor()
        return levels.clamp(min=0, max=num_levels - 1).long()
