"""Data sets of images with boxes and masks, and what loads them in batches."""

from forebay_trainer.datasets import pipelines
from forebay_trainer.datasets.builder import build_dataloader, build_dataset
from forebay_trainer.datasets.cityscapes import CityscapesDataset
from forebay_trainer.datasets.coco import CocoDataset
from forebay_trainer.datasets.custom import CustomDataset
from forebay_trainer.datasets.dataset_wrappers import (
    ClassBalancedDataset,
    ConcatDataset,
    RepeatDataset,
)
from forebay_trainer.datasets.utils import replace_ImageToTensor
from forebay_trainer.datasets.voc import VOCDataset
from forebay_trainer.datasets.xml_style import XMLDataset
from forebay_trainer.registry import DATASETS, PIPELINES

__all__ = [
    "DATASETS",
    "PIPELINES",
    "CityscapesDataset",
    "ClassBalancedDataset",
    "CocoDataset",
    "ConcatDataset",
    "CustomDataset",
    "RepeatDataset",
    "VOCDataset",
    "XMLDataset",
    "build_dataloader",
    "build_dataset",
    "pipelines",
    "replace_ImageToTensor",
]
