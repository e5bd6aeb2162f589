"""Feature pyramid network (arXiv 1612.03144)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional

from forebay_trainer.models.utils import BaseModule, ConvModule
from forebay_trainer.registry import NECKS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_NEAREST = {"mode": "nearest"}
_XAVIER = {"type": "Xavier", "layer": "Conv2d", "distribution": "uniform"}
_EXTRA_FROM = ("on_input", "on_lateral", "on_output")


@NECKS.register_module()
class FPN(BaseModule):
    """Adds to the features of each level those of the coarser ones; all get *out_channels*.

    Args:
        in_channels: of each level of the backbone.
        num_outs: levels to return. Those beyond the backbone's are every second cell of the last.
        start_level, end_level: the first level used, and the last (-1: the backbone's last).
        add_extra_convs: the additional levels are convolutions with stride 2, the first of the
            backbone's last level ("on_input", or true), of its lateral convolution
            ("on_lateral"), or of the last output ("on_output").
        relu_before_extra_convs: each but the first of them after a ReLU.
        no_norm_on_lateral: *norm_cfg* is not for the lateral convolutions.
        upsample_cfg: how torch's interpolate makes a level as large as the next; by its
            ``scale_factor`` if it has one.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        out_channels: int,
        num_outs: int,
        start_level: int = 0,
        end_level: int = -1,
        add_extra_convs: bool | str = False,
        relu_before_extra_convs: bool = False,
        no_norm_on_lateral: bool = False,
        conv_cfg: Mapping[str, Any] | None = None,
        norm_cfg: Mapping[str, Any] | None = None,
        act_cfg: Mapping[str, Any] | None = None,
        upsample_cfg: Mapping[str, Any] = _NEAREST,
        init_cfg: Any = _XAVIER,
    ) -> None:
        super().__init__(init_cfg)
        end = len(in_channels) if end_level in (-1, len(in_channels) - 1) else end_level + 1
        whole = end == len(in_channels)
        if num_outs < end - start_level or (not whole and num_outs != end - start_level):
            raise ValueError(
                f"{type(self).__name__}: num_outs {num_outs} for {end - start_level} levels"
            )
        self.in_channels = list(in_channels)
        self.out_channels = out_channels
        self.num_outs = num_outs
        self.levels = range(start_level, end)
        self.upsample_cfg = dict(upsample_cfg)
        self.relu_before_extra_convs = relu_before_extra_convs
        self.extra_from = "on_input" if add_extra_convs is True else add_extra_convs or ""
        if self.extra_from and self.extra_from not in _EXTRA_FROM:
            raise ValueError(
                f"add_extra_convs {add_extra_convs!r}; known are {', '.join(_EXTRA_FROM)}"
            )

        common: dict[str, Any] = {"conv_cfg": conv_cfg, "act_cfg": act_cfg, "inplace": False}
        lateral_norm = None if no_norm_on_lateral else norm_cfg
        self.lateral_convs = nn.ModuleList(
            ConvModule(self.in_channels[i], out_channels, 1, norm_cfg=lateral_norm, **common)
            for i in self.levels
        )
        self.fpn_convs = nn.ModuleList(
            ConvModule(out_channels, out_channels, 3, padding=1, norm_cfg=norm_cfg, **common)
            for _ in self.levels
        )
        if self.extra_from:
            inputs = self.in_channels[-1] if self.extra_from == "on_input" else out_channels
            for _ in range(num_outs - len(self.levels)):
                self.fpn_convs.append(
                    ConvModule(
                        inputs, out_channels, 3, stride=2, padding=1, norm_cfg=norm_cfg, **common
                    )
                )
                inputs = out_channels

    def forward(self, inputs: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """Return *num_outs* levels (n, out_channels, h, w) of the backbone's, the finest first."""
        if len(inputs) != len(self.in_channels):
            raise ValueError(f"{len(inputs)} levels, but in_channels for {len(self.in_channels)}")
        merged = self._laterals(inputs)
        for fine in range(len(merged) - 2, -1, -1):
            merged[fine] = merged[fine] + self._upsample(merged[fine + 1], merged[fine])
        outs = [conv(level) for conv, level in zip(self.fpn_convs, merged, strict=False)]
        return tuple(outs + self._extra(inputs[-1], merged[-1], outs[-1]))

    def _laterals(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Return the levels that are then merged from the top down."""
        return [conv(inputs[i]) for conv, i in zip(self.lateral_convs, self.levels, strict=True)]

    def _upsample(self, coarse: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        if "scale_factor" in self.upsample_cfg:
            return functional.interpolate(coarse, **self.upsample_cfg)
        return functional.interpolate(coarse, size=like.shape[2:], **self.upsample_cfg)

    def _extra(
        self, last_input: torch.Tensor, last_lateral: torch.Tensor, last_out: torch.Tensor
    ) -> list[torch.Tensor]:
        """Return the levels beyond the backbone's."""
        sources = {"on_input": last_input, "on_lateral": last_lateral}
        source = sources.get(self.extra_from, last_out)
        extra: list[torch.Tensor] = []
        for number in range(len(self.levels), self.num_outs):
            if self.extra_from:
                if extra and self.relu_before_extra_convs:
                    source = functional.relu(source)
                source = self.fpn_convs[number](source)
            else:
                source = source[:, :, ::2, ::2]
            extra.append(source)
        return extra
