"""AugFPN (arXiv 1912.05384): a pyramid whose coarsest level does not lose what it saw."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional

from forebay_trainer.models.necks.fpn import FPN
from forebay_trainer.registry import NECKS

if TYPE_CHECKING:
    from collections.abc import Sequence

_RATIOS = (0.1, 0.2, 0.3)


class AdaptiveSpatialFusion(nn.Module):
    """Adds feature maps of one size, each weighted at each place by what all have there."""

    def __init__(self, channels: int, maps: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels * maps, channels, 1)
        self.weigh = nn.Conv2d(channels, maps, 3, padding=1)

    def forward(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return the fusion (n, channels, h, w) of maps of that shape."""
        weights = self.weights(maps)
        return (torch.stack(list(maps), dim=1) * weights[:, :, None]).sum(dim=1)

    def weights(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return the weight, 0 to 1, of each map at each place: (n, maps, h, w)."""
        return self.weigh(functional.relu(self.reduce(torch.cat(list(maps), dim=1)))).sigmoid()


class ResidualFeatureAugmentation(nn.Module):
    """The coarsest features of a backbone with their surroundings, in fewer channels.

    They are pooled to *ratios* of their height and width, so that a map keeps its shape, reduced,
    enlarged again and fused.
    """

    def __init__(
        self, in_channels: int, out_channels: int, ratios: Sequence[float] = _RATIOS
    ) -> None:
        super().__init__()
        self.ratios = tuple(ratios)
        self.reduce = nn.ModuleList(nn.Conv2d(in_channels, out_channels, 1) for _ in self.ratios)
        self.fusion = AdaptiveSpatialFusion(out_channels, len(self.ratios))

    def pooled_sizes(self, height: int, width: int) -> list[tuple[int, int]]:
        """Return the size of each pooled map; no side is less than a cell."""
        return [(max(1, int(height * r)), max(1, int(width * r))) for r in self.ratios]

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return (n, out_channels, h, w) of features (n, in_channels, h, w)."""
        size = features.shape[2:]
        maps = []
        for pooled_size, reduce in zip(self.pooled_sizes(*size), self.reduce, strict=True):
            pooled = reduce(functional.adaptive_avg_pool2d(features, pooled_size))
            maps.append(
                functional.interpolate(pooled, size=size, mode="bilinear", align_corners=False)
            )
        return self.fusion(maps)


@NECKS.register_module()
class AugFPN(FPN):
    """FPN, to whose coarsest level the residual feature augmentation is added.

    The consistent supervision and the soft selection of regions of interest, which the paper has
    besides, are a matter of heads. An FPN's weights load; only those of the augmentation are new.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        out_channels: int,
        num_outs: int,
        start_level: int = 0,
        end_level: int = -1,
        add_extra_convs: bool | str = False,
        **options: Any,
    ) -> None:
        super().__init__(
            in_channels, out_channels, num_outs, start_level, end_level, add_extra_convs, **options
        )
        self.augmentation = ResidualFeatureAugmentation(
            self.in_channels[self.levels[-1]], out_channels
        )

    def _laterals(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        laterals = super()._laterals(inputs)
        laterals[-1] = laterals[-1] + self.augmentation(inputs[self.levels[-1]])
        return laterals
