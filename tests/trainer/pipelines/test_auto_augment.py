"""Levels, signs and draws of AutoAugment's transforms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("cv2")
pipelines = pytest.importorskip("forebay_trainer.datasets.pipelines")

if TYPE_CHECKING:
    from trainer.pipelines.conftest import MakeSample


def _image(height: int = 100, width: int = 200) -> Any:
    return np.full((height, width, 3), 9, np.uint8)


@pytest.mark.parametrize(
    ("arguments", "box"),
    [
        ({"level": 5}, [165, 20, 185, 40]),  # half of 250 right
        ({"level": 10, "max_translate_offset": 30}, [70, 20, 90, 40]),
        ({"level": 10, "max_translate_offset": 30, "random_negative_prob": 1}, [10, 20, 30, 40]),
        ({"level": 2, "direction": "vertical"}, [40, 70, 60, 90]),
    ],
    ids=str,
)
def test_translate_moves_by_its_level(
    arguments: dict[str, Any], box: list[float], make_sample: MakeSample
) -> None:
    translate = pipelines.Translate(**{"prob": 1.0, "random_negative_prob": 0.0, **arguments})

    results = translate(make_sample(_image(), [[40, 20, 60, 40]]))

    assert results["gt_bboxes"].tolist() == [box]
    assert results["gt_masks"].get_bboxes().tolist() == [box]
    assert (results["img"] == 128).any()


def test_translate_drops_what_is_too_small_at_the_border(make_sample: MakeSample) -> None:
    boxes = [[150, 20, 195, 60], [100, 20, 150, 60]]
    move = {"level": 10, "max_translate_offset": 30, "prob": 1.0, "random_negative_prob": 0.0}

    results = pipelines.Translate(**move, min_size=20)(make_sample(_image(), boxes))

    assert results["gt_labels"].tolist() == [1]  # of the other 20 pixels are left, not more


def test_rotate_turns_clockwise_about_the_centre(make_sample: MakeSample) -> None:
    rotate = pipelines.Rotate(
        level=10, max_rotate_angle=90, center=(100, 50), prob=1.0, random_negative_prob=0.0
    )

    results = rotate(make_sample(_image(), [[110, 40, 130, 50]]))

    # What lay right of the centre and a little above it lies below it and a little right.
    np.testing.assert_allclose(results["gt_bboxes"], [[100, 60, 110, 80]], atol=1e-4)


def test_rotate_scales_too(make_sample: MakeSample) -> None:
    rotate = pipelines.Rotate(level=0, scale=0.5, center=(0, 0), prob=1.0)

    results = rotate(make_sample(_image(), [[40, 20, 60, 40]]))

    np.testing.assert_allclose(results["gt_bboxes"], [[20, 10, 30, 20]], atol=1e-4)


def test_shear_by_hand(make_sample: MakeSample) -> None:
    shear = {"level": 10, "prob": 1.0, "random_negative_prob": 0.0}

    right = pipelines.Shear(**shear)(make_sample(_image(), [[40, 20, 60, 40]]))
    down = pipelines.Shear(**shear, direction="vertical")(make_sample(_image(), [[40, 20, 60, 40]]))

    np.testing.assert_allclose(right["gt_bboxes"], [[46, 20, 72, 40]], atol=1e-4)
    np.testing.assert_allclose(down["gt_bboxes"], [[40, 32, 60, 58]], atol=1e-4)


@pytest.mark.parametrize("kind", ["Rotate", "Shear", "Translate", "BrightnessTransform"])
def test_probability_is_that_of_a_change(kind: str, make_sample: MakeSample) -> None:
    transform = pipelines.Compose([{"type": kind, "level": 4, "prob": 0.3}])

    changed = [(transform(make_sample(_image(), []))["img"] != 9).any() for _ in range(300)]

    assert np.mean(changed) == pytest.approx(0.3, abs=0.08)


def test_sign_is_drawn(make_sample: MakeSample) -> None:
    translate = pipelines.Translate(
        level=10, max_translate_offset=10, prob=1.0, random_negative_prob=0.25
    )

    moved = [
        translate(make_sample(_image(), [[40, 20, 60, 40]]))["gt_bboxes"][0, 0] - 40
        for _ in range(300)
    ]

    assert set(moved) == {-10, 10}
    assert np.mean(np.array(moved) < 0) == pytest.approx(0.25, abs=0.08)


def test_one_policy_is_drawn_for_each_sample(make_sample: MakeSample) -> None:
    darker = {"type": "BrightnessTransform", "level": 0, "prob": 1.0}
    brighter = {"type": "BrightnessTransform", "level": 10, "prob": 1.0}
    augment = pipelines.AutoAugment([[darker], [brighter], [brighter, brighter]])

    seen = [int(augment(make_sample(_image(), []))["img"][0, 0, 0]) for _ in range(300)]

    assert {grey: round(seen.count(grey) / 300, 1) for grey in set(seen)} == {
        0: 0.3,
        17: 0.3,
        32: 0.3,
    }


def test_sample_that_a_policy_leaves_out_is_left_out(make_sample: MakeSample) -> None:
    crop = {"type": "RandomCrop", "crop_size": (5, 5)}
    augment = pipelines.Compose([{"type": "AutoAugment", "policies": [[crop]]}, len])

    assert augment(make_sample(_image(), [])) is None
