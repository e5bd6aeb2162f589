"""Several stages, each for better boxes than the one before: Cascade R-CNN, arXiv 1712.00726."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from forebay_trainer.core.bbox import build_assigner, build_sampler
from forebay_trainer.models.builder import build_head, build_roi_extractor
from forebay_trainer.models.roi_heads.base_roi_head import BaseRoIHead, Stage
from forebay_trainer.registry import HEADS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


@HEADS.register_module()
class CascadeRoIHead(BaseRoIHead):
    """Its parts are configured by a list of one for each stage, or by one for all."""

    def __init__(self, num_stages: int, stage_loss_weights: Sequence[float], **kwargs: Any) -> None:
        self.num_stages = num_stages
        self.stage_loss_weights = stage_loss_weights
        super().__init__(**kwargs)
        if self.with_shared_head:
            raise ValueError("CascadeRoIHead takes no shared_head")

    def init_bbox_head(self, bbox_roi_extractor: Any, bbox_head: Any) -> None:
        self.bbox_roi_extractor = self._each(bbox_roi_extractor, build_roi_extractor)
        self.bbox_head = self._each(bbox_head, build_head)

    def init_mask_head(self, mask_roi_extractor: Any, mask_head: Any) -> None:
        self.mask_head = self._each(mask_head, build_head)
        if mask_roi_extractor is None:
            self.mask_roi_extractor = self.bbox_roi_extractor
        else:
            self.mask_roi_extractor = self._each(mask_roi_extractor, build_roi_extractor)

    def init_assigner_sampler(self) -> None:
        configs = self.train_cfg or []
        self.bbox_assigner = [build_assigner(each["assigner"]) for each in configs]
        self.bbox_sampler = [build_sampler(each["sampler"]) for each in configs]

    def stages(self) -> list[Stage]:
        training = bool(self.train_cfg)
        return [
            Stage(
                bbox_roi_extractor=self.bbox_roi_extractor[i],
                bbox_head=self.bbox_head[i],
                mask_roi_extractor=self.mask_roi_extractor[i] if self.with_mask else None,
                mask_head=self.mask_head[i] if self.with_mask else None,
                assigner=self.bbox_assigner[i] if training else None,
                sampler=self.bbox_sampler[i] if training else None,
                train_cfg=self.train_cfg[i] if training else None,
                loss_weight=self.stage_loss_weights[i],
                prefix=f"s{i}.",
            )
            for i in range(self.num_stages)
        ]

    def _each(self, configs: Any, build: Callable[[Mapping[str, Any]], Any]) -> nn.ModuleList:
        many = configs if isinstance(configs, (list, tuple)) else [configs] * self.num_stages
        if len(many) != self.num_stages:
            raise ValueError(f"{len(many)} parts are configured for {self.num_stages} stages")
        return nn.ModuleList(build(each) for each in many)
