"""Residual blocks, and the stages they are stacked to (arXiv 1512.03385)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import nn

from forebay_trainer.models.utils import build_conv_layer, build_norm_layer, run_block

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch


@dataclass(frozen=True)
class Layers:
    """How all blocks of a network are made.

    ``style``: whether a bottleneck's stride is in its 3x3 convolution ("pytorch") or in its first
    ("caffe"). ``with_cp``: activations inside a block are computed again, not kept.
    """

    conv_cfg: Mapping[str, Any] | None
    norm_cfg: Mapping[str, Any]
    style: str
    with_cp: bool
    avg_down: bool

    def conv(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
    ) -> nn.Module:
        """Return a convolution that keeps the size, but for its stride."""
        return build_conv_layer(
            self.conv_cfg,
            in_channels,
            out_channels,
            kernel,
            stride=stride,
            padding=dilation * (kernel // 2),
            dilation=dilation,
            groups=groups,
            bias=False,
        )

    def norm(self, channels: int) -> nn.Module:
        return build_norm_layer(self.norm_cfg, channels)[1]

    def downsample(self, in_channels: int, out_channels: int, stride: int) -> nn.Module | None:
        """Return what makes a block's input as its output, None if it already is."""
        if stride == 1 and in_channels == out_channels:
            return None
        pool = []
        if self.avg_down:  # arXiv 1812.01187; also of one cell, for the names of the parameters
            pool = [nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False)]
        conv = self.conv(in_channels, out_channels, 1, stride=1 if pool else stride)
        return nn.Sequential(*pool, conv, self.norm(out_channels))


class ResidualBlock(nn.Module):
    """Adds to its input what its convolutions, each with a normalization, make of it."""

    def __init__(self, layers: Layers, convolutions: list[nn.Module], downsample: Any) -> None:
        super().__init__()
        self.out_channels = convolutions[-1].out_channels
        self._with_cp = layers.with_cp
        self._names = []
        for number, conv in enumerate(convolutions, 1):
            name, norm = build_norm_layer(layers.norm_cfg, conv.out_channels, number)
            self.add_module(f"conv{number}", conv)
            self.add_module(name, norm)
            self._names.append((f"conv{number}", name))
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample

    @property
    def last_norm(self) -> nn.Module:
        return getattr(self, self._names[-1][1])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.relu(run_block(self._add, x, self._with_cp))

    def _add(self, x: torch.Tensor) -> torch.Tensor:
        out = x
        for number, (conv, norm) in enumerate(self._names):
            out = self.relu(out) if number else out
            out = getattr(self, norm)(getattr(self, conv)(out))
        return out + (x if self.downsample is None else self.downsample(x))


def basic_block(
    layers: Layers, width: int, in_channels: int, stride: int, dilation: int
) -> ResidualBlock:
    """Return the block of ResNet 18 and 34: two 3x3 convolutions that give *width* channels."""
    convolutions = [
        layers.conv(in_channels, width, 3, stride, dilation),
        layers.conv(width, width, 3),
    ]
    return ResidualBlock(layers, convolutions, layers.downsample(in_channels, width, stride))


def bottleneck(
    layers: Layers,
    width: int,
    out_channels: int,
    in_channels: int,
    stride: int,
    dilation: int,
    groups: int = 1,
) -> ResidualBlock:
    """Return the block of deeper ones: a 3x3 convolution of *width* channels between 1x1 ones."""
    first, second = (1, stride) if layers.style == "pytorch" else (stride, 1)
    convolutions = [
        layers.conv(in_channels, width, 1, first),
        layers.conv(width, width, 3, second, dilation, groups),
        layers.conv(width, out_channels, 1),
    ]
    return ResidualBlock(layers, convolutions, layers.downsample(in_channels, out_channels, stride))
