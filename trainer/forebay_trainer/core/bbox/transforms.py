"""Boxes between images, batches and results."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np


def bbox2roi(bbox_list: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return the boxes (n, 4 or more) of each image as one (sum of n, 5): image index, box."""
    images = [boxes.new_full((len(boxes), 1), i) for i, boxes in enumerate(bbox_list)]
    return torch.cat(
        [torch.cat([i, boxes[:, :4]], dim=1) for i, boxes in zip(images, bbox_list, strict=True)]
    )


def bbox2result(bboxes: torch.Tensor, labels: torch.Tensor, num_classes: int) -> list[np.ndarray]:
    """Return the detections (n, 5) with labels (n,) as an array (m, 5) of each class."""
    boxes, classes = bboxes.detach().cpu().numpy(), labels.detach().cpu().numpy()
    return [boxes[classes == i] for i in range(num_classes)]


def bbox_flip(
    bboxes: torch.Tensor, img_shape: Sequence[int], direction: str = "horizontal"
) -> torch.Tensor:
    """Return boxes (..., 4 * k) mirrored in an image of *img_shape* (height, width, ...)."""
    boxes = bboxes.reshape(*bboxes.shape[:-1], -1, 4)
    x1, y1, x2, y2 = boxes.unbind(-1)
    height, width = img_shape[:2]
    if direction in ("horizontal", "diagonal"):
        x1, x2 = width - x2, width - x1
    if direction in ("vertical", "diagonal"):
        y1, y2 = height - y2, height - y1
    return torch.stack([x1, y1, x2, y2], dim=-1).reshape(bboxes.shape)


def _scaled(bboxes: torch.Tensor, scale_factor: Sequence[float] | torch.Tensor) -> torch.Tensor:
    factors = torch.as_tensor(scale_factor, dtype=bboxes.dtype, device=bboxes.device)
    return (bboxes.reshape(*bboxes.shape[:-1], -1, 4) * factors).reshape(bboxes.shape)


def bbox_mapping(
    bboxes: torch.Tensor,
    img_shape: Sequence[int],
    scale_factor: Sequence[float],
    flip: bool,
    flip_direction: str = "horizontal",
) -> torch.Tensor:
    """Return boxes of the original image in the scaled and perhaps flipped one."""
    bboxes = _scaled(bboxes, scale_factor)
    return bbox_flip(bboxes, img_shape, flip_direction) if flip else bboxes


def bbox_mapping_back(
    bboxes: torch.Tensor,
    img_shape: Sequence[int],
    scale_factor: Sequence[float],
    flip: bool,
    flip_direction: str = "horizontal",
) -> torch.Tensor:
    """Return boxes (n, 4) of the scaled and perhaps flipped image in the original one."""
    if flip:
        bboxes = bbox_flip(bboxes, img_shape, flip_direction)
    return _scaled(bboxes, 1 / bboxes.new_tensor(scale_factor))
