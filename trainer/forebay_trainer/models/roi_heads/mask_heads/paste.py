"""From the small map of a detection to a mask of its picture, and to run lengths."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from faster_coco_eval.core import mask as coco_mask
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Mask = NDArray[np.bool_] | NDArray[np.uint8]


def paste_masks(
    maps: Tensor, boxes: Tensor, height: int, width: int, threshold: float
) -> list[Mask]:
    """Return the mask (height, width) of each of the maps (D, h, w) in its box of boxes (D, 4).

    A pixel belongs to the mask if the map, interpolated at the pixel's centre, reaches the
    threshold; outside of the map is 0. A threshold below 0 leaves the map as it is, in 255 levels.
    """
    # One pixel more than the box on each side: the map fades out there.
    corners = torch.cat([boxes[:, :2].floor() - 1, boxes[:, 2:].ceil() + 1], dim=1)
    limits = corners.new_tensor([width, height, width, height])
    masks = []
    for one, box, place in zip(
        maps.float(), boxes, corners.clamp(min=0).minimum(limits).int().tolist(), strict=True
    ):
        left, top, right, bottom = place
        mask = np.zeros((height, width), dtype=bool if threshold >= 0 else np.uint8)
        if right > left and bottom > top:
            columns, rows = (
                _positions(first, last, box[axis], box[axis + 2])
                for axis, (first, last) in enumerate(((left, right), (top, bottom)))
            )
            y, x = torch.meshgrid(rows, columns, indexing="ij")
            grid = torch.stack([x, y], dim=-1)[None]
            values = F.grid_sample(one[None, None], grid, align_corners=False)[0, 0]
            drawn = values >= threshold if threshold >= 0 else (values * 255).byte()
            mask[top:bottom, left:right] = drawn.cpu().numpy()
        masks.append(mask)
    return masks


def _positions(first: int, last: int, low: Tensor, high: Tensor) -> Tensor:
    """Return where pixels *first* to *last* are between *low* (-1) and *high* (1)."""
    centres = torch.arange(first, last, device=low.device, dtype=low.dtype) + 0.5
    places = (centres - low) / (high - low) * 2 - 1
    return places.masked_fill(places.isinf(), 0.0)  # of a box without extent


def encode_masks(by_class: Sequence[Sequence[Mask]]) -> list[list[dict[str, Any]]]:
    """Return the masks of each class as COCO's run lengths."""
    return [
        [coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8)) for mask in masks]
        for masks in by_class
    ]
