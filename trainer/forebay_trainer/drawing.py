"""Boxes and masks drawn on images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_GOLDEN = 0.618034  # steps of the hue that stay far from each other however many there are


def color_of(label: int, palette: Sequence[Sequence[int]] | None = None) -> tuple[int, ...]:
    """Return the colour (BGR) of a class; a palette is RGB, as data sets have it."""
    if palette and label < len(palette):
        return tuple(int(part) for part in palette[label][::-1])
    hue = np.array([[[int(180 * (label * _GOLDEN % 1)), 200, 255]]], np.uint8)
    return tuple(int(part) for part in cv2.cvtColor(hue, cv2.COLOR_HSV2BGR)[0, 0])


def draw_objects(
    image: np.ndarray[Any, Any],
    objects: Iterable[tuple[Sequence[float], int, str, np.ndarray[Any, Any] | None]],
    palette: Sequence[Sequence[int]] | None = None,
) -> np.ndarray[Any, Any]:
    """Return a copy of *image* (height, width, 3), BGR, with objects on it.

    Each is a box (left, top, right, bottom, in pixels), the number of its class, a text, and
    perhaps a mask (height, width).
    """
    drawn = image.copy()
    for box, label, text, mask in objects:
        color = color_of(label, palette)
        if mask is not None:
            inside = mask.astype(bool)
            drawn[inside] = (0.5 * drawn[inside] + 0.5 * np.array(color)).astype(np.uint8)
        left, top, right, bottom = (round(float(side)) for side in box[:4])
        cv2.rectangle(drawn, (left, top), (right, bottom), color, 2)
        place = (left + 2, max(top - 4, 12))
        cv2.putText(drawn, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 3)
        cv2.putText(drawn, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.45, color, 1)
    return drawn


def draw_result(
    image: np.ndarray[Any, Any],
    result: Any,
    classes: Sequence[str],
    *,
    score_thr: float = 0.3,
    palette: Sequence[Sequence[int]] | None = None,
) -> np.ndarray[Any, Any]:
    """Return a copy of *image* with the detections of at least *score_thr*, the best on top."""
    found = [each for each in detections(result, classes) if each["score"] >= score_thr]
    return draw_objects(
        image,
        (
            (
                each["bbox"],
                each["label"],
                f"{each['class']} {each['score']:.2f}",
                _decoded(each["mask"]) if "mask" in each else None,
            )
            for each in reversed(found)
        ),
        palette,
    )


def detections(result: Any, classes: Sequence[str]) -> list[dict[str, Any]]:
    """Return what a model has found in an image, the best first: ``bbox`` (left, top, right,
    bottom, in pixels), ``score``, ``label``, ``class``, and ``mask`` as run lengths if it has any.
    """
    boxes, masks = result if isinstance(result, tuple) else (result, None)
    if isinstance(boxes, np.ndarray):  # of an RPN: proposals, which have no class
        boxes, classes = [boxes], ["proposal"]
    found = []
    for label, rows in enumerate(boxes):
        for number, row in enumerate(rows):
            each = {
                "bbox": [float(side) for side in row[:4]],
                "score": float(row[4]),
                "label": label,
                "class": classes[label],
            }
            if masks is not None:
                each["mask"] = masks[label][number]
            found.append(each)
    return sorted(found, key=lambda each: -float(each["score"]))


def _decoded(mask: Any) -> np.ndarray[Any, Any]:
    if not isinstance(mask, dict):
        return np.asarray(mask)
    from faster_coco_eval.core import mask as coco_mask

    bitmap: np.ndarray[Any, Any] = coco_mask.decode(mask)
    return bitmap
