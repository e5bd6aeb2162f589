"""The training loop, its hooks, optimizers and schedules; importing it registers them."""

from forebay_trainer.engine import (
    checkpoint_hook,
    checks,
    ema,
    evaluation,
    loggers,
    optimizer_hooks,
    optimizers,
    schedules,
)
from forebay_trainer.engine.hook import Hook
from forebay_trainer.engine.runner import EpochBasedRunner, IterBasedRunner, Runner

__all__ = [
    "EpochBasedRunner",
    "Hook",
    "IterBasedRunner",
    "Runner",
    "checkpoint_hook",
    "checks",
    "ema",
    "evaluation",
    "loggers",
    "optimizer_hooks",
    "optimizers",
    "schedules",
]
