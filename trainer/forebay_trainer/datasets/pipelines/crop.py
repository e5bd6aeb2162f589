"""Crops, and the opposite: the image somewhere in a larger one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from forebay_trainer.core.bbox import bbox_overlaps
from forebay_trainer.datasets.pipelines.sample import (
    change_boxes,
    change_images,
    change_masks,
    clip_boxes,
    image_fields,
    keep_boxes,
    masks_of,
)
from forebay_trainer.registry import PIPELINES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from forebay_trainer.datasets.pipelines.sample import Array, Results

_CROP_TYPES = ("absolute", "absolute_range", "relative", "relative_range")


def _crop(results: Results, window: Array) -> None:
    """Cut the images to *window* (x1, y1, x2, y2) and move the boxes; masks are for the caller."""
    left, top, right, bottom = window
    change_images(results, lambda image: image[top:bottom, left:right])
    results["img_shape"] = results["img"].shape
    corner = np.array([left, top, left, top], np.float32)
    change_boxes(results, lambda boxes: boxes - corner)


@PIPELINES.register_module()
@dataclass
class RandomCrop:
    """Crop ``crop_size`` (height, width) at a random place; boxes left without area go.

    The size is in pixels ("absolute"), at least that and at most all of the image
    ("absolute_range": from the first to the second number), or the same as parts of the image
    ("relative", "relative_range"). A sample that keeps no box is left out, unless
    ``allow_negative_crop``. ``recompute_bbox``: boxes become those of the cropped masks.
    """

    crop_size: tuple[float, float]
    crop_type: str = "absolute"
    allow_negative_crop: bool = False
    recompute_bbox: bool = False
    bbox_clip_border: bool = True

    def __post_init__(self) -> None:
        if self.crop_type not in _CROP_TYPES:
            raise ValueError(f"crop_type {self.crop_type!r} is none of {_CROP_TYPES}")
        first, second = self.crop_size
        relative = self.crop_type.startswith("relative")
        if min(first, second) <= 0 or (relative and max(first, second) > 1):
            raise ValueError(f"crop_size {self.crop_size} is no size for {self.crop_type!r}")
        if self.crop_type == "absolute_range" and first > second:
            raise ValueError(f"crop_size {self.crop_size} is no range: the first number is larger")

    def __call__(self, results: Results) -> Results | None:
        shape = results["img"].shape
        height, width = self._size(shape)
        top = np.random.randint(0, max(shape[0] - height, 0) + 1)
        left = np.random.randint(0, max(shape[1] - width, 0) + 1)
        window = np.array([left, top, left + width, top + height])
        _crop(results, window)
        for key in results.get("bbox_fields", []):
            boxes = results[key]
            if self.bbox_clip_border:
                results[key] = boxes = clip_boxes(boxes, results["img_shape"])
            kept = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
            if key == "gt_bboxes" and not kept.any() and not self.allow_negative_crop:
                return None
            keep_boxes(results, key, kept)
            masks = masks_of(key)
            if masks in results:
                results[masks] = results[masks].crop(window)
                if self.recompute_bbox:
                    results[key] = results[masks].get_bboxes()
        return results

    def _size(self, shape: tuple[int, ...]) -> tuple[int, int]:
        height, width = shape[:2]
        first, second = self.crop_size
        if self.crop_type == "absolute":
            return min(int(first), height), min(int(second), width)
        if self.crop_type == "absolute_range":
            return (
                np.random.randint(min(height, int(first)), min(height, int(second)) + 1),
                np.random.randint(min(width, int(first)), min(width, int(second)) + 1),
            )
        if self.crop_type == "relative_range":
            first, second = np.array([first, second]) + np.random.rand(2) * (
                1 - np.array([first, second])
            )
        return int(height * first + 0.5), int(width * second + 0.5)


@PIPELINES.register_module()
@dataclass
class MinIoURandomCrop:
    """SSD's crop (arXiv 1512.02325): all boxes overlap it by a drawn IoU, or nothing is cropped.

    ``min_crop_size`` is the part of the image's sides. Boxes stay whose centre lies within.
    """

    min_ious: Sequence[float] = (0.1, 0.3, 0.5, 0.7, 0.9)
    min_crop_size: float = 0.3
    bbox_clip_border: bool = True

    def __call__(self, results: Results) -> Results:
        fields = results["bbox_fields"]
        boxes = np.concatenate([results[key] for key in fields]) if fields else np.zeros((0, 4))
        while True:
            min_iou = np.random.choice((1, *self.min_ious, 0))
            if min_iou == 1:
                return results
            for _ in range(50):
                window = self._window(results["img"].shape)
                if window is not None and _fits(window, boxes, min_iou):
                    self._crop(results, window)
                    return results

    def _window(self, shape: tuple[int, ...]) -> Array | None:
        """Return a window in whole pixels, or None if its shape was drawn too long or too high."""
        height, width = shape[:2]
        new_width = np.random.uniform(self.min_crop_size * width, width)
        new_height = np.random.uniform(self.min_crop_size * height, height)
        if not 0.5 <= new_height / new_width <= 2:
            return None
        left = np.random.uniform(0, width - new_width)
        top = np.random.uniform(0, height - new_height)
        window = np.array([left, top, left + new_width, top + new_height]).astype(int)
        return window if (window[2:] > window[:2]).all() else None

    def _crop(self, results: Results, window: Array) -> None:
        for key in results["bbox_fields"]:
            keep_boxes(results, key, _centres_within(results[key], window))
        change_masks(results, lambda masks: masks.crop(window))
        _crop(results, window)
        if self.bbox_clip_border:
            change_boxes(results, lambda boxes: clip_boxes(boxes, results["img_shape"]))


def _fits(window: Array, boxes: Array, min_iou: float) -> bool:
    """Return whether each box overlaps the window so much, and one has its centre in there."""
    if len(boxes) == 0:
        return True
    overlaps = bbox_overlaps(torch.from_numpy(window[None]), torch.from_numpy(boxes))
    return bool(overlaps.min() >= min_iou and _centres_within(boxes, window).any())


def _centres_within(boxes: Array, window: Array) -> Array:
    x, y = (boxes[:, :2] + boxes[:, 2:]).T / 2
    within: Array = (x > window[0]) & (y > window[1]) & (x < window[2]) & (y < window[3])
    return within


@PIPELINES.register_module()
@dataclass
class Expand:
    """Put the image at a random place of one up to ``ratio_range`` times as large.

    ``mean`` fills the rest, its channels as Normalize has them: RGB if ``to_rgb``.
    """

    mean: Sequence[float] = (0, 0, 0)
    to_rgb: bool = True
    ratio_range: tuple[float, float] = (1, 4)
    prob: float = 0.5

    def __call__(self, results: Results) -> Results:
        if np.random.uniform(0, 1) > self.prob:
            return results
        if image_fields(results) != ["img"]:
            raise ValueError(f"Expand knows one image, not {image_fields(results)}")
        image = results["img"]
        height, width, channels = image.shape
        ratio = np.random.uniform(*self.ratio_range)
        shape = (int(height * ratio), int(width * ratio), channels)
        fill = self.mean[::-1] if self.to_rgb else self.mean
        expanded = np.full(shape, fill, image.dtype)
        left = int(np.random.uniform(0, width * ratio - width))
        top = int(np.random.uniform(0, height * ratio - height))
        expanded[top : top + height, left : left + width] = image
        results["img"] = expanded
        results["img_shape"] = shape
        corner = np.array([left, top, left, top], np.float32)
        change_boxes(results, lambda boxes: boxes + corner)
        change_masks(results, lambda masks: masks.expand(shape[0], shape[1], top, left))
        return results
