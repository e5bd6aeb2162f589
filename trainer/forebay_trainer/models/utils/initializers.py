"""Initial weights, as ``init_cfg`` of a module describes them."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any

from torch import nn

from forebay_trainer.weights import load_checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    import torch

    Fill = Callable[[torch.Tensor], object]


def _normal(mean: float = 0, std: float = 1) -> Fill:
    return functools.partial(nn.init.normal_, mean=mean, std=std)


def _truncated_normal(mean: float = 0, std: float = 1, a: float = -2, b: float = 2) -> Fill:
    return functools.partial(nn.init.trunc_normal_, mean=mean, std=std, a=a, b=b)


def _uniform(a: float = 0, b: float = 1) -> Fill:
    return functools.partial(nn.init.uniform_, a=a, b=b)


def _constant(val: float) -> Fill:
    return functools.partial(nn.init.constant_, val=val)


def _xavier(gain: float = 1, distribution: str = "normal") -> Fill:
    fill = {"normal": nn.init.xavier_normal_, "uniform": nn.init.xavier_uniform_}[distribution]
    return functools.partial(fill, gain=gain)


def _kaiming(
    a: float = 0,
    mode: str = "fan_out",
    nonlinearity: str = "relu",
    distribution: str = "normal",
) -> Fill:
    fill = {"normal": nn.init.kaiming_normal_, "uniform": nn.init.kaiming_uniform_}[distribution]
    return functools.partial(fill, a=a, mode=mode, nonlinearity=nonlinearity)


def _caffe2_xavier() -> Fill:
    return _kaiming(a=1, mode="fan_in", nonlinearity="leaky_relu", distribution="uniform")


_RULES: dict[str, Callable[..., Fill]] = {
    "Caffe2Xavier": _caffe2_xavier,
    "Constant": _constant,
    "Kaiming": _kaiming,
    "Normal": _normal,
    "TruncNormal": _truncated_normal,
    "Uniform": _uniform,
    "Xavier": _xavier,
}


def _fill(modules: Iterable[nn.Module], rule: Mapping[str, Any]) -> None:
    """Fill weight and bias of each of *modules* that has them."""
    options = dict(rule)
    kind, bias = options.pop("type"), options.pop("bias", 0)
    if "bias_prob" in options:  # so that a sigmoid begins with this probability
        bias = -math.log(1 / options.pop("bias_prob") - 1)
    if kind not in _RULES:
        raise ValueError(f"init_cfg: unknown type {kind!r}; known are {', '.join(sorted(_RULES))}")
    fill = _RULES[kind](**options)
    for module in modules:
        if getattr(module, "weight", None) is not None:
            fill(module.weight)
        if getattr(module, "bias", None) is not None:
            nn.init.constant_(module.bias, bias)


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _has_name(module: nn.Module, names: Iterable[str]) -> bool:
    """Tell whether the module's class or one of its bases (``_BatchNorm``) has one of the names."""
    return any(kind.__name__ in names for kind in type(module).__mro__)


def initialize(module: nn.Module, init_cfg: Mapping[str, Any] | Sequence[Any]) -> None:
    """Fill the weights of *module* by the rules of *init_cfg*, in their order.

    A rule is for the sub-modules whose class is named in ``layer``, and for the children named in
    ``override``, which may have a rule of their own. ``Pretrained`` loads a checkpoint.
    """
    for each in _as_list(init_cfg):
        rule = dict(each)
        overrides, layers = _as_list(rule.pop("override", [])), _as_list(rule.pop("layer", []))
        if rule["type"] == "Pretrained":
            load_checkpoint(module, rule["checkpoint"], rule.get("prefix", ""))
            continue
        _fill((part for part in module.modules() if _has_name(part, layers)), rule)
        for override in overrides:
            name, own = override["name"], {k: v for k, v in override.items() if k != "name"}
            if not hasattr(module, name):
                raise ValueError(f"init_cfg: {type(module).__name__} has no {name!r} to override")
            _fill(getattr(module, name).modules(), own if "type" in own else rule)


class BaseModule(nn.Module):
    """A module that knows by ``init_cfg`` how its weights begin."""

    def __init__(self, init_cfg: Mapping[str, Any] | Sequence[Any] | None = None) -> None:
        super().__init__()
        self.init_cfg = init_cfg

    def init_weights(self) -> None:
        """Fill the weights of this module, then those of its children by their own rules.

        A pretrained module's children are left alone.
        """
        if self.init_cfg:
            initialize(self, self.init_cfg)
        if all(rule["type"] != "Pretrained" for rule in _as_list(self.init_cfg or [])):
            _init_children(self)


def _init_children(module: nn.Module) -> None:
    """Call ``init_weights`` of the nearest descendants that have it."""
    for child in module.children():
        if hasattr(child, "init_weights"):
            child.init_weights()
        else:
            _init_children(child)
