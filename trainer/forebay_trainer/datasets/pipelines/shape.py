"""Resize, flip, pad: images, boxes and masks together."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from forebay_trainer.core.masks.bitmaps import INTERPOLATIONS
from forebay_trainer.datasets.pipelines.sample import (
    change_boxes,
    change_images,
    change_masks,
    clip_boxes,
    flip_boxes,
    image_fields,
    listed,
    no_fill,
)
from forebay_trainer.registry import PIPELINES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from forebay_trainer.datasets.pipelines.sample import Array, Results

    Scale = tuple[int, int]

# What cv2.flip calls the directions.
_FLIPS = {"horizontal": 1, "vertical": 0, "diagonal": -1}


def check_interpolation(name: str) -> None:
    if name not in INTERPOLATIONS:
        raise ValueError(f"interpolation {name!r} is none of {sorted(INTERPOLATIONS)}")


def scales(img_scale: Any) -> list[Scale]:
    """Return the (width, height) of a configuration's one pair, or list of pairs."""
    given = listed(img_scale)
    pairs = given if given and isinstance(given[0], (list, tuple)) else [given]
    if any(len(pair) != 2 for pair in pairs):
        raise ValueError(f"img_scale {img_scale!r} is neither (width, height) nor a list of such")
    return [(pair[0], pair[1]) for pair in pairs]


@PIPELINES.register_module()
@dataclass
class Resize:
    """Resize to ``img_scale`` (width, height), or to ``scale`` or ``scale_factor`` of the sample.

    With ``keep_ratio`` the size is the largest that fits, whichever way round. Several scales are
    the ends of a range ("range") or all there are ("value"); ``ratio_range`` multiplies one scale
    by a random number. ``override``: the second Resize of a pipeline draws anew.
    """

    img_scale: Any = None
    multiscale_mode: str = "range"
    ratio_range: tuple[float, float] | None = None
    keep_ratio: bool = True
    bbox_clip_border: bool = True
    backend: str = "cv2"
    interpolation: str = "bilinear"
    override: bool = False

    def __post_init__(self) -> None:
        self._scales = None if self.img_scale is None else scales(self.img_scale)
        count = len(self._scales or ())
        if self.ratio_range is not None and count != 1:
            raise ValueError("ratio_range goes with one img_scale")
        if self.multiscale_mode not in ("range", "value"):
            raise ValueError(f"multiscale_mode {self.multiscale_mode!r} is none of range, value")
        if self.ratio_range is None and self.multiscale_mode == "range" and count > 2:
            raise ValueError(f"multiscale_mode 'range' takes two scales, not {count}")
        if self.backend != "cv2":
            raise ValueError(f"backend {self.backend!r} is not supported: only 'cv2'")
        check_interpolation(self.interpolation)

    def __call__(self, results: Results) -> Results:
        if self.override and "scale" in results:
            del results["scale"]
            results.pop("scale_factor", None)
        if "scale" not in results:
            if "scale_factor" in results:
                height, width = results["img"].shape[:2]
                factor = results["scale_factor"]
                results["scale"] = (int(width * factor), int(height * factor))
            else:
                results["scale"], results["scale_idx"] = self._draw()
        elif "scale_factor" in results:
            raise ValueError("the sample is resized already; a second Resize needs override=True")
        self._resize(results)
        return results

    def _draw(self) -> tuple[Scale, int | None]:
        """Return a scale, and which it is where only some are possible."""
        if self._scales is None:
            raise ValueError("Resize has no img_scale, and the sample has no scale")
        first = self._scales[0]
        if self.ratio_range is not None:
            low, high = self.ratio_range
            ratio = np.random.random_sample() * (high - low) + low
            return (int(first[0] * ratio), int(first[1] * ratio)), None
        if len(self._scales) == 1:
            return first, 0
        if self.multiscale_mode == "value":
            index = np.random.randint(len(self._scales))
            return self._scales[index], index
        long = [max(scale) for scale in self._scales]
        short = [min(scale) for scale in self._scales]
        return (
            np.random.randint(min(long), max(long) + 1),
            np.random.randint(min(short), max(short) + 1),
        ), None

    def _resize(self, results: Results) -> None:
        old_height, old_width = results["img"].shape[:2]
        scale = results["scale"]
        width, height = fitting(old_width, old_height, scale) if self.keep_ratio else scale

        def resize(image: Array) -> Array:
            flag = INTERPOLATIONS[self.interpolation]
            resized: Array = cv2.resize(image, (width, height), interpolation=flag)
            return resized

        change_images(results, resize)
        shape = results["img"].shape
        ratio = (width / old_width, height / old_height)
        factor = np.array(ratio * 2, np.float32)
        results |= {
            "img_shape": shape,
            "pad_shape": shape,
            "scale_factor": factor,
            "keep_ratio": self.keep_ratio,
        }
        change_boxes(results, lambda boxes: self._bordered(boxes * factor, shape))
        change_masks(results, lambda masks: masks.resize((height, width)))

    def _bordered(self, boxes: Array, shape: tuple[int, ...]) -> Array:
        return clip_boxes(boxes, shape) if self.bbox_clip_border else boxes


def fitting(width: int, height: int, scale: Scale) -> Scale:
    """Return the largest size of this shape within the long and the short side of *scale*."""
    factor = min(max(scale) / max(width, height), min(scale) / min(width, height))
    return int(width * factor + 0.5), int(height * factor + 0.5)


@PIPELINES.register_module()
@dataclass
class RandomFlip:
    """Flip with probability ``flip_ratio``, or as the sample's ``flip``, ``flip_direction`` say.

    A list of directions shares the probability, or has a list with one for each. Without
    ``flip_ratio`` only the sample decides.
    """

    flip_ratio: float | Sequence[float] | None = None
    direction: str | Sequence[str] = "horizontal"

    def __post_init__(self) -> None:
        self._directions = listed(self.direction)
        unknown = [each for each in self._directions if each not in _FLIPS]
        if unknown:
            raise ValueError(f"direction {unknown[0]!r} is none of {sorted(_FLIPS)}")
        ratio, count = self.flip_ratio or 0.0, len(self._directions)
        self._ratios = [ratio / count] * count if isinstance(ratio, (int, float)) else list(ratio)
        if len(self._ratios) != count or min(self._ratios) < 0 or not 0 <= sum(self._ratios) <= 1:
            raise ValueError(f"flip_ratio {ratio} is no probability for each of {self.direction}")

    def __call__(self, results: Results) -> Results:
        if "flip" not in results:
            ratios = [*self._ratios, 1 - sum(self._ratios)]
            drawn = np.random.choice(len(ratios), p=ratios)
            results["flip"] = bool(drawn < len(self._directions))
            if results["flip"]:
                results.setdefault("flip_direction", self._directions[drawn])
        direction: Any = results.setdefault("flip_direction", None)
        if results["flip"]:
            code = _FLIPS[direction]
            change_images(results, lambda image: cv2.flip(image, code))
            change_boxes(results, lambda box: flip_boxes(box, results["img_shape"], direction))
            change_masks(results, lambda masks: masks.flip(direction))
        return results


@PIPELINES.register_module()
@dataclass
class Pad:
    """Pad right and below: to ``size`` (height, width), multiples of ``size_divisor``, or a square.

    ``pad_val`` names the values for ``img`` and ``masks``; a number is for both.
    """

    size: tuple[int, int] | None = None
    size_divisor: int | None = None
    pad_to_square: bool = False
    pad_val: Mapping[str, Any] | float = field(default_factory=no_fill)

    def __post_init__(self) -> None:
        ways = (self.size is not None, self.size_divisor is not None, self.pad_to_square)
        if sum(ways) != 1:
            raise ValueError("Pad takes one of size, size_divisor and pad_to_square")
        value = self.pad_val
        both = {"img": value, "masks": value} if isinstance(value, (int, float)) else value
        self._image_fill, self._mask_fill = both.get("img", 0), both.get("masks", 0)

    def __call__(self, results: Results) -> Results:
        for key in image_fields(results):
            height, width = results[key].shape[:2]
            size = self._size(height, width)
            below, right = max(size[0] - height, 0), max(size[1] - width, 0)
            results[key] = cv2.copyMakeBorder(
                results[key], 0, below, 0, right, cv2.BORDER_CONSTANT, value=self._image_fill
            )
            results["pad_shape"] = results[key].shape
            results["pad_fixed_size"] = None if self.size_divisor else size
            results["pad_size_divisor"] = self.size_divisor
        shape = results["pad_shape"][:2]
        change_masks(results, lambda masks: masks.pad(shape, pad_val=self._mask_fill))
        return results

    def _size(self, height: int, width: int) -> tuple[int, int]:
        if self.size is not None:
            return (self.size[0], self.size[1])
        if self.size_divisor is None:
            return (max(height, width),) * 2
        by = self.size_divisor
        return -(-height // by) * by, -(-width // by) * by
