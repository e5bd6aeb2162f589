"""``python -m forebay_trainer.test CONFIG CHECKPOINT``, as ``forebay test``; under torchrun too."""

from __future__ import annotations

import inspect
import json
import pickle
import time
from typing import TYPE_CHECKING, Any

from forebay_trainer.apis import build_for_test
from forebay_trainer.check import check_config, check_files, check_metrics
from forebay_trainer.config import ConfigError
from forebay_trainer.drawing import draw_result
from forebay_trainer.engine import distributed
from forebay_trainer.engine.optimizer_hooks import mixed_precision
from forebay_trainer.engine.runner import join, parent
from forebay_trainer.engine.testing import run_test
from forebay_trainer.engine.training import GATHERING, flush, log, test_loader
from forebay_trainer.files import Files
from forebay_trainer.images import image_files, read_image, write_image
from forebay_trainer.train import prepared
from forebay_trainer.weights import load_checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from forebay_trainer.registry import Config

# What `evaluation` has for the training's hook alone.
_OF_THE_HOOK = (
    *GATHERING,
    *("interval", "start", "by_epoch", "save_best", "rule", "out_dir", "dynamic_intervals"),
    "file_client_args",
)


def evaluate(
    path: str,
    checkpoint: str,
    options: Mapping[str, Any] | None = None,
    *,
    metrics: Sequence[str] = (),
    out: str | None = None,
    format_only: bool = False,
    eval_options: Mapping[str, Any] | None = None,
    show_dir: str | None = None,
    show_score_thr: float = 0.3,
    work_dir: str | None = None,
    device: str | None = None,
) -> dict[str, Any]:
    """Test a checkpoint on ``data.test``; return the scores, on the first process.

    Args:
        path: of the configuration.
        checkpoint: a path or URI.
        options: what is changed in the configuration.
        metrics: what to evaluate.
        out: a file that gets the pickled results.
        format_only: write the results as the data set's server wants them, and do not evaluate.
        eval_options: arguments of the data set's ``evaluate`` or ``format_results``.
        show_dir: a folder that gets the images with what was found on them.
        show_score_thr: what is drawn has this score.
        work_dir: a folder that gets the scores as ``eval_TIME.json``.
        device: ``cpu`` or ``cuda``; what there is if None.
    """
    config = prepared(path, options, device)
    for warning in check_config(config, ["test"]):
        log.warning("%s", warning)
    check_metrics(config, "test", metrics, "--eval")
    distributed.start(config.device, config.get("dist_params"))
    try:
        model = build_for_test(config)
        found = load_checkpoint(model, checkpoint)
        check_files(_without_weights(config), ["test"])
        loader = test_loader(config, "test")
        dataset: Any = loader.dataset
        arguments = dict(eval_options or {})
        _check_arguments_of(dataset, arguments, format_only=format_only)
        classes = found.get("meta", {}).get("CLASSES") or dataset.CLASSES
        model.to(config.device)
        show = None
        if show_dir is not None:
            show = _shower(config, show_dir, classes, dataset.PALETTE, show_score_thr)
        half = mixed_precision(config.device) if config.get("fp16") is not None else None
        results = run_test(model, loader, show, autocast=half)
        scores: dict[str, Any] = {}
        if distributed.rank() == 0:
            if out is not None:
                Files().put(out, pickle.dumps(results))
            if format_only:
                dataset.format_results(results, **arguments)
            if metrics:
                told = dict(config.get("evaluation") or {})
                for key in _OF_THE_HOOK:
                    told.pop(key, None)
                scores = dataset.evaluate(results, **told | {"metric": list(metrics)} | arguments)
            if work_dir is not None:
                record = {"config": path, "metric": scores}
                name = f"eval_{time.strftime('%Y%m%d_%H%M%S')}.json"
                Files().put(join(work_dir, name), json.dumps(record, default=float))
        prefix = arguments.get("jsonfile_prefix")
        written = (out, show_dir, work_dir, prefix and parent(prefix))
        flush(path for path in written if path is not None)
    finally:
        distributed.stop()
    return scores


def _check_arguments_of(dataset: Any, arguments: Mapping[str, Any], *, format_only: bool) -> None:
    """Check what is asked for after the test, before it. Raises ConfigError."""
    method = getattr(dataset, "format_results" if format_only else "evaluate", None)
    if method is None:
        raise ConfigError(f"--format-only: {type(dataset.dataset).__name__} has no such format")
    known = inspect.signature(method).parameters
    takes_all = any(each.kind is each.VAR_KEYWORD for each in known.values())  # for what it wraps
    for key in arguments:
        if key not in known and not takes_all:
            raise ConfigError(f"--eval-options: {key} is none of {', '.join([*known][1:])}")
    if format_only and "jsonfile_prefix" in known and not arguments.get("jsonfile_prefix"):
        raise ConfigError("--format-only: say where to, as --eval-options jsonfile_prefix=results")


def _without_weights(config: Config) -> Config:
    """Return the configuration of a test, which the checkpoint alone has weights for."""
    changed = config.copy()
    changed.model = {}
    changed.load_from = changed.resume_from = None
    return changed


def _shower(
    config: Config,
    folder: str,
    classes: Sequence[str],
    palette: Sequence[Sequence[int]] | None,
    score_thr: float,
) -> Callable[[Any, Mapping[str, Any]], None]:
    files = image_files(config.data.test)

    def show(result: Any, meta: Mapping[str, Any]) -> None:
        image = read_image(meta["filename"], files)
        drawn = draw_result(image, result, classes, score_thr=score_thr, palette=palette)
        write_image(join(folder, meta["ori_filename"]), drawn)

    return show


if __name__ == "__main__":
    from forebay_trainer.cli import run, test_command

    run(test_command)
