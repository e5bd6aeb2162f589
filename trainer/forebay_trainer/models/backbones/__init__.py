"""Backbones: from images to features of several strides."""

from forebay_trainer.models.backbones.regnet import NoStemRegNet, RegNet
from forebay_trainer.models.backbones.residual import ResidualNetwork
from forebay_trainer.models.backbones.resnet import ResNet, ResNetV1d

__all__ = ["NoStemRegNet", "RegNet", "ResNet", "ResNetV1d", "ResidualNetwork"]
