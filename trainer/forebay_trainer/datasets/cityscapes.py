"""Cityscapes' instances in COCO's format, as ``forebay convert cityscapes`` writes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from forebay_trainer.datasets.coco import CocoDataset
from forebay_trainer.registry import DATASETS

if TYPE_CHECKING:
    from collections.abc import Sequence


@DATASETS.register_module()
class CityscapesDataset(CocoDataset):
    """8 classes; images with nothing but crowds are not trained with.

    It is measured as COCO; the benchmark's own AP is that of its scripts.
    """

    CLASSES: Sequence[str] | None = (
        "person",
        "rider",
        "car",
        "truck",
        "bus",
        "train",
        "motorcycle",
        "bicycle",
    )
    PALETTE: Sequence[tuple[int, int, int]] | None = (
        *((220, 20, 60), (255, 0, 0), (0, 0, 142), (0, 0, 70), (0, 60, 100), (0, 80, 100)),
        *((0, 0, 230), (119, 11, 32)),
    )

    def _has_objects(self, image_id: int) -> bool:
        annotations = self.coco.img_ann_map[image_id]
        has_more_than_crowds = any(not annotation.get("iscrowd") for annotation in annotations)
        return has_more_than_crowds and super()._has_objects(image_id)

    def _seg_map(self, info: dict[str, Any]) -> str:
        return str(info["segm_file"])
