"""AutoAugment for detection (arXiv 1906.11172): random policies, and their geometric transforms.

A transform's strength is ``level`` from 0 to 10, of the maximum that it also has.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from forebay_trainer.core.masks.bitmaps import INTERPOLATIONS
from forebay_trainer.datasets.pipelines.color import check_level, check_probability
from forebay_trainer.datasets.pipelines.compose import Compose
from forebay_trainer.datasets.pipelines.sample import (
    change_boxes,
    change_images,
    change_masks,
    clip_boxes,
    drop_small_boxes,
)
from forebay_trainer.datasets.pipelines.shape import check_interpolation
from forebay_trainer.registry import PIPELINES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from forebay_trainer.datasets.pipelines.sample import Array, Results

    Colour = float | Sequence[float]

_DIRECTIONS = ("horizontal", "vertical")


@PIPELINES.register_module()
@dataclass
class AutoAugment:
    """Apply one of several policies, drawn for each sample; a policy is a list of transforms."""

    policies: Sequence[Sequence[Mapping[str, Any]]]

    def __post_init__(self) -> None:
        if not self.policies or not all(self.policies):
            raise ValueError("policies is a list of lists of transforms, none of them empty")
        self._policies = [Compose(policy) for policy in self.policies]

    def __call__(self, results: Results) -> Results | None:
        return self._policies[np.random.choice(len(self._policies))](results)


def _check(level: float, prob: float, random_negative_prob: float) -> None:
    check_level(level)
    check_probability(prob)
    check_probability(random_negative_prob)


def _check_direction(direction: str) -> None:
    if direction not in _DIRECTIONS:
        raise ValueError(f"direction {direction!r} is none of {_DIRECTIONS}")


def _either_sign(value: float, negative_prob: float) -> float:
    return -value if np.random.rand() < negative_prob else value


def _warp(
    results: Results,
    matrix: Array,
    fill: Colour,
    warp_masks: Callable[[Any], Any],
    *,
    interpolation: str = "bilinear",
    min_size: float = 0,
) -> None:
    """Move all by the 2 x 3 *matrix*, which takes x, y, 1 to the new x, y; the size stays.

    A box becomes that of its moved corners within the image, and goes if it has not more than
    *min_size* pixels of width and height there.
    """
    shape = results["img"].shape
    colour = (fill,) * 3 if isinstance(fill, (int, float)) else tuple(fill)

    def warp(image: Array) -> Array:
        flags = INTERPOLATIONS[interpolation]
        size = (image.shape[1], image.shape[0])
        warped: Array = cv2.warpAffine(image, matrix, size, flags=flags, borderValue=colour)
        return warped

    def move(boxes: Array) -> Array:
        x, y = boxes[:, 0::2], boxes[:, 1::2]
        corners = np.stack([x[:, [0, 1, 0, 1]], y[:, [0, 0, 1, 1]]], -1)  # n x 4 x 2
        moved = corners @ matrix[:, :2].T + matrix[:, 2]
        hull = np.concatenate([moved.min(1), moved.max(1)], 1)
        return clip_boxes(hull, shape).astype(boxes.dtype)

    change_images(results, warp)
    change_boxes(results, move)
    change_masks(results, warp_masks)
    drop_small_boxes(results, min_size)


@PIPELINES.register_module()
@dataclass
class Shear:
    """Shear by up to ``max_shear_magnitude`` pixels per pixel, about the left upper corner."""

    level: float
    img_fill_val: Colour = 128
    seg_ignore_label: int = 255  # of segmentation maps, which are not loaded
    prob: float = 0.5
    direction: str = "horizontal"
    max_shear_magnitude: float = 0.3
    random_negative_prob: float = 0.5
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        _check(self.level, self.prob, self.random_negative_prob)
        _check_direction(self.direction)
        check_interpolation(self.interpolation)

    def __call__(self, results: Results) -> Results:
        if np.random.rand() > self.prob:
            return results
        magnitude = self.level / 10 * self.max_shear_magnitude
        magnitude = _either_sign(magnitude, self.random_negative_prob)
        matrix = np.eye(2, 3)
        matrix[(0, 1) if self.direction == "horizontal" else (1, 0)] = magnitude
        size, how = results["img"].shape[:2], self.interpolation
        _warp(
            results,
            matrix,
            self.img_fill_val,
            lambda masks: masks.shear(size, magnitude, self.direction, interpolation=how),
            interpolation=how,
        )
        return results


@PIPELINES.register_module()
@dataclass
class Rotate:
    """Rotate clockwise by up to ``max_rotate_angle`` degrees about ``center`` (x, y), and scale.

    The centre is the image's unless given.
    """

    level: float
    scale: float = 1
    center: tuple[float, float] | None = None
    img_fill_val: Colour = 128
    seg_ignore_label: int = 255  # of segmentation maps, which are not loaded
    prob: float = 0.5
    max_rotate_angle: float = 30
    random_negative_prob: float = 0.5

    def __post_init__(self) -> None:
        _check(self.level, self.prob, self.random_negative_prob)

    def __call__(self, results: Results) -> Results:
        if np.random.rand() > self.prob:
            return results
        size = height, width = results["img"].shape[:2]
        center = tuple(self.center or ((width - 1) * 0.5, (height - 1) * 0.5))
        angle = self.level / 10 * self.max_rotate_angle
        angle = _either_sign(angle, self.random_negative_prob)
        _warp(
            results,
            cv2.getRotationMatrix2D(center, -angle, self.scale),
            self.img_fill_val,
            lambda masks: masks.rotate(size, angle, center, self.scale),
        )
        return results


@PIPELINES.register_module()
@dataclass
class Translate:
    """Move right or down by up to ``max_translate_offset`` pixels; small boxes at the border go."""

    level: float
    prob: float = 0.5
    img_fill_val: Colour = 128
    seg_ignore_label: int = 255  # of segmentation maps, which are not loaded
    direction: str = "horizontal"
    max_translate_offset: float = 250
    random_negative_prob: float = 0.5
    min_size: float = 0

    def __post_init__(self) -> None:
        _check(self.level, self.prob, self.random_negative_prob)
        _check_direction(self.direction)

    def __call__(self, results: Results) -> Results:
        if np.random.rand() > self.prob:
            return results
        offset = int(self.level / 10 * self.max_translate_offset)
        offset = int(_either_sign(offset, self.random_negative_prob))
        matrix = np.eye(2, 3)
        matrix[_DIRECTIONS.index(self.direction), 2] = offset
        size = results["img"].shape[:2]
        _warp(
            results,
            matrix,
            self.img_fill_val,
            lambda masks: masks.translate(size, offset, self.direction),
            min_size=self.min_size,
        )
        return results
