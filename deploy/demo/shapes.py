"""A data set to train a detector on: shapes over photographs, with boxes and masks, as COCO.

Discs, triangles, rectangles and stars of any colour lie rotated over one another. Training and
validation differ in their photographs and in every draw.
"""

from __future__ import annotations

import json
import math
import random
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np
from faster_coco_eval.core import mask as coco_mask
from PIL import Image

from deploy.demo.photos import PHOTOGRAPHS, crops, jpeg

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

CLASSES = ("disc", "triangle", "rectangle", "star")
VALIDATION = PHOTOGRAPHS[1::3]
TRAINING = tuple(name for name in PHOTOGRAPHS if name not in VALIDATION)
_SIDE = 128
_MOST_SHAPES = 8
_SMALLEST, _LARGEST = 12.0, 100.0  # pixels from end to end
_LEAST_VISIBLE = 0.5  # of a shape that others cover
_TRIES = 20
_SUBPIXEL_BITS = 4


class Picture(NamedTuple):
    """One picture and what is on it."""

    name: str
    data: bytes  # JPEG
    labels: list[int]
    masks: NDArray[np.bool_]  # (n, height, width), what is visible of each shape


def pictures(count: int, photographs: tuple[str, ...], seed: str) -> Iterator[Picture]:
    """Yield *count* pictures, always the same for one seed."""
    dice = random.Random(seed)  # noqa: S311  # the same pictures every time
    for number, photo in enumerate(crops(photographs, count, (_SIDE, _SIDE), dice)):
        pixels = np.array(photo, np.float32)
        labels, masks = _draw(pixels, dice)
        name = f"{number:05}.jpg"
        yield Picture(name, jpeg(Image.fromarray(pixels.round().astype(np.uint8))), labels, masks)


def coco_annotations(pictures: list[Picture]) -> bytes:
    """Return the COCO annotation file of *pictures*: boxes (x, y, width, height), masks as RLE."""
    found: list[dict[str, Any]] = []
    for image_id, picture in enumerate(pictures):
        for label, mask in zip(picture.labels, picture.masks, strict=True):
            encoded: Any = coco_mask.encode(np.asfortranarray(mask, np.uint8))
            found.append(
                {
                    "id": len(found) + 1,
                    "image_id": image_id,
                    "category_id": label + 1,
                    "bbox": [float(value) for value in coco_mask.toBbox(encoded)],
                    "area": int(mask.sum()),
                    "iscrowd": 0,
                    "segmentation": {"size": [_SIDE, _SIDE], "counts": encoded["counts"].decode()},
                }
            )
    return json.dumps(
        {
            "images": [
                {"id": number, "file_name": picture.name, "width": _SIDE, "height": _SIDE}
                for number, picture in enumerate(pictures)
            ],
            "categories": [{"id": number, "name": name} for number, name in enumerate(CLASSES, 1)],
            "annotations": found,
        }
    ).encode()


def _draw(pixels: NDArray[np.float32], dice: random.Random) -> tuple[list[int], NDArray[np.bool_]]:
    """Draw shapes onto *pixels* (height, width, 3): their labels, and what is visible of each."""
    labels: list[int] = []
    visible: list[NDArray[np.bool_]] = []
    whole_areas: list[int] = []
    for _ in range(dice.randint(1, _MOST_SHAPES)):
        for _ in range(_TRIES):
            label = dice.randrange(len(CLASSES))
            cover = _cover(_outline(CLASSES[label], dice))
            mask = cover >= 0.5
            left = [each & ~mask for each in visible]
            if all(
                each.sum() >= _LEAST_VISIBLE * area
                for each, area in zip(left, whole_areas, strict=True)
            ):
                visible = [*left, mask]
                labels.append(label)
                whole_areas.append(int(mask.sum()))
                _paint(pixels, cover, dice)
                break
    return labels, np.array(visible)


def _outline(kind: str, dice: random.Random) -> NDArray[np.float64]:
    """Return the corners (n, 2), x and y in pixels, of a shape somewhere inside the picture."""
    size = dice.uniform(_SMALLEST, _LARGEST)
    if kind == "disc":
        angles = np.arange(48) * math.tau / 48
        corners = np.stack([np.cos(angles), np.sin(angles)], 1)
    elif kind == "triangle":
        angles = np.arange(3) * math.tau / 3
        corners = np.stack([np.cos(angles), np.sin(angles)], 1)
    elif kind == "rectangle":
        height = dice.uniform(0.5, 1.0)
        corners = np.array([(-1, -height), (1, -height), (1, height), (-1, height)])
    else:
        angles = np.arange(10) * math.tau / 10
        corners = np.stack([np.cos(angles), np.sin(angles)], 1)
        corners[1::2] *= 0.45
    turn = dice.uniform(0, math.tau)
    corners = corners @ np.array(
        [(math.cos(turn), -math.sin(turn)), (math.sin(turn), math.cos(turn))]
    )
    corners -= corners.min(0)
    corners *= size / corners.max()
    place = np.array([dice.uniform(0, _SIDE - extent) for extent in corners.max(0)])
    return np.asarray(corners + place, np.float64)


def _cover(corners: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return how much of each pixel (height, width) lies inside, 0 to 1."""
    cover = np.zeros((_SIDE, _SIDE), np.uint8)
    fixed = (corners * (1 << _SUBPIXEL_BITS)).round().astype(np.int32)
    cv2.fillPoly(cover, [fixed], 255, cv2.LINE_AA, _SUBPIXEL_BITS)
    return np.asarray(cover, np.float32) / np.float32(255)


def _paint(pixels: NDArray[np.float32], cover: NDArray[np.float32], dice: random.Random) -> None:
    """Lay a colour that fades into another over *pixels* where *cover* is."""
    one, other = (np.array([dice.uniform(0, 255) for _ in range(3)]) for _ in range(2))
    turn = dice.uniform(0, math.tau)
    rows, columns = np.mgrid[:_SIDE, :_SIDE] / _SIDE
    share = (math.cos(turn) * columns + math.sin(turn) * rows)[..., None] / 2 + 0.5
    pixels += cover[..., None] * (one + share * (other - one) / 2 - pixels)
