"""Evaluation while a run goes on, and the best checkpoint."""

from __future__ import annotations

import bisect
import math
import time
from typing import TYPE_CHECKING, Any

import torch

from forebay_trainer.config import ConfigError
from forebay_trainer.engine import distributed
from forebay_trainer.engine.checkpoint_hook import output_folder
from forebay_trainer.engine.hook import Hook
from forebay_trainer.engine.loggers import LoggerHook
from forebay_trainer.engine.runner import join, parent
from forebay_trainer.engine.testing import run_test
from forebay_trainer.files import Files

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch.utils.data import DataLoader

    from forebay_trainer.engine.runner import Runner

_GREATER = ("acc", "top", "ar@", "auc", "precision", "map", "recall")


class EvalHook(Hook):
    """Evaluates every *interval* epochs, or iterations if not *by_epoch*.

    Args:
        loader: of the validation data.
        start: the first epoch to evaluate after, before the first too if the run begins later.
        interval: from *start* on, else of all.
        by_epoch: count epochs.
        save_best: the score whose best checkpoint is kept: ``bbox_mAP``, or ``bbox`` for that;
            ``auto`` is the first.
        rule: ``greater`` or ``less`` is better; told from the score's name if None.
        out_dir: a folder or prefix that gets a folder of the work_dir's name.
        dynamic_intervals: pairs of an epoch and the interval from there on.
        file_client_args: its ``path_mapping``, if it has one, is for the folder.
        evaluate: arguments of the data set's ``evaluate``.
    """

    def __init__(
        self,
        loader: DataLoader[Any],
        *,
        start: int | None = None,
        interval: int = 1,
        by_epoch: bool = True,
        save_best: str | None = None,
        rule: str | None = None,
        out_dir: str | None = None,
        dynamic_intervals: Sequence[tuple[int, int]] | None = None,
        file_client_args: Mapping[str, Any] | None = None,
        **evaluate: Any,
    ) -> None:
        if rule not in (None, "greater", "less"):
            raise ValueError(f"rule is 'greater' or 'less', not {rule!r}")
        if interval < 1:
            raise ValueError(f"interval is 1 or more, not {interval}")
        self.loader, self.start, self.by_epoch = loader, start, by_epoch
        self.save_best, self.rule = save_best, rule
        self.out_dir, self.file_client_args = out_dir, file_client_args
        self.intervals = [(0, interval), *map(tuple, dynamic_intervals or ())]
        self.evaluate = evaluate
        self._is_first = True

    def before_train_epoch(self, runner: Runner) -> None:
        """Evaluate what the run begins with, if *start* is not after that."""
        done = runner.epoch if self.by_epoch else runner.iter
        if self._is_first and self.start is not None and done >= self.start:
            self._evaluate(runner, done)
        self._is_first = False

    def after_train_epoch(self, runner: Runner) -> None:
        if self.by_epoch and self._is_due(runner.epoch + 1):
            self._evaluate(runner, runner.epoch + 1)

    def after_train_iter(self, runner: Runner) -> None:
        if self.by_epoch or not self._is_due(runner.iter + 1):
            return
        # The loggers come later, and would mix the scores with the losses.
        for hook in runner.hooks:
            if isinstance(hook, LoggerHook):
                hook.after_train_iter(runner)
        runner.log_buffer.clear()
        self._evaluate(runner, runner.iter + 1)

    def _is_due(self, done: int) -> bool:
        place = bisect.bisect([first for first, _ in self.intervals], done) - 1
        interval = self.intervals[place][1]
        if self.start is None:
            return done % interval == 0
        return done >= self.start and (done - self.start) % interval == 0

    def _evaluate(self, runner: Runner, done: int) -> None:
        if runner.world_size > 1:
            _share_statistics(runner.model)
        results = run_test(runner.model, self.loader, autocast=runner.autocast)
        scores: dict[str, Any] = {}
        if runner.rank == 0:
            dataset: Any = self.loader.dataset
            scores = dataset.evaluate(results, logger=runner.logger, **self.evaluate)
            if "jsonfile_prefix" in self.evaluate:
                runner.written.add(parent(self.evaluate["jsonfile_prefix"]))
            runner.log_buffer.output.update(scores, eval_iter_num=len(self.loader))
            runner.log_buffer.ready = True
        if self.save_best:
            self._keep_best(runner, distributed.broadcast(scores), done)
        runner.waiting_since_s = time.monotonic()  # not for data, all that time

    def _keep_best(self, runner: Runner, scores: Mapping[str, Any], done: int) -> None:
        """Write a checkpoint if the score is better than that of the last such one."""
        if not scores:
            runner.logger.warning("nothing was detected: there is no score to keep the best of")
            return
        key = next(iter(scores)) if self.save_best == "auto" else str(self.save_best)
        if key not in scores and f"{key}_mAP" in scores:
            key += "_mAP"
        if key not in scores:
            raise ConfigError(f"evaluation.save_best: {key!r} is none of {', '.join(scores)}")
        is_greater = (self.rule or _rule_of(key)) == "greater"
        messages = runner.meta["hook_msgs"]
        best = messages.get("best_score", -math.inf if is_greater else math.inf)
        if not (scores[key] > best if is_greater else scores[key] < best):
            return
        previous = messages.get("best_ckpt")
        name = f"best_{key}_{'epoch' if self.by_epoch else 'iter'}_{done}.pth"
        folder = output_folder(self.out_dir, runner.work_dir, self.file_client_args)
        messages.update(best_score=float(scores[key]), best_ckpt=join(folder, name))
        runner.save_checkpoint(folder, name)
        # Only now: a run that is killed in between has one.
        if runner.rank == 0 and previous and previous != messages["best_ckpt"]:
            Files().remove(previous)
        runner.logger.info("best %s so far: %.4f, saved as %s", key, scores[key], name)


def _rule_of(key: str) -> str:
    if any(part in key.lower() for part in _GREATER):
        return "greater"
    if "loss" in key.lower():
        return "less"
    raise ConfigError(f"evaluation.save_best: give rule='greater' or 'less' for {key!r}")


def _share_statistics(model: torch.nn.Module) -> None:
    """Give all processes the first one's statistics of batch norms, which DDP lets differ."""
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm) and module.track_running_stats:
            torch.distributed.broadcast(module.running_mean, 0)
            torch.distributed.broadcast(module.running_var, 0)
