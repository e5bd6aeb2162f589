"""Backbones: their shapes, what is trained, and what is kept for gradients."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from forebay_trainer.models.builder import build_backbone  # noqa: E402

if TYPE_CHECKING:
    from torch import Tensor

SMALL: dict[str, Any] = {"type": "ResNet", "depth": 18, "base_channels": 8}


def images(size: int = 64) -> Tensor:
    return torch.randn(2, 3, size, size, generator=torch.manual_seed(0))


@pytest.mark.parametrize(
    ("depth", "blocks", "expansion"),
    [
        (18, (2, 2, 2, 2), 1),
        (34, (3, 4, 6, 3), 1),
        (50, (3, 4, 6, 3), 4),
        (101, (3, 4, 23, 3), 4),
        (152, (3, 8, 36, 3), 4),
    ],
)
def test_resnets_of_all_depths(depth: int, blocks: tuple[int, ...], expansion: int) -> None:
    network = build_backbone({"type": "ResNet", "depth": depth, "base_channels": 4}).eval()

    features = network(images(32))

    assert [len(getattr(network, f"layer{i}")) for i in (1, 2, 3, 4)] == list(blocks)
    sides, channels = (8, 4, 2, 1), (4, 8, 16, 32)
    assert [feature.shape for feature in features] == [
        (2, c * expansion, side, side) for c, side in zip(channels, sides, strict=True)
    ]


def test_the_stride_is_where_the_style_has_it() -> None:
    strides = {}
    for style in ("pytorch", "caffe"):
        network = build_backbone({"type": "ResNet", "depth": 50, "style": style})
        block = network.layer2[0]
        strides[style] = (block.conv1.stride, block.conv2.stride)

    assert strides == {"pytorch": ((1, 1), (2, 2)), "caffe": ((2, 2), (1, 1))}
    with pytest.raises(ValueError, match="'tensorflow'"):
        build_backbone({**SMALL, "style": "tensorflow"})


def test_a_dilated_stage_keeps_its_resolution() -> None:
    network = build_backbone(
        {**SMALL, "strides": (1, 2, 2, 1), "dilations": (1, 1, 1, 2), "out_indices": (3,)}
    )

    (feature,) = network(images())

    assert feature.shape == (2, 64, 4, 4)
    assert network.layer4[1].conv1.dilation == (2, 2)


def test_fewer_stages() -> None:
    network = build_backbone(
        {
            **SMALL,
            "num_stages": 3,
            "strides": (1, 2, 2),
            "dilations": (1, 1, 1),
            "out_indices": (2,),
        }
    )

    assert [feature.shape for feature in network(images())] == [(2, 32, 4, 4)]
    assert not hasattr(network, "layer4")
    with pytest.raises(ValueError, match="3 stages do not go with out_indices"):
        build_backbone({**SMALL, "num_stages": 3})


@pytest.mark.parametrize("norm", ["BN", "GN"])
@pytest.mark.parametrize("deep_stem", [False, True])
def test_frozen_stages_are_not_trained(norm: str, deep_stem: bool) -> None:
    norm_cfg = {"type": "GN", "num_groups": 2} if norm == "GN" else {"type": "BN"}
    network = build_backbone(
        {**SMALL, "frozen_stages": 1, "norm_cfg": norm_cfg, "deep_stem": deep_stem}
    ).train()

    trained = {name.split(".")[0] for name, p in network.named_parameters() if p.requires_grad}

    assert trained == {"layer2", "layer3", "layer4"}
    assert not network.layer1.training
    assert network.layer2.training


@pytest.mark.parametrize("norm_eval", [True, False])
def test_batch_norms_keep_their_statistics_if_told(norm_eval: bool) -> None:
    network = build_backbone({**SMALL, "norm_eval": norm_eval}).train()

    network(images())

    moved = network.layer4[1].bn2.running_mean.abs().sum() > 0
    assert bool(moved) is not norm_eval


def gradients_and_kept(with_cp: bool) -> tuple[dict[str, Tensor], int]:
    """Return the gradients of a network's weights, and how many tensors were kept for them."""
    torch.manual_seed(1)
    network = build_backbone({**SMALL, "depth": 50, "with_cp": with_cp, "frozen_stages": 1})
    network.train()
    kept = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        network(images())[-1].square().mean().backward()
    trained = {name: p.grad for name, p in network.named_parameters() if p.requires_grad}
    return trained, len(kept)


def test_what_is_computed_again_gives_the_same_gradients() -> None:
    plain, kept = gradients_and_kept(with_cp=False)
    again, kept_again = gradients_and_kept(with_cp=True)

    assert kept_again < kept / 2
    assert plain.keys() == again.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(again[name], gradient)


def test_random_weights_begin_as_the_identity() -> None:
    network = build_backbone(SMALL)

    network.init_weights()

    conv = network.layer1[0].conv1.weight
    assert conv.std().item() == pytest.approx((2 / (8 * 9)) ** 0.5, rel=0.1)  # by what goes out
    assert network.bn1.weight.tolist() == [1] * 8
    assert network.layer1[0].bn2.weight.tolist() == [0] * 8
    assert network.layer1[0].bn1.weight.tolist() == [1] * 8


def test_pretrained_weights_are_loaded_and_stay(tmp_path: Any) -> None:
    first = build_backbone(SMALL)
    nn.init.constant_(first.layer1[0].bn2.weight, 0.25)
    path = str(tmp_path / "weights.pth")
    torch.save(first.state_dict(), path)

    for config in ({"pretrained": path}, {"init_cfg": {"type": "Pretrained", "checkpoint": path}}):
        network = build_backbone({**SMALL, **config})
        network.init_weights()
        for name, value in first.state_dict().items():
            torch.testing.assert_close(network.state_dict()[name], value)


@pytest.mark.parametrize(
    ("arch", "widths", "blocks"),  # those of the paper, arXiv 2003.13678
    [
        ("regnetx_400mf", [32, 64, 160, 384], [1, 2, 7, 12]),
        ("regnetx_800mf", [64, 128, 288, 672], [1, 3, 7, 5]),
        ("regnetx_1.6gf", [72, 168, 408, 912], [2, 4, 10, 2]),
        ("regnetx_3.2gf", [96, 192, 432, 1008], [2, 6, 15, 2]),
        ("regnetx_4.0gf", [80, 240, 560, 1360], [2, 5, 14, 2]),
        ("regnetx_6.4gf", [168, 392, 784, 1624], [2, 4, 10, 1]),
        ("regnetx_8.0gf", [80, 240, 720, 1920], [2, 5, 15, 1]),
        ("regnetx_12gf", [224, 448, 896, 2240], [2, 5, 11, 1]),
    ],
)
def test_regnets_are_those_of_the_paper(arch: str, widths: list[int], blocks: list[int]) -> None:
    with torch.device("meta"):
        network = build_backbone({"type": "RegNet", "arch": arch}).eval()
        features = network(torch.zeros(1, 3, 64, 64))

    assert [len(getattr(network, f"layer{i}")) for i in (1, 2, 3, 4)] == blocks
    sides = (16, 8, 4, 2)
    assert [feature.shape[1:] for feature in features] == [
        (width, side, side) for width, side in zip(widths, sides, strict=True)
    ]


def test_a_regnet_block_has_groups_of_one_width() -> None:
    with torch.device("meta"):
        network = build_backbone({"type": "RegNet", "arch": "regnetx_3.2gf"})

    assert network.layer1[0].conv2.weight.shape == (96, 48, 3, 3)
    assert network.layer4[0].conv2.groups == 21
    assert network.conv1.weight.shape == (32, 3, 3, 3)
    assert network.layer1[0].downsample[0].stride == (2, 2)


def test_a_regnet_without_a_stem_starts_from_features() -> None:
    arch = {"w0": 24, "wa": 24.48, "wm": 2.54, "group_w": 16, "depth": 22, "bot_mul": 1.0}
    network = build_backbone(
        {
            "type": "NoStemRegNet",
            "arch": arch,
            "stem_channels": 64,
            "base_channels": 64,
            "strides": (1, 2, 2, 2),
            "norm_eval": False,
        }
    )

    features = network(torch.randn(1, 64, 16, 16))

    assert features[0].shape == (1, 32, 16, 16)
    assert {name.split(".")[0] for name in network.state_dict()} == {
        "layer1",
        "layer2",
        "layer3",
        "layer4",
    }
    with pytest.raises(ValueError, match="no arch 'regnety_1gf'"):
        build_backbone({"type": "RegNet", "arch": "regnety_1gf"})


def test_pooling_comes_before_the_convolution_that_downsamples() -> None:
    network = build_backbone({"type": "ResNetV1d", "depth": 50, "base_channels": 8})

    for layer, stride in ((network.layer1, 1), (network.layer2, 2)):
        pool, conv, _ = layer[0].downsample
        assert (pool.kernel_size, conv.stride) == (stride, (1, 1))
    assert network(images())[0].shape == (2, 32, 16, 16)
    assert network.stem[0].stride == (2, 2)
