"""What the parts of models are built from: layers by configuration, and initial weights."""

from forebay_trainer.models.utils.initializers import BaseModule, initialize
from forebay_trainer.models.utils.layers import (
    ConvModule,
    build_activation_layer,
    build_conv_layer,
    build_norm_layer,
    run_block,
)

__all__ = [
    "BaseModule",
    "ConvModule",
    "build_activation_layer",
    "build_conv_layer",
    "build_norm_layer",
    "initialize",
    "run_block",
]
