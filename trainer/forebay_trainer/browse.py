"""``forebay browse``: the training data as the pipeline gives them, drawn."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from forebay_trainer.check import check_config, check_files
from forebay_trainer.datasets import build_dataset
from forebay_trainer.drawing import draw_objects
from forebay_trainer.engine.randomness import set_random_seed
from forebay_trainer.engine.runner import join
from forebay_trainer.engine.training import flush, log
from forebay_trainer.images import write_image
from forebay_trainer.train import prepared

if TYPE_CHECKING:
    from collections.abc import Mapping

# They make what the model takes of what a person can see.
_UNSEEN = ("Normalize", "DefaultFormatBundle", "Collect")


def browse(
    path: str,
    options: Mapping[str, Any] | None = None,
    *,
    out: str = "browse",
    count: int = 20,
    seed: int = 0,
) -> list[str]:
    """Draw the first *count* samples of ``data.train`` into a folder; return their paths."""
    config = prepared(path, options, "cpu")
    for warning in check_config(config, ["train"]):
        log.warning("%s", warning)
    config.model, config.load_from, config.resume_from = {}, None, None  # no weights are needed
    check_files(config, ["train"])
    set_random_seed(seed)
    _show_all(config.data.train)
    dataset = build_dataset(config.data.train)
    written = []
    for number in range(min(count, len(dataset))):
        sample = dataset[number]
        name = PurePosixPath(sample["ori_filename"]).stem
        written.append(join(out, f"{number:04d}_{name}.jpg"))
        write_image(written[-1], draw_sample(sample, dataset.CLASSES, dataset.PALETTE))
    flush([out])
    return written


def _show_all(value: Any) -> None:
    """Take the steps that nobody can see out of all pipelines."""
    if isinstance(value, (list, tuple)):
        for each in value:
            _show_all(each)
    elif isinstance(value, dict):
        if "pipeline" in value:
            value["pipeline"] = [s for s in value["pipeline"] if s["type"] not in _UNSEEN]
        for key in ("dataset", "datasets"):
            _show_all(value.get(key))


def draw_sample(sample: Mapping[str, Any], classes: Any, palette: Any) -> np.ndarray[Any, Any]:
    """Return the image of a sample with its objects; those to be ignored have no class."""
    masks = sample["gt_masks"].to_ndarray() if "gt_masks" in sample else None
    objects = [
        (box, int(label), classes[int(label)], None if masks is None else masks[number])
        for number, (box, label) in enumerate(
            zip(sample.get("gt_bboxes", ()), sample.get("gt_labels", ()), strict=False)
        )
    ]
    ignored = [(box, len(classes), "ignore", None) for box in sample.get("gt_bboxes_ignore", ())]
    image = np.clip(sample["img"], 0, 255).astype(np.uint8)
    return draw_objects(np.ascontiguousarray(image), [*objects, *ignored], palette)
