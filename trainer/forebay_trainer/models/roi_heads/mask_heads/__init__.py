"""Heads that draw the mask of a region."""

from forebay_trainer.models.roi_heads.mask_heads.fcn_mask_head import FCNMaskHead

__all__ = ["FCNMaskHead"]
