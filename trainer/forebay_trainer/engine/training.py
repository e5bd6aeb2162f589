"""A run as a configuration describes it: the runner, its hooks and loaders, and its end."""

from __future__ import annotations

import contextlib
import logging
import platform
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

import forebay
from forebay_trainer.config import ConfigError, normalized
from forebay_trainer.datasets import build_dataloader, build_dataset
from forebay_trainer.datasets.utils import replace_ImageToTensor
from forebay_trainer.engine.checkpoint_hook import CheckpointHook
from forebay_trainer.engine.distributed import broadcast, rank, world_size
from forebay_trainer.engine.evaluation import EvalHook
from forebay_trainer.engine.loggers import IterTimerHook, copy_files
from forebay_trainer.engine.optimizers import build_optimizer
from forebay_trainer.engine.plots import PlotHook
from forebay_trainer.engine.progress import ProgressHook, clear_screen
from forebay_trainer.engine.schedules import policy_hook_name
from forebay_trainer.files import Files
from forebay_trainer.registry import HOOKS, RUNNERS, Config
from forebay_trainer.weights import latest_checkpoint, load_checkpoint

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from forebay_trainer.engine.hook import Hook
    from forebay_trainer.engine.runner import Runner

log = logging.getLogger("forebay_trainer")


def train_detector(
    model: torch.nn.Module,
    dataset: Any,
    cfg: Any,
    distributed: bool = False,
    validate: bool = False,
    timestamp: str | None = None,
    meta: dict[str, Any] | None = None,
) -> Runner:
    """Train *model* as *cfg* says, to the end, and until all that was written is uploaded.

    Args:
        model: with its initial weights.
        dataset: what to train with, or a list: with the workflow's second phase's, too.
        cfg: a Config, of mmcv or mmengine too; ``work_dir`` has to be in it.
        distributed: for upstream's callers; the processes that torchrun has started are enough.
        validate: evaluate on ``data.val`` as ``evaluation`` says.
        timestamp: the name of the log.
        meta: what the checkpoints' ``meta`` has beside the run's own.

    Raises UploadFailedError if something could not be uploaded, and DeadlineExceededError if it is
    not after the ``flush_timeout_s`` of *cfg*.
    """
    del distributed
    config = normalized(cfg)
    if config.get("work_dir") is None:
        raise ConfigError("work_dir: give a folder")
    datasets = list(dataset) if isinstance(dataset, (list, tuple)) else [dataset]
    device = torch.device(config.get("device") or ("cuda" if torch.cuda.is_available() else "cpu"))
    place_model(model, device, is_mixed=config.get("fp16") is not None)
    timestamp = timestamp or time.strftime("%Y%m%d_%H%M%S")
    with log_folder(config, timestamp) as log_dir:
        runner: Runner = RUNNERS.build(
            config.runner,
            default_args={
                "model": model,
                "optimizer": build_optimizer(model, scaled_optimizer(config)),
                "work_dir": config.work_dir,
                "log_dir": log_dir,
                "logger": log,
                "meta": {**_about(config), "CLASSES": datasets[0].CLASSES, **(meta or {})},
                "device": device,
                "find_unused_parameters": config.get("find_unused_parameters", False),
                "timestamp": timestamp,
            },
        )
        register_hooks(runner, config)
        if validate:
            runner.register_hook(_eval_hook(config, runner), "LOW")
        runner.call_hook("before_load")
        _load(runner, config)
        if runner.is_resumed and runner.meta.get("seed") != config.get("seed"):
            config.seed = runner.meta["seed"]
            log.info("seed %s, as the checkpoint has it", config.seed)
        loaders = [train_loader(each, config) for each in datasets]
        try:
            runner.run(loaders, [tuple(phase) for phase in config.workflow])
        except BaseException as error:
            clear_screen()  # an interrupt amid its drawing would swallow what is written now
            if isinstance(error, KeyboardInterrupt):
                log.warning("interrupted: --auto-resume goes on from the last checkpoint")
            raise
    flush(runner.written, config.get("flush_timeout_s"))
    return runner


def place_model(model: torch.nn.Module, device: torch.device, *, is_mixed: bool) -> None:
    """Move *model* to where it trains."""
    model.to(device)
    if device.type == "cuda" and is_mixed:
        # Half-precision convolutions of cuDNN take NHWC: otherwise it transposes around each.
        model.to(memory_format=torch.channels_last)


def scaled_optimizer(config: Config) -> Any:
    """Return ``optimizer`` with the learning rate for this batch size, if that is asked for."""
    scaling = config.get("auto_scale_lr") or {}
    if scaling.get("enable"):
        batch = world_size() * config.data.train_dataloader.get("samples_per_gpu", 2)
        base = scaling["base_batch_size"]
        rate = config.optimizer.lr * batch / base
        log.info("batches of %d for %d: learning rate %g", batch, base, rate)
        return {**config.optimizer, "lr": rate}
    return config.optimizer


def register_hooks(runner: Runner, config: Config) -> None:
    """Register the hooks that a configuration names, each at upstream's priority."""
    by_epoch = {} if runner.by_epoch else {"by_epoch": False}
    if config.get("lr_config") is not None:
        schedule = dict(config.lr_config)
        kind = policy_hook_name(schedule.pop("policy"))
        runner.register_hook(_hook({**by_epoch, **schedule, "type": kind}), "VERY_HIGH")
    runner.register_hook(_hook(optimizer_hook_config(config)), "ABOVE_NORMAL")
    if config.get("checkpoint_config") is not None:
        checkpoints = {"type": "CheckpointHook", **by_epoch, **config.checkpoint_config}
        runner.register_hook(_hook(checkpoints), "NORMAL")
    runner.register_hook(IterTimerHook(), "LOW")
    runner.register_hook(ProgressHook(), "BELOW_NORMAL")
    runner.register_hook(PlotHook(), "LOW")  # after evaluation, before the logs are copied
    for each in config.custom_hooks:
        arguments = dict(each)
        priority = arguments.pop("priority", None)
        runner.register_hook(_hook(arguments), priority)
    interval = {"interval": config.log_config.get("interval", 50)}
    for each in config.log_config["hooks"]:
        runner.register_hook(_hook({**interval, **by_epoch, **each}), "VERY_LOW")


def optimizer_hook_config(config: Config) -> dict[str, Any]:
    """Return ``optimizer_config`` with its type, and what ``fp16`` adds to it."""
    arguments = {"type": "OptimizerHook", **config.optimizer_config}
    fp16 = config.get("fp16")
    if fp16 is not None:
        arguments |= fp16
        arguments["type"] = {
            "OptimizerHook": "Fp16OptimizerHook",
            "GradientCumulativeOptimizerHook": "GradientCumulativeFp16OptimizerHook",
        }.get(arguments["type"], arguments["type"])
    return arguments


def _hook(arguments: dict[str, Any]) -> Hook:
    hook: Hook = HOOKS.build(arguments)
    return hook


def _eval_hook(config: Config, runner: Runner) -> EvalHook:
    options = {"by_epoch": runner.by_epoch, **(config.get("evaluation") or {})}
    for key in GATHERING:
        options.pop(key, None)
    return EvalHook(test_loader(config, "val"), **options)


# How upstream brings the results of all processes together; we have one way.
GATHERING = ("gpu_collect", "tmpdir")


def train_loader(dataset: Any, config: Config) -> Any:
    options = {"samples_per_gpu": 2, "workers_per_gpu": 2, **config.data.train_dataloader}
    return build_dataloader(dataset, **{"seed": config.get("seed") or 0, **options})


def test_loader(config: Config, split: str) -> Any:
    """Return the loader of ``data.val`` or ``data.test``, whose pipeline pads if it has to."""
    options: dict[str, Any] = {"samples_per_gpu": 1, "workers_per_gpu": 2, "shuffle": False}
    options |= config.data[f"{split}_dataloader"]
    found = config.data[split]
    if options["samples_per_gpu"] > 1:
        for each in found if isinstance(found, (list, tuple)) else [found]:
            each.pipeline = replace_ImageToTensor(each.pipeline)
    dataset = build_data(found, f"data.{split}", {"test_mode": True})
    return build_dataloader(dataset, **options)


def build_data(cfg: Any, place: str, default_args: dict[str, Any] | None = None) -> Any:
    """Return a data set; what it says against its files names the place in the configuration."""
    try:
        return build_dataset(cfg, default_args)
    except ValueError as error:
        raise ConfigError(f"{place}: {error}") from error


def _load(runner: Runner, config: Config) -> None:
    """Resume, or load weights, if the configuration says so."""
    path = config.get("resume_from")
    if path is None and config.get("auto_resume"):
        path = broadcast(_latest(runner))
    if path is not None:
        runner.resume(path)
    elif config.get("load_from"):
        load_checkpoint(runner.model, config.load_from)


def _latest(runner: Runner) -> str | None:
    """Return the newest checkpoint where this run writes them."""
    folders = [hook.folder(runner) for hook in runner.hooks if isinstance(hook, CheckpointHook)]
    for folder in dict.fromkeys([*folders, runner.work_dir]):
        found = latest_checkpoint(folder)
        if found is not None:
            return found
    runner.logger.info("nothing to resume from: this run begins")
    return None


@contextlib.contextmanager
def log_folder(config: Config, timestamp: str) -> Iterator[str]:
    """Give a local folder for logs: the work_dir, or one for the time being if that is a prefix.

    The resolved configuration and the text log are in it. If the run fails, what is in the
    temporary folder goes to the prefix all the same, or stays if the daemon does not take it.
    """
    with contextlib.ExitStack() as stack:
        folder = config.work_dir
        temporary = contextlib.ExitStack()
        if Files().is_object(folder):
            folder = tempfile.mkdtemp(prefix="forebay-run-")
            temporary.callback(shutil.rmtree, folder, ignore_errors=True)
        stack.enter_context(temporary)
        Path(folder).mkdir(parents=True, exist_ok=True)
        if rank() == 0:
            name = Path(config.filename or "config.py").stem
            Path(folder, f"{name}.py").write_text(config.pretty_text)
            handler = logging.FileHandler(Path(folder, f"{timestamp}.log"))
            handler.setFormatter(LINE)
            log.addHandler(handler)
            stack.callback(handler.close)
            stack.callback(log.removeHandler, handler)
        try:
            yield folder
        except BaseException as error:
            if folder != config.work_dir and rank() == 0 and not _are_saved(folder, config, error):
                temporary.pop_all()
                log.warning("the logs of this run are in %s: they could not be written", folder)
            raise


def _are_saved(folder: str, config: Config, error: BaseException) -> bool:
    """Tell whether the logs of a run that failed are where they belong."""
    if isinstance(error, forebay.DaemonUnavailableError):
        return False  # it was waited for already
    try:
        files = [path for path in Path(folder).rglob("*") if path.is_file()]
        copy_files(files, folder, config.work_dir)
    except (forebay.ForebayError, OSError, KeyboardInterrupt):
        return False
    return True


LINE = logging.Formatter("%(asctime)s - forebay - %(levelname)s - %(message)s")


def _about(config: Config) -> dict[str, Any]:
    """Return what a checkpoint tells of its run."""
    torch_line = f"torch {torch.__version__}, CUDA {torch.version.cuda}"
    return {
        "config": config.pretty_text,
        "seed": config.get("seed"),
        "exp_name": Path(config.filename or "config.py").name,
        "env_info": f"forebay {forebay.__version__}, {torch_line}, {platform.platform()}",
    }


def flush(paths: Iterable[str], timeout_s: float | None = None) -> None:
    """Wait until what was written to those of *paths* that are objects, or below them, is in the
    origin; None is for as long as it takes. Raises UploadFailedError, DeadlineExceededError.
    """
    files = Files()
    written = sorted(path for path in paths if files.is_object(path))
    if written:
        log.info("uploading what is left of %s", ", ".join(written))
        files.client.flush(written, timeout_s)
