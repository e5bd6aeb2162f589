"""Colours: of images in BGR, 0 to 255, in uint8 or float32 where nothing else is said."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from forebay_trainer.datasets.pipelines.sample import change_images, image_fields
from forebay_trainer.registry import PIPELINES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from forebay_trainer.datasets.pipelines.sample import Array, Results


@PIPELINES.register_module()
@dataclass
class Normalize:
    """Subtract ``mean``, divide by ``std``, in the channels' order after ``to_rgb``; to float32."""

    mean: Sequence[float]
    std: Sequence[float]
    to_rgb: bool = True

    def __post_init__(self) -> None:
        self._mean, self._std = np.array(self.mean, np.float32), np.array(self.std, np.float32)

    def __call__(self, results: Results) -> Results:
        # In doubles: OpenCV rounds once, when it stores.
        mean, scale = self._mean[None].astype(float), 1 / self._std[None].astype(float)

        def normalize(image: Array) -> Array:
            image = image.astype(np.float32)
            if self.to_rgb:
                cv2.cvtColor(image, cv2.COLOR_BGR2RGB, image)
            cv2.subtract(image, mean, image)
            cv2.multiply(image, scale, image)
            return image

        change_images(results, normalize)
        results["img_norm_cfg"] = {"mean": self._mean, "std": self._std, "to_rgb": self.to_rgb}
        return results


def _coin() -> bool:
    return bool(np.random.randint(2))


@PIPELINES.register_module()
@dataclass
class PhotoMetricDistortion:
    """SSD's distortion (arXiv 1512.02325): each step with probability one half; to float32.

    Brightness, contrast (here or last), saturation, hue, contrast, order of channels.
    """

    brightness_delta: float = 32
    contrast_range: tuple[float, float] = (0.5, 1.5)
    saturation_range: tuple[float, float] = (0.5, 1.5)
    hue_delta: float = 18

    def __call__(self, results: Results) -> Results:
        if image_fields(results) != ["img"]:
            raise ValueError(f"PhotoMetricDistortion knows one image, not {image_fields(results)}")
        image = results["img"].astype(np.float32)
        if _coin():
            image += np.random.uniform(-self.brightness_delta, self.brightness_delta)
        contrast_first = _coin()
        if contrast_first:
            self._contrast(image)
        image = self._saturation_and_hue(image)
        if not contrast_first:
            self._contrast(image)
        if _coin():
            image = image[..., np.random.permutation(3)]
        results["img"] = image
        return results

    def _contrast(self, image: Array) -> None:
        if _coin():
            image *= np.random.uniform(*self.contrast_range)

    def _saturation_and_hue(self, image: Array) -> Array:
        hsv: Array = cv2.cvtColor(image, cv2.COLOR_BGR2HSV)  # hue in degrees
        if _coin():
            hsv[..., 1] *= np.random.uniform(*self.saturation_range)
        if _coin():
            hue = hsv[..., 0]
            hue += np.random.uniform(-self.hue_delta, self.hue_delta)
            hue[hue > 360] -= 360
            hue[hue < 0] += 360
        changed: Array = cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)
        return changed


def enhancement(level: float) -> float:
    """Return the factor for a level from 0 to 10: 0.1 to 1.9, and 1 changes nothing."""
    return level / 10 * 1.8 + 0.1


@dataclass
class _Enhance:
    """Blend the image with what lacks the property: more than all of it at a high ``level``."""

    level: float
    prob: float = 0.5

    def __post_init__(self) -> None:
        check_level(self.level)
        check_probability(self.prob)

    def __call__(self, results: Results) -> Results:
        if np.random.rand() <= self.prob:
            factor = enhancement(self.level)
            change_images(results, lambda image: self.enhance(image, factor).astype(image.dtype))
        return results

    def enhance(self, image: Array, factor: float) -> Array:
        raise NotImplementedError


def check_level(level: float) -> None:
    if not 0 <= level <= 10:
        raise ValueError(f"level {level} is not from 0 to 10")


def check_probability(prob: float) -> None:
    if not 0 <= prob <= 1:
        raise ValueError(f"prob {prob} is not from 0 to 1")


def _gray(image: Array) -> Array:
    gray: Array = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    return gray


def _blend(image: Array, factor: float, other: Array) -> Array:
    mixed: Array = cv2.addWeighted(image, factor, other, 1 - factor, 0)
    return mixed.clip(0, 255)


@PIPELINES.register_module()
class ColorTransform(_Enhance):
    """Less or more colour."""

    def enhance(self, image: Array, factor: float) -> Array:
        return _blend(image, factor, cv2.cvtColor(_gray(image), cv2.COLOR_GRAY2BGR))


@PIPELINES.register_module()
class BrightnessTransform(_Enhance):
    """Darker or brighter."""

    def enhance(self, image: Array, factor: float) -> Array:
        image = image.astype(np.float32)
        return _blend(image, factor, np.zeros_like(image))


@PIPELINES.register_module()
class ContrastTransform(_Enhance):
    """Nearer to, or farther from, the image's mean grey."""

    def enhance(self, image: Array, factor: float) -> Array:
        mean = round(float(_gray(image).mean()))
        image = image.astype(np.float32)
        return _blend(image, factor, np.full_like(image, mean))
