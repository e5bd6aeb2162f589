"""Stands in for torchvision, which mmcv 1.x imports and does not use here."""

__version__ = "0.0"
