"""ResNet (arXiv 1512.03385)."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from torch import nn

from forebay_trainer.models.backbones.blocks import basic_block, bottleneck
from forebay_trainer.models.backbones.residual import ResidualNetwork
from forebay_trainer.registry import BACKBONES

if TYPE_CHECKING:
    from collections.abc import Sequence

_BLOCKS = {  # per stage
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
_BOTTLENECKS_FROM = 50
_EXPANSION = 4  # of a bottleneck's width


@BACKBONES.register_module()
class ResNet(ResidualNetwork):
    """ResNet of *depth* 18, 34, 50, 101 or 152.

    Args:
        stem_channels: by default *base_channels*, which are those of the first stage's blocks,
            and double from stage to stage.
        strides, dilations: of each stage; as many as *num_stages*, or more.
        deep_stem: three 3x3 convolutions instead of one of 7x7 (arXiv 1812.01187).

    For the others see :class:`ResidualNetwork`.
    """

    def __init__(
        self,
        depth: int,
        in_channels: int = 3,
        stem_channels: int | None = None,
        base_channels: int = 64,
        num_stages: int = 4,
        strides: Sequence[int] = (1, 2, 2, 2),
        dilations: Sequence[int] = (1, 1, 1, 1),
        out_indices: Sequence[int] = (0, 1, 2, 3),
        deep_stem: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(out_indices, **options)
        if depth not in _BLOCKS:
            raise ValueError(f"ResNet has no depth {depth}; it has {', '.join(map(str, _BLOCKS))}")
        if not max(out_indices) < num_stages <= min(len(strides), len(dilations), 4):
            raise ValueError(
                f"ResNet: {num_stages} stages do not go with out_indices {tuple(out_indices)}, "
                f"strides {tuple(strides)} and dilations {tuple(dilations)}"
            )
        self.depth = depth
        channels = stem_channels or base_channels
        if deep_stem:
            self._add_stem(stem=self._deep_stem(in_channels, channels))
        else:
            self._add_plain_stem(in_channels, channels, 7)
        self._add_stem(maxpool=nn.MaxPool2d(3, stride=2, padding=1))
        for stage in range(num_stages):
            width = base_channels * 2**stage
            block = (
                functools.partial(bottleneck, self.layers, width, width * _EXPANSION)
                if depth >= _BOTTLENECKS_FROM
                else functools.partial(basic_block, self.layers, width)
            )
            channels = self._add_stage(
                block, channels, _BLOCKS[depth][stage], strides[stage], dilations[stage]
            )
        self._freeze()

    def _deep_stem(self, in_channels: int, channels: int) -> nn.Module:
        modules = []
        for inputs, outputs, stride in (
            (in_channels, channels // 2, 2),
            (channels // 2, channels // 2, 1),
            (channels // 2, channels, 1),
        ):
            conv = self.layers.conv(inputs, outputs, 3, stride)
            modules += [conv, self.layers.norm(outputs), nn.ReLU(inplace=True)]
        return nn.Sequential(*modules)


@BACKBONES.register_module()
class ResNetV1d(ResNet):
    """ResNet with a deep stem and pooling where a block's input is made smaller."""

    def __init__(self, **options: Any) -> None:
        super().__init__(deep_stem=True, avg_down=True, **options)
