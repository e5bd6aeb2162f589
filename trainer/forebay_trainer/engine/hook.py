"""What a hook is. Users' own derive from Hook and are registered: ``@HOOKS.register_module()``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from forebay_trainer.engine.runner import Runner

# Upstream's names of when a hook runs among the others; a lower number runs earlier.
PRIORITIES = {
    "HIGHEST": 0,
    "VERY_HIGH": 10,
    "HIGH": 30,
    "ABOVE_NORMAL": 40,
    "NORMAL": 50,
    "BELOW_NORMAL": 60,
    "LOW": 70,
    "VERY_LOW": 90,
    "LOWEST": 100,
}


def priority_number(priority: int | str) -> int:
    if isinstance(priority, int):
        return priority
    if priority.upper() not in PRIORITIES:
        raise ValueError(f"{priority!r} is none of {', '.join(PRIORITIES)}")
    return PRIORITIES[priority.upper()]


class Hook:
    """Called by the runner at its stages::

    before_load                   (the model is there, load_from or resume_from is not loaded)
    before_run
    for each epoch:
        before_train_epoch        (of a run by iterations: before each pass over the data)
        for each batch:
            before_train_iter
            after_train_iter      (runner.outputs has the losses; iter still counts from 0)
            after_checkpoint      (whenever one was written)
        after_train_epoch
        before_val_epoch ... after_val_epoch     (where the workflow has "val")
    after_run
    """

    priority: int | str = "NORMAL"  # of those in custom_hooks that say none

    def before_load(self, runner: Runner) -> None: ...

    def before_run(self, runner: Runner) -> None: ...

    def after_run(self, runner: Runner) -> None: ...

    def before_epoch(self, runner: Runner) -> None: ...

    def after_epoch(self, runner: Runner) -> None: ...

    def before_iter(self, runner: Runner) -> None: ...

    def after_iter(self, runner: Runner) -> None: ...

    def before_train_epoch(self, runner: Runner) -> None:
        self.before_epoch(runner)

    def after_train_epoch(self, runner: Runner) -> None:
        self.after_epoch(runner)

    def before_train_iter(self, runner: Runner) -> None:
        self.before_iter(runner)

    def after_train_iter(self, runner: Runner) -> None:
        self.after_iter(runner)

    def before_val_epoch(self, runner: Runner) -> None:
        self.before_epoch(runner)

    def after_val_epoch(self, runner: Runner) -> None:
        self.after_epoch(runner)

    def before_val_iter(self, runner: Runner) -> None:
        self.before_iter(runner)

    def after_val_iter(self, runner: Runner) -> None:
        self.after_iter(runner)

    def after_checkpoint(self, runner: Runner, path: str, blocked_s: float) -> None:
        """Hear of a checkpoint that was written, and for how long training stood still for it."""

    @staticmethod
    def every_n_epochs(runner: Runner, n: int) -> bool:
        return n > 0 and (runner.epoch + 1) % n == 0

    @staticmethod
    def every_n_iters(runner: Runner, n: int) -> bool:
        return n > 0 and (runner.iter + 1) % n == 0

    @staticmethod
    def every_n_inner_iters(runner: Runner, n: int) -> bool:
        return n > 0 and (runner.inner_iter + 1) % n == 0

    @staticmethod
    def end_of_epoch(runner: Runner) -> bool:
        return runner.inner_iter + 1 == len(runner.data_loader)

    @staticmethod
    def is_last_epoch(runner: Runner) -> bool:
        return runner.epoch + 1 == runner.max_epochs

    @staticmethod
    def is_last_iter(runner: Runner) -> bool:
        return runner.iter + 1 == runner.max_iters
