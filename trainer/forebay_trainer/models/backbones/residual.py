"""What the networks of residual blocks have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from forebay_trainer.models.backbones.blocks import Layers, ResidualBlock
from forebay_trainer.models.utils import BaseModule, build_norm_layer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import torch

    # of a block's input channels, stride and dilation
    MakeBlock = Callable[[int, int, int], ResidualBlock]

_BATCH_NORM = {"type": "BN", "requires_grad": True}
_RANDOM_WEIGHTS = (
    {"type": "Kaiming", "layer": "Conv2d"},
    {"type": "Constant", "val": 1, "layer": ["_BatchNorm", "GroupNorm"]},
)


class ResidualNetwork(BaseModule):
    """A stem, and stages of residual blocks: ``layer1``, ``layer2``, ...

    Args:
        out_indices: the stages, from 0, whose features :meth:`forward` returns.
        style, avg_down, conv_cfg, norm_cfg, with_cp: of the blocks, see :class:`Layers`.
        frozen_stages: so many stages, and the stem, are not trained; below 0 all are.
        norm_eval: batch normalizations keep their statistics in training.
        zero_init_residual: without weights to load, each block begins as nothing but its input.
        pretrained: a checkpoint; an older way to say it than *init_cfg*.
    """

    def __init__(
        self,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        style: str = "pytorch",
        avg_down: bool = False,
        frozen_stages: int = -1,
        conv_cfg: Mapping[str, Any] | None = None,
        norm_cfg: Mapping[str, Any] = _BATCH_NORM,
        norm_eval: bool = True,
        with_cp: bool = False,
        zero_init_residual: bool = True,
        pretrained: str | None = None,
        init_cfg: Any = None,
    ) -> None:
        if pretrained is not None and init_cfg is not None:
            raise ValueError("a backbone's weights: either pretrained or init_cfg")
        if pretrained is not None:
            init_cfg = {"type": "Pretrained", "checkpoint": pretrained}
        super().__init__(init_cfg or _RANDOM_WEIGHTS)
        if style not in ("pytorch", "caffe"):
            raise ValueError(f"a backbone's style is pytorch or caffe, not {style!r}")
        self.layers = Layers(conv_cfg, norm_cfg, style, with_cp, avg_down)
        self.out_indices = out_indices
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval
        self.zero_init_residual = zero_init_residual and init_cfg is None
        self._stem: list[str] = []
        self._stages: list[str] = []

    def _add_stem(self, **modules: nn.Module) -> None:
        """Add what comes before the stages, in this order, under these names."""
        for name, module in modules.items():
            self.add_module(name, module)
            self._stem.append(name)

    def _add_plain_stem(self, in_channels: int, out_channels: int, kernel: int) -> None:
        """Add a convolution with stride 2, normalization and ReLU."""
        conv = self.layers.conv(in_channels, out_channels, kernel, stride=2)
        name, norm = build_norm_layer(self.layers.norm_cfg, out_channels, 1)
        self._add_stem(conv1=conv, **{name: norm}, relu=nn.ReLU(inplace=True))

    def _add_stage(
        self, block: MakeBlock, channels: int, count: int, stride: int, dilation: int
    ) -> int:
        """Add *count* blocks, the first with the stride, and return the channels they give."""
        blocks: list[ResidualBlock] = []
        for number in range(count):
            blocks.append(block(channels, 1 if number else stride, dilation))
            channels = blocks[-1].out_channels
        self._stages.append(f"layer{len(self._stages) + 1}")
        self.add_module(self._stages[-1], nn.Sequential(*blocks))
        return channels

    def init_weights(self) -> None:
        super().init_weights()
        if self.zero_init_residual:
            for module in self.modules():
                if isinstance(module, ResidualBlock):
                    nn.init.zeros_(module.last_norm.weight)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the features of the stages *out_indices* of images (n, 3, height, width)."""
        for name in self._stem:
            x = getattr(self, name)(x)
        features = []
        for index, name in enumerate(self._stages):
            x = getattr(self, name)(x)
            if index in self.out_indices:
                features.append(x)
        return tuple(features)

    def _freeze(self) -> None:
        frozen = self._stem + self._stages[: self.frozen_stages] if self.frozen_stages >= 0 else []
        for name in frozen:
            getattr(self, name).eval().requires_grad_(False)

    def train(self, mode: bool = True) -> ResidualNetwork:
        super().train(mode)
        self._freeze()
        if mode and self.norm_eval:
            for module in self.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self
