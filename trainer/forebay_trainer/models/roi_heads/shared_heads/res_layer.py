"""A stage of ResNet after the pooling of regions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from forebay_trainer.models.backbones import ResNet
from forebay_trainer.models.utils import BaseModule
from forebay_trainer.registry import SHARED_HEADS

if TYPE_CHECKING:
    from collections.abc import Mapping

_NORM = {"type": "BN", "requires_grad": True}


@SHARED_HEADS.register_module()
class ResLayer(BaseModule):
    """Stage *stage* (from 0) of a ResNet of *depth*: the "C4" models of arXiv 1506.01497."""

    def __init__(
        self,
        depth: int,
        stage: int = 3,
        stride: int = 2,
        dilation: int = 1,
        style: str = "pytorch",
        norm_cfg: Mapping[str, Any] = _NORM,
        norm_eval: bool = True,
        with_cp: bool = False,
        pretrained: str | None = None,
        init_cfg: Any = None,
    ) -> None:
        if pretrained is not None:
            init_cfg = {"type": "Pretrained", "checkpoint": pretrained}
        whole = ResNet(
            depth,
            strides=(stride,) * 4,
            dilations=(dilation,) * 4,
            style=style,
            norm_cfg=norm_cfg,
            with_cp=with_cp,
            zero_init_residual=False,
            init_cfg=init_cfg,
        )
        super().__init__(whole.init_cfg)
        self.norm_eval = norm_eval
        self._name = f"layer{stage + 1}"
        self.add_module(self._name, getattr(whole, self._name))

    def forward(self, x: Tensor) -> Tensor:
        feats: Tensor = getattr(self, self._name)(x)
        return feats

    def train(self, mode: bool = True) -> ResLayer:
        super().train(mode)
        if mode and self.norm_eval:
            for module in self.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self
