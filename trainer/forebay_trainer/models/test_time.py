"""Test-time augmentation: what several views of one picture show, brought together.

A view's metas say how it was made: first resized (``scale_factor``), then flipped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from forebay_trainer.core.bbox import bbox_mapping, bbox_mapping_back
from forebay_trainer.ops import nms

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Meta = Mapping[str, Any]

_FLIPPED_AXES = {"horizontal": (-1,), "vertical": (-2,), "diagonal": (-2, -1)}


def four(scale_factor: Any, like: Tensor) -> Tensor:
    """Return the factors (w, h, w, h) as a tensor (4,); a single number stands for all."""
    return torch.as_tensor(scale_factor, dtype=like.dtype, device=like.device).expand(4)


def into_view(boxes: Tensor, meta: Meta) -> Tensor:
    """Map boxes (n, 4) of the picture into a view."""
    return bbox_mapping(boxes, *_made(meta))


def out_of_view(boxes: Tensor, meta: Meta) -> Tensor:
    """Map boxes (n, 4 * k) of a view into the picture."""
    return bbox_mapping_back(boxes, *_made(meta))


def unflip_maps(maps: Tensor, meta: Meta) -> Tensor:
    """Return maps (..., h, w) of a view as the picture has them."""
    return maps.flip(_FLIPPED_AXES[meta["flip_direction"]]) if meta.get("flip") else maps


def merge_proposals(proposals: Sequence[Tensor], metas: Sequence[Meta], cfg: Any) -> Tensor:
    """Return the best of all views' proposals, (P, 5) each, in the picture's coordinates."""
    boxes = torch.cat(
        [out_of_view(each[:, :4], meta) for each, meta in zip(proposals, metas, strict=True)]
    )
    scores = torch.cat([each[:, 4] for each in proposals])
    merged, _ = nms(boxes, scores, cfg["nms"]["iou_threshold"])
    best: Tensor = merged[: cfg["max_per_img"]]
    return best


def _made(meta: Meta) -> tuple[Any, ...]:
    return (
        meta["img_shape"],
        meta["scale_factor"],
        meta.get("flip", False),
        meta.get("flip_direction"),
    )
