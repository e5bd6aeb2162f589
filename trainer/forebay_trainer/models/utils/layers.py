"""Layers by configuration, with the names that MMDetection's checkpoints have for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn
from torch.utils.checkpoint import checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import torch

    Pair = int | tuple[int, int]

_CONVOLUTIONS = {"Conv": nn.Conv2d, "Conv2d": nn.Conv2d}
_NORMS = {
    "BN": ("bn", nn.BatchNorm2d),
    "BN2d": ("bn", nn.BatchNorm2d),
    "SyncBN": ("bn", nn.SyncBatchNorm),
    "MMSyncBN": ("bn", nn.SyncBatchNorm),
    "IN": ("in", nn.InstanceNorm2d),
    "GN": ("gn", nn.GroupNorm),
}
_RELU = {"type": "ReLU"}


def _known(table: Mapping[str, Any], kind: str, what: str) -> Any:
    if kind not in table:
        raise ValueError(f"unknown {what} {kind!r}; known are {', '.join(sorted(table))}")
    return table[kind]


def build_conv_layer(cfg: Mapping[str, Any] | None, *args: Any, **kwargs: Any) -> nn.Module:
    """Return the convolution of *cfg* (None: Conv2d); the arguments are those of Conv2d."""
    options = dict(cfg or {"type": "Conv2d"})
    kind = _known(_CONVOLUTIONS, options.pop("type"), "convolution")
    return kind(*args, **kwargs, **options)


def build_norm_layer(
    cfg: Mapping[str, Any], num_features: int, postfix: int | str = ""
) -> tuple[str, nn.Module]:
    """Return the name in the state dict (``bn1``) and the normalization of *cfg*."""
    options = dict(cfg)
    short, kind = _known(_NORMS, options.pop("type"), "normalization")
    trainable = options.pop("requires_grad", True)
    size = {"num_channels" if kind is nn.GroupNorm else "num_features": num_features}
    layer = kind(**size, **options)
    for parameter in layer.parameters():
        parameter.requires_grad = trainable
    return f"{short}{postfix}", layer


def build_activation_layer(cfg: Mapping[str, Any], inplace: bool = False) -> nn.Module:
    """Return the activation of *cfg*, whose type is a class of torch.nn; in place if it can be."""
    options = dict(cfg)
    layer = getattr(nn, options.pop("type"))(**options)
    if hasattr(layer, "inplace") and "inplace" not in options:
        layer.inplace = inplace
    return layer


class ConvModule(nn.Module):
    """Convolution, normalization and activation; the latter two only if configured.

    ``bias="auto"``: a bias only where no normalization follows.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Pair,
        stride: Pair = 1,
        padding: Pair = 0,
        dilation: Pair = 1,
        groups: int = 1,
        bias: bool | str = "auto",
        conv_cfg: Mapping[str, Any] | None = None,
        norm_cfg: Mapping[str, Any] | None = None,
        act_cfg: Mapping[str, Any] | None = _RELU,
        inplace: bool = True,
    ) -> None:
        super().__init__()
        self.conv = build_conv_layer(
            conv_cfg,
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=groups,
            bias=norm_cfg is None if bias == "auto" else bias,
        )
        self.out_channels = out_channels
        self.norm_name = None
        if norm_cfg is not None:
            self.norm_name, norm = build_norm_layer(norm_cfg, out_channels)
            self.add_module(self.norm_name, norm)
        self.activate = None
        if act_cfg is not None:
            self.activate = build_activation_layer(act_cfg, inplace)
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")
        if self.conv.bias is not None:
            nn.init.zeros_(self.conv.bias)

    @property
    def norm(self) -> nn.Module | None:
        return getattr(self, self.norm_name) if self.norm_name else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x)
        if self.norm is not None:
            x = self.norm(x)
        return x if self.activate is None else self.activate(x)


def run_block(
    function: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, with_cp: bool
) -> torch.Tensor:
    """Return ``function(x)``; with *with_cp* what it computes inside is computed again for
    gradients and not kept."""
    if with_cp and x.requires_grad:
        return checkpoint(function, x, use_reentrant=False)
    return function(x)
