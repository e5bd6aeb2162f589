"""Steps of the optimizer: backward, gradients clipped, added up over batches, in half precision."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import torch

from forebay_trainer.engine.hook import Hook
from forebay_trainer.registry import HOOKS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from forebay_trainer.engine.runner import Runner


@HOOKS.register_module()
class OptimizerHook(Hook):
    """Steps after each batch; *grad_clip* is the arguments of ``clip_grad_norm_``."""

    def __init__(self, grad_clip: Mapping[str, Any] | None = None) -> None:
        if grad_clip is not None:  # a wrong name is told before the first step
            inspect.signature(torch.nn.utils.clip_grad_norm_).bind(None, **grad_clip)
        self.grad_clip = grad_clip

    def after_train_iter(self, runner: Runner) -> None:
        self._backward(runner, runner.outputs["loss"])
        self._step(runner)

    def _backward(self, runner: Runner, loss: torch.Tensor) -> None:
        loss.backward()

    def _step(self, runner: Runner) -> None:
        self._clip(runner)
        runner.optimizer.step()
        runner.optimizer.zero_grad()

    def _clip(self, runner: Runner) -> None:
        if self.grad_clip is None:
            return
        parameters = [each for each in runner.model.parameters() if each.grad is not None]
        norm = torch.nn.utils.clip_grad_norm_(parameters, **self.grad_clip)
        runner.log_buffer.update({"grad_norm": float(norm)}, runner.outputs["num_samples"])


@HOOKS.register_module()
class GradientCumulativeOptimizerHook(OptimizerHook):
    """Steps after *cumulative_iters* batches, with the mean of their gradients."""

    def __init__(self, cumulative_iters: int = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if cumulative_iters < 1:
            raise ValueError(f"cumulative_iters is 1 or more, not {cumulative_iters}")
        self.cumulative_iters = cumulative_iters

    def after_train_iter(self, runner: Runner) -> None:
        count = self.cumulative_iters
        rest = runner.max_iters % count  # the last step of the run has that many batches
        if rest and runner.iter >= runner.max_iters - rest:
            count = rest
        self._backward(runner, runner.outputs["loss"] / count)
        if self.every_n_iters(runner, self.cumulative_iters) or self.is_last_iter(runner):
            self._step(runner)


def mixed_precision(kind: str) -> torch.autocast:
    """Return the context of a model in mixed precision on a device, ``cuda`` or ``cpu``."""
    return torch.autocast(kind, dtype=torch.float16 if kind == "cuda" else torch.bfloat16)


@HOOKS.register_module()
class Fp16OptimizerHook(OptimizerHook):
    """Trains in mixed precision: float16 with scaled losses on CUDA, bfloat16 on the CPU.

    *loss_scale*: a number that stays, ``"dynamic"``, or the arguments of torch's GradScaler.
    """

    def __init__(
        self,
        grad_clip: Mapping[str, Any] | None = None,
        loss_scale: float | str | Mapping[str, Any] = 512.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(grad_clip=grad_clip, **kwargs)
        self._is_static = False
        if loss_scale == "dynamic":
            self._arguments: dict[str, Any] = {}
        elif isinstance(loss_scale, (int, float)):
            self._arguments = {"init_scale": float(loss_scale)}
            self._is_static = True
        elif isinstance(loss_scale, dict):
            self._arguments = dict(loss_scale)
        else:
            raise ValueError(f"loss_scale is a number, 'dynamic' or a dict, not {loss_scale!r}")

    def before_run(self, runner: Runner) -> None:
        kind = runner.device.type
        runner.autocast = mixed_precision(kind)
        runner.scaler = torch.amp.GradScaler(kind, enabled=kind == "cuda", **self._arguments)
        state = runner.meta.get("fp16", {}).get("loss_scaler")
        if state:
            runner.scaler.load_state_dict(state)

    def _backward(self, runner: Runner, loss: torch.Tensor) -> None:
        runner.scaler.scale(loss).backward()

    def _step(self, runner: Runner) -> None:
        runner.scaler.unscale_(runner.optimizer)
        self._clip(runner)
        runner.scaler.step(runner.optimizer)
        runner.scaler.update(self._arguments["init_scale"] if self._is_static else None)
        runner.optimizer.zero_grad()


@HOOKS.register_module()
class GradientCumulativeFp16OptimizerHook(GradientCumulativeOptimizerHook, Fp16OptimizerHook):
    """Both."""
