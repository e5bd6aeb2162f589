"""Proposals alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from forebay_trainer.models.builder import build_head
from forebay_trainer.models.detectors.base import NOT_GIVEN, BaseDetector
from forebay_trainer.models.test_time import four, into_view
from forebay_trainer.registry import DETECTORS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from forebay_trainer.models.detectors.base import Config, Metas


@DETECTORS.register_module()
class RPN(BaseDetector):
    """The region proposal network of Faster R-CNN; its results are arrays (P, 5)."""

    def __init__(
        self,
        backbone: Config,
        neck: Config | None,
        rpn_head: Config,
        test_cfg: Config,
        train_cfg: Config | None = None,
        pretrained: str | None = NOT_GIVEN,
        init_cfg: Any = None,
    ) -> None:
        super().__init__(backbone, neck, pretrained, init_cfg)
        training = train_cfg or {}
        self.rpn_head = build_head(
            {**rpn_head, "train_cfg": training.get("rpn"), "test_cfg": test_cfg["rpn"]}
        )

    def forward_train(
        self,
        img: Tensor,
        img_metas: Metas,
        gt_bboxes: Sequence[Tensor],
        gt_bboxes_ignore: Sequence[Tensor] | None = None,
    ) -> dict[str, Any]:
        """Return the losses for boxes (G, 4) of each picture."""
        losses: dict[str, Any] = self.rpn_head.forward_train(
            self.extract_feat(img), img_metas, gt_bboxes, gt_bboxes_ignore=gt_bboxes_ignore
        )
        return losses

    def simple_test(self, img: Tensor, img_metas: Metas, rescale: bool = False) -> list[Any]:
        with torch.no_grad():
            proposals = self.rpn_head.simple_test_rpn(self.extract_feat(img), img_metas)
        if rescale:
            for each, meta in zip(proposals, img_metas, strict=True):
                each[:, :4] /= four(meta["scale_factor"], each)
        return [each.cpu().numpy() for each in proposals]

    def aug_test(
        self, imgs: Sequence[Tensor], img_metas: Sequence[Metas], rescale: bool = False
    ) -> list[Any]:
        with torch.no_grad():
            feats = [self.extract_feat(img) for img in imgs]
            proposals = self.rpn_head.aug_test_rpn(feats, img_metas)
        if not rescale:  # they fit the first view
            for each, meta in zip(proposals, img_metas[0], strict=True):
                each[:, :4] = into_view(each[:, :4], meta)
        return [each.cpu().numpy() for each in proposals]
