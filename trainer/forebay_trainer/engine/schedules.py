"""Learning rates over a run, by the names that ``lr_config.policy`` has."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from forebay_trainer.engine.hook import Hook
from forebay_trainer.registry import HOOKS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from forebay_trainer.engine.runner import Runner


class LrUpdaterHook(Hook):
    """Sets the learning rate of each parameter group; a policy says it by ``get_lr``.

    ``warmup`` (``constant``, ``linear`` or ``exp``) leads from ``warmup_ratio`` of what the policy
    says to all of it, over ``warmup_iters`` iterations, or epochs with ``warmup_by_epoch``.
    """

    def __init__(
        self,
        by_epoch: bool = True,
        warmup: str | None = None,
        warmup_iters: int = 0,
        warmup_ratio: float = 0.1,
        warmup_by_epoch: bool = False,
    ) -> None:
        if warmup not in (None, "constant", "linear", "exp"):
            raise ValueError(f"warmup is 'constant', 'linear' or 'exp', not {warmup!r}")
        if warmup is not None and not (warmup_iters > 0 and 0 < warmup_ratio <= 1):
            raise ValueError("warmup needs warmup_iters > 0 and 0 < warmup_ratio <= 1")
        self.by_epoch, self.warmup_by_epoch = by_epoch, warmup_by_epoch
        self.warmup, self.warmup_iters, self.warmup_ratio = warmup, warmup_iters, warmup_ratio
        self.base_lr: list[float] = []  # of each parameter group
        self._at_epoch: list[float] = []  # what the policy says for this epoch

    def get_lr(self, runner: Runner, base_lr: float) -> float:
        """Return the learning rate without warm-up."""
        raise NotImplementedError

    def progress(self, runner: Runner) -> tuple[int, int]:
        """Return how far the run is and how far it goes, in epochs or iterations."""
        if self.by_epoch:
            return runner.epoch, runner.max_epochs
        return runner.iter, runner.max_iters

    def before_run(self, runner: Runner) -> None:
        for group in runner.optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])  # which a checkpoint keeps
        self.base_lr = [group["initial_lr"] for group in runner.optimizer.param_groups]

    def before_train_epoch(self, runner: Runner) -> None:
        if self.warmup_by_epoch:
            self.warmup_iters *= len(runner.data_loader)
            self.warmup_by_epoch = False
        self._at_epoch = [self.get_lr(runner, base) for base in self.base_lr]

    def before_train_iter(self, runner: Runner) -> None:
        rates = self._at_epoch
        if not self.by_epoch:
            rates = [self.get_lr(runner, base) for base in self.base_lr]
        factor = self._warmup_factor(runner.iter)
        for group, rate in zip(runner.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * factor

    def _warmup_factor(self, iteration: int) -> float:
        if self.warmup is None or iteration >= self.warmup_iters:
            return 1.0
        left = 1 - iteration / self.warmup_iters
        if self.warmup == "linear":
            return 1 - left * (1 - self.warmup_ratio)
        return self.warmup_ratio**left if self.warmup == "exp" else self.warmup_ratio


@HOOKS.register_module()
class FixedLrUpdaterHook(LrUpdaterHook):
    """The optimizer's own, always."""

    def get_lr(self, runner: Runner, base_lr: float) -> float:
        return base_lr


@HOOKS.register_module()
class StepLrUpdaterHook(LrUpdaterHook):
    """Times *gamma* at each of the steps, or every so many if it is one number."""

    def __init__(
        self,
        step: int | Sequence[int],
        gamma: float = 0.1,
        min_lr: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if any(each <= 0 for each in ([step] if isinstance(step, int) else step)):
            raise ValueError(f"step: {step} must be positive")
        self.step, self.gamma, self.min_lr = step, gamma, min_lr

    def get_lr(self, runner: Runner, base_lr: float) -> float:
        done, _ = self.progress(runner)
        if isinstance(self.step, int):
            exponent = done // self.step
        else:
            exponent = sum(done >= step for step in self.step)
        rate = base_lr * self.gamma**exponent
        return rate if self.min_lr is None else max(rate, self.min_lr)


@HOOKS.register_module()
class ExpLrUpdaterHook(LrUpdaterHook):
    """Times *gamma* at every step."""

    def __init__(self, gamma: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.gamma = gamma

    def get_lr(self, runner: Runner, base_lr: float) -> float:
        return base_lr * float(self.gamma ** self.progress(runner)[0])


@HOOKS.register_module()
class PolyLrUpdaterHook(LrUpdaterHook):
    """Falls to *min_lr* with the power of what is left of the run."""

    def __init__(self, power: float = 1.0, min_lr: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.power, self.min_lr = power, min_lr

    def get_lr(self, runner: Runner, base_lr: float) -> float:
        done, total = self.progress(runner)
        return (base_lr - self.min_lr) * float((1 - done / total) ** self.power) + self.min_lr


class _ToMinimum(LrUpdaterHook):
    """Policies that end at *min_lr*, or at *min_lr_ratio* of the optimizer's."""

    def __init__(
        self, min_lr: float | None = None, min_lr_ratio: float | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if (min_lr is None) == (min_lr_ratio is None):
            raise ValueError("give one of min_lr and min_lr_ratio")
        self.min_lr, self.min_lr_ratio = min_lr, min_lr_ratio

    def target(self, base_lr: float) -> Any:
        return self.min_lr if self.min_lr_ratio is None else base_lr * self.min_lr_ratio


@HOOKS.register_module()
class CosineAnnealingLrUpdaterHook(_ToMinimum):
    """Half a cosine over the run (arXiv 1608.03983)."""

    def get_lr(self, runner: Runner, base_lr: float) -> float:
        done, total = self.progress(runner)
        return cosine(base_lr, self.target(base_lr), done / total)


@HOOKS.register_module()
class FlatCosineAnnealingLrUpdaterHook(_ToMinimum):
    """The optimizer's own for *start_percent* (0 to 1) of the run, half a cosine after."""

    def __init__(self, start_percent: float = 0.75, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.start_percent = start_percent

    def get_lr(self, runner: Runner, base_lr: float) -> float:
        done, total = self.progress(runner)
        start = round(total * self.start_percent)
        if done < start:
            return base_lr
        return cosine(base_lr, self.target(base_lr), (done - start) / (total - start))


@HOOKS.register_module()
class CyclicLrUpdaterHook(LrUpdaterHook):
    """Up to the first of *target_ratio* times the optimizer's and down to the second, by halves of
    cosines, *cyclic_times* in a run (arXiv 1506.01186).
    """

    def __init__(
        self,
        by_epoch: bool = False,
        target_ratio: Sequence[float] = (10, 1e-4),
        cyclic_times: int = 1,
        step_ratio_up: float = 0.4,
        **kwargs: Any,
    ) -> None:
        if by_epoch:
            raise ValueError("policy 'cyclic' goes by iterations: by_epoch=False")
        super().__init__(by_epoch, **kwargs)
        self.target_ratio, self.cyclic_times = target_ratio, cyclic_times
        self.step_ratio_up = step_ratio_up

    def get_lr(self, runner: Runner, base_lr: float) -> float:
        length = runner.max_iters // self.cyclic_times
        upward = int(self.step_ratio_up * length)
        place = runner.iter % length
        highest, lowest = (base_lr * ratio for ratio in self.target_ratio)
        if place < upward:
            return cosine(base_lr, highest, place / upward)
        return cosine(highest, lowest, (place - upward) / (length - upward))


def cosine(start: float, end: float, share: float) -> float:
    """Return what half a cosine from *start* to *end* is at *share* (0 to 1) of its way."""
    return end + 0.5 * (start - end) * (math.cos(math.pi * share) + 1)


def policy_hook_name(policy: str) -> str:
    """Return the name of the hook of a policy, which users may register their own for."""
    return (policy.title() if policy.islower() else policy) + "LrUpdaterHook"
