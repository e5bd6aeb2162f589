"""Optimizers by torch's names, and the parameter groups of ``paramwise_cfg``."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from forebay_trainer.registry import OPTIMIZER_BUILDERS, OPTIMIZERS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

for _name, _class in vars(torch.optim).items():
    if inspect.isclass(_class) and issubclass(_class, torch.optim.Optimizer):
        OPTIMIZERS.register_module(name=_name, module=_class, force=True)

_NORMS = (
    nn.modules.batchnorm._BatchNorm,
    nn.modules.instancenorm._InstanceNorm,
    nn.GroupNorm,
    nn.LayerNorm,
)


def build_optimizer(model: nn.Module, config: Mapping[str, Any]) -> torch.optim.Optimizer:
    """Return the optimizer that ``optimizer`` of a configuration describes."""
    arguments = dict(config)
    constructor = arguments.pop("constructor", "DefaultOptimizerConstructor")
    paramwise = arguments.pop("paramwise_cfg", None)
    build = OPTIMIZER_BUILDERS.build(
        {"type": constructor, "optimizer_cfg": arguments, "paramwise_cfg": paramwise}
    )
    return build(model)


@OPTIMIZER_BUILDERS.register_module()
class DefaultOptimizerConstructor:
    """Makes an optimizer; multiplies learning rates and weight decays where *paramwise_cfg* says.

    A key of ``custom_keys`` (the longest that is part of a parameter's name) decides alone; else
    ``bias_lr_mult``, ``bias_decay_mult``, ``norm_decay_mult`` and ``dwconv_decay_mult`` do.
    """

    KEYS = (
        "custom_keys",
        "bias_lr_mult",
        "bias_decay_mult",
        "norm_decay_mult",
        "dwconv_decay_mult",
        "bypass_duplicate",
    )

    def __init__(
        self, optimizer_cfg: Mapping[str, Any], paramwise_cfg: Mapping[str, Any] | None = None
    ) -> None:
        self._optimizer = dict(optimizer_cfg)
        self._factors = dict(paramwise_cfg or {})
        custom = self._factors.get("custom_keys", {})
        # Upstream's order: the longest first, among equals by the alphabet.
        self._custom = sorted(custom.items(), key=lambda item: (-len(item[0]), item[0]))

    def __call__(self, model: nn.Module) -> torch.optim.Optimizer:
        parameters: Any = model.parameters()
        if self._factors:
            parameters = list(self._groups(model))
        return OPTIMIZERS.build({**self._optimizer, "params": parameters})

    def _groups(self, model: nn.Module) -> Iterator[dict[str, Any]]:
        """Return a group for each parameter, as upstream: checkpoints keep their order."""
        seen: set[nn.Parameter] = set()
        for prefix, module in model.named_modules(remove_duplicate=False):
            for name, parameter in module.named_parameters(recurse=False):
                if parameter in seen:
                    continue
                seen.add(parameter)
                group: dict[str, Any] = {"params": [parameter]}
                if parameter.requires_grad:
                    full_name = f"{prefix}.{name}" if prefix else name
                    rate, decay = self._multipliers(module, full_name)
                    group["lr"] = self._optimizer["lr"] * rate
                    if "weight_decay" in self._optimizer:
                        group["weight_decay"] = self._optimizer["weight_decay"] * decay
                yield group

    def _multipliers(self, module: nn.Module, name: str) -> tuple[float, float]:
        """Return those of the learning rate and of the weight decay."""
        for key, factors in self._custom:
            if key in name:
                return factors.get("lr_mult", 1.0), factors.get("decay_mult", 1.0)
        is_norm = isinstance(module, _NORMS)
        is_bias = name.endswith("bias") and not is_norm
        rate = self._factors.get("bias_lr_mult", 1.0) if is_bias else 1.0
        kind = "bias" if is_bias else ""
        if isinstance(module, nn.Conv2d) and module.in_channels == module.groups:
            kind = "dwconv"
        if is_norm:
            kind = "norm"
        return rate, self._factors.get(f"{kind}_decay_mult", 1.0) if kind else 1.0
