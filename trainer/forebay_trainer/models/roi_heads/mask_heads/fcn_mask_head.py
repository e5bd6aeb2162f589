"""The mask branch of Mask R-CNN, arXiv 1703.06870."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from forebay_trainer.core.masks import mask_target
from forebay_trainer.models.builder import build_loss
from forebay_trainer.models.roi_heads.mask_heads.paste import paste_masks
from forebay_trainer.models.test_time import four
from forebay_trainer.models.utils import BaseModule, ConvModule, build_conv_layer
from forebay_trainer.registry import HEADS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from forebay_trainer.models.roi_heads.mask_heads.paste import Mask

    Config = Mapping[str, Any]

_UPSAMPLE = {"type": "deconv", "scale_factor": 2}
_PREDICTOR = {"type": "Conv"}
_LOSS = {"type": "CrossEntropyLoss", "use_mask": True, "loss_weight": 1.0}


@HEADS.register_module()
class FCNMaskHead(BaseModule):
    """Convolutions, an upsampling, and a map of logits for each class.

    Regions of R features come as (R, in_channels, h, w); maps are (R, classes, s * h, s * w) with
    the upsampling's factor s.
    """

    def __init__(
        self,
        num_convs: int = 4,
        roi_feat_size: int | tuple[int, int] = 14,
        in_channels: int = 256,
        conv_kernel_size: int = 3,
        conv_out_channels: int = 256,
        num_classes: int = 80,
        class_agnostic: bool = False,
        upsample_cfg: Config = _UPSAMPLE,
        conv_cfg: Config | None = None,
        norm_cfg: Config | None = None,
        predictor_cfg: Config = _PREDICTOR,
        loss_mask: Config = _LOSS,
        init_cfg: None = None,
    ) -> None:
        del roi_feat_size  # part of published configurations; no layer depends on it
        super().__init__(init_cfg)
        self.num_classes, self.class_agnostic = num_classes, class_agnostic
        self.loss_mask = build_loss(loss_mask)
        self.convs = nn.ModuleList()
        channels = in_channels
        for _ in range(num_convs):
            self.convs.append(
                ConvModule(
                    channels,
                    conv_out_channels,
                    conv_kernel_size,
                    padding=(conv_kernel_size - 1) // 2,
                    conv_cfg=conv_cfg,
                    norm_cfg=norm_cfg,
                )
            )
            channels = conv_out_channels
        self.upsample = _upsample(upsample_cfg, channels, conv_out_channels)
        if isinstance(self.upsample, nn.ConvTranspose2d):
            channels = conv_out_channels
        self.conv_logits = build_conv_layer(
            predictor_cfg, channels, 1 if class_agnostic else num_classes, 1
        )

    def init_weights(self) -> None:
        for layer in (self.upsample, self.conv_logits):
            if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        for conv in self.convs:
            x = conv(x)
        if self.upsample is not None:
            x = self.upsample(x)
        if isinstance(self.upsample, nn.ConvTranspose2d):
            x = F.relu(x)
        logits: Tensor = self.conv_logits(x)
        return logits

    def get_targets(
        self, sampling_results: Sequence[Any], gt_masks: Sequence[Any], rcnn_train_cfg: Config
    ) -> Tensor:
        """Return what the positive samples shall show, (P, *mask_size), float.

        Each is its true mask inside its box, as far as that lies in the picture.
        """
        return mask_target(
            [result.pos_bboxes for result in sampling_results],
            [result.pos_assigned_gt_inds for result in sampling_results],
            gt_masks,
            rcnn_train_cfg,
        )

    def loss(self, mask_pred: Tensor, mask_targets: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return ``loss_mask`` of the maps of the labels (P,); zero if there is none."""
        if not len(mask_pred):
            return {"loss_mask": mask_pred.float().sum()}
        channels = torch.zeros_like(labels) if self.class_agnostic else labels
        return {"loss_mask": self.loss_mask(mask_pred.float(), mask_targets, channels)}

    def get_seg_masks(
        self,
        mask_probs: Tensor,
        det_bboxes: Tensor,
        det_labels: Tensor,
        rcnn_test_cfg: Config,
        ori_shape: Sequence[int],
        scale_factor: Any,
        rescale: bool,
    ) -> list[list[Mask]]:
        """Return the masks of each class, in the order of its detections.

        With *rescale* they are of the picture before the pipeline, *ori_shape*, and so are the
        boxes (D, >= 4); without, of *ori_shape* times *scale_factor*. *mask_probs* are the maps
        (D, classes, h, w) after the sigmoid.
        """
        height, width = ori_shape[:2]
        if not rescale:
            factors = four(scale_factor, det_bboxes).tolist()
            width, height = round(width * factors[0]), round(height * factors[1])
        channels = torch.zeros_like(det_labels) if self.class_agnostic else det_labels
        maps = mask_probs[torch.arange(len(mask_probs), device=mask_probs.device), channels]
        masks = paste_masks(
            maps, det_bboxes[:, :4], height, width, rcnn_test_cfg["mask_thr_binary"]
        )
        by_class: list[list[Mask]] = [[] for _ in range(self.num_classes)]
        for mask, label in zip(masks, det_labels.tolist(), strict=True):
            by_class[label].append(mask)
        return by_class


def _upsample(cfg: Config, in_channels: int, out_channels: int) -> nn.Module | None:
    kind, factor = cfg["type"], cfg.get("scale_factor")
    if kind is None:
        return None
    if kind == "deconv":
        return nn.ConvTranspose2d(in_channels, out_channels, factor, stride=factor)
    if kind in ("nearest", "bilinear"):
        return nn.Upsample(scale_factor=factor, mode=kind)
    raise ValueError(f"upsample_cfg: type is deconv, nearest, bilinear or None, not {kind!r}")
