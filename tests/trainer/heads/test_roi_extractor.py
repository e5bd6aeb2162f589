"""Which level a region's features come from."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("cv2")

from forebay_trainer.models.roi_heads import SingleRoIExtractor  # noqa: E402

STRIDES = [4, 8, 16, 32]


def extractor() -> SingleRoIExtractor:
    return SingleRoIExtractor({"type": "RoIAlign", "output_size": 2}, 1, STRIDES)


def levels() -> list[Any]:
    """The map of a level has its number in all cells of two pictures of 512 pixels."""
    return [
        torch.full((2, 1, 512 // stride, 512 // stride), float(number), requires_grad=True)
        for number, stride in enumerate(STRIDES)
    ]


def test_each_region_gets_the_level_of_its_size_in_the_given_order() -> None:
    sizes = [500, 111, 224, 113, 10, 448]
    rois = torch.tensor([[i % 2, 5.0, 5.0, 5.0 + size, 5.0 + size] for i, size in enumerate(sizes)])

    pooled = extractor()(levels(), rois)

    assert pooled.shape == (6, 1, 2, 2)
    assert pooled.mean(dim=(1, 2, 3)).tolist() == pytest.approx([3, 0, 2, 1, 0, 3], abs=1e-4)


def test_levels_without_a_region_have_a_gradient_of_zero() -> None:
    maps = levels()

    extractor()(maps, torch.tensor([[0.0, 0.0, 0.0, 20.0, 20.0]])).sum().backward()

    assert maps[0].grad.sum() == pytest.approx(4)
    assert [level.grad.abs().sum() for level in maps[1:]] == [0, 0, 0]


def test_no_region_gives_no_features() -> None:
    assert extractor()(levels(), torch.zeros(0, 5)).shape == (0, 1, 2, 2)
