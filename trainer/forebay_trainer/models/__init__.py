"""Detectors and their parts; importing this registers them all."""

from forebay_trainer.models import (
    backbones,
    dense_heads,
    detectors,
    losses,
    necks,
    roi_heads,
)

__all__ = ["backbones", "dense_heads", "detectors", "losses", "necks", "roi_heads"]
