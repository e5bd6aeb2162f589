"""One stage: Faster R-CNN (arXiv 1506.01497) and Mask R-CNN (arXiv 1703.06870)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from forebay_trainer.core.bbox import build_assigner, build_sampler
from forebay_trainer.models.builder import build_head, build_roi_extractor
from forebay_trainer.models.roi_heads.base_roi_head import BaseRoIHead, Stage
from forebay_trainer.registry import HEADS

if TYPE_CHECKING:
    from collections.abc import Mapping

    Config = Mapping[str, Any]


@HEADS.register_module()
class StandardRoIHead(BaseRoIHead):
    """One box head, and perhaps one mask head; without an own extractor that uses the boxes'."""

    def init_bbox_head(self, bbox_roi_extractor: Config, bbox_head: Config) -> None:
        self.bbox_roi_extractor = build_roi_extractor(bbox_roi_extractor)
        self.bbox_head = build_head(bbox_head)

    def init_mask_head(self, mask_roi_extractor: Config | None, mask_head: Config) -> None:
        if mask_roi_extractor is None:
            self.mask_roi_extractor = self.bbox_roi_extractor
        else:
            self.mask_roi_extractor = build_roi_extractor(mask_roi_extractor)
        self.mask_head = build_head(mask_head)

    def init_assigner_sampler(self) -> None:
        if self.train_cfg is not None:
            self.bbox_assigner = build_assigner(self.train_cfg["assigner"])
            self.bbox_sampler = build_sampler(self.train_cfg["sampler"])

    def stages(self) -> list[Stage]:
        return [
            Stage(
                bbox_roi_extractor=self.bbox_roi_extractor,
                bbox_head=self.bbox_head,
                mask_roi_extractor=getattr(self, "mask_roi_extractor", None),
                mask_head=getattr(self, "mask_head", None),
                assigner=getattr(self, "bbox_assigner", None),
                sampler=getattr(self, "bbox_sampler", None),
                train_cfg=self.train_cfg,
                loss_weight=1.0,
                prefix="",
            )
        ]
