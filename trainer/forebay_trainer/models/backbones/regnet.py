"""RegNetX (arXiv 2003.13678): residual networks whose widths follow a line."""

from __future__ import annotations

import functools
import math
from itertools import groupby
from typing import TYPE_CHECKING, Any

from forebay_trainer.models.backbones.blocks import bottleneck
from forebay_trainer.models.backbones.residual import ResidualNetwork
from forebay_trainer.registry import BACKBONES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_ARCHS = {
    "regnetx_400mf": {"w0": 24, "wa": 24.48, "wm": 2.54, "group_w": 16, "depth": 22},
    "regnetx_800mf": {"w0": 56, "wa": 35.73, "wm": 2.28, "group_w": 16, "depth": 16},
    "regnetx_1.6gf": {"w0": 80, "wa": 34.01, "wm": 2.25, "group_w": 24, "depth": 18},
    "regnetx_3.2gf": {"w0": 88, "wa": 26.31, "wm": 2.25, "group_w": 48, "depth": 25},
    "regnetx_4.0gf": {"w0": 96, "wa": 38.65, "wm": 2.43, "group_w": 40, "depth": 23},
    "regnetx_6.4gf": {"w0": 184, "wa": 60.83, "wm": 2.07, "group_w": 56, "depth": 17},
    "regnetx_8.0gf": {"w0": 80, "wa": 49.56, "wm": 2.88, "group_w": 120, "depth": 23},
    "regnetx_12gf": {"w0": 168, "wa": 73.36, "wm": 2.37, "group_w": 112, "depth": 19},
}


def _multiple(value: float, divisor: int) -> int:
    return round(value / divisor) * divisor


def _stages(w0: float, wa: float, wm: float, depth: int) -> list[tuple[int, int]]:
    """Return the channels and the number of blocks of each stage.

    The blocks' channels ``w0 + wa * i`` are rounded to ``w0`` times a power of ``wm``, and these
    to a multiple of 8; equal ones are a stage.
    """
    powers = [round(math.log((w0 + wa * i) / w0) / math.log(wm)) for i in range(depth)]
    widths = groupby(_multiple(w0 * wm**power, 8) for power in powers)
    return [(width, len(list(blocks))) for width, blocks in widths]


@BACKBONES.register_module()
class RegNet(ResidualNetwork):
    """RegNetX of an *arch* as ``regnetx_3.2gf``, or by its numbers: w0, wa, wm, depth, group_w (the
    channels of a group) and bot_mul (of a block's width inside).

    For the others see :class:`ResidualNetwork`.
    """

    def __init__(
        self,
        arch: str | Mapping[str, float],
        in_channels: int = 3,
        stem_channels: int = 32,
        base_channels: int = 32,  # configurations have it, but no width depends on it
        strides: Sequence[int] = (2, 2, 2, 2),
        dilations: Sequence[int] = (1, 1, 1, 1),
        out_indices: Sequence[int] = (0, 1, 2, 3),
        **options: Any,
    ) -> None:
        super().__init__(out_indices, **options)
        if isinstance(arch, str) and arch not in _ARCHS:
            raise ValueError(f"RegNet has no arch {arch!r}; it has {', '.join(_ARCHS)}")
        numbers: Mapping[str, Any] = _ARCHS[arch] if isinstance(arch, str) else arch
        stages = _stages(numbers["w0"], numbers["wa"], numbers["wm"], int(numbers["depth"]))
        if not max(out_indices) < len(stages) == len(strides) == len(dilations):
            raise ValueError(
                f"RegNet: {len(stages)} stages do not go with out_indices {tuple(out_indices)}, "
                f"strides {tuple(strides)} and dilations {tuple(dilations)}"
            )
        self._add_regnet_stem(in_channels, stem_channels)
        channels, multiplier = stem_channels, numbers.get("bot_mul", 1.0)
        for (width, count), stride, dilation in zip(stages, strides, dilations, strict=True):
            group = min(numbers["group_w"], int(width * multiplier))
            inside = _multiple(int(width * multiplier), group)
            block = functools.partial(
                bottleneck, self.layers, inside, int(inside / multiplier), groups=inside // group
            )
            channels = self._add_stage(block, channels, count, stride, dilation)
        self._freeze()

    def _add_regnet_stem(self, in_channels: int, stem_channels: int) -> None:
        self._add_plain_stem(in_channels, stem_channels, 3)


@BACKBONES.register_module()
class NoStemRegNet(RegNet):
    """RegNet for features (n, *stem_channels*, height, width) that something else has made."""

    def _add_regnet_stem(self, in_channels: int, stem_channels: int) -> None:
        pass
