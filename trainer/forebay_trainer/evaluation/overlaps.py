"""Overlaps of boxes in numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

_SMALLEST_UNION = 1e-6  # of boxes without area


def areas(boxes: Array, extra: float = 0.0) -> Array:
    """Return the areas (n,) of boxes (n, 4+); *extra* is 1 where a box ends with its last pixel."""
    return (boxes[:, 2] - boxes[:, 0] + extra) * (boxes[:, 3] - boxes[:, 1] + extra)


def pairwise_iou(first: Array, second: Array, extra: float = 0.0) -> Array:
    """Return intersection over union (n, k) of boxes (n, 4+) and (k, 4+), in 32 bits."""
    a, b = first[:, None, :4].astype(np.float32), second[None, :, :4].astype(np.float32)
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]) + extra
    shared = sides.clip(min=0).prod(axis=-1)
    union = areas(a[:, 0], extra)[:, None] + areas(b[0], extra)[None] - shared
    overlaps: Array = shared / np.maximum(union, _SMALLEST_UNION)
    return overlaps
