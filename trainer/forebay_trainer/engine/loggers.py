"""What a run tells: lines of text and JSON as upstream's, TensorBoard, and the logs' way to S3."""

from __future__ import annotations

import datetime
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from forebay_trainer.engine.checkpoint_hook import output_folder
from forebay_trainer.engine.hook import Hook
from forebay_trainer.engine.runner import join
from forebay_trainer.files import Files
from forebay_trainer.registry import HOOKS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from forebay_trainer.engine.runner import Runner


@HOOKS.register_module()
class IterTimerHook(Hook):
    """Measures each batch, and of that the wait for its data."""

    def before_epoch(self, runner: Runner) -> None:
        runner.waiting_since_s = time.monotonic()

    def before_iter(self, runner: Runner) -> None:
        runner.log_buffer.update({"data_time": time.monotonic() - runner.waiting_since_s})

    def after_iter(self, runner: Runner) -> None:
        now_s = time.monotonic()
        runner.log_buffer.update({"time": now_s - runner.waiting_since_s})
        runner.waiting_since_s = now_s


class LoggerHook(Hook):
    """Calls ``log`` with the means of every *interval* batches, and with scores.

    *ignore_last*: the batches at the end of an epoch that are fewer are not logged.
    """

    def __init__(
        self,
        interval: int = 10,
        ignore_last: bool = True,
        reset_flag: bool = False,
        by_epoch: bool = True,
    ) -> None:
        self.interval, self.ignore_last, self.by_epoch = interval, ignore_last, by_epoch
        self.reset_flag = reset_flag  # the last of the loggers empties what all have read

    def log(self, runner: Runner) -> None:
        raise NotImplementedError

    def before_run(self, runner: Runner) -> None:
        last = [hook for hook in runner.hooks if isinstance(hook, LoggerHook)][-1]
        last.reset_flag = True

    def before_epoch(self, runner: Runner) -> None:
        if self.by_epoch and not runner.is_inside_pass:
            runner.log_buffer.clear()

    def after_train_iter(self, runner: Runner) -> None:
        every = self.every_n_inner_iters if self.by_epoch else self.every_n_iters
        if every(runner, self.interval) or (self.end_of_epoch(runner) and not self.ignore_last):
            runner.log_buffer.average(self.interval)
        self._tell(runner)

    def after_train_epoch(self, runner: Runner) -> None:
        self._tell(runner)

    def after_val_epoch(self, runner: Runner) -> None:
        runner.log_buffer.average()
        self._tell(runner)

    def _tell(self, runner: Runner) -> None:
        if runner.log_buffer.ready:
            self.log(runner)
            if self.reset_flag:
                runner.log_buffer.clear_output()

    def record(self, runner: Runner) -> dict[str, Any]:
        """Return mode, epoch, iter, lr and what is to be logged, in upstream's order."""
        values = dict(runner.log_buffer.output)
        is_training = runner.mode == "train" and "time" in values
        number = runner.inner_iter + 1 if self.by_epoch else runner.iter + 1
        memory = {}
        if is_training and runner.device.type == "cuda":
            memory = {"memory": torch.cuda.max_memory_allocated(runner.device) // 2**20}  # MiB
        # Scores come when the epoch is over, but before it is counted.
        epoch = runner.epoch + (runner.mode == "train")
        return {
            "mode": "train" if is_training else "val",
            "epoch": epoch,
            "iter": values.pop("eval_iter_num", number),
            "lr": runner.optimizer.param_groups[0]["lr"],
            **memory,
            **values,
        }


@HOOKS.register_module()
class TextLoggerHook(LoggerHook):
    """Writes ``TIME.log.json`` in the work_dir, a JSON object per line, and tells it as text.

    Args:
        interval_exp_name: ignored; the name of a run is in its first line.
        out_dir: a folder or prefix that gets, after each epoch and at the end, the log files in a
            folder of the work_dir's name.
        out_suffix: what their names end with.
        keep_local: leave the files in the work_dir at the end.
        file_client_args: its ``path_mapping``, if it has one, is for the folder.
        others: as LoggerHook's.
    """

    def __init__(
        self,
        by_epoch: bool = True,
        interval: int = 10,
        ignore_last: bool = True,
        reset_flag: bool = False,
        interval_exp_name: int = 1000,
        out_dir: str | None = None,
        out_suffix: str | tuple[str, ...] = (".log.json", ".log", ".py", ".png"),
        keep_local: bool = True,
        file_client_args: Mapping[str, Any] | None = None,
    ) -> None:
        del interval_exp_name
        super().__init__(interval, ignore_last, reset_flag, by_epoch)
        self.out_dir, self.file_client_args = out_dir, file_client_args
        self.keep_local = keep_local
        self.out_suffix = out_suffix if isinstance(out_suffix, str) else tuple(out_suffix)
        self._seconds = 0.0  # of the batches that were logged, and how many they were
        self._batches = 0
        self._target: str | None = None

    def before_run(self, runner: Runner) -> None:
        super().before_run(runner)
        if self.out_dir is not None:
            self._target = output_folder(self.out_dir, runner.work_dir, self.file_client_args)
        elif runner.log_dir != runner.work_dir:
            self._target = runner.work_dir
        self._path = Path(runner.log_dir, f"{runner.timestamp}.log.json")
        told = ("env_info", "config", "seed", "exp_name")
        about = {key: runner.meta[key] for key in told if key in runner.meta}
        # For the plot, as an epoch's last lines may be missing.
        length = {"batches_per_epoch": len(runner.data_loader), "by_epoch": self.by_epoch}
        self._write(runner, about | length)

    def log(self, runner: Runner) -> None:
        record = self.record(runner)
        self._write(runner, record)
        runner.logger.info(self._text(runner, record))

    def after_checkpoint(self, runner: Runner, path: str, blocked_s: float) -> None:
        # Tools for upstream's logs pass over lines without an epoch.
        self._write(runner, {"checkpoint": path, "blocked_s": blocked_s})

    def after_train_epoch(self, runner: Runner) -> None:
        super().after_train_epoch(runner)
        self._copy_out(runner)

    def after_run(self, runner: Runner) -> None:
        runner.logger.info("logs and plot.png: %s", self._target or runner.work_dir)
        for path in self._copy_out(runner):
            if not self.keep_local:
                path.unlink()

    def _copy_out(self, runner: Runner) -> list[Path]:
        """Copy the logs to where they are to be; return them."""
        if self._target is None or runner.rank != 0:
            return []
        found = [
            path
            for path in sorted(Path(runner.log_dir).iterdir())
            if path.is_file() and path.name.endswith(self.out_suffix)
        ]
        copy_files(found, runner.log_dir, self._target)
        runner.written.add(self._target)
        return found

    def _write(self, runner: Runner, record: Mapping[str, Any]) -> None:
        if runner.rank == 0:
            with self._path.open("a") as file:
                file.write(json.dumps({k: _rounded(v) for k, v in record.items()}) + "\n")

    def _text(self, runner: Runner, record: Mapping[str, Any]) -> str:
        values = dict(record)
        mode, epoch, number = (values.pop(key) for key in ("mode", "epoch", "iter"))
        if mode == "val":
            place = f"Epoch(val) [{epoch}][{number}]" if self.by_epoch else f"Iter(val) [{number}]"
            del values["lr"]
            return f"{place}\t" + _joined(values)
        place = f"Iter [{number}/{runner.max_iters}]"
        if self.by_epoch:
            place = f"Epoch [{epoch}][{number}/{len(runner.data_loader)}]"
        self._seconds += values["time"] * self.interval
        self._batches += self.interval
        left_s = self._seconds / self._batches * (runner.max_iters - runner.iter - 1)
        parts = [
            f"lr: {values.pop('lr'):.3e}",
            f"eta: {datetime.timedelta(seconds=int(left_s))}",
            f"time: {values.pop('time'):.3f}",
            f"data_time: {values.pop('data_time'):.3f}",
        ]
        return f"{place}\t" + ", ".join(parts) + ", " + _joined(values)


@HOOKS.register_module()
class TensorboardLoggerHook(LoggerHook):
    """Writes scalars for TensorBoard, into ``tf_logs`` of the work_dir or *log_dir*.

    What is a prefix of objects gets them after each epoch and at the end.
    """

    def __init__(self, log_dir: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.log_dir = log_dir
        self._writer: Any = None
        self._target: str | None = None

    def before_run(self, runner: Runner) -> None:
        super().before_run(runner)
        if runner.rank == 0:
            from torch.utils.tensorboard import SummaryWriter

            folder = self.log_dir or join(runner.work_dir, "tf_logs")
            if Files().is_object(folder):
                self._target, folder = folder, join(runner.log_dir, "tf_logs")
            self._writer = SummaryWriter(folder)

    def log(self, runner: Runner) -> None:
        if self._writer is None:
            return
        record = self.record(runner)
        tags = {f"{record['mode']}/{key}": record[key] for key in runner.log_buffer.output}
        tags["learning_rate"] = record["lr"]
        for tag, value in tags.items():
            if isinstance(value, str):
                self._writer.add_text(tag, value, runner.iter + 1)
            elif not tag.endswith("eval_iter_num"):
                self._writer.add_scalar(tag, value, runner.iter + 1)

    def after_train_epoch(self, runner: Runner) -> None:
        super().after_train_epoch(runner)
        self._copy_out(runner)

    def after_run(self, runner: Runner) -> None:
        self._copy_out(runner)
        if self._writer is not None:
            self._writer.close()

    def _copy_out(self, runner: Runner) -> None:
        if self._target is not None:
            self._writer.flush()
            folder = self._writer.log_dir
            copy_files(Path(folder).iterdir(), folder, self._target)
            runner.written.add(self._target)


def copy_files(paths: Iterable[Path], folder: str, target: str) -> None:
    """Copy files below *folder* to the same places below *target*."""
    for path in paths:
        Files().put(join(target, path.relative_to(folder).as_posix()), path.read_bytes())


def _joined(values: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{key}: {value:.4f}" if isinstance(value, float) else f"{key}: {value}"
        for key, value in values.items()
    )


def _rounded(value: Any) -> Any:
    """Return numbers as upstream writes them, with five decimals; numpy's as Python's."""
    if hasattr(value, "item"):
        value = value.item()
    return round(value, 5) if isinstance(value, float) else value
