"""Box heads with layers before the predictions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch.nn.functional as F
from torch import Tensor, nn

from forebay_trainer.models.roi_heads.bbox_heads.bbox_head import BBoxHead
from forebay_trainer.models.utils import ConvModule
from forebay_trainer.registry import HEADS

if TYPE_CHECKING:
    from collections.abc import Mapping

_XAVIER = {
    "type": "Xavier",
    "distribution": "uniform",
    "override": [{"name": "shared_fcs"}, {"name": "cls_fcs"}, {"name": "reg_fcs"}],
}


@HEADS.register_module()
class ConvFCBBoxHead(BBoxHead):
    """3x3 convolutions and linear layers, shared and then for classes and boxes apart."""

    _hidden_init = (_XAVIER,)

    def __init__(
        self,
        num_shared_convs: int = 0,
        num_shared_fcs: int = 0,
        num_cls_convs: int = 0,
        num_cls_fcs: int = 0,
        num_reg_convs: int = 0,
        num_reg_fcs: int = 0,
        conv_out_channels: int = 256,
        fc_out_channels: int = 1024,
        conv_cfg: Mapping[str, Any] | None = None,
        norm_cfg: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if num_shared_fcs and (num_cls_convs or num_reg_convs):
            raise ValueError("no convolution can follow the shared linear layers")
        super().__init__(**kwargs)

        def branch(convs: int, fcs: int, channels: int, area: int) -> tuple[Any, Any, int, int]:
            """Return the layers, and the channels and their area after them."""
            conv_layers, fc_layers = nn.ModuleList(), nn.ModuleList()
            for _ in range(convs):
                conv_layers.append(
                    ConvModule(
                        channels,
                        conv_out_channels,
                        3,
                        padding=1,
                        conv_cfg=conv_cfg,
                        norm_cfg=norm_cfg,
                    )
                )
                channels = conv_out_channels
            for _ in range(fcs):
                fc_layers.append(nn.Linear(channels * area, fc_out_channels))
                channels, area = fc_out_channels, 1
            return conv_layers, fc_layers, channels, area

        shared = branch(num_shared_convs, num_shared_fcs, self.in_channels, self.roi_feat_area)
        self.shared_convs, self.shared_fcs, channels, area = shared
        cls = branch(num_cls_convs, num_cls_fcs, channels, area)
        self.cls_convs, self.cls_fcs, cls_channels, cls_area = cls
        reg = branch(num_reg_convs, num_reg_fcs, channels, area)
        self.reg_convs, self.reg_fcs, reg_channels, reg_area = reg
        self._add_predictors(cls_channels * cls_area, reg_channels * reg_area)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the scores, before the softmax, and the deltas."""
        x = self._branch(x, self.shared_convs, self.shared_fcs)
        cls = self._branch(x, self.cls_convs, self.cls_fcs)
        reg = self._branch(x, self.reg_convs, self.reg_fcs)
        return self.fc_cls(self._vector(cls)), self.fc_reg(self._vector(reg))

    def _branch(self, x: Tensor, convs: nn.ModuleList, fcs: nn.ModuleList) -> Tensor:
        for conv in convs:
            x = conv(x)
        for fc in fcs:
            x = F.relu(fc(self._vector(x)))
        return x


@HEADS.register_module()
class Shared2FCBBoxHead(ConvFCBBoxHead):
    """Two shared linear layers."""

    def __init__(self, fc_out_channels: int = 1024, **kwargs: Any) -> None:
        super().__init__(num_shared_fcs=2, fc_out_channels=fc_out_channels, **kwargs)


@HEADS.register_module()
class Shared4Conv1FCBBoxHead(ConvFCBBoxHead):
    """Four shared convolutions and a shared linear layer."""

    def __init__(self, fc_out_channels: int = 1024, **kwargs: Any) -> None:
        super().__init__(
            num_shared_convs=4, num_shared_fcs=1, fc_out_channels=fc_out_channels, **kwargs
        )
