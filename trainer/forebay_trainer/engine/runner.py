"""The training loop: calls the model and the hooks, and knows where in the run it is.

All else (learning rates, steps of the optimizer, logs, checkpoints, evaluation) is done by hooks.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any

import torch

import forebay
from forebay_trainer.engine import distributed
from forebay_trainer.engine.batches import to_device
from forebay_trainer.engine.hook import Hook, priority_number
from forebay_trainer.engine.log_buffer import LogBuffer
from forebay_trainer.engine.randomness import kept_random_state, random_state, set_random_state
from forebay_trainer.files import Files
from forebay_trainer.registry import RUNNERS
from forebay_trainer.weights import WeightsError, load_state, read_checkpoint, state_of

if TYPE_CHECKING:
    import logging
    from collections.abc import Iterator, Sequence

    from torch.utils.data import DataLoader


class _TrainStep(torch.nn.Module):
    """What DistributedDataParallel wraps: its forward is the model's ``train_step``."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, data: dict[str, Any], optimizer: Any) -> Any:
        return self.model.train_step(data, optimizer)


class Runner:
    """A run: its model, its place in the data, and what hooks share.

    ``epoch`` and ``iter`` count what came before the current pass over the data and the current
    batch, ``inner_iter`` the batches of the pass before it. ``outputs`` is the last step's.
    """

    by_epoch = True

    def __init__(
        self,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        work_dir: str,
        logger: logging.Logger,
        meta: dict[str, Any] | None = None,
        *,
        device: str | torch.device = "cpu",
        find_unused_parameters: bool = False,
        timestamp: str | None = None,
        log_dir: str | None = None,
    ) -> None:
        self.model, self.optimizer = model, optimizer
        self.work_dir, self.logger = work_dir, logger
        self.log_dir = log_dir or work_dir  # of local files
        # Plain, so that a checkpoint needs nothing of ours to be read.
        self.meta: dict[str, Any] = {**(meta or {}), "hook_msgs": {}}
        self.max_epochs = self.max_iters = 0
        self.device = torch.device(device)
        self.rank, self.world_size = distributed.rank(), distributed.world_size()
        self.timestamp = timestamp or time.strftime("%Y%m%d_%H%M%S")
        self.epoch = self.iter = self.inner_iter = 0
        self.mode = "train"
        self.outputs: dict[str, Any] = {}
        self.log_buffer = LogBuffer()
        self.hooks: list[Hook] = []
        self.written: set[str] = set()  # folders that have got files of this run
        self.autocast: Any = contextlib.nullcontext()
        self.data_loader: DataLoader[Any]
        self.waiting_since_s = time.monotonic()  # for data, or the end of a batch
        self.is_resumed = self.has_averages = False  # whether the checkpoint brought an EMA's
        self.scaler: Any = None  # of the losses, in mixed precision
        self._places: dict[Hook, int] = {}
        self._resumed_state: dict[str, Any] | None = None  # of random numbers
        self._batches_done = self._iters_done = 0  # of this pass, of the run; with the current one
        self._step: Any = model.train_step
        if distributed.is_distributed():
            self._step = torch.nn.parallel.DistributedDataParallel(
                _TrainStep(model),
                device_ids=[torch.cuda.current_device()] if self.device.type == "cuda" else None,
                broadcast_buffers=False,
                find_unused_parameters=find_unused_parameters,
            )

    # --- hooks -------------------------------------------------------------------------------

    def register_hook(self, hook: Hook, priority: int | str | None = None) -> None:
        """Add a hook after those of the same priority."""
        self._places[hook] = priority_number(hook.priority if priority is None else priority)
        self.hooks.append(hook)
        self.hooks.sort(key=self._places.__getitem__)  # keeps the order of equals

    def call_hook(self, stage: str) -> None:
        for hook in self.hooks:
            getattr(hook, stage)(self)

    @property
    def is_inside_pass(self) -> bool:
        """Whether some batches of this pass over the data are done, before a resume too."""
        return self._batches_done > 0

    # --- running -----------------------------------------------------------------------------

    def run(self, loaders: Sequence[DataLoader[Any]], workflow: Sequence[tuple[str, int]]) -> None:
        """Train, and where the workflow says so take losses on validation data, until the end.

        A phase ``("train", 2)`` is two passes over the first loader, ``("val", 1)`` one over the
        second.
        """
        self.data_loader = loaders[0]
        self._set_length(len(self.data_loader))
        if self.is_resumed and self.by_epoch:  # perhaps with other batches than before
            self._batches_done = min(self._batches_done, len(self.data_loader))
            self.iter = self._iters_done = self.epoch * len(self.data_loader) + self._batches_done
        self.logger.info(
            "start: epoch %d, iteration %d of %d; workflow %s, work_dir %s",
            self.epoch,
            self.iter,
            self.max_iters,
            list(workflow),
            self.work_dir,
        )
        self.call_hook("before_run")
        while not self._is_done():
            for mode, count in workflow:
                for _ in range(count):
                    if mode == "val":
                        self._validate(loaders[1])
                    elif not self._is_done():
                        self._train(loaders[0])
        self.call_hook("after_run")

    def _set_length(self, batches: int) -> None:
        self.max_iters = self.max_epochs * batches

    def _is_done(self) -> bool:
        return self.epoch >= self.max_epochs

    def _train(self, loader: DataLoader[Any]) -> None:
        """Train for one pass over the data, or for what is left of it."""
        self._enter("train", loader)
        batches = self._batches(loader)
        self.call_hook("before_train_epoch")
        for data in batches:
            self.inner_iter = self._batches_done
            self.call_hook("before_train_iter")
            with self.autocast:
                self.outputs = self._step(to_device(data, self.device), self.optimizer)
            self.log_buffer.update(self.outputs["log_vars"], self.outputs["num_samples"])
            self._batches_done += 1
            self._iters_done += 1
            self.call_hook("after_train_iter")
            self.iter += 1
            if self._is_done():
                break
        self.call_hook("after_train_epoch")
        self.epoch += 1
        self._batches_done = 0

    def _validate(self, loader: DataLoader[Any]) -> None:
        self._enter("val", loader)
        self.call_hook("before_val_epoch")
        with torch.no_grad(), kept_random_state():
            for number, data in enumerate(loader):
                self.inner_iter = number
                self.call_hook("before_val_iter")
                self.outputs = self.model.val_step(to_device(data, self.device), self.optimizer)
                self.log_buffer.update(self.outputs["log_vars"], self.outputs["num_samples"])
                self.call_hook("after_val_iter")
        self.call_hook("after_val_epoch")

    def _enter(self, mode: str, loader: DataLoader[Any]) -> None:
        self.mode, self.data_loader = mode, loader
        self.model.train(mode == "train")

    def _batches(self, loader: DataLoader[Any]) -> Iterator[Any]:
        """Return the batches that are left of this pass over the data.

        Which these are and what their transforms draw depends on seed, epoch and position only;
        the model draws from this process's generators, which a resumed run has to set.
        """
        sampler: Any = loader.sampler
        sampler.set_epoch(self.epoch, self._batches_done * (loader.batch_size or 1))
        if self._resumed_state is not None:
            set_random_state(self._resumed_state)
            self._resumed_state = None
        return iter(loader)

    # --- checkpoints -------------------------------------------------------------------------

    def save_checkpoint(self, folder: str, name: str, *, save_optimizer: bool = True) -> None:
        """Write a checkpoint; all processes call it, the first one writes.

        What Ceph/S3 gets is uploaded behind; the time until then is what training stands still.
        """
        started_s = time.monotonic()
        states = distributed.gather(random_state())
        if self.rank == 0:
            is_pass_over = self._batches_done == len(self.data_loader)
            if self.scaler is not None:
                self.meta["fp16"] = {"loss_scaler": self.scaler.state_dict()}
            meta = {
                **self.meta,
                "epoch": self.epoch + is_pass_over,
                "iter": self._iters_done,
                "time": time.asctime(),
                "resume": {
                    "batches_done": 0 if is_pass_over else self._batches_done,
                    "random": states,
                    "log": self.log_buffer.history(),
                },
            }
            weights = {key: value.cpu() for key, value in self.model.state_dict().items()}
            content: dict[str, Any] = {"meta": meta, "state_dict": weights}
            if save_optimizer:
                content["optimizer"] = self.optimizer.state_dict()
                content.update(self._gathered_gradients())
            with Files().open(join(folder, name), "wb") as file:
                torch.save(content, file)
            self.written.add(folder)
        blocked_s = time.monotonic() - started_s
        path = join(folder, name)
        self.logger.info("checkpoint %s: training stood still for %.3f s", path, blocked_s)
        self._tell_of_failed_uploads()
        for hook in self.hooks:
            hook.after_checkpoint(self, path, blocked_s)

    def _tell_of_failed_uploads(self) -> None:
        files = Files()
        folders = [files.client._uri(path) for path in self.written if files.is_object(path)]
        if not folders:
            return
        with contextlib.suppress(forebay.ForebayError):  # the training does not depend on it
            ours = tuple(f"{folder.rstrip('/')}/" for folder in folders)
            uploads = files.client.uploads()
            failed = [
                each for each in uploads if each.state == "failed" and each.path.startswith(ours)
            ]
            if failed:
                told = "%d uploads have failed for good, first %s (%s): see `forebay uploads`"
                self.logger.warning(told, len(failed), failed[0].path, failed[0].last_error)

    def _gathered_gradients(self) -> dict[str, Any]:
        """Return the gradients that wait for more to be added, if there are some."""
        gradients = {
            name: parameter.grad
            for name, parameter in self.model.named_parameters()
            if parameter.grad is not None
        }
        return {"gradients": gradients} if gradients else {}

    def resume(self, path: str) -> None:
        """Go on from a checkpoint: where ours says, exactly; of MMDetection's at its epoch."""
        checkpoint = read_checkpoint(path)
        state = state_of(checkpoint)
        report = load_state(self.model, state)
        self.has_averages = any(name.startswith("ema_") for name in state)
        if str(report):
            self.logger.warning("%s is loaded, but for what is%s", path, report)
        meta = checkpoint.get("meta", {})
        if "epoch" not in meta or "optimizer" not in checkpoint:
            raise WeightsError(f"{path} has weights only: give it as load_from, not to resume")
        self.optimizer.load_state_dict(checkpoint["optimizer"])
        for name, parameter in self.model.named_parameters():
            if name in checkpoint.get("gradients", {}):
                parameter.grad = checkpoint["gradients"][name].to(parameter.device)
        self.epoch, self.iter = meta["epoch"], meta["iter"]
        self._iters_done = self.iter
        self.meta["hook_msgs"] = meta.get("hook_msgs", {})
        for key in ("fp16", "ema_in_place"):
            if key in meta:
                self.meta[key] = meta[key]
        self.is_resumed = True
        position = meta.get("resume")
        if position is not None:
            self.meta["seed"] = meta.get("seed")  # of the order of images
        if position is None or len(position["random"]) != self.world_size:
            self.logger.warning(
                "%s has no random state of %d processes: losses will differ", path, self.world_size
            )
        else:
            self._resumed_state = position["random"][self.rank]
            self._batches_done = position["batches_done"]
            self.log_buffer.load(position["log"])
        self.logger.info("resumed from %s: epoch %d, iteration %d", path, self.epoch, self.iter)


@RUNNERS.register_module()
class EpochBasedRunner(Runner):
    """Runs for ``max_epochs`` passes over the data."""

    def __init__(self, *args: Any, max_epochs: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.max_epochs = max_epochs


@RUNNERS.register_module()
class IterBasedRunner(Runner):
    """Runs for ``max_iters`` batches, over the data as often as that takes."""

    by_epoch = False

    def __init__(self, *args: Any, max_iters: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.max_iters = max_iters

    def _set_length(self, batches: int) -> None:
        self.max_epochs = -(-self.max_iters // batches)

    def _is_done(self) -> bool:
        return self.iter >= self.max_iters


def join(folder: str, *names: str) -> str:
    """Return a path below a folder, which may be a URI."""
    return "/".join((folder.rstrip("/"), *names))


def parent(path: str) -> str:
    """Return the folder of a path, which may be a URI."""
    return path.rpartition("/")[0] or "."
