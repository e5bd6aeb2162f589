"""What transforms share: the sample's fields, and boxes with what belongs to them.

A sample is a dict. Its lists ``img_fields``, ``bbox_fields``, ``mask_fields`` name the keys of its
images (H x W x channels, BGR unless told), boxes (n x 4 of x1, y1, x2, y2 in pixels) and masks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Array = npt.NDArray[Any]
Results = dict[str, Any]

_LABELS = {"gt_bboxes": "gt_labels", "gt_bboxes_ignore": "gt_labels_ignore"}
_MASKS = {"gt_bboxes": "gt_masks", "gt_bboxes_ignore": "gt_masks_ignore"}


def listed(value: Any) -> list[Any]:
    """Return what a configuration gives alone or as a list, as a list."""
    return list(value) if isinstance(value, (list, tuple)) else [value]


def no_fill() -> dict[str, float]:
    """Return what padding has where a configuration names no ``pad_val``."""
    return {"img": 0, "masks": 0}


def image_fields(results: Results) -> list[str]:
    return list(results.get("img_fields", ["img"]))


def change_images(results: Results, function: Callable[[Array], Array]) -> None:
    for key in image_fields(results):
        results[key] = function(results[key])


def change_boxes(results: Results, function: Callable[[Array], Array]) -> None:
    for key in results.get("bbox_fields", []):
        results[key] = function(results[key])


def change_masks(results: Results, function: Callable[[Any], Any]) -> None:
    for key in results.get("mask_fields", []):
        results[key] = function(results[key])


def masks_of(boxes: str) -> str:
    """Return the key of the masks that belong to the boxes under a key."""
    return _MASKS.get(boxes, "")


def keep_boxes(results: Results, key: str, kept: Array) -> None:
    """Keep only the boxes under *key* that the booleans *kept* name, their labels and masks too."""
    indices = np.flatnonzero(kept)
    for each in (key, _LABELS.get(key), masks_of(key)):
        if each in results:
            results[each] = results[each][indices]


def drop_small_boxes(results: Results, min_size: float = 0) -> None:
    """Keep boxes wider and higher than *min_size* pixels."""
    for key in results.get("bbox_fields", []):
        boxes = results[key]
        sides = boxes[:, 2:] - boxes[:, :2]
        keep_boxes(results, key, (sides > min_size).all(1))


def clip_boxes(boxes: Array, shape: Sequence[int]) -> Array:
    """Return the boxes cut at the borders of an image of (height, width, ...)."""
    height, width = shape[:2]
    return boxes.clip(0, np.array([width, height, width, height], boxes.dtype))


def flip_boxes(boxes: Array, shape: Sequence[int], direction: str) -> Array:
    """Return the boxes mirrored in an image of (height, width, ...).

    *direction* is "horizontal" (left and right change places), "vertical" or "diagonal" (both).
    """
    height, width = shape[:2]
    x1, y1, x2, y2 = boxes.T
    if direction in ("horizontal", "diagonal"):
        x1, x2 = width - x2, width - x1
    if direction in ("vertical", "diagonal"):
        y1, y2 = height - y2, height - y1
    return np.stack([x1, y1, x2, y2], 1)
