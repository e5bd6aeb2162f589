"""Masks as polygons."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from faster_coco_eval import mask as rle

from forebay_trainer.core.masks.base import InstanceMasks, crop_window
from forebay_trainer.core.masks.bitmaps import BitmapMasks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import torch

    from forebay_trainer.core.masks.base import Array, Size

    Polygons = list[Array]


def polygon_to_bitmap(polygons: Sequence[Array], height: int, width: int) -> Array:
    """Return the pixels (height, width) of bool inside of one of *polygons* (x, y, x, y, ...)."""
    parts = rle.frPyObjects([np.asarray(p).tolist() for p in polygons], height, width)
    return np.asarray(rle.decode(rle.merge(parts)), dtype=bool)


def _area(polygon: Array) -> float:
    """Return the area by the shoelace formula, in square pixels."""
    x, y = polygon[0::2], polygon[1::2]
    return 0.5 * abs(float(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))))


class PolygonMasks(InstanceMasks):
    """Masks of which each is a list of polygons (x, y, x, y, ...); ``masks`` has the lists."""

    def __init__(self, masks: Sequence[Sequence[Array]], height: int, width: int) -> None:
        self.height = height
        self.width = width
        self.masks: list[Polygons] = [list(polygons) for polygons in masks]

    def __len__(self) -> int:
        return len(self.masks)

    def __getitem__(self, index: Any) -> PolygonMasks:
        chosen = np.atleast_1d(np.arange(len(self))[index])
        return PolygonMasks([self.masks[i] for i in chosen], self.height, self.width)

    def __iter__(self) -> Iterator[Polygons]:
        return iter(self.masks)

    def _each(self, function: Callable[[Array], Array], out_shape: Sequence[int]) -> PolygonMasks:
        """Apply *function* to the points (n, 2) of each polygon."""
        moved = [
            [function(np.reshape(polygon, (-1, 2))).reshape(-1) for polygon in polygons]
            for polygons in self.masks
        ]
        return PolygonMasks(moved, out_shape[0], out_shape[1])

    def resize(self, out_shape: Sequence[int], interpolation: str = "nearest") -> PolygonMasks:
        factors = np.array([out_shape[1] / self.width, out_shape[0] / self.height])
        return self._each(lambda points: points * factors, out_shape)

    def flip(self, flip_direction: str = "horizontal") -> PolygonMasks:
        mirrored = {"horizontal": (True, False), "vertical": (False, True)}
        flips = np.array(mirrored.get(flip_direction, (True, True)))
        size = np.array([self.width, self.height])
        return self._each(
            lambda points: np.where(flips, size - points, points), (self.height, self.width)
        )

    def pad(self, out_shape: Sequence[int], pad_val: int = 0) -> PolygonMasks:
        return PolygonMasks(self.masks, out_shape[0], out_shape[1])

    def crop(self, bbox: Array) -> PolygonMasks:
        x, y, width, height = crop_window(bbox, self.height, self.width)
        start = np.array([x, y])
        return self._each(lambda points: points - start, (height, width))

    def crop_and_resize(
        self,
        bboxes: Array,
        out_shape: Size,
        inds: Array,
        device: str | torch.device = "cpu",
        interpolation: str = "bilinear",
        binarize: bool = True,
    ) -> PolygonMasks:
        """Return the polygons in that part; they are always binary."""
        if not binarize:
            raise ValueError("polygons have no soft masks: load bitmaps, with poly2mask=True")
        cut = []
        for box, index in zip(np.asarray(bboxes), np.asarray(inds), strict=True):
            factors = (out_shape[1], out_shape[0]) / np.maximum(box[2:] - box[:2], 1)
            cut.append(
                [
                    ((np.reshape(polygon, (-1, 2)) - box[:2]) * factors).reshape(-1)
                    for polygon in self.masks[index]
                ]
            )
        return PolygonMasks(cut, *out_shape)

    def expand(self, expanded_h: int, expanded_w: int, top: int, left: int) -> PolygonMasks:
        shift = np.array([left, top])
        return self._each(lambda points: points + shift, (expanded_h, expanded_w))

    def _warp(
        self, matrix: Array, out_shape: Sequence[int], fill: int, interpolation: str
    ) -> PolygonMasks:
        """Points that leave the image are put on its border; there is nothing to fill."""
        border = np.array([out_shape[1], out_shape[0]])
        return self._each(
            lambda points: np.clip(points @ matrix[:, :2].T + matrix[:, 2], 0, border), out_shape
        )

    def to_bitmap(self) -> BitmapMasks:
        return BitmapMasks(self.to_ndarray().astype(np.uint8), self.height, self.width)

    @property
    def areas(self) -> Array:
        return np.asarray([sum(map(_area, polygons)) for polygons in self.masks])

    def to_ndarray(self) -> Array:
        """Return bitmaps (n, height, width) of bool."""
        bitmaps = [polygon_to_bitmap(p, self.height, self.width) for p in self.masks]
        return np.stack(bitmaps) if bitmaps else np.zeros((0, self.height, self.width), bool)

    def get_bboxes(self) -> Array:
        boxes = np.zeros((len(self), 4), dtype=np.float32)
        for box, polygons in zip(boxes, self.masks, strict=True):
            points = np.concatenate(polygons).reshape(-1, 2)
            box[:] = *points.min(axis=0), *points.max(axis=0)
        return boxes
