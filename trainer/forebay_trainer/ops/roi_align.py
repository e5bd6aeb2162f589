"""Features of a fixed size of boxes of any size (arXiv 1703.06870)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

from forebay_trainer.ops import native

if TYPE_CHECKING:
    Size = tuple[int, int]


def _corners(
    position: torch.Tensor, length: torch.Tensor | int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the two cells (n, 2) around each position along an axis, and their weights (n, 2).

    Up to one cell outside the border counts as on it, farther out as 0.
    """
    inside = (position >= -1) & (position <= length)
    position = position.clamp(0, length - 1)
    low = position.floor()
    high = (low + 1).clamp(max=length - 1)
    far = position - low
    weights = torch.stack([1 - far, far], dim=-1) * inside[:, None]
    return torch.stack([low, high], dim=-1).long(), weights


def torch_roi_align(
    features: torch.Tensor,
    rois: torch.Tensor,
    output_size: Size,
    spatial_scale: float = 1.0,
    sampling_ratio: int = 0,
    aligned: bool = True,
) -> torch.Tensor:
    """:func:`roi_align` in plain torch, without a loop.

    A bin is the mean of its samples, and a sample the weighted sum of four cells: together the
    weighted sum of a bag of cells, and the bags may have different sizes.
    """
    channels, height, width = features.shape[1:]
    out_h, out_w = output_size
    boxes = rois[:, 1:] * spatial_scale - (0.5 if aligned else 0.0)
    size = boxes[:, 2:] - boxes[:, :2]
    if not aligned:
        size = size.clamp(min=1)
    bin_size = size / size.new_tensor([out_w, out_h])
    if sampling_ratio > 0:
        grid = torch.full_like(size, sampling_ratio).long()
    else:
        grid = bin_size.ceil().clamp(min=0).long()  # samples of a bin along x and y

    per_bin = grid.prod(dim=1)
    per_roi = per_bin * out_h * out_w
    roi = torch.arange(len(rois), device=rois.device).repeat_interleave(per_roi)
    # each sample's number in its box; in its bin; and the bin's in the box
    number = torch.arange(len(roi), device=rois.device)
    number -= (per_roi.cumsum(0) - per_roi).repeat_interleave(per_roi)
    in_bin, bin_ = number % per_bin[roi], number // per_bin[roi]
    column, row = in_bin % grid[roi, 0], in_bin // grid[roi, 0]
    place = torch.stack([bin_ % out_w, bin_ // out_w], dim=-1)
    within = (torch.stack([column, row], dim=-1).to(boxes) + 0.5) / grid[roi]
    position = boxes[roi, :2] + (place + within) * bin_size[roi]

    x, weights_x = _corners(position[:, 0], width)
    y, weights_y = _corners(position[:, 1], height)
    image = rois[roi, 0].long()[:, None, None]
    cells = (image * height + y[:, :, None]) * width + x[:, None, :]
    weights = weights_y[:, :, None] * weights_x[:, None, :] / per_bin[roi][:, None, None]
    ends = (per_bin * 4).repeat_interleave(out_h * out_w).cumsum(0)
    bags = functional.embedding_bag(
        cells.reshape(-1),
        features.permute(0, 2, 3, 1).reshape(-1, channels),
        functional.pad(ends, (1, 0)),
        mode="sum",
        per_sample_weights=weights.reshape(-1).to(features.dtype),
        include_last_offset=True,
    )
    return bags.reshape(len(rois), out_h, out_w, channels).permute(0, 3, 1, 2)


def roi_align(
    features: torch.Tensor,
    rois: torch.Tensor,
    output_size: Size,
    spatial_scale: float = 1.0,
    sampling_ratio: int = 0,
    aligned: bool = True,
) -> torch.Tensor:
    """Return the features (n, channels, out_h, out_w) of boxes in maps (images, channels, h, w).

    *rois* (n, 5) has the index of the image and the box, which times *spatial_scale* is in cells.
    Each bin is the mean of *sampling_ratio* ² samples; 0: as many as there are cells in it.
    *aligned*: a cell's centre is at half, not at 0. Boxes get no gradient.
    """
    # half the bits are too few for where a box is in a large image
    wide = features if features.dtype == torch.float64 else features.float()
    rois = rois.detach().to(wide.dtype)
    function = native.roi_align or torch_roi_align
    found: torch.Tensor = function(wide, rois, output_size, spatial_scale, sampling_ratio, aligned)
    return found.to(features.dtype)


class RoIAlign(nn.Module):
    """:func:`roi_align` as a layer."""

    def __init__(
        self,
        output_size: int | Size,
        spatial_scale: float = 1.0,
        sampling_ratio: int = 0,
        pool_mode: str = "avg",
        aligned: bool = True,
        use_torchvision: bool = False,
    ) -> None:
        super().__init__()
        if pool_mode != "avg":
            raise ValueError(f"RoIAlign: pool_mode {pool_mode!r}; only 'avg' is known")
        pair = (output_size, output_size) if isinstance(output_size, int) else output_size
        self.output_size = (pair[0], pair[1])
        self.spatial_scale = spatial_scale
        self.sampling_ratio = sampling_ratio
        self.aligned = aligned

    def forward(self, features: torch.Tensor, rois: torch.Tensor) -> torch.Tensor:
        return roi_align(
            features,
            rois,
            self.output_size,
            self.spatial_scale,
            self.sampling_ratio,
            self.aligned,
        )
