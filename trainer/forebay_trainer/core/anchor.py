"""Anchors: the boxes that a region proposal network starts from (arXiv 1506.01497)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from forebay_trainer.registry import PRIOR_GENERATORS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Size = tuple[int, int]


def build_prior_generator(cfg: Mapping[str, Any]) -> Any:
    return PRIOR_GENERATORS.build(cfg)


build_anchor_generator = build_prior_generator


@PRIOR_GENERATORS.register_module()
class AnchorGenerator:
    """Boxes of several sizes and shapes around each cell of the feature maps of several levels.

    Args:
        strides: pixels between cells, per level; a number or (x, y).
        ratios: height / width.
        scales: sizes in units of the base sizes. Instead *octave_base_scale* with
            *scales_per_octave* n gives that scale times 1, 2^(1/n), ..., 2^((n-1)/n).
        base_sizes: pixels, per level; by default the strides.
        scale_major: neighbours in the order differ in scale, else in ratio.
        centers: of the first cell, (x, y) in pixels per level; by default *center_offset* times
            the base size.
    """

    def __init__(
        self,
        strides: Sequence[int | Size],
        ratios: Sequence[float],
        scales: Sequence[float] | None = None,
        base_sizes: Sequence[float] | None = None,
        scale_major: bool = True,
        octave_base_scale: float | None = None,
        scales_per_octave: int | None = None,
        centers: Sequence[tuple[float, float]] | None = None,
        center_offset: float = 0.0,
    ) -> None:
        octave = octave_base_scale is not None and scales_per_octave is not None
        if octave == (scales is not None):
            raise ValueError(
                "AnchorGenerator: either scales, or octave_base_scale and scales_per_octave"
            )
        if octave_base_scale is not None and scales_per_octave is not None:
            steps = range(scales_per_octave)
            scales = [octave_base_scale * 2 ** (step / scales_per_octave) for step in steps]
        self.strides: list[Size] = [(s, s) if isinstance(s, int) else (s[0], s[1]) for s in strides]
        self.base_sizes = list(base_sizes or [min(stride) for stride in self.strides])
        self.scales = torch.tensor(scales, dtype=torch.float32)
        self.ratios = torch.tensor(ratios, dtype=torch.float32)
        self.scale_major = scale_major
        self.centers = centers or [(center_offset * size,) * 2 for size in self.base_sizes]
        for name, given in (("base_sizes", self.base_sizes), ("centers", self.centers)):
            if len(given) != len(self.strides):
                raise ValueError(f"AnchorGenerator: {len(given)} {name}, {len(strides)} strides")
        self.base_anchors = [
            self._around(center, size)
            for center, size in zip(self.centers, self.base_sizes, strict=True)
        ]

    def _around(self, center: tuple[float, float], base_size: float) -> torch.Tensor:
        """Return the anchors (ratios * scales, 4) of the cell at *center*."""
        tall = self.ratios.sqrt()
        shapes = base_size * torch.stack([1 / tall, tall], dim=-1)  # (ratios, 2) of width, height
        if self.scale_major:
            sizes = shapes[:, None] * self.scales[None, :, None]
        else:
            sizes = shapes[None] * self.scales[:, None, None]
        half = 0.5 * sizes.reshape(-1, 2)
        middle = torch.tensor(center, dtype=torch.float32)
        return torch.cat([middle - half, middle + half], dim=-1)

    @property
    def num_levels(self) -> int:
        return len(self.strides)

    @property
    def num_base_priors(self) -> list[int]:
        """The number of anchors of a cell, per level."""
        return [len(anchors) for anchors in self.base_anchors]

    num_base_anchors = num_base_priors

    def grid_priors(
        self,
        featmap_sizes: Sequence[Size],
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
    ) -> list[torch.Tensor]:
        """Return the anchors (height * width * base anchors, 4) of feature maps of these (height,
        width); the rows go along the cells of a row, and in each along its anchors."""
        if len(featmap_sizes) != self.num_levels:
            raise ValueError(f"{len(featmap_sizes)} feature maps, {self.num_levels} strides")
        return [
            self.single_level_grid_priors(size, level, dtype, device)
            for level, size in enumerate(featmap_sizes)
        ]

    def single_level_grid_priors(
        self,
        featmap_size: Size,
        level_idx: int,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
    ) -> torch.Tensor:
        """Return the anchors of one level, as :meth:`grid_priors`."""
        (height, width), (stride_x, stride_y) = featmap_size, self.strides[level_idx]
        y = torch.arange(height, device=device).to(dtype) * stride_y
        x = torch.arange(width, device=device).to(dtype) * stride_x
        yy, xx = torch.meshgrid(y, x, indexing="ij")
        shifts = torch.stack([xx, yy, xx, yy], dim=-1)[:, :, None]
        return (self.base_anchors[level_idx].to(device, dtype) + shifts).reshape(-1, 4)

    def valid_flags(
        self,
        featmap_sizes: Sequence[Size],
        pad_shape: Sequence[int],
        device: str | torch.device = "cpu",
    ) -> list[torch.Tensor]:
        """Return for each anchor whether its cell begins inside the image of *pad_shape* (height,
        width, ...): in a batch it may be smaller than the others."""
        flags = []
        for (height, width), (stride_x, stride_y), count in zip(
            featmap_sizes, self.strides, self.num_base_priors, strict=True
        ):
            valid = torch.zeros(height, width, count, dtype=torch.bool, device=device)
            valid[: math.ceil(pad_shape[0] / stride_y), : math.ceil(pad_shape[1] / stride_x)] = True
            flags.append(valid.reshape(-1))
        return flags


def images_to_levels(
    targets: Sequence[torch.Tensor], num_levels: Sequence[int]
) -> list[torch.Tensor]:
    """Turn targets by image, each for the anchors of all levels, into targets by level.

    *num_levels* has the number of anchors of each; a result has the shape (images, anchors, ...).
    """
    return list(torch.stack(list(targets)).split(list(num_levels), dim=1))


def anchor_inside_flags(
    flat_anchors: torch.Tensor,
    valid_flags: torch.Tensor,
    img_shape: Sequence[int],
    allowed_border: float = 0,
) -> torch.Tensor:
    """Return which of the valid anchors (n, 4) stand out of the image of *img_shape* (height,
    width, ...) by no more than *allowed_border* pixels; negative allows all."""
    if allowed_border < 0:
        return valid_flags
    height, width = img_shape[:2]
    inside_start = (flat_anchors[:, :2] >= -allowed_border).all(dim=1)
    limit = flat_anchors.new_tensor([width, height]) + allowed_border
    return valid_flags & inside_start & (flat_anchors[:, 2:] < limit).all(dim=1)
