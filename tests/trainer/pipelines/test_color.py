"""Colours by hand."""

from __future__ import annotations

import colorsys
from typing import TYPE_CHECKING

import numpy as np
import pytest

cv2 = pytest.importorskip("cv2")
pipelines = pytest.importorskip("forebay_trainer.datasets.pipelines")

if TYPE_CHECKING:
    from trainer.pipelines.conftest import MakeSample

_BGR = (10, 100, 200)


def test_normalize_by_hand(make_sample: MakeSample) -> None:
    image = np.full((2, 2, 3), _BGR, np.uint8)
    before = image.copy()
    arguments = {"mean": [100.0, 50.0, 5.0], "std": [50.0, 25.0, 5.0]}

    rgb = pipelines.Normalize(**arguments)(make_sample(image, []))
    bgr = pipelines.Normalize(**arguments, to_rgb=False)(make_sample(image, []))

    np.testing.assert_allclose(rgb["img"][0, 0], [2.0, 2.0, 1.0])
    np.testing.assert_allclose(bgr["img"][0, 0], [-1.8, 2.0, 39.0])
    assert rgb["img"].dtype == np.float32
    assert rgb["img_norm_cfg"]["to_rgb"] is True
    np.testing.assert_array_equal(rgb["img_norm_cfg"]["std"], [50, 25, 5])
    np.testing.assert_array_equal(image, before)  # which may be needed for other scales


@pytest.mark.parametrize(
    ("kind", "level", "expected"),
    [
        # Factor 0.1 + 0.18 level. The grey of the colour: 0.299 R + 0.587 G + 0.114 B = 119.64.
        ("ColorTransform", 5, _BGR),
        ("ColorTransform", 10, (0, 82, 255)),  # 1.9 c - 0.9 * 120
        ("ColorTransform", 0, (109, 118, 128)),  # 0.1 c + 0.9 * 120
        ("BrightnessTransform", 0, (1, 10, 20)),
        ("BrightnessTransform", 10, (19, 190, 255)),
        ("ContrastTransform", 0, (109, 118, 128)),
        ("ContrastTransform", 10, (0, 82, 255)),
    ],
)
def test_levels_of_colour_brightness_and_contrast(
    kind: str, level: int, expected: tuple[int, ...], make_sample: MakeSample
) -> None:
    image = np.full((4, 4, 3), _BGR, np.uint8)

    results = pipelines.Compose([{"type": kind, "level": level, "prob": 1.0}])(
        make_sample(image, [])
    )

    assert results["img"].dtype == np.uint8
    np.testing.assert_allclose(results["img"][0, 0], expected, atol=1)


def test_contrast_is_about_the_mean_grey_of_the_whole_image(make_sample: MakeSample) -> None:
    image = np.zeros((2, 2, 3), np.uint8)
    image[0] = 200  # mean 100
    results = pipelines.ContrastTransform(level=0, prob=1.0)(make_sample(image, []))

    assert results["img"][:, 0, 0].tolist() == [110, 90]


def _distorted(image: np.ndarray, make_sample: MakeSample, **amounts: object) -> np.ndarray:
    """Return what 200 distortions make of a pixel, n x 3; what is not given does nothing."""
    nothing = {
        "brightness_delta": 0,
        "contrast_range": (1, 1),
        "saturation_range": (1, 1),
        "hue_delta": 0,
    }
    distort = pipelines.PhotoMetricDistortion(**{**nothing, **amounts})
    return np.array([distort(make_sample(image, []))["img"][0, 0] for _ in range(200)])


def test_distortion_draws_each_step_and_the_order_of_channels(make_sample: MakeSample) -> None:
    image = np.full((1, 1, 3), _BGR, np.uint8)

    orders = _distorted(image, make_sample)
    brighter = _distorted(image, make_sample, brightness_delta=30)
    contrasted = _distorted(image, make_sample, contrast_range=(0.5, 0.5))

    assert len({tuple(each) for each in orders.round().astype(int)}) == 6
    np.testing.assert_allclose(np.sort(orders), np.sort([_BGR] * 200), atol=0.01)
    change = np.sort(brighter) - np.sort(_BGR)
    np.testing.assert_allclose(change[:, :1].repeat(3, 1), change, atol=0.01)
    assert np.abs(change).max() == pytest.approx(30, abs=3)
    assert 60 < (np.abs(change[:, 0]) < 0.01).sum() < 140
    halves = (np.sort(contrasted) / np.sort(_BGR)).mean(1)
    assert set(halves.round(3)) == {0.5, 1.0}
    assert (halves < 0.75).mean() == pytest.approx(0.5, abs=0.12)


def test_distortion_turns_hue_and_scales_saturation(make_sample: MakeSample) -> None:
    blue, green, red = _BGR
    image = np.full((1, 1, 3), _BGR, np.uint8)
    hue, saturation, value = colorsys.rgb_to_hsv(red, green, blue)

    turned = _distorted(image, make_sample, hue_delta=18)
    paler = _distorted(image, make_sample, saturation_range=(0.5, 0.5))

    expected = np.sort(colorsys.hsv_to_rgb(hue, saturation / 2, value))
    kinds = {tuple(each) for each in np.sort(paler).round().astype(int)}
    assert kinds == {tuple(np.sort(_BGR)), tuple(expected.round().astype(int))}
    # All have the same largest and smallest channel; the middle one goes with the hue.
    np.testing.assert_allclose(np.sort(turned)[:, [0, 2]], [[10, 200]] * 200, atol=0.01)
    reached = [
        sorted(colorsys.hsv_to_rgb((hue + sign * 18 / 360) % 1, saturation, value))[1]
        for sign in (-1, 1)
    ]
    middle = np.sort(turned)[:, 1]
    assert middle.min() == pytest.approx(min(reached), abs=4)
    assert middle.max() == pytest.approx(max(reached), abs=4)


def test_hue_goes_round(make_sample: MakeSample) -> None:
    image = np.full((1, 64, 3), (10, 10, 200), np.uint8)  # red, where the circle of hues begins

    turned = np.sort(_distorted(image, make_sample, hue_delta=18))

    np.testing.assert_allclose(turned[:, [0, 2]], [[10, 200]] * 200, atol=0.01)
    assert turned[:, 1].max() == pytest.approx(10 + 190 * 18 / 60, abs=3)
