"""What heads on regions have in common: one or several stages of the same steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from forebay_trainer.core.bbox import bbox2result, bbox2roi
from forebay_trainer.core.post_processing import multiclass_nms
from forebay_trainer.models.builder import build_shared_head
from forebay_trainer.models.test_time import four, into_view, out_of_view, unflip_maps
from forebay_trainer.models.utils import BaseModule

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Config = Mapping[str, Any]
    Meta = Mapping[str, Any]
    Feats = Sequence[Tensor]


@dataclass(frozen=True)
class Stage:
    """The parts of one stage; those that are not configured are None."""

    bbox_roi_extractor: Any
    bbox_head: Any
    mask_roi_extractor: Any
    mask_head: Any
    assigner: Any
    sampler: Any
    train_cfg: Any
    loss_weight: float
    prefix: str  # of the names of its losses


class BaseRoIHead(BaseModule):
    """Samples proposals, classifies and moves their boxes, and draws their masks.

    With several stages each begins with the boxes that the one before it moved, and all of them
    vote on the classes and the masks. Derived classes build the parts and say which belong to a
    stage.
    """

    def __init__(
        self,
        bbox_roi_extractor: Any,
        bbox_head: Any,
        mask_roi_extractor: Any = None,
        mask_head: Any = None,
        shared_head: Config | None = None,
        train_cfg: Any = None,
        test_cfg: Config | None = None,
        pretrained: str | None = None,
        init_cfg: Any = None,
    ) -> None:
        super().__init__(init_cfg)
        self.train_cfg, self.test_cfg = train_cfg, test_cfg
        if shared_head is not None:
            if pretrained is not None:
                shared_head = {**shared_head, "pretrained": pretrained}
            self.shared_head = build_shared_head(shared_head)
        self.init_bbox_head(bbox_roi_extractor, bbox_head)
        if mask_head is not None:
            self.init_mask_head(mask_roi_extractor, mask_head)
        self.init_assigner_sampler()

    def init_bbox_head(self, bbox_roi_extractor: Any, bbox_head: Any) -> None:
        raise NotImplementedError

    def init_mask_head(self, mask_roi_extractor: Any, mask_head: Any) -> None:
        raise NotImplementedError

    def init_assigner_sampler(self) -> None:
        raise NotImplementedError

    def stages(self) -> list[Stage]:
        """Return the stages, the first first."""
        raise NotImplementedError

    @property
    def with_mask(self) -> bool:
        return getattr(self, "mask_head", None) is not None

    @property
    def with_shared_head(self) -> bool:
        return getattr(self, "shared_head", None) is not None

    def forward_train(
        self,
        x: Feats,
        img_metas: Sequence[Meta],
        proposal_list: Sequence[Tensor],
        gt_bboxes: Sequence[Tensor],
        gt_labels: Sequence[Tensor],
        gt_bboxes_ignore: Sequence[Tensor] | None = None,
        gt_masks: Sequence[Any] | None = None,
    ) -> dict[str, Tensor]:
        """Return the losses of all stages.

        A picture has proposals (P, >= 4), true boxes (G, 4) with labels (G,) and a BitmapMasks or
        PolygonMasks of G, and boxes to be ignored.
        """
        losses = {}
        stages = self.stages()
        ignored = gt_bboxes_ignore if gt_bboxes_ignore is not None else [None] * len(img_metas)
        for number, stage in enumerate(stages):
            samples = [
                _sample(stage, proposals[:, :4], *truth)
                for proposals, *truth in zip(
                    proposal_list, gt_bboxes, gt_labels, ignored, strict=True
                )
            ]
            rois = bbox2roi([sample.bboxes for sample in samples])
            feats = self._pool(stage.bbox_roi_extractor, x, rois)
            cls_score, bbox_pred = stage.bbox_head(feats)
            targets = stage.bbox_head.get_targets(samples, gt_bboxes, gt_labels, stage.train_cfg)
            found = stage.bbox_head.loss(cls_score, bbox_pred, rois, *targets)
            if stage.mask_head is not None:
                found = {**found, **self._mask_loss(stage, x, feats, samples, gt_masks)}
            for name, value in found.items():
                weight = stage.loss_weight if "loss" in name else 1
                losses[stage.prefix + name] = value * weight
            if number + 1 < len(stages):
                labels = targets[0]
                background = labels == stage.bbox_head.num_classes
                proposal_list = stage.bbox_head.refine_bboxes(
                    rois,
                    torch.where(background, cls_score[:, :-1].argmax(dim=1), labels),
                    bbox_pred,
                    [sample.pos_is_gt for sample in samples],
                    img_metas,
                )
        return losses

    def simple_test(
        self,
        x: Feats,
        proposal_list: Sequence[Tensor],
        img_metas: Sequence[Meta],
        rescale: bool = False,
    ) -> list[Any]:
        """Return of each picture the boxes of each class, arrays (D, 5) with the score last.

        With a mask head the boxes and the masks, arrays of bool of each class.
        """
        stages = self.stages()
        cfg: Any = self.test_cfg
        rois, scores, deltas = self._predict(stages, x, proposal_list, img_metas)
        detections = []
        for i, meta in enumerate(img_metas):
            own = rois[:, 0] == i
            detections.append(
                stages[-1].bbox_head.get_bboxes(
                    rois[own],
                    scores[own],
                    deltas[own],
                    meta["img_shape"],
                    meta["scale_factor"],
                    rescale=rescale,
                    cfg=cfg,
                )
            )
        classes = stages[-1].bbox_head.num_classes
        results = [bbox2result(found, labels, classes) for found, labels in detections]
        if not self.with_mask:
            return results
        boxes = [found[:, :4] for found, _ in detections]
        if rescale:  # features are those of the resized picture
            boxes = [
                box * four(meta["scale_factor"], box)
                for box, meta in zip(boxes, img_metas, strict=True)
            ]
        maps = self._mask_maps(stages, x, bbox2roi(boxes)).split([len(box) for box in boxes])
        masks = [
            stages[-1].mask_head.get_seg_masks(
                own, *found, cfg, meta["ori_shape"], meta["scale_factor"], rescale
            )
            for own, found, meta in zip(maps, detections, img_metas, strict=True)
        ]
        return list(zip(results, masks, strict=True))

    def aug_test(
        self,
        features: Sequence[Feats],
        proposal_list: Sequence[Tensor],
        img_metas: Sequence[Sequence[Meta]],
        rescale: bool = False,
    ) -> list[Any]:
        """Return what :meth:`simple_test` does, of one picture from the mean of its views.

        Proposals are in the picture's coordinates. Without *rescale* boxes fit the first view;
        masks always fit the picture.
        """
        stages = self.stages()
        cfg: Any = self.test_cfg
        views = [(x, metas[0]) for x, metas in zip(features, img_metas, strict=True)]
        boxes, scores = [], []
        for x, meta in views:
            proposals = into_view(proposal_list[0][:, :4], meta)
            moved, probabilities = stages[-1].bbox_head.get_bboxes(
                *self._predict(stages, x, [proposals], [meta]),
                meta["img_shape"],
                meta["scale_factor"],
            )
            boxes.append(out_of_view(moved, meta))
            scores.append(probabilities)
        found, labels = multiclass_nms(
            torch.stack(boxes).mean(dim=0),
            torch.stack(scores).mean(dim=0),
            cfg["score_thr"],
            cfg["nms"],
            cfg["max_per_img"],
        )
        first = views[0][1]
        shown = found.clone()
        if not rescale:
            shown[:, :4] *= four(first["scale_factor"], found)
        result = bbox2result(shown, labels, stages[-1].bbox_head.num_classes)
        if not self.with_mask:
            return [result]
        maps = [
            unflip_maps(self._mask_maps(stages, x, bbox2roi([into_view(found[:, :4], meta)])), meta)
            for x, meta in views
        ]
        masks = stages[-1].mask_head.get_seg_masks(
            torch.stack(maps).mean(dim=0), found, labels, cfg, first["ori_shape"], 1.0, True
        )
        return [(result, masks)]

    def _pool(self, extractor: Any, x: Feats, rois: Tensor) -> Tensor:
        feats: Tensor = extractor(x[: extractor.num_inputs], rois)
        if self.with_shared_head:
            feats = self.shared_head(feats)
        return feats

    def _mask_loss(
        self,
        stage: Stage,
        x: Feats,
        bbox_feats: Tensor,
        samples: Sequence[Any],
        gt_masks: Sequence[Any] | None,
    ) -> dict[str, Tensor]:
        if stage.mask_roi_extractor is stage.bbox_roi_extractor:
            positive = [
                torch.arange(len(sample.bboxes), device=bbox_feats.device) < len(sample.pos_bboxes)
                for sample in samples
            ]
            feats = bbox_feats[torch.cat(positive)]
        else:
            rois = bbox2roi([sample.pos_bboxes for sample in samples])
            feats = self._pool(stage.mask_roi_extractor, x, rois)
        targets = stage.mask_head.get_targets(samples, gt_masks, stage.train_cfg)
        labels = torch.cat([sample.pos_gt_labels for sample in samples])
        losses: dict[str, Tensor] = stage.mask_head.loss(stage.mask_head(feats), targets, labels)
        return losses

    def _predict(
        self,
        stages: Sequence[Stage],
        x: Feats,
        proposal_list: Sequence[Tensor],
        img_metas: Sequence[Meta],
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the regions (R, 5) of the last stage, the stages' mean scores, and its deltas."""
        rois = bbox2roi(proposal_list)
        scores = []
        for number, stage in enumerate(stages):
            score, deltas = stage.bbox_head(self._pool(stage.bbox_roi_extractor, x, rois))
            scores.append(score)
            if number + 1 < len(stages):
                labels = score[:, :-1].argmax(dim=1)
                counts = [len(proposals) for proposals in proposal_list]
                parts = (each.split(counts) for each in (rois[:, 1:], labels, deltas))
                moved = zip(*parts, img_metas, strict=True)
                rois = bbox2roi([stage.bbox_head.regress_by_class(*each) for each in moved])
        return rois, torch.stack(scores).mean(dim=0), deltas

    def _mask_maps(self, stages: Sequence[Stage], x: Feats, rois: Tensor) -> Tensor:
        """Return the probabilities (R, classes, h, w), the mean of the stages."""
        maps = [
            stage.mask_head(self._pool(stage.mask_roi_extractor, x, rois)).float().sigmoid()
            for stage in stages
        ]
        return torch.stack(maps).mean(dim=0)


def _sample(
    stage: Stage, boxes: Tensor, gt_bboxes: Tensor, gt_labels: Tensor, ignored: Tensor | None
) -> Any:
    assigned = stage.assigner.assign(boxes, gt_bboxes, ignored, gt_labels)
    return stage.sampler.sample(assigned, boxes, gt_bboxes, gt_labels)
