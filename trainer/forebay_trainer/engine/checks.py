"""Hooks that stop a run which cannot come to anything."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from forebay_trainer.config import ConfigError
from forebay_trainer.engine.hook import Hook
from forebay_trainer.registry import HOOKS

if TYPE_CHECKING:
    from forebay_trainer.engine.runner import Runner


@HOOKS.register_module()
class NumClassCheckHook(Hook):
    """Compares the heads' ``num_classes`` with the classes of the data set."""

    def before_epoch(self, runner: Runner) -> None:
        dataset = runner.data_loader.dataset
        classes = getattr(dataset, "CLASSES", None)
        if classes is None:
            runner.logger.warning("the data set names no CLASSES to compare num_classes with")
            return
        if isinstance(classes, str):
            raise ConfigError(f"classes is one text: for one class write ({classes!r},)")
        for name, module in runner.model.named_modules():
            number = getattr(module, "num_classes", None)
            # A proposal network has one class, whatever the data have.
            if isinstance(number, int) and "rpn" not in name and number != len(classes):
                raise ConfigError(
                    f"model.{name}.num_classes is {number}, but the data set has {len(classes)} "
                    f"classes: {', '.join(classes)}"
                )


@HOOKS.register_module()
class CheckInvalidLossHook(Hook):
    """Stops when the loss is no number any more; looks every *interval* iterations."""

    def __init__(self, interval: int = 50) -> None:
        self.interval = interval

    def after_train_iter(self, runner: Runner) -> None:
        if self.every_n_iters(runner, self.interval):
            loss = runner.outputs["loss"].item()
            if not math.isfinite(loss):
                raise FloatingPointError(f"the loss is {loss} at iteration {runner.iter + 1}")
