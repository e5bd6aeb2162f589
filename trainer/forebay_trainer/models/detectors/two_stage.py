"""Detectors that first propose regions, and then look at each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from forebay_trainer.models.builder import build_head
from forebay_trainer.models.detectors.base import NOT_GIVEN, BaseDetector
from forebay_trainer.registry import DETECTORS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from forebay_trainer.models.detectors.base import Config, Metas


@DETECTORS.register_module()
class TwoStageDetector(BaseDetector):
    """A region proposal network, and heads on its regions.

    *train_cfg* has ``rpn``, ``rpn_proposal`` and ``rcnn``, *test_cfg* ``rpn`` and ``rcnn``.
    """

    def __init__(
        self,
        backbone: Config,
        rpn_head: Config,
        roi_head: Config,
        test_cfg: Config,
        train_cfg: Config | None = None,
        neck: Config | None = None,
        pretrained: str | None = NOT_GIVEN,
        init_cfg: Any = None,
    ) -> None:
        super().__init__(backbone, neck, pretrained, init_cfg)
        self.train_cfg, self.test_cfg = train_cfg, test_cfg
        training = train_cfg or {}
        self.rpn_head = build_head(
            {**rpn_head, "train_cfg": training.get("rpn"), "test_cfg": test_cfg["rpn"]}
        )
        self.roi_head = build_head(
            {
                **roi_head,
                "train_cfg": training.get("rcnn"),
                "test_cfg": test_cfg["rcnn"],
                "pretrained": None if pretrained == NOT_GIVEN else pretrained,
            }
        )

    def forward_train(
        self,
        img: Tensor,
        img_metas: Metas,
        gt_bboxes: Sequence[Tensor],
        gt_labels: Sequence[Tensor],
        gt_bboxes_ignore: Sequence[Tensor] | None = None,
        gt_masks: Sequence[Any] | None = None,
    ) -> dict[str, Any]:
        """Return the losses of both stages.

        A picture has boxes (G, 4) with labels (G,), boxes (I, 4) in which nothing is background,
        and a BitmapMasks or PolygonMasks of G, all in pixels of *img* (N, 3, H, W).
        """
        x = self.extract_feat(img)
        assert self.train_cfg is not None  # noqa: S101 - there is nothing to train without
        losses, proposals = self.rpn_head.forward_train(
            x,
            img_metas,
            gt_bboxes,
            gt_bboxes_ignore=gt_bboxes_ignore,
            proposal_cfg=self.train_cfg.get("rpn_proposal", self.test_cfg["rpn"]),
        )
        roi_losses = self.roi_head.forward_train(
            x, img_metas, proposals, gt_bboxes, gt_labels, gt_bboxes_ignore, gt_masks
        )
        return {**losses, **roi_losses}

    def simple_test(self, img: Tensor, img_metas: Metas, rescale: bool = False) -> list[Any]:
        """Return of each picture the boxes (D, 5) of each class, as arrays with the score last.

        With a mask head: these and the masks of each class, arrays of bool. With *rescale* all
        fit the picture before the pipeline.
        """
        with torch.no_grad():
            x = self.extract_feat(img)
            proposals = self.rpn_head.simple_test_rpn(x, img_metas)
            results: list[Any] = self.roi_head.simple_test(x, proposals, img_metas, rescale)
        return results

    def aug_test(
        self, imgs: Sequence[Tensor], img_metas: Sequence[Metas], rescale: bool = False
    ) -> list[Any]:
        """Return the result of one picture from several views of it, as :meth:`simple_test`."""
        with torch.no_grad():
            feats = [self.extract_feat(img) for img in imgs]
            proposals = self.rpn_head.aug_test_rpn(feats, img_metas)
            results: list[Any] = self.roi_head.aug_test(feats, proposals, img_metas, rescale)
        return results


@DETECTORS.register_module()
class FasterRCNN(TwoStageDetector):
    """Boxes: arXiv 1506.01497."""


@DETECTORS.register_module()
class MaskRCNN(TwoStageDetector):
    """Boxes and masks: arXiv 1703.06870."""


@DETECTORS.register_module()
class CascadeRCNN(TwoStageDetector):
    """Boxes, and perhaps masks, in several stages: arXiv 1712.00726 and 1906.09756."""
