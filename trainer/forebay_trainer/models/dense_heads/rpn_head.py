"""The region proposal network of Faster R-CNN, arXiv 1506.01497."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from forebay_trainer.core.anchor import anchor_inside_flags, build_prior_generator, images_to_levels
from forebay_trainer.core.bbox import build_assigner, build_bbox_coder, build_sampler
from forebay_trainer.models.builder import build_loss
from forebay_trainer.models.dense_heads.anchor_targets import AnchorTargets, anchor_targets
from forebay_trainer.models.test_time import merge_proposals
from forebay_trainer.models.utils import BaseModule, ConvModule
from forebay_trainer.ops import batched_nms
from forebay_trainer.registry import HEADS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Config = Mapping[str, Any]
    Metas = Sequence[Mapping[str, Any]]

_ANCHORS = {
    "type": "AnchorGenerator",
    "scales": [8, 16, 32],
    "ratios": [0.5, 1.0, 2.0],
    "strides": [4, 8, 16, 32, 64],
}
_CODER = {
    "type": "DeltaXYWHBBoxCoder",
    "clip_border": True,
    "target_means": (0.0, 0.0, 0.0, 0.0),
    "target_stds": (1.0, 1.0, 1.0, 1.0),
}
_LOSS_CLS = {"type": "CrossEntropyLoss", "use_sigmoid": True, "loss_weight": 1.0}
_LOSS_BBOX = {"type": "SmoothL1Loss", "beta": 1.0 / 9.0, "loss_weight": 1.0}
_INIT = {"type": "Normal", "layer": "Conv2d", "std": 0.01}


@HEADS.register_module()
class RPNHead(BaseModule):
    """Scores each anchor as object or background, and moves it.

    The maps of a level are (N, anchors * classes, H, W) and (N, anchors * 4, H, W); an anchor's
    place in a level is ``(y * W + x) * anchors + anchor``.
    """

    def __init__(
        self,
        in_channels: int,
        feat_channels: int = 256,
        anchor_generator: Config = _ANCHORS,
        bbox_coder: Config = _CODER,
        reg_decoded_bbox: bool = False,
        loss_cls: Config = _LOSS_CLS,
        loss_bbox: Config = _LOSS_BBOX,
        train_cfg: Config | None = None,
        test_cfg: Config | None = None,
        num_convs: int = 1,
        init_cfg: Any = _INIT,
    ) -> None:
        super().__init__(init_cfg)
        self.train_cfg, self.test_cfg = train_cfg, test_cfg
        self.reg_decoded_bbox = reg_decoded_bbox
        self.use_sigmoid_cls = bool(loss_cls.get("use_sigmoid", False))
        self.cls_out_channels = 1 if self.use_sigmoid_cls else 2
        self.bbox_coder = build_bbox_coder(bbox_coder)
        self.loss_cls = build_loss(loss_cls)
        self.loss_bbox = build_loss(loss_bbox)
        self.prior_generator = build_prior_generator(anchor_generator)
        self.sampling = False
        if train_cfg is not None:
            sampler = train_cfg.get("sampler", {"type": "PseudoSampler"})
            self.sampling = sampler["type"] != "PseudoSampler"
            self.assigner = build_assigner(train_cfg["assigner"])
            self.sampler = build_sampler(sampler)

        if num_convs > 1:
            widths = [in_channels] + [feat_channels] * num_convs
            self.rpn_conv: nn.Module = nn.Sequential(
                *(
                    ConvModule(before, after, 3, padding=1, inplace=False)
                    for before, after in pairwise(widths)
                )
            )
        else:
            self.rpn_conv = nn.Conv2d(in_channels, feat_channels, 3, padding=1)
        anchors = self.prior_generator.num_base_priors[0]
        self.rpn_cls = nn.Conv2d(feat_channels, anchors * self.cls_out_channels, 1)
        self.rpn_reg = nn.Conv2d(feat_channels, anchors * 4, 1)

    def forward(self, feats: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Return the maps of scores and of deltas, of each level."""
        hidden = [F.relu(self.rpn_conv(feat)) for feat in feats]
        return [self.rpn_cls(each) for each in hidden], [self.rpn_reg(each) for each in hidden]

    def forward_train(
        self,
        x: Sequence[Tensor],
        img_metas: Metas,
        gt_bboxes: Sequence[Tensor],
        gt_labels: Sequence[Tensor] | None = None,
        gt_bboxes_ignore: Sequence[Tensor] | None = None,
        proposal_cfg: Config | None = None,
    ) -> Any:
        """Return the losses, and with *proposal_cfg* also the proposals of each picture."""
        scores, deltas = self(x)
        losses = self.loss(scores, deltas, gt_bboxes, img_metas, gt_bboxes_ignore)
        if proposal_cfg is None:
            return losses
        return losses, self.get_bboxes(scores, deltas, img_metas, proposal_cfg)

    def loss(
        self,
        cls_scores: Sequence[Tensor],
        bbox_preds: Sequence[Tensor],
        gt_bboxes: Sequence[Tensor],
        img_metas: Metas,
        gt_bboxes_ignore: Sequence[Tensor] | None = None,
    ) -> dict[str, list[Tensor]]:
        """Return both losses of each level, all divided by the number of sampled anchors."""
        priors = self._priors(cls_scores)
        scores, deltas = self._flatten(cls_scores, bbox_preds)
        targets = self._targets(priors, cls_scores, gt_bboxes, img_metas, gt_bboxes_ignore)
        sizes = [len(level) for level in priors]

        def by_level(name: str) -> list[Tensor]:
            levels = images_to_levels([getattr(each, name) for each in targets], sizes)
            return [level.flatten(0, 1) for level in levels]

        count = sum(each.positives + (each.negatives if self.sampling else 0) for each in targets)
        losses: dict[str, list[Tensor]] = {"loss_rpn_cls": [], "loss_rpn_bbox": []}
        for anchors, score, delta, label, label_weight, box, box_weight in zip(
            priors,
            scores,
            deltas,
            by_level("labels"),
            by_level("label_weights"),
            by_level("boxes"),
            by_level("box_weights"),
            strict=True,
        ):
            predicted = delta.flatten(0, 1)
            if self.reg_decoded_bbox:
                predicted = self.bbox_coder.decode(anchors.repeat(len(img_metas), 1), predicted)
            losses["loss_rpn_cls"].append(
                self.loss_cls(score.flatten(0, 1), label, label_weight, avg_factor=count)
            )
            losses["loss_rpn_bbox"].append(
                self.loss_bbox(predicted, box, box_weight, avg_factor=count)
            )
        return losses

    def get_bboxes(
        self,
        cls_scores: Sequence[Tensor],
        bbox_preds: Sequence[Tensor],
        img_metas: Metas,
        cfg: Config | None = None,
    ) -> list[Tensor]:
        """Return the proposals of each picture, (P, 5): corners and score, the best first.

        The best ``nms_pre`` of each level take part; levels do not suppress each other.
        """
        cfg = cfg if cfg is not None else self.test_cfg
        assert cfg is not None  # noqa: S101 - a detector always gives one
        priors = self._priors(cls_scores)
        limit = cfg.get("nms_pre", -1)
        picked: list[tuple[Tensor, Tensor, Tensor]] = []
        with torch.no_grad():
            for anchors, logits, delta in zip(
                priors, *self._flatten(cls_scores, bbox_preds), strict=True
            ):
                if self.use_sigmoid_cls:
                    score = logits.squeeze(2).sigmoid()
                else:
                    score = logits.softmax(dim=2)[..., 0]
                boxes = anchors.expand_as(delta)
                if 0 < limit < score.shape[1]:
                    ranked, order = score.sort(dim=1, descending=True)
                    score, order = ranked[:, :limit], order[:, :limit, None].expand(-1, -1, 4)
                    boxes, delta = boxes.gather(1, order), delta.gather(1, order)
                picked.append((score, boxes, delta))
            levels = torch.cat(
                [
                    torch.full_like(score[0], number, dtype=torch.long)
                    for number, (score, _, _) in enumerate(picked)
                ]
            )
            score, boxes, delta = (torch.cat(parts, dim=1) for parts in zip(*picked, strict=True))
            return [
                self._suppress(score[i], boxes[i], delta[i], levels, meta["img_shape"], cfg)
                for i, meta in enumerate(img_metas)
            ]

    def simple_test_rpn(self, x: Sequence[Tensor], img_metas: Metas) -> list[Tensor]:
        """Return the proposals (P, 5) of each picture, in its coordinates after the pipeline."""
        scores, deltas = self(x)
        return self.get_bboxes(scores, deltas, img_metas)

    def aug_test_rpn(
        self, feats: Sequence[Sequence[Tensor]], img_metas: Sequence[Metas]
    ) -> list[Tensor]:
        """Return the proposals that several views of the pictures give together, unscaled."""
        views = [self.simple_test_rpn(x, metas) for x, metas in zip(feats, img_metas, strict=True)]
        return [
            merge_proposals(proposals, metas, self.test_cfg)
            for proposals, metas in zip(
                zip(*views, strict=True), zip(*img_metas, strict=True), strict=True
            )
        ]

    def _priors(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Return the anchors (A, 4) of each level."""
        sizes = [each.shape[-2:] for each in maps]
        levels: list[Tensor] = self.prior_generator.grid_priors(sizes, device=maps[0].device)
        return levels

    def _flatten(
        self, cls_scores: Sequence[Tensor], bbox_preds: Sequence[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Return the maps as (N, A, classes) and (N, A, 4), in float32."""
        scores, deltas = (
            [each.permute(0, 2, 3, 1).reshape(len(each), -1, last).float() for each in maps]
            for maps, last in ((cls_scores, self.cls_out_channels), (bbox_preds, 4))
        )
        return scores, deltas

    def _targets(
        self,
        priors: Sequence[Tensor],
        maps: Sequence[Tensor],
        gt_bboxes: Sequence[Tensor],
        img_metas: Metas,
        gt_bboxes_ignore: Sequence[Tensor] | None,
    ) -> list[AnchorTargets]:
        cfg = self.train_cfg
        assert cfg is not None  # noqa: S101 - as above
        sizes = [each.shape[-2:] for each in maps]
        anchors = torch.cat(list(priors))
        targets = []
        for i, meta in enumerate(img_metas):
            valid = self.prior_generator.valid_flags(sizes, meta["pad_shape"], anchors.device)
            usable = anchor_inside_flags(
                anchors, torch.cat(valid), meta["img_shape"], cfg.get("allowed_border", 0)
            )
            targets.append(
                anchor_targets(
                    anchors,
                    usable,
                    gt_bboxes[i],
                    None if gt_bboxes_ignore is None else gt_bboxes_ignore[i],
                    assigner=self.assigner,
                    sampler=self.sampler,
                    coder=None if self.reg_decoded_bbox else self.bbox_coder,
                    pos_weight=cfg.get("pos_weight", -1),
                )
            )
        return targets

    def _suppress(
        self,
        scores: Tensor,
        anchors: Tensor,
        deltas: Tensor,
        levels: Tensor,
        img_shape: Sequence[int],
        cfg: Config,
    ) -> Tensor:
        """Return what is left (P, 5) of one picture's candidates."""
        boxes = self.bbox_coder.decode(anchors, deltas, max_shape=img_shape)
        smallest = cfg.get("min_bbox_size", 0)
        if smallest >= 0:
            kept = ((boxes[:, 2:] - boxes[:, :2]) > smallest).all(dim=1)
            boxes, scores, levels = boxes[kept], scores[kept], levels[kept]
        proposals, _ = batched_nms(boxes, scores, levels, cfg["nms"])
        best: Tensor = proposals[: cfg["max_per_img"]]
        return best
