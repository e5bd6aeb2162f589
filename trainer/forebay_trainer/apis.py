"""What other programs call: train a detector, load one, and let it look at images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from forebay_trainer.check import errors_of_parts
from forebay_trainer.config import as_config
from forebay_trainer.datasets.collate import collate
from forebay_trainer.datasets.pipelines import Compose
from forebay_trainer.datasets.utils import replace_ImageToTensor
from forebay_trainer.engine.batches import to_device
from forebay_trainer.engine.randomness import init_random_seed, set_random_seed
from forebay_trainer.engine.training import train_detector
from forebay_trainer.models.builder import build_detector
from forebay_trainer.registry import DATASETS
from forebay_trainer.weights import load_checkpoint

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from forebay_trainer.registry import Config

__all__ = [
    "inference_detector",
    "init_detector",
    "init_random_seed",
    "set_random_seed",
    "train_detector",
]


def init_detector(
    config: str | os.PathLike[str] | Config,
    checkpoint: str | None = None,
    device: str | torch.device = "cuda:0",
    cfg_options: Mapping[str, Any] | None = None,
) -> torch.nn.Module:
    """Return a detector that is ready to look at images; its ``CLASSES`` are the checkpoint's.

    *config* is a path, or a Config of mmengine's or mmcv's.
    """
    loaded = as_config(config)
    loaded.merge_from_dict(dict(cfg_options or {}))
    model = build_for_test(loaded)
    classes = None
    if checkpoint is not None:
        classes = load_checkpoint(model, checkpoint).get("meta", {}).get("CLASSES")
    model.CLASSES = classes or DATASETS.get("CocoDataset").CLASSES
    model.cfg = loaded
    return model.to(device).eval()


def build_for_test(config: Config) -> torch.nn.Module:
    """Return the model of a configuration without initial weights and without a training."""
    model = as_config(config).model
    model.train_cfg = None
    if "pretrained" in model:
        model.pretrained = None
    model.backbone.pop("init_cfg", None)
    with errors_of_parts(model):
        return build_detector(model, test_cfg=config.get("test_cfg"))


def inference_detector(model: torch.nn.Module, imgs: Any) -> Any:
    """Return the detections in an image, or a list of them for a list of images.

    An image is a path, an object's URI, or an array (height, width, 3) in BGR. The results are as
    those of ``simple_test``, boxes in pixels of the image.
    """
    is_batch = isinstance(imgs, (list, tuple))
    pipeline = Compose(replace_ImageToTensor(model.cfg.data.test.pipeline))
    samples = []
    for image in imgs if is_batch else [imgs]:
        if isinstance(image, np.ndarray):
            samples.append(pipeline({"img": image, "filename": None, "img_fields": ["img"]}))
        else:
            samples.append(pipeline({"img_info": {"filename": str(image)}, "img_prefix": None}))
    data = to_device(collate(samples), next(model.parameters()).device)
    with torch.no_grad():
        results = model(return_loss=False, rescale=True, **data)
    return results if is_batch else results[0]
