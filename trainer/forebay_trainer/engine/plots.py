"""A picture of a run: its losses and scores from the log's JSON lines."""

from __future__ import annotations

import io
import json
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forebay_trainer.engine.hook import Hook

if TYPE_CHECKING:
    from collections.abc import Sequence

    from forebay_trainer.engine.runner import Runner

Curves = dict[str, tuple[list[float], list[float]]]
"""By name: places in epochs or iterations, and values."""


def read_curves(lines: Sequence[str]) -> tuple[Curves, Curves]:
    """Return the losses and the scores by epoch; of lines that a resume repeats, the last."""
    losses: dict[str, dict[float, float]] = defaultdict(dict)
    scores: dict[str, dict[float, float]] = defaultdict(dict)
    batches, by_epoch, place = 1, True, 0.0
    for line in lines:
        record = json.loads(line)
        if "batches_per_epoch" in record:
            batches, by_epoch = record["batches_per_epoch"], record["by_epoch"]
        if record.get("mode") == "train":
            place = record["iter"] / batches + (record["epoch"] - 1 if by_epoch else 0)
        place_of_score = record["epoch"] if by_epoch and "epoch" in record else place
        for name, value in record.items():
            if record.get("mode") == "train" and "loss" in name:
                losses[name][place] = value
            elif record.get("mode") == "val" and _is_score(name, value):
                scores[name][place_of_score] = value
    return _sorted(losses), _sorted(scores)


def _is_score(name: str, value: Any) -> bool:
    """Tell what is a precision or recall; a negative one is of no object at all."""
    return (
        isinstance(value, (int, float))
        and value >= 0
        and any(part in name for part in ("AP", "AR"))
    )


def _sorted(points: dict[str, dict[float, float]]) -> Curves:
    curves = {}
    for name, values in points.items():
        places = sorted(values)
        curves[name] = (places, [values[place] for place in places])
    return curves


def plot_run(lines: Sequence[str]) -> bytes:
    """Return a PNG with losses above scores."""
    from matplotlib.figure import Figure

    losses, scores = read_curves(lines)
    figure = Figure(figsize=(9, 8), layout="constrained")
    for number, (title, curves) in enumerate((("loss", losses), ("AP", scores)), 1):
        axes = figure.add_subplot(2, 1, number)
        for name, (places, values) in curves.items():
            is_whole = name in ("loss", "bbox_mAP", "segm_mAP", "mAP")
            width = 2.0 if is_whole else 0.8
            axes.plot(
                places, values, label=name, linewidth=width, marker="." if number == 2 else ""
            )
        axes.set_ylabel(title)
        axes.grid(alpha=0.3)
        if curves:
            axes.legend(fontsize="x-small", ncols=3)
    axes.set_xlabel("epoch")
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=120)
    return file.getvalue()


class PlotHook(Hook):
    """Leaves ``plot.png`` beside the logs at the end of a run, those of resumed parts included."""

    def after_run(self, runner: Runner) -> None:
        logs = sorted(Path(runner.log_dir).glob("*.log.json"))
        if runner.rank == 0 and logs:
            lines = [line for log in logs for line in log.read_text().splitlines()]
            Path(runner.log_dir, "plot.png").write_bytes(plot_run(lines))
