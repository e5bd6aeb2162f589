"""What a mask head is to predict."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from forebay_trainer.core.masks.base import InstanceMasks, Size


def mask_target(
    pos_proposals_list: Sequence[torch.Tensor],
    pos_assigned_gt_inds_list: Sequence[torch.Tensor],
    gt_masks_list: Sequence[InstanceMasks],
    cfg: Mapping[str, Any],
) -> torch.Tensor:
    """Return of the proposals (n, 4) of each image that part of their true masks.

    The result is (sum of n, h, w) of float; ``cfg["mask_size"]`` is h = w, or (h, w). It is 0 or 1,
    unless ``cfg`` has ``soft_mask_target``.
    """
    size = cfg["mask_size"]
    shape: Size = (size, size) if isinstance(size, int) else (size[0], size[1])
    binarize = not cfg.get("soft_mask_target", False)
    targets = [
        _of_image(proposals, true, masks, shape, binarize)
        for proposals, true, masks in zip(
            pos_proposals_list, pos_assigned_gt_inds_list, gt_masks_list, strict=True
        )
    ]
    return torch.cat(targets)


def _of_image(
    proposals: torch.Tensor,
    true: torch.Tensor,
    masks: InstanceMasks,
    shape: Size,
    binarize: bool,
) -> torch.Tensor:
    if len(proposals) == 0:
        return proposals.new_zeros((0, *shape))
    border = [masks.width, masks.height, masks.width, masks.height]
    boxes = np.clip(proposals.detach().cpu().numpy(), 0, border)
    cut = masks.crop_and_resize(
        boxes, shape, true.cpu().numpy(), device=proposals.device, binarize=binarize
    )
    return torch.as_tensor(cut.to_ndarray(), device=proposals.device).to(proposals)
