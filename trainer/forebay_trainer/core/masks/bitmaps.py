"""Masks as pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch

from forebay_trainer.core.masks.base import InstanceMasks, crop_window
from forebay_trainer.ops import roi_align

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from forebay_trainer.core.masks.base import Array, Size

INTERPOLATIONS = {
    "nearest": cv2.INTER_NEAREST,
    "bilinear": cv2.INTER_LINEAR,
    "bicubic": cv2.INTER_CUBIC,
    "area": cv2.INTER_AREA,
    "lanczos": cv2.INTER_LANCZOS4,
}
_MOST_CHANNELS = 512  # of an image of OpenCV
_FLIPS: dict[str, Any] = {"horizontal": 2, "vertical": 1, "diagonal": (1, 2)}


class BitmapMasks(InstanceMasks):
    """Masks (n, height, width) of uint8, which are 0 or 1.

    *masks* may also be a list of arrays (height, width). ``masks`` has the array.
    """

    def __init__(self, masks: Array | Sequence[Array], height: int, width: int) -> None:
        self.height = height
        self.width = width
        self.masks: Array = (
            np.asarray(masks).reshape(-1, height, width)
            if len(masks)
            else np.zeros((0, height, width), dtype=np.uint8)
        )

    def __len__(self) -> int:
        return len(self.masks)

    def __getitem__(self, index: Any) -> BitmapMasks:
        return self._of(self.masks[index].reshape(-1, self.height, self.width))

    def __iter__(self) -> Iterator[Array]:
        return iter(self.masks)

    @staticmethod
    def _of(masks: Array) -> BitmapMasks:
        return BitmapMasks(masks, masks.shape[-2], masks.shape[-1])

    def resize(self, out_shape: Sequence[int], interpolation: str = "nearest") -> BitmapMasks:
        size, how = (out_shape[1], out_shape[0]), INTERPOLATIONS[interpolation]
        resized = [cv2.resize(mask, size, interpolation=how) for mask in self.masks]
        return BitmapMasks(resized, out_shape[0], out_shape[1])

    def flip(self, flip_direction: str = "horizontal") -> BitmapMasks:
        return self._of(np.ascontiguousarray(np.flip(self.masks, _FLIPS[flip_direction])))

    def pad(self, out_shape: Sequence[int], pad_val: int = 0) -> BitmapMasks:
        padded = np.full((len(self), *out_shape[:2]), pad_val, dtype=self.masks.dtype)
        padded[:, : self.height, : self.width] = self.masks
        return self._of(padded)

    def crop(self, bbox: Array) -> BitmapMasks:
        x, y, width, height = crop_window(bbox, self.height, self.width)
        return self._of(self.masks[:, y : y + height, x : x + width])

    def crop_and_resize(
        self,
        bboxes: Array,
        out_shape: Size,
        inds: Array,
        device: str | torch.device = "cpu",
        interpolation: str = "bilinear",
        binarize: bool = True,
    ) -> BitmapMasks:
        if len(self) == 0:
            return BitmapMasks([], *out_shape)
        rois = np.concatenate([np.asarray(inds)[:, None], np.asarray(bboxes)], axis=1)
        covered = roi_align(
            torch.as_tensor(self.masks, device=device)[:, None].float(),
            torch.as_tensor(rois, dtype=torch.float32, device=device),
            out_shape,
        )[:, 0]
        return self._of(((covered >= 0.5).byte() if binarize else covered).cpu().numpy())

    def expand(self, expanded_h: int, expanded_w: int, top: int, left: int) -> BitmapMasks:
        expanded = np.zeros((len(self), expanded_h, expanded_w), dtype=np.uint8)
        expanded[:, top : top + self.height, left : left + self.width] = self.masks
        return self._of(expanded)

    def _warp(
        self, matrix: Array, out_shape: Sequence[int], fill: int, interpolation: str
    ) -> BitmapMasks:
        size, how = (out_shape[1], out_shape[0]), INTERPOLATIONS[interpolation]
        warped = np.zeros((len(self), *out_shape[:2]), dtype=self.masks.dtype)
        for start in range(0, len(self), _MOST_CHANNELS):
            # All as the channels of one image, as upstream: OpenCV rounds one channel otherwise.
            channels = self.masks[start : start + _MOST_CHANNELS].transpose(1, 2, 0)
            part = cv2.warpAffine(np.ascontiguousarray(channels), matrix, size, flags=how)
            warped[start : start + _MOST_CHANNELS] = np.atleast_3d(part).transpose(2, 0, 1)
        if fill:
            whole = np.ones((self.height, self.width), dtype=np.uint8)
            inside = cv2.warpAffine(whole, matrix, size, flags=cv2.INTER_NEAREST)
            warped[:, inside == 0] = fill
        return self._of(warped)

    @property
    def areas(self) -> Array:
        return np.asarray(self.masks.sum((1, 2)))

    def to_ndarray(self) -> Array:
        return self.masks

    def get_bboxes(self) -> Array:
        boxes = np.zeros((len(self), 4), dtype=np.float32)
        for box, mask in zip(boxes, self.masks, strict=True):
            x, y = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
            if len(x):
                box[:] = x[0], y[0], x[-1] + 1, y[-1] + 1
        return boxes
