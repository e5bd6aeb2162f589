"""Sizes that Resize, RandomFlip and Pad give, and what they draw."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("cv2")
pipelines = pytest.importorskip("forebay_trainer.datasets.pipelines")

if TYPE_CHECKING:
    from trainer.pipelines.conftest import MakeSample


@pytest.mark.parametrize(
    ("scale", "shape"),
    [
        ((1333, 800), (800, 1067)),  # the short side decides: 800 / 240
        ((800, 1333), (800, 1067)),  # either way round
        ((500, 800), (500, 667)),
        ((100, 1000), (100, 133)),
    ],
)
def test_resize_keeps_the_ratio_within_the_scale(
    scale: tuple[int, int], shape: tuple[int, int], make_sample: MakeSample
) -> None:
    sample = make_sample(np.zeros((240, 320, 3), np.uint8), [[80, 60, 160, 120]])

    results = pipelines.Resize(img_scale=scale)(sample)

    assert results["img"].shape[:2] == results["img_shape"][:2] == shape
    factor = np.array([shape[1] / 320, shape[0] / 240] * 2)
    np.testing.assert_allclose(results["scale_factor"], factor, rtol=1e-6)
    np.testing.assert_allclose(results["gt_bboxes"][0], factor * (80, 60, 160, 120), rtol=1e-5)
    assert results["gt_masks"].masks.shape[1:] == shape


def test_range_draws_between_two_scales_and_value_one_of_them(make_sample: MakeSample) -> None:
    scales = [(200, 64), (300, 96), (400, 128)]
    sample = make_sample(np.zeros((64, 64, 3), np.uint8), [])

    def drawn(**arguments: Any) -> set[int]:
        resize = pipelines.Resize(**arguments)
        return {resize(dict(sample))["img_shape"][0] for _ in range(60)}

    between = drawn(img_scale=scales[::2])
    assert min(between) >= 64
    assert max(between) <= 128
    assert len(between) > 20
    assert drawn(img_scale=scales, multiscale_mode="value") == {64, 96, 128}


def test_second_resize_needs_override(make_sample: MakeSample) -> None:
    first = {"type": "Resize", "img_scale": (100, 100)}
    second = {"type": "Resize", "img_scale": (50, 50)}
    image = np.zeros((200, 200, 3), np.uint8)

    with pytest.raises(ValueError, match="override=True"):
        pipelines.Compose([first, second])(make_sample(image, []))
    results = pipelines.Compose([first, {**second, "override": True}])(make_sample(image, []))

    assert results["img_shape"][:2] == (50, 50)


def test_flip_directions_share_the_probability(make_sample: MakeSample) -> None:
    image = np.arange(16, dtype=np.uint8).reshape(4, 4, 1).repeat(3, 2)
    flip = pipelines.RandomFlip(flip_ratio=[0.2, 0.3], direction=["horizontal", "vertical"])
    expected = {"horizontal": image[:, ::-1], "vertical": image[::-1], None: image}
    counts = dict.fromkeys(expected, 0)
    for _ in range(1000):
        results = flip(make_sample(image, []))
        direction = results["flip_direction"]
        assert results["flip"] == (direction is not None)
        np.testing.assert_array_equal(results["img"], expected[direction])
        counts[direction] += 1

    assert [counts[each] / 1000 for each in expected] == pytest.approx([0.2, 0.3, 0.5], abs=0.05)


def test_flip_does_as_the_sample_says(make_sample: MakeSample) -> None:
    image = np.zeros((4, 6, 3), np.uint8)
    sample = make_sample(image, [[1, 0, 3, 2]], flip=True, flip_direction="diagonal")

    results = pipelines.RandomFlip()(sample)

    assert results["gt_bboxes"].tolist() == [[3, 2, 5, 4]]


@pytest.mark.parametrize(
    ("arguments", "shape"),
    [
        ({"size_divisor": 32}, (64, 96)),
        ({"size": (50, 100)}, (50, 100)),
        ({"size": (40, 100)}, (50, 100)),  # never smaller
        ({"pad_to_square": True}, (70, 70)),
    ],
)
def test_pad_fills_right_and_below(
    arguments: dict[str, Any], shape: tuple[int, int], make_sample: MakeSample
) -> None:
    image = np.full((50, 70, 3), 9, np.uint8)
    fill = {"img": (1, 2, 3), "masks": 0}

    results = pipelines.Pad(**arguments, pad_val=fill)(make_sample(image, [[0, 0, 70, 50]]))

    assert results["img"].shape[:2] == results["pad_shape"][:2] == shape
    assert results["img_shape"] == (50, 70, 3)
    np.testing.assert_array_equal(results["img"][:50, :70], image)
    assert (results["img"][50:] == (1, 2, 3)).all()
    assert (results["img"][:, 70:] == (1, 2, 3)).all()
    assert results["gt_masks"].masks.shape[1:] == shape
    assert results["gt_masks"].masks.sum() == 50 * 70


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        ({"type": "Resize", "img_scale": [(1, 2), (3, 4), (5, 6)]}, "range"),
        ({"type": "Resize", "img_scale": (1, 2, 3)}, "img_scale"),
        ({"type": "Resize", "img_scale": (1, 2), "multiscale_mode": "some"}, "multiscale_mode"),
        ({"type": "Resize", "img_scale": (1, 2), "interpolation": "cubic"}, "bicubic"),
        ({"type": "Resize", "img_scale": (1, 2), "backend": "pillow"}, "pillow"),
        ({"type": "Resize", "ratio_range": (0.5, 2)}, "one img_scale"),
        ({"type": "RandomFlip", "flip_ratio": 1.5}, "flip_ratio"),
        ({"type": "RandomFlip", "flip_ratio": [0.5], "direction": ["vertical"] * 2}, "each of"),
        ({"type": "RandomFlip", "flip_ratio": 0.5, "direction": "left"}, "left"),
        ({"type": "Pad"}, "one of size"),
        ({"type": "Pad", "size": (9, 9), "size_divisor": 3}, "one of size"),
        ({"type": "RandomCrop", "crop_size": (0, 5)}, "crop_size"),
        ({"type": "RandomCrop", "crop_size": (2, 2), "crop_type": "relative"}, "crop_size"),
        ({"type": "RandomCrop", "crop_size": (5, 2), "crop_type": "absolute_range"}, "range"),
        ({"type": "RandomCrop", "crop_size": (5, 2), "crop_type": "exact"}, "exact"),
        ({"type": "Rotate", "level": 11}, "level 11"),
        ({"type": "Translate", "level": 5, "prob": 2}, "prob 2"),
        ({"type": "Shear", "level": 5, "direction": "diagonal"}, "diagonal"),
        ({"type": "ColorTransform", "level": -1}, "level -1"),
        ({"type": "AutoAugment", "policies": []}, "policies"),
        ({"type": "MultiScaleFlipAug", "transforms": []}, "one of img_scale"),
        ({"type": "LoadAnnotations", "with_seg": True}, "with_seg"),
        ({"type": "LoadImageFromFile", "color_type": "colour"}, "color_type"),
        ({"type": "LoadImageFromFile", "channel_order": "gbr"}, "gbr"),
    ],
    ids=str,
)
def test_wrong_arguments_are_named_when_the_pipeline_is_built(
    transform: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        pipelines.Compose([transform])
