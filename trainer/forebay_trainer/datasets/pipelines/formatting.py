"""The end of a pipeline: arrays become tensors, and a sample what the model takes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

from forebay_trainer.datasets.bundles import DataContainer
from forebay_trainer.datasets.pipelines.sample import no_fill
from forebay_trainer.registry import PIPELINES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from forebay_trainer.datasets.pipelines.sample import Array, Results

_META_KEYS = (
    "filename",
    "ori_filename",
    "ori_shape",
    "img_shape",
    "pad_shape",
    "scale_factor",
    "flip",
    "flip_direction",
    "img_norm_cfg",
)


def _planes(image: Array) -> torch.Tensor:
    """Return H x W or H x W x C as contiguous C x H x W."""
    # torch turns the axes some times faster than numpy, which lays out the pixels one by one.
    pixels = torch.from_numpy(np.ascontiguousarray(np.atleast_3d(image)))
    return pixels.permute(2, 0, 1).contiguous()


@PIPELINES.register_module()
@dataclass
class ImageToTensor:
    """Make the images under ``keys`` tensors of C x H x W."""

    keys: Sequence[str]

    def __call__(self, results: Results) -> Results:
        for key in self.keys:
            results[key] = _planes(results[key])
        return results


@PIPELINES.register_module()
@dataclass
class DefaultFormatBundle:
    """Make bundles of tensors: the image to be stacked, boxes and labels a list, masks as they are.

    ``pad_val``: what the collate function fills the smaller images and masks of a batch with.
    """

    img_to_float: bool = True
    pad_val: Mapping[str, float] = field(default_factory=no_fill)

    def __call__(self, results: Results) -> Results:
        if "img" in results:
            image = results["img"]
            if self.img_to_float and image.dtype == np.uint8:
                image = image.astype(np.float32)
            channels = 1 if image.ndim == 2 else image.shape[2]
            results.setdefault("pad_shape", image.shape)
            results.setdefault("scale_factor", 1.0)
            unchanged = {
                "mean": np.zeros(channels, np.float32),
                "std": np.ones(channels, np.float32),
                "to_rgb": False,
            }
            results.setdefault("img_norm_cfg", unchanged)
            fill = self.pad_val.get("img", 0)
            results["img"] = DataContainer(_planes(image), stack=True, padding_value=fill)
        for key in ("gt_bboxes", "gt_bboxes_ignore", "gt_labels"):
            if key in results:
                results[key] = DataContainer(torch.from_numpy(results[key]))
        if "gt_masks" in results:
            fill = self.pad_val.get("masks", 0)
            results["gt_masks"] = DataContainer(
                results["gt_masks"], padding_value=fill, cpu_only=True
            )
        return results


@PIPELINES.register_module()
@dataclass
class Collect:
    """Keep only what is under ``keys``, and under ``img_metas`` what is under ``meta_keys``."""

    keys: Sequence[str]
    meta_keys: Sequence[str] = _META_KEYS

    def __call__(self, results: Results) -> Results:
        missing = [key for key in (*self.keys, *self.meta_keys) if key not in results]
        if missing:
            raise KeyError(f"Collect: the pipeline made no {missing}; there are {sorted(results)}")
        metas = {key: results[key] for key in self.meta_keys}
        collected: Results = {key: results[key] for key in self.keys}
        return {"img_metas": DataContainer(metas, cpu_only=True), **collected}
