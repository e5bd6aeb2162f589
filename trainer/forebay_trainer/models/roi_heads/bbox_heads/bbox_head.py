"""Classifies pooled regions and regresses their boxes, as in Fast R-CNN, arXiv 1504.08083."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from forebay_trainer.core.bbox import build_bbox_coder
from forebay_trainer.core.post_processing import multiclass_nms
from forebay_trainer.models.builder import build_loss
from forebay_trainer.models.losses import accuracy
from forebay_trainer.models.test_time import four
from forebay_trainer.models.utils import BaseModule
from forebay_trainer.registry import HEADS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Config = Mapping[str, Any]
    Targets = tuple[Tensor, Tensor, Tensor, Tensor]

_CODER = {
    "type": "DeltaXYWHBBoxCoder",
    "clip_border": True,
    "target_means": (0.0, 0.0, 0.0, 0.0),
    "target_stds": (0.1, 0.1, 0.2, 0.2),
}
_LOSS_CLS = {"type": "CrossEntropyLoss", "use_sigmoid": False, "loss_weight": 1.0}
_LOSS_BBOX = {"type": "SmoothL1Loss", "beta": 1.0, "loss_weight": 1.0}
_INIT = (
    {"type": "Normal", "std": 0.01, "override": {"name": "fc_cls"}},
    {"type": "Normal", "std": 0.001, "override": {"name": "fc_reg"}},
)


@HEADS.register_module()
class BBoxHead(BaseModule):
    """One linear layer for the classes, of which the last is the background, one for the boxes.

    Regions of R features come as (R, in_channels, h, w); scores are (R, num_classes + 1), deltas
    (R, 4 * num_classes), or (R, 4) if they do not depend on the class.
    """

    _hidden_init: ClassVar[Sequence[Config]] = ()  # of a derived class's own layers

    def __init__(
        self,
        with_avg_pool: bool = False,
        roi_feat_size: int | tuple[int, int] = 7,
        in_channels: int = 256,
        num_classes: int = 80,
        bbox_coder: Config = _CODER,
        reg_class_agnostic: bool = False,
        reg_decoded_bbox: bool = False,
        loss_cls: Config = _LOSS_CLS,
        loss_bbox: Config = _LOSS_BBOX,
        init_cfg: Any = None,
    ) -> None:
        super().__init__(init_cfg if init_cfg is not None else [*_INIT, *self._hidden_init])
        size = (roi_feat_size,) * 2 if isinstance(roi_feat_size, int) else tuple(roi_feat_size)
        self.with_avg_pool = with_avg_pool
        self.in_channels, self.num_classes = in_channels, num_classes
        self.reg_class_agnostic, self.reg_decoded_bbox = reg_class_agnostic, reg_decoded_bbox
        # The values of a channel that reach a linear layer.
        self.roi_feat_area = 1 if with_avg_pool else size[0] * size[1]
        self.bbox_coder = build_bbox_coder(bbox_coder)
        self.loss_cls = build_loss(loss_cls)
        self.loss_bbox = build_loss(loss_bbox)
        self._add_predictors(*(in_channels * self.roi_feat_area,) * 2)

    def _add_predictors(self, cls_inputs: int, reg_inputs: int) -> None:
        self.fc_cls = nn.Linear(cls_inputs, self.num_classes + 1)
        self.fc_reg = nn.Linear(reg_inputs, 4 if self.reg_class_agnostic else 4 * self.num_classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the scores, before the softmax, and the deltas."""
        x = self._vector(x)
        return self.fc_cls(x), self.fc_reg(x)

    def _vector(self, x: Tensor) -> Tensor:
        """Return what linear layers take; after the first of them it already is that."""
        if x.dim() == 2:
            return x
        return x.mean(dim=(2, 3)) if self.with_avg_pool else x.flatten(1)

    def get_targets(
        self,
        sampling_results: Sequence[Any],
        gt_bboxes: Sequence[Tensor],
        gt_labels: Sequence[Tensor],
        rcnn_train_cfg: Config,
    ) -> Targets:
        """Return labels (R,), their weights (R,), boxes to reach (R, 4) and weights (R, 4).

        The regions of a picture are its positive samples, then its negative ones.
        """
        pos_weight = rcnn_train_cfg.get("pos_weight", -1)
        per_image = []
        for result in sampling_results:
            positives, samples = len(result.pos_bboxes), len(result.bboxes)
            labels = result.bboxes.new_full((samples,), self.num_classes, dtype=torch.long)
            label_weights = result.bboxes.new_ones(samples)
            boxes = result.bboxes.new_zeros(samples, 4)
            box_weights = result.bboxes.new_zeros(samples, 4)
            if positives:
                labels[:positives] = result.pos_gt_labels
                label_weights[:positives] = pos_weight if pos_weight > 0 else 1.0
                boxes[:positives] = (
                    result.pos_gt_bboxes
                    if self.reg_decoded_bbox
                    else self.bbox_coder.encode(result.pos_bboxes, result.pos_gt_bboxes)
                )
                box_weights[:positives] = 1.0
            per_image.append((labels, label_weights, boxes, box_weights))
        labels, label_weights, boxes, box_weights = (
            torch.cat(parts) for parts in zip(*per_image, strict=True)
        )
        return labels, label_weights, boxes, box_weights

    def loss(
        self,
        cls_score: Tensor,
        bbox_pred: Tensor,
        rois: Tensor,
        labels: Tensor,
        label_weights: Tensor,
        bbox_targets: Tensor,
        bbox_weights: Tensor,
    ) -> dict[str, Tensor]:
        """Return ``loss_cls``, ``acc`` (in percent) and ``loss_bbox``, zero where none can be."""
        cls_score, bbox_pred = cls_score.float(), bbox_pred.float()
        if not len(rois):
            return {
                "loss_cls": cls_score.sum(),
                "acc": cls_score.new_zeros(1),
                "loss_bbox": bbox_pred.sum(),
            }
        loss_cls = self.loss_cls(
            cls_score,
            labels,
            label_weights,
            avg_factor=(label_weights > 0).sum().clamp(min=1),
        )
        places = (labels < self.num_classes).nonzero().squeeze(1)
        deltas = self._of_class(bbox_pred[places], labels[places])
        if self.reg_decoded_bbox:
            deltas = self.bbox_coder.decode(rois[places, 1:], deltas)
        loss_bbox = self.loss_bbox(
            deltas, bbox_targets[places], bbox_weights[places], avg_factor=len(rois)
        )
        return {"loss_cls": loss_cls, "acc": accuracy(cls_score, labels), "loss_bbox": loss_bbox}

    def get_bboxes(
        self,
        rois: Tensor,
        cls_score: Tensor,
        bbox_pred: Tensor,
        img_shape: Sequence[int],
        scale_factor: Any,
        rescale: bool = False,
        cfg: Config | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return what is detected in one picture: boxes and score (D, 5), labels (D,).

        Without a *cfg* all boxes (R, 4 * classes or 4) and probabilities (R, classes + 1) instead.
        """
        scores = cls_score.float().softmax(dim=-1)
        boxes = self.bbox_coder.decode(rois[:, 1:], bbox_pred.float(), max_shape=img_shape)
        if rescale:
            boxes = boxes / four(scale_factor, boxes).repeat(boxes.shape[1] // 4)
        if cfg is None:
            return boxes, scores
        found, labels = multiclass_nms(
            boxes, scores, cfg["score_thr"], cfg["nms"], cfg["max_per_img"]
        )
        return found, labels

    def refine_bboxes(
        self,
        rois: Tensor,
        labels: Tensor,
        bbox_preds: Tensor,
        pos_is_gts: Sequence[Tensor],
        img_metas: Sequence[Mapping[str, Any]],
    ) -> list[Tensor]:
        """Return the boxes (R', 4) of each picture for the next stage, without the true boxes.

        rois (R, 5) begin with the picture's index; *pos_is_gts* tells of a picture's positive
        samples, which come first, whether each is a true box.
        """
        refined = []
        for index, (is_gt, meta) in enumerate(zip(pos_is_gts, img_metas, strict=True)):
            places = (rois[:, 0] == index).nonzero().squeeze(1)
            kept = torch.cat([places[: len(is_gt)][is_gt == 0], places[len(is_gt) :]])
            with torch.no_grad():
                boxes = self.regress_by_class(rois[kept, 1:], labels[kept], bbox_preds[kept], meta)
            refined.append(boxes)
        return refined

    def regress_by_class(
        self, boxes: Tensor, labels: Tensor, bbox_pred: Tensor, img_meta: Mapping[str, Any]
    ) -> Tensor:
        """Return the boxes (R, 4) of one picture, moved as predicted for their labels (R,)."""
        deltas = self._of_class(bbox_pred.float(), labels)
        moved: Tensor = self.bbox_coder.decode(boxes, deltas, max_shape=img_meta["img_shape"])
        return moved

    def _of_class(self, bbox_pred: Tensor, labels: Tensor) -> Tensor:
        """Return the deltas (R, 4) of the labelled classes."""
        if self.reg_class_agnostic:
            return bbox_pred
        by_class = bbox_pred.unflatten(1, (-1, 4))
        return by_class[torch.arange(len(labels), device=labels.device), labels]
