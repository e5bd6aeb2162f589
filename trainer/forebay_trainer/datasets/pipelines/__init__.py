"""Transforms of one sample, a dict of upstream's keys, as configurations name them."""

from forebay_trainer.datasets.pipelines.auto_augment import AutoAugment, Rotate, Shear, Translate
from forebay_trainer.datasets.pipelines.color import (
    BrightnessTransform,
    ColorTransform,
    ContrastTransform,
    Normalize,
    PhotoMetricDistortion,
)
from forebay_trainer.datasets.pipelines.compose import Compose
from forebay_trainer.datasets.pipelines.crop import Expand, MinIoURandomCrop, RandomCrop
from forebay_trainer.datasets.pipelines.formatting import (
    Collect,
    DefaultFormatBundle,
    ImageToTensor,
)
from forebay_trainer.datasets.pipelines.loading import LoadAnnotations, LoadImageFromFile
from forebay_trainer.datasets.pipelines.shape import Pad, RandomFlip, Resize
from forebay_trainer.datasets.pipelines.test_time import MultiScaleFlipAug

__all__ = [
    "AutoAugment",
    "BrightnessTransform",
    "Collect",
    "ColorTransform",
    "Compose",
    "ContrastTransform",
    "DefaultFormatBundle",
    "Expand",
    "ImageToTensor",
    "LoadAnnotations",
    "LoadImageFromFile",
    "MinIoURandomCrop",
    "MultiScaleFlipAug",
    "Normalize",
    "Pad",
    "PhotoMetricDistortion",
    "RandomCrop",
    "RandomFlip",
    "Resize",
    "Rotate",
    "Shear",
    "Translate",
]
