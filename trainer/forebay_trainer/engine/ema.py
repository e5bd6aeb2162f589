"""Exponential moving averages of weights, in the model's buffers as upstream keeps them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from forebay_trainer.engine.hook import Hook
from forebay_trainer.registry import HOOKS

if TYPE_CHECKING:
    import torch

    from forebay_trainer.engine.runner import Runner


class BaseEMAHook(Hook):
    """Every *interval* iterations: ``average = (1 - momentum) * average + momentum * weight``.

    The averages are buffers ``ema_NAME``. After each epoch they and the weights change places, so
    that what is evaluated and written are the averages; before the next one they change back.
    """

    priority = 49  # before checkpoints and evaluation

    def __init__(
        self,
        momentum: float = 0.0002,
        interval: int = 1,
        skip_buffers: bool = False,
        resume_from: str | None = None,
    ) -> None:
        if not 0 < momentum < 1:
            raise ValueError(f"momentum is between 0 and 1, not {momentum}")
        if resume_from is not None:
            raise ValueError("give resume_from for the whole run, it brings the averages too")
        self.momentum, self.interval, self.skip_buffers = momentum, interval, skip_buffers
        self._pairs: list[tuple[torch.Tensor, torch.Tensor]] = []  # (weight, its average)

    def momentum_at(self, iteration: int) -> float:
        return self.momentum

    def before_load(self, runner: Runner) -> None:
        model = runner.model
        weights: Any = dict(model.named_parameters()) if self.skip_buffers else model.state_dict()
        for name, weight in weights.items():
            average = weight.detach().clone()
            model.register_buffer(f"ema_{name.replace('.', '_')}", average)
            self._pairs.append((weight.detach(), average))

    def before_run(self, runner: Runner) -> None:
        if runner.is_resumed and runner.has_averages:
            # A checkpoint of upstream's was written with the averages in place.
            runner.meta.setdefault("ema_in_place", True)
            return
        runner.meta["ema_in_place"] = False
        for weight, average in self._pairs:
            average.copy_(weight)

    def after_train_iter(self, runner: Runner) -> None:
        if not self.is_due(runner.iter):
            return
        momentum = self.momentum_at(runner.iter)
        for weight, average in self._pairs:
            if weight.is_floating_point():  # the others count
                average.mul_(1 - momentum).add_(weight, alpha=momentum)

    def is_due(self, iteration: int) -> bool:
        return (iteration + 1) % self.interval == 0

    def before_train_epoch(self, runner: Runner) -> None:
        if runner.meta["ema_in_place"]:
            self._swap(runner)

    def after_train_epoch(self, runner: Runner) -> None:
        self._swap(runner)

    def _swap(self, runner: Runner) -> None:
        for weight, average in self._pairs:
            kept = weight.clone()
            weight.copy_(average)
            average.copy_(kept)
        runner.meta["ema_in_place"] = not runner.meta["ema_in_place"]


@HOOKS.register_module()
class EMAHook(BaseEMAHook):
    """Of parameters, with less momentum during the first *warm_up* iterations."""

    def __init__(self, momentum: float = 0.0002, interval: int = 1, warm_up: int = 100) -> None:
        super().__init__(momentum**interval, interval, skip_buffers=True)
        self.warm_up = warm_up

    def is_due(self, iteration: int) -> bool:
        return iteration % self.interval == 0

    def momentum_at(self, iteration: int) -> float:
        return min(self.momentum, (1 + iteration) / (self.warm_up + iteration))


@HOOKS.register_module()
class LinearMomentumEMAHook(BaseEMAHook):
    """With less momentum during the first *warm_up* iterations."""

    def __init__(self, warm_up: int = 100, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.warm_up = warm_up

    def momentum_at(self, iteration: int) -> float:
        return min(self.momentum**self.interval, (1 + iteration) / (self.warm_up + iteration))


@HOOKS.register_module()
class ExpMomentumEMAHook(BaseEMAHook):
    """With more momentum at first, by an exponential that has fallen to 1/e at *total_iter*."""

    def __init__(self, total_iter: int = 2000, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.total_iter = total_iter

    def momentum_at(self, iteration: int) -> float:
        early = math.exp(-(1 + iteration) / self.total_iter)
        return (1 - self.momentum) * early + self.momentum
