"""Masks of an image's objects, as pixels or as polygons."""

from forebay_trainer.core.masks.base import InstanceMasks
from forebay_trainer.core.masks.bitmaps import BitmapMasks
from forebay_trainer.core.masks.polygons import PolygonMasks, polygon_to_bitmap
from forebay_trainer.core.masks.targets import mask_target

__all__ = ["BitmapMasks", "InstanceMasks", "PolygonMasks", "mask_target", "polygon_to_bitmap"]
