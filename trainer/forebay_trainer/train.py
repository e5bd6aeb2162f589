"""``python -m forebay_trainer.train CONFIG``, which torchrun starts; ``forebay train`` is the same.

Errors that need no data come first: those in the configuration, then weights and data that are not
there.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import torch

from forebay_trainer.check import check_config, check_files, check_outputs, errors_of_parts
from forebay_trainer.config import errors_at, load_config, normalized
from forebay_trainer.engine import distributed
from forebay_trainer.engine.optimizers import build_optimizer
from forebay_trainer.engine.randomness import init_random_seed, set_random_seed
from forebay_trainer.engine.training import LINE, build_data, log, train_detector
from forebay_trainer.models.builder import build_detector

if TYPE_CHECKING:
    from collections.abc import Mapping

    from forebay_trainer.registry import Config


def train(
    path: str,
    options: Mapping[str, Any] | None = None,
    *,
    seed: int | None = None,
    device: str | None = None,
    validate: bool = True,
    **settings: Any,
) -> None:
    """Train what a configuration describes.

    Args:
        path: of the configuration, a file's or an object's.
        options: what is changed in it.
        seed: of all random numbers; another one each time if None.
        device: ``cpu`` or ``cuda``; what there is if None.
        validate: evaluate as ``evaluation`` says.
        settings: keys of the configuration that take the place of its own if they are not None:
            ``work_dir``, ``resume_from``, ``auto_resume``, ``deterministic``, ``flush_timeout_s``.
    """
    config = prepared(path, options, device)
    for key, value in settings.items():
        if value is not None:
            config[key] = value
    if config.get("work_dir") is None:
        config.work_dir = f"./work_dirs/{Path(path).stem}"
    splits = ["train", *(["val"] if validate or len(config.workflow) > 1 else [])]
    for warning in check_config(config, splits):
        log.warning("%s", warning)
    distributed.start(config.device, config.get("dist_params"))
    try:
        config.seed = init_random_seed(config.get("seed") if seed is None else seed)
        set_random_seed(config.seed, deterministic=config.get("deterministic", False))
        with errors_of_parts(config.model):
            model = build_detector(config.model, config.get("train_cfg"), config.get("test_cfg"))
        with errors_at("optimizer"):
            build_optimizer(model, config.optimizer)  # only to see that it can be
        check_files(config, splits)
        check_outputs(config, splits)
        log.info("seed %d", config.seed)
        with errors_at("model"):
            model.init_weights()
        datasets = [build_data(config.data.train, "data.train")]
        if any(mode == "val" for mode, _ in config.workflow):
            datasets.append(build_data(_for_losses(config), "data.val"))
        model.CLASSES = datasets[0].CLASSES
        train_detector(model, datasets, config, validate=validate)
    finally:
        distributed.stop()


class _ToStderr(logging.Handler):
    """Writes to what is stderr at the time: a progress bar moves it out of its way."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stderr)


def prepared(path: str, options: Mapping[str, Any] | None, device: str | None) -> Config:
    """Return a normalized configuration, with this process set as it says."""
    config = normalized(load_config(path, options))
    config.device = device or config.get("device")
    if config.device is None:
        config.device = "cuda" if torch.cuda.is_available() else "cpu"
    if not log.handlers:
        handler = _ToStderr()
        handler.setFormatter(LINE)
        log.addHandler(handler)
        log.propagate = False
    with errors_at("log_level"):
        log.setLevel(config.log_level if distributed.rank() == 0 else logging.ERROR)
    with errors_at("opencv_num_threads"):
        cv2.setNumThreads(config.get("opencv_num_threads", 0))
    with errors_at("mp_start_method"):
        torch.multiprocessing.set_start_method(config.get("mp_start_method", "fork"), force=True)
    torch.backends.cudnn.benchmark = config.get("cudnn_benchmark", False)
    return config


def _for_losses(config: Config) -> Any:
    """Return ``data.val`` with the training's pipeline, as the workflow's second phase has it."""
    found = dict(config.data.val)
    training = config.data.train
    while "pipeline" not in training:
        training = training.dataset
    return {**found, "pipeline": training.pipeline}


if __name__ == "__main__":
    from forebay_trainer.cli import run, train_command

    run(train_command)
