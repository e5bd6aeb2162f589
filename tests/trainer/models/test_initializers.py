"""Layers by configuration, and how their weights begin."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from forebay_trainer.models.utils import (  # noqa: E402
    BaseModule,
    ConvModule,
    build_activation_layer,
    build_conv_layer,
    build_norm_layer,
    initialize,
)


class Head(BaseModule):
    def __init__(self, init_cfg: Any = None) -> None:
        super().__init__(init_cfg)
        self.conv = nn.Conv2d(20, 30, 3)
        self.norm = nn.BatchNorm2d(30)
        self.fc_cls = nn.Linear(200, 100)
        self.parts = nn.ModuleList([Part()])


class Part(BaseModule):
    def __init__(self) -> None:
        super().__init__({"type": "Constant", "val": 7, "layer": "Linear"})
        self.fc = nn.Linear(2, 2)


def std(layer: Any) -> float:
    return float(layer.weight.detach().std())


def test_a_rule_is_for_layers_of_a_class_or_its_base() -> None:
    head = Head()
    before = head.fc_cls.weight.clone()

    initialize(
        head,
        [
            {"type": "Normal", "std": 0.5, "bias": 3, "layer": "Conv2d"},
            {"type": "Constant", "val": 2, "layer": ["_BatchNorm", "GroupNorm"]},
        ],
    )

    assert std(head.conv) == pytest.approx(0.5, rel=0.05)
    assert head.conv.bias.tolist() == [3] * 30
    assert head.norm.weight.tolist() == [2] * 30
    torch.testing.assert_close(head.fc_cls.weight, before)


def test_an_override_is_for_a_child_of_that_name() -> None:
    head = Head()
    before = head.conv.weight.clone()

    initialize(
        head,
        {
            "type": "Normal",
            "std": 0.01,
            "override": [
                {"name": "fc_cls"},
                {"name": "parts", "type": "Constant", "val": 4, "bias_prob": 0.01},
            ],
        },
    )

    assert std(head.fc_cls) == pytest.approx(0.01, rel=0.05)
    assert head.parts[0].fc.weight.unique().tolist() == [4]
    assert torch.sigmoid(head.parts[0].fc.bias).tolist() == pytest.approx([0.01, 0.01])
    torch.testing.assert_close(head.conv.weight, before)
    with pytest.raises(ValueError, match="Head has no 'fc_reg'"):
        initialize(head, {"type": "Normal", "override": {"name": "fc_reg"}})


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({"type": "Kaiming"}, (2 / (30 * 9)) ** 0.5),
        ({"type": "Kaiming", "mode": "fan_in", "distribution": "uniform"}, (2 / (20 * 9)) ** 0.5),
        ({"type": "Xavier"}, (2 / (50 * 9)) ** 0.5),
        ({"type": "Xavier", "gain": 2, "distribution": "uniform"}, 2 * (2 / (50 * 9)) ** 0.5),
        ({"type": "Caffe2Xavier"}, (1 / (20 * 9)) ** 0.5),
        ({"type": "TruncNormal", "std": 0.02}, 0.02),
        ({"type": "Uniform", "a": -1, "b": 1}, (1 / 3) ** 0.5),
    ],
)
def test_weights_spread_as_the_rule_says(rule: dict[str, Any], expected: float) -> None:
    torch.manual_seed(0)
    head = Head()

    initialize(head, {**rule, "layer": "Conv2d"})

    assert std(head.conv) == pytest.approx(expected, rel=0.05)
    assert head.conv.bias.abs().sum() == 0


def test_an_unknown_rule_is_named() -> None:
    with pytest.raises(ValueError, match="unknown type 'Zeros'; known are Caffe2Xavier"):
        initialize(Head(), {"type": "Zeros", "layer": "Conv2d"})


def test_children_follow_their_own_rules_after_the_parents() -> None:
    head = Head({"type": "Constant", "val": 1, "layer": "Linear"})

    head.init_weights()

    assert head.fc_cls.weight.unique().tolist() == [1]
    assert head.parts[0].fc.weight.unique().tolist() == [7]


def test_a_pretrained_parent_leaves_its_children(tmp_path: Any) -> None:
    path = str(tmp_path / "head.pth")
    torch.save({"state_dict": {f"head.{k}": v for k, v in Head().state_dict().items()}}, path)
    head = Head({"type": "Pretrained", "checkpoint": path, "prefix": "head."})

    head.init_weights()

    assert 7 not in head.parts[0].fc.weight
    saved = torch.load(path, weights_only=True)["state_dict"]
    torch.testing.assert_close(head.conv.weight, saved["head.conv.weight"])


def test_names_of_layers_are_those_of_checkpoints() -> None:
    plain = ConvModule(4, 8, 3)
    normed = ConvModule(4, 8, 3, padding=1, norm_cfg={"type": "GN", "num_groups": 4}, act_cfg=None)

    assert list(plain.state_dict()) == ["conv.weight", "conv.bias"]
    assert list(normed.state_dict()) == ["conv.weight", "gn.weight", "gn.bias"]
    x = torch.randn(2, 4, 5, 5)
    assert plain(x).shape == (2, 8, 3, 3)
    assert plain(x).min() == 0
    assert normed(x).min() < 0
    name, layer = build_norm_layer({"type": "SyncBN", "requires_grad": False, "eps": 1e-3}, 8, 2)
    assert name == "bn2"
    assert layer.eps == 1e-3
    assert not any(p.requires_grad for p in layer.parameters())


def test_any_activation_of_torch_will_do() -> None:
    leaky = build_activation_layer({"type": "LeakyReLU", "negative_slope": 0.2}, inplace=True)
    smooth = build_activation_layer({"type": "GELU"}, inplace=True)

    assert leaky.inplace
    assert not build_activation_layer({"type": "ReLU"}).inplace
    assert isinstance(smooth, nn.GELU)  # which cannot be


def test_unknown_layers_are_named() -> None:
    with pytest.raises(ValueError, match="unknown convolution 'DCNv2'; known are Conv, Conv2d"):
        build_conv_layer({"type": "DCNv2"}, 4, 4, 3)
    with pytest.raises(ValueError, match="unknown normalization 'EvoNorm'"):
        build_norm_layer({"type": "EvoNorm"}, 4)
