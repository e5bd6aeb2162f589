"""What masks of one image have in common, and the affine maps that move them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from typing_extensions import Self

    Size = tuple[int, int]
    Array = np.ndarray[Any, Any]


class InstanceMasks(ABC):
    """The masks of the objects of one image of *height* x *width* pixels.

    No method changes the masks it is called on. Sizes are (height, width).
    """

    height: int
    width: int

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: Any) -> Self:
        """Return the masks of an index, a slice, a list or array of indices, or a mask."""

    @abstractmethod
    def __iter__(self) -> Iterator[Any]: ...

    def rescale(self, scale: float | Size, interpolation: str = "nearest") -> Self:
        """Scale by a factor; or as far as the long and the short side of *scale* allow."""
        if isinstance(scale, (int, float)):
            factor = float(scale)
        else:
            long, short = max(scale), min(scale)
            factor = min(long / max(self.height, self.width), short / min(self.height, self.width))
        size = int(self.height * factor + 0.5), int(self.width * factor + 0.5)
        return self.resize(size, interpolation)

    @abstractmethod
    def resize(self, out_shape: Sequence[int], interpolation: str = "nearest") -> Self: ...

    @abstractmethod
    def flip(self, flip_direction: str = "horizontal") -> Self:
        """Mirror: "horizontal", "vertical", or "diagonal", which is both."""

    @abstractmethod
    def pad(self, out_shape: Sequence[int], pad_val: int = 0) -> Self:
        """Pad at the right and the bottom."""

    @abstractmethod
    def crop(self, bbox: Array) -> Self:
        """Cut out the box (x1, y1, x2, y2); the result has at least one pixel."""

    @abstractmethod
    def crop_and_resize(
        self,
        bboxes: Array,
        out_shape: Size,
        inds: Array,
        device: str | torch.device = "cpu",
        interpolation: str = "bilinear",
        binarize: bool = True,
    ) -> Any:
        """Return bitmaps of *out_shape*, of each box (n, 4) that part of the mask ``inds[i]``.

        Not with *binarize* they have the share of each pixel that is covered.
        """

    @abstractmethod
    def expand(self, expanded_h: int, expanded_w: int, top: int, left: int) -> Self:
        """Put the image into a larger one, so far from its top and left."""

    def translate(
        self,
        out_shape: Sequence[int],
        offset: float,
        direction: str = "horizontal",
        fill_val: int = 0,
        interpolation: str = "bilinear",
    ) -> Self:
        """Shift by *offset* pixels to the right or, "vertical", down."""
        x, y = (offset, 0) if direction == "horizontal" else (0, offset)
        matrix = np.array([[1, 0, x], [0, 1, y]], dtype=np.float32)
        return self._warp(matrix, out_shape, fill_val, interpolation)

    def shear(
        self,
        out_shape: Sequence[int],
        magnitude: float,
        direction: str = "horizontal",
        border_value: int = 0,
        interpolation: str = "bilinear",
    ) -> Self:
        """Shift each row by *magnitude* times its number or, "vertical", each column down."""
        x, y = (magnitude, 0) if direction == "horizontal" else (0, magnitude)
        matrix = np.array([[1, x, 0], [y, 1, 0]], dtype=np.float32)
        return self._warp(matrix, out_shape, border_value, interpolation)

    def rotate(
        self,
        out_shape: Sequence[int],
        angle: float,
        center: tuple[float, float] | None = None,
        scale: float = 1.0,
        fill_val: int = 0,
        interpolation: str = "bilinear",
    ) -> Self:
        """Turn clockwise by *angle* degrees about *center* (x, y), the image's by default."""
        middle = ((self.width - 1) * 0.5, (self.height - 1) * 0.5)
        matrix = cv2.getRotationMatrix2D(center or middle, -angle, scale)
        return self._warp(matrix, out_shape, fill_val, interpolation)

    @abstractmethod
    def _warp(self, matrix: Array, out_shape: Sequence[int], fill: int, interpolation: str) -> Self:
        """Move each pixel (x, y) to *matrix* (2, 3) times (x, y, 1)."""

    @property
    @abstractmethod
    def areas(self) -> Array:
        """Of each mask, in pixels."""

    @abstractmethod
    def to_ndarray(self) -> Array:
        """Return bitmaps (n, height, width) of 0 and 1."""

    def to_tensor(self, dtype: torch.dtype, device: str | torch.device) -> torch.Tensor:
        """Return bitmaps (n, height, width)."""
        return torch.tensor(self.to_ndarray(), dtype=dtype, device=device)

    @abstractmethod
    def get_bboxes(self) -> Array:
        """Return the box around each mask, (n, 4) of float32; zeros around an empty one."""

    def __repr__(self) -> str:
        name = type(self).__name__
        return f"{name}(num_masks={len(self)}, height={self.height}, width={self.width})"


def crop_window(bbox: Array, height: int, width: int) -> tuple[int, int, int, int]:
    """Return the box inside the image, at least a pixel large: x, y, width, height."""
    limits = [width, height, width, height]
    x1, y1, x2, y2 = np.clip(np.asarray(bbox), 0, limits).astype(int).tolist()
    return x1, y1, max(x2 - x1, 1), max(y2 - y1, 1)
