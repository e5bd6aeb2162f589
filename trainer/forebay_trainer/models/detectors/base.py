"""What a training and a test want of every detector."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, distributed

from forebay_trainer.models.builder import build_backbone, build_neck
from forebay_trainer.models.roi_heads.mask_heads.paste import encode_masks
from forebay_trainer.models.utils import BaseModule

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Config = Mapping[str, Any]
    Metas = Sequence[dict[str, Any]]

# "No weights" is an answer, and not the same as none given.
NOT_GIVEN = "as the backbone says"


class BaseDetector(BaseModule):
    """Features of pictures (N, 3, H, W) by a backbone and perhaps a neck.

    *pretrained* names the backbone's weights in place of its own ``init_cfg``; None means that it
    begins without any.
    """

    CLASSES: Sequence[str] | None = None

    # Derived classes have: of a batch and its truth the losses, by name; of a batch and of several
    # views of one picture the results of each picture.
    forward_train: Callable[..., dict[str, Any]]
    simple_test: Callable[..., list[Any]]
    aug_test: Callable[..., list[Any]]

    def __init__(
        self,
        backbone: Config,
        neck: Config | None = None,
        pretrained: str | None = NOT_GIVEN,
        init_cfg: Any = None,
    ) -> None:
        super().__init__(init_cfg)
        if pretrained is None and (backbone.get("init_cfg") or {}).get("type") == "Pretrained":
            backbone = {**backbone, "init_cfg": None}
        elif pretrained not in (None, NOT_GIVEN):
            backbone = {**backbone, "init_cfg": {"type": "Pretrained", "checkpoint": pretrained}}
        self.backbone = build_backbone(backbone)
        if neck is not None:
            self.neck = build_neck(neck)

    @property
    def with_neck(self) -> bool:
        return getattr(self, "neck", None) is not None

    @property
    def with_mask(self) -> bool:
        return hasattr(self, "roi_head") and self.roi_head.with_mask

    def extract_feat(self, img: Tensor) -> Sequence[Tensor]:
        """Return the feature maps of each level."""
        feats: Sequence[Tensor] = self.backbone(img)
        return self.neck(feats) if self.with_neck else feats

    def forward(self, img: Any, img_metas: Any, return_loss: bool = True, **kwargs: Any) -> Any:
        """Train on a batch, or test on a list of batches: the views of the same pictures."""
        if return_loss:
            return self.forward_train(img, img_metas, **kwargs)
        return self.forward_test(img, img_metas, **kwargs)

    def forward_test(
        self, imgs: Sequence[Tensor], img_metas: Sequence[Metas], **kwargs: Any
    ) -> list[Any]:
        """Return the results of each picture, as :meth:`simple_test` but masks as run lengths."""
        if len(imgs) != len(img_metas):
            raise ValueError(f"{len(imgs)} views of pictures, but metas of {len(img_metas)}")
        if len(imgs) == 1:
            results = self.simple_test(imgs[0], img_metas[0], **kwargs)
        elif len(imgs[0]) == 1:
            results = self.aug_test(imgs, img_metas, **kwargs)
        else:
            raise ValueError("several views are tested of one picture at a time")
        if not self.with_mask:
            return results
        return [(boxes, encode_masks(masks)) for boxes, masks in results]

    def train_step(self, data: Mapping[str, Any], optimizer: Any = None) -> dict[str, Any]:
        """Return ``loss`` to descend, ``log_vars`` as numbers, and ``num_samples``."""
        loss, log_vars = parse_losses(self(**data))
        return {"loss": loss, "log_vars": log_vars, "num_samples": len(data["img_metas"])}

    def val_step(self, data: Mapping[str, Any], optimizer: Any = None) -> dict[str, Any]:
        """Return as :meth:`train_step`; the names of the numbers end with ``_val``."""
        outputs = self.train_step(data)
        log_vars = {f"{name}_val": value for name, value in outputs["log_vars"].items()}
        return {**outputs, "log_vars": log_vars}


def parse_losses(losses: Mapping[str, Any]) -> tuple[Tensor, dict[str, float]]:
    """Return the sum of all losses, and each as a number; the numbers are the ranks' mean.

    A value may be a list, whose means are added up. The numbers cost one transfer, together.
    """
    means = {
        name: sum(each.mean() for each in value) if isinstance(value, list) else value.mean()
        for name, value in losses.items()
    }
    total = sum(value for name, value in means.items() if "loss" in name)
    means["loss"] = total
    numbers = torch.stack([value.detach().float() for value in means.values()])
    if distributed.is_available() and distributed.is_initialized():
        distributed.all_reduce(numbers)
        numbers /= distributed.get_world_size()
    return total, dict(zip(means, numbers.tolist(), strict=True))
