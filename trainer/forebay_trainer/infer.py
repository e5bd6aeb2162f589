"""``forebay infer``: what a checkpoint finds on images."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import torch

from forebay_trainer.apis import inference_detector, init_detector
from forebay_trainer.config import load_config
from forebay_trainer.drawing import detections, draw_result
from forebay_trainer.engine.runner import join
from forebay_trainer.engine.training import flush
from forebay_trainer.images import image_files, read_image, write_image

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


def infer(
    path: str,
    checkpoint: str,
    images: Sequence[str],
    options: Mapping[str, Any] | None = None,
    *,
    out: str | None = None,
    score_thr: float = 0.3,
    device: str | None = None,
    tell: Callable[[str], object] = print,
) -> None:
    """Tell, a JSON object per image, what was found; draw it into a folder if *out* is one.

    Args:
        path: of the configuration.
        checkpoint: a path or URI.
        images: paths or URIs.
        options: what is changed in the configuration.
        out: a folder or prefix.
        score_thr: what is told and drawn has this score.
        device: ``cpu`` or ``cuda``; what there is if None.
        tell: called with each line.
    """
    config = load_config(path, options)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    model = init_detector(config, checkpoint, device)
    files = image_files(config.data.test)
    names: set[str] = set()
    for number, image_path in enumerate(images):
        image = read_image(image_path, files)
        result = inference_detector(model, image)
        found = detections(result, model.CLASSES)
        told = [
            {key: value for key, value in each.items() if key != "mask"}
            for each in found
            if each["score"] >= score_thr
        ]
        tell(json.dumps({"image": image_path, "objects": told}))
        if out is not None:
            drawn = draw_result(image, result, model.CLASSES, score_thr=score_thr)
            name = image_path.rpartition("/")[2]
            write_image(join(out, name if name not in names else f"{number}_{name}"), drawn)
            names.add(name)
    if out is not None:
        flush([out])
