"""Checkpoints while a run goes on: written, kept and removed."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forebay_trainer.config import plain
from forebay_trainer.engine.hook import Hook
from forebay_trainer.engine.runner import join
from forebay_trainer.files import Files
from forebay_trainer.registry import HOOKS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from forebay_trainer.engine.runner import Runner


def output_folder(
    out_dir: str | None, work_dir: str, file_client_args: Mapping[str, Any] | None
) -> str:
    """Return where *out_dir* of a hook leads: as upstream, to a folder in it for each run."""
    folder = work_dir
    if out_dir and out_dir != work_dir:
        folder = join(out_dir, work_dir.rstrip("/").rpartition("/")[2])
    return Files.of(file_client_args).mapped(folder)


@HOOKS.register_module()
class CheckpointHook(Hook):
    """Writes a checkpoint every *interval* epochs, or iterations if not *by_epoch*.

    Args:
        interval: -1 is never, but for the last.
        by_epoch: count epochs.
        save_optimizer: so that a run can be resumed from it.
        out_dir: a folder or prefix that gets a folder of the work_dir's name.
        max_keep_ckpts: older ones are removed; -1 keeps all.
        save_last: write the last one whatever the interval.
        filename_tmpl: with ``{}`` for the number.
        create_symlink: let ``latest.pth`` be the last one, in a folder of local files.
        meta: what ``meta`` of the checkpoint has beside the run's own.
        file_client_args: its ``path_mapping``, if it has one, is for the folder.
    """

    def __init__(
        self,
        interval: int = -1,
        by_epoch: bool = True,
        save_optimizer: bool = True,
        out_dir: str | None = None,
        max_keep_ckpts: int = -1,
        save_last: bool = True,
        filename_tmpl: str | None = None,
        create_symlink: bool = True,
        meta: Mapping[str, Any] | None = None,
        file_client_args: Mapping[str, Any] | None = None,
    ) -> None:
        self.interval, self.by_epoch, self.save_last = interval, by_epoch, save_last
        self.save_optimizer, self.max_keep_ckpts = save_optimizer, max_keep_ckpts
        self.out_dir, self.file_client_args = out_dir, file_client_args
        self.filename_tmpl = filename_tmpl or ("epoch_{}.pth" if by_epoch else "iter_{}.pth")
        self.create_symlink = create_symlink
        self.meta = plain(meta or {})  # what a safe loader takes
        self._present: set[str] = set()  # names of checkpoints, if some are to be removed

    def folder(self, runner: Runner) -> str:
        """Return where the checkpoints go."""
        return output_folder(self.out_dir, runner.work_dir, self.file_client_args)

    def before_run(self, runner: Runner) -> None:
        runner.meta.update(self.meta)
        if self.max_keep_ckpts > 0 and runner.rank == 0:
            self._present = set(Files().names(self.folder(runner)))

    def after_train_epoch(self, runner: Runner) -> None:
        is_last = self.save_last and self.is_last_epoch(runner)
        if self.by_epoch and (self.every_n_epochs(runner, self.interval) or is_last):
            self._save(runner, runner.epoch + 1)

    def after_train_iter(self, runner: Runner) -> None:
        is_last = self.save_last and self.is_last_iter(runner)
        if not self.by_epoch and (self.every_n_iters(runner, self.interval) or is_last):
            self._save(runner, runner.iter + 1)

    def _save(self, runner: Runner, number: int) -> None:
        folder = self.folder(runner)
        name = self.filename_tmpl.format(number)
        runner.meta["hook_msgs"]["last_ckpt"] = join(folder, name)
        runner.save_checkpoint(folder, name, save_optimizer=self.save_optimizer)
        if runner.rank != 0:
            return
        if self.create_symlink and not Files().is_object(folder):
            _link(Path(folder), name)
        if self.max_keep_ckpts > 0:
            self._present.add(name)
            self._remove_old(folder, number)

    def _remove_old(self, folder: str, number: int) -> None:
        # Training does not wait for the origin to say which there are.
        newest = number - self.max_keep_ckpts * self.interval
        for old in range(newest, 0, -self.interval):
            name = self.filename_tmpl.format(old)
            if name not in self._present:
                break
            self._present.remove(name)
            Files().remove(join(folder, name))


def _link(folder: Path, name: str) -> None:
    """Let ``latest.pth`` be *name*; where there are no links, the names' numbers have to do."""
    scratch = folder / f".latest.{os.getpid()}"
    with contextlib.suppress(OSError):
        scratch.symlink_to(name)
        scratch.replace(folder / "latest.pth")
