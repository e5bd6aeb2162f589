"""Images and annotations into a sample; images are decoded from the cache, without a copy."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from faster_coco_eval import mask as rle

from forebay_trainer.core.masks import BitmapMasks, PolygonMasks, polygon_to_bitmap
from forebay_trainer.files import Files
from forebay_trainer.images import read_image
from forebay_trainer.registry import PIPELINES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from forebay_trainer.datasets.pipelines.sample import Array, Results

_DECODING = {
    "color": cv2.IMREAD_COLOR,
    "color_ignore_orientation": cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION,
    "grayscale": cv2.IMREAD_GRAYSCALE,
    "grayscale_ignore_orientation": cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION,
    "unchanged": cv2.IMREAD_UNCHANGED,
}


@PIPELINES.register_module()
@dataclass
class LoadImageFromFile:
    """Read and decode ``img_info["filename"]`` below ``img_prefix``.

    An array under ``img`` is taken as it is, BGR, so that images from memory need no pipeline of
    their own.
    """

    to_float32: bool = False
    color_type: str = "color"
    channel_order: str = "bgr"
    file_client_args: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.color_type not in _DECODING:
            raise ValueError(f"color_type {self.color_type!r} is none of {sorted(_DECODING)}")
        if self.channel_order not in ("bgr", "rgb"):
            raise ValueError(f"channel_order {self.channel_order!r} is neither 'bgr' nor 'rgb'")
        self.files = Files.of(self.file_client_args)

    def __call__(self, results: Results) -> Results:
        if "img" in results:
            name = path = results.get("filename")
            image = results["img"]
        else:
            name = results["img_info"]["filename"]
            path = os.path.join(results.get("img_prefix") or "", name)  # noqa: PTH118 # it may be a URI
            image = read_image(path, self.files, _DECODING[self.color_type])
        if self.channel_order == "rgb" and self.color_type == "color":
            image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        if self.to_float32:
            image = image.astype(np.float32)
        results |= {
            "filename": path,
            "ori_filename": name,
            "img": image,
            "img_shape": image.shape,
            "ori_shape": image.shape,
            "img_fields": ["img"],
        }
        return results


@PIPELINES.register_module()
@dataclass
class LoadAnnotations:
    """Take boxes, labels and masks from ``ann_info``; masks are COCO's polygons or RLE.

    ``poly2mask``: masks become bitmaps at once. Otherwise they stay polygons, which are small and
    stay sharp when resized, but cannot come from RLE.
    """

    with_bbox: bool = True
    with_label: bool = True
    with_mask: bool = False
    with_seg: bool = False
    poly2mask: bool = True
    file_client_args: Mapping[str, Any] | None = None  # of segmentation maps only

    def __post_init__(self) -> None:
        if self.with_seg:
            raise ValueError("with_seg: segmentation maps of whole images are not supported")

    def __call__(self, results: Results) -> Results | None:
        annotations = results["ann_info"]
        if self.with_bbox:
            for key, name in (("gt_bboxes_ignore", "bboxes_ignore"), ("gt_bboxes", "bboxes")):
                if annotations.get(name) is not None:
                    results[key] = annotations[name].copy()
                    results["bbox_fields"].append(key)
        if self.with_label:
            results["gt_labels"] = annotations["labels"].copy()
        if self.with_mask:
            if "masks" not in annotations:
                raise ValueError("with_mask=True, but the data set has no masks")
            results["gt_masks"] = self._masks(results["img_info"], annotations["masks"])
            results["mask_fields"].append("gt_masks")
        return results

    def _masks(self, info: Mapping[str, Any], masks: list[Any]) -> BitmapMasks | PolygonMasks:
        height, width = info["height"], info["width"]
        if self.poly2mask:
            return BitmapMasks([_bitmap(each, height, width) for each in masks], height, width)
        if any(isinstance(each, dict) for each in masks):
            raise ValueError(f"{info['filename']}: masks are RLE; poly2mask=False needs polygons")
        return PolygonMasks([_polygons(each) for each in masks], height, width)


def _polygons(mask: list[Any]) -> list[Array]:
    """Return those of an object's polygons that have an area: x, y of three points or more."""
    arrays = [np.array(each) for each in mask]
    return [each for each in arrays if len(each) >= 6 and len(each) % 2 == 0]


def _bitmap(mask: Any, height: int, width: int) -> Array:
    """Return 0 and 1, uint8, height x width, of COCO's polygons, RLE, or compressed RLE."""
    if isinstance(mask, dict):
        packed = isinstance(mask["counts"], (str, bytes))
        bitmap: Array = rle.decode(mask if packed else rle.frPyObjects(mask, height, width))
        return bitmap
    polygons = _polygons(mask)
    if not polygons:
        return np.zeros((height, width), np.uint8)
    return polygon_to_bitmap(polygons, height, width).astype(np.uint8)
