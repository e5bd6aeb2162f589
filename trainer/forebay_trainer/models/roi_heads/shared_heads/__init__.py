"""What the heads of a region share."""

from forebay_trainer.models.roi_heads.shared_heads.res_layer import ResLayer

__all__ = ["ResLayer"]
