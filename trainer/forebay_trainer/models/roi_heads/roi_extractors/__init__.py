"""What cuts regions out of feature maps."""

from forebay_trainer.models.roi_heads.roi_extractors.single_level import SingleRoIExtractor

__all__ = ["SingleRoIExtractor"]
