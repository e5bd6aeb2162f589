"""Necks: features of a backbone brought together."""

from forebay_trainer.models.necks.augfpn import AugFPN
from forebay_trainer.models.necks.fpn import FPN

__all__ = ["FPN", "AugFPN"]
