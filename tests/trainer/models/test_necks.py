"""Pyramids of features."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402

from forebay_trainer.models.builder import build_neck  # noqa: E402
from forebay_trainer.models.necks.augfpn import ResidualFeatureAugmentation  # noqa: E402
from forebay_trainer.weights import load_state  # noqa: E402

if TYPE_CHECKING:
    from torch import Tensor

CHANNELS = [4, 8, 16, 32]
FPN: dict[str, Any] = {"type": "FPN", "in_channels": CHANNELS, "out_channels": 6, "num_outs": 5}


def levels(side: int = 32) -> list[Tensor]:
    dice = torch.manual_seed(0)
    return [torch.randn(2, c, side >> i, side >> i, generator=dice) for i, c in enumerate(CHANNELS)]


def test_each_level_gets_the_coarser_ones() -> None:
    neck = build_neck(FPN)
    inputs = levels()

    outs = neck(inputs)

    assert [out.shape for out in outs] == [(2, 6, side, side) for side in (32, 16, 8, 4, 2)]
    lateral = [conv(level) for conv, level in zip(neck.lateral_convs, inputs, strict=True)]
    merged = lateral[2] + lateral[3].repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    torch.testing.assert_close(outs[2], neck.fpn_convs[2](merged))
    torch.testing.assert_close(outs[4], functional.max_pool2d(outs[3], 1, stride=2))


@pytest.mark.parametrize(
    ("source", "channels"), [(True, 32), ("on_input", 32), ("on_lateral", 6), ("on_output", 6)]
)
def test_extra_levels_are_convolutions_of_their_source(source: Any, channels: int) -> None:
    config = {**FPN, "start_level": 1, "add_extra_convs": source, "relu_before_extra_convs": True}
    neck = build_neck(config)
    inputs = levels()

    outs = neck(inputs)

    assert [out.shape[2] for out in outs] == [16, 8, 4, 2, 1]
    assert neck.fpn_convs[3].conv.weight.shape == (6, channels, 3, 3)
    sources = {"on_lateral": neck.lateral_convs[2](inputs[3]), "on_output": outs[2]}
    torch.testing.assert_close(outs[3], neck.fpn_convs[3](sources.get(source, inputs[3])))
    torch.testing.assert_close(outs[4], neck.fpn_convs[4](functional.relu(outs[3])))


def test_levels_of_odd_size_fit_and_norms_are_configured() -> None:
    neck = build_neck(
        {
            **FPN,
            "num_outs": 4,
            "norm_cfg": {"type": "GN", "num_groups": 2},
            "no_norm_on_lateral": True,
        }
    )
    inputs = [torch.randn(1, c, s, s) for c, s in zip(CHANNELS, (25, 13, 7, 4), strict=True)]

    assert [out.shape[2] for out in neck(inputs)] == [25, 13, 7, 4]
    assert neck.lateral_convs[0].norm is None
    assert isinstance(neck.fpn_convs[0].gn, nn.GroupNorm)
    assert neck.fpn_convs[0].conv.bias is None


def test_impossible_pyramids_are_refused() -> None:
    with pytest.raises(ValueError, match="num_outs 3 for 4 levels"):
        build_neck({**FPN, "num_outs": 3})
    with pytest.raises(ValueError, match="num_outs 5 for 2 levels"):
        build_neck({**FPN, "end_level": 1})
    with pytest.raises(ValueError, match="add_extra_convs 'on_top'"):
        build_neck({**FPN, "add_extra_convs": "on_top"})


def test_pooling_keeps_the_shape_of_the_map() -> None:
    augmentation = ResidualFeatureAugmentation(8, 4)

    assert augmentation.pooled_sizes(40, 60) == [(4, 6), (8, 12), (12, 18)]
    assert augmentation.pooled_sizes(6, 25) == [(1, 2), (1, 5), (1, 7)]


def test_fusion_weighs_each_map_at_each_place() -> None:
    augmentation = ResidualFeatureAugmentation(8, 4)
    features = torch.randn(1, 8, 20, 30, generator=torch.manual_seed(0))
    maps = [
        functional.interpolate(
            reduce(functional.adaptive_avg_pool2d(features, size)), (20, 30), mode="bilinear"
        )
        for reduce, size in zip(augmentation.reduce, [(2, 3), (4, 6), (6, 9)], strict=True)
    ]

    weights = augmentation.fusion.weights(maps)
    fused = augmentation(features)

    assert weights.shape == (1, 3, 20, 30)
    assert ((weights > 0) & (weights < 1)).all()
    assert weights.std() > 0
    expected = sum(weights[:, i : i + 1] * each for i, each in enumerate(maps))
    torch.testing.assert_close(fused, expected)


def test_fusion_of_closed_gates_is_nothing_and_of_open_ones_the_sum() -> None:
    augmentation = ResidualFeatureAugmentation(8, 4)
    nn.init.zeros_(augmentation.fusion.weigh.weight)
    maps = [torch.full((1, 4, 5, 5), float(i)) for i in (1, 2, 3)]

    for bias, expected in ((-100.0, 0.0), (0.0, 3.0), (100.0, 6.0)):
        nn.init.constant_(augmentation.fusion.weigh.bias, bias)
        torch.testing.assert_close(augmentation.fusion(maps), torch.full((1, 4, 5, 5), expected))


def test_gradients_of_the_augmentation() -> None:
    torch.manual_seed(3)
    augmentation = ResidualFeatureAugmentation(3, 4).double()
    features = torch.randn(1, 3, 10, 12, dtype=torch.float64, requires_grad=True)

    assert torch.autograd.gradcheck(augmentation, (features,))
    augmentation(features).square().sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in augmentation.parameters())


def test_augfpn_adds_to_the_coarsest_level() -> None:
    plain, augmented = build_neck(FPN), build_neck({**FPN, "type": "AugFPN"})

    report = load_state(augmented, plain.state_dict())
    inputs = levels(64)
    outs = augmented(inputs)

    assert not report.unexpected
    assert not report.mismatched
    assert all(name.startswith("augmentation.") for name in report.missing)
    assert len(report.missing) == 2 * (3 + 2)
    assert [out.shape for out in outs] == [out.shape for out in plain(inputs)]
    top = augmented.lateral_convs[3](inputs[3]) + augmented.augmentation(inputs[3])
    torch.testing.assert_close(outs[3], augmented.fpn_convs[3](top))


def test_augfpn_has_the_weights_of_an_fpn_to_begin_with() -> None:
    neck = build_neck({**FPN, "type": "AugFPN"})

    neck.init_weights()

    limit = (6 / (32 + 6)) ** 0.5  # Xavier's
    for conv in (neck.lateral_convs[3].conv, neck.augmentation.reduce[0]):
        assert conv.weight.abs().max().item() == pytest.approx(limit, rel=0.1)
        assert conv.bias.abs().sum() == 0
