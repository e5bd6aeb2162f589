"""Features of boxes: plain torch against the definition, and against torchvision's."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest

torch = pytest.importorskip("torch")

from forebay_trainer.ops import RoIAlign, native, roi_align  # noqa: E402
from forebay_trainer.ops.roi_align import torch_roi_align  # noqa: E402

if TYPE_CHECKING:
    from torch import Tensor

SHAPES = (2, 3, 11, 9)  # images, channels, height, width


def sample(image: Tensor, x: float, y: float) -> Tensor:
    """Return the features at a place, by four cells; 0 farther than a cell outside."""
    height, width = image.shape[1:]
    if not (-1 <= x <= width and -1 <= y <= height):
        return torch.zeros(len(image), dtype=image.dtype)
    x, y = min(max(x, 0.0), width - 1), min(max(y, 0.0), height - 1)
    left, top = int(x), int(y)
    right, bottom = min(left + 1, width - 1), min(top + 1, height - 1)
    dx, dy = x - left, y - top
    upper = image[:, top, left] * (1 - dx) + image[:, top, right] * dx
    lower = image[:, bottom, left] * (1 - dx) + image[:, bottom, right] * dx
    return upper * (1 - dy) + lower * dy


def by_definition(
    features: Tensor, rois: Tensor, size: tuple[int, int], scale: float, ratio: int
) -> Tensor:
    out = torch.zeros(len(rois), features.size(1), *size, dtype=features.dtype)
    for result, (image, *corners) in zip(out, rois.tolist(), strict=True):
        x1, y1, x2, y2 = (corner * scale - 0.5 for corner in corners)
        bin_w, bin_h = (x2 - x1) / size[1], (y2 - y1) / size[0]
        across, down = ratio or math.ceil(bin_w), ratio or math.ceil(bin_h)
        for row in range(size[0]):
            for column in range(size[1]):
                for i in range(down):
                    for j in range(across):
                        x = x1 + bin_w * (column + (j + 0.5) / across)
                        y = y1 + bin_h * (row + (i + 0.5) / down)
                        result[:, row, column] += sample(features[int(image)], x, y)
                result[:, row, column] /= max(across * down, 1)
    return out


def boxes_of_all_kinds() -> Tensor:
    """Inside, across the border, outside, thin, large, and empty."""
    return torch.tensor(
        [
            [0, 2.3, 4.1, 9.7, 12.2],
            [1, -6.0, -3.0, 5.0, 30.0],
            [1, 40.0, 50.0, 60.0, 70.0],
            [0, 3.0, 3.0, 3.5, 20.0],
            [0, 0.0, 0.0, 18.0, 22.0],
            [1, 7.0, 7.0, 7.0, 7.0],
        ],
        dtype=torch.float64,
    )


@pytest.mark.parametrize("ratio", [0, 2])
def test_a_bin_is_the_mean_of_its_samples(ratio: int) -> None:
    features = torch.randn(SHAPES, dtype=torch.float64, generator=torch.manual_seed(0))
    rois = boxes_of_all_kinds()

    found = torch_roi_align(features, rois, (3, 2), 0.5, ratio)

    torch.testing.assert_close(found, by_definition(features, rois, (3, 2), 0.5, ratio))


@pytest.mark.parametrize("aligned", [True, False])
def test_gradients_are_those_of_the_function(aligned: bool) -> None:
    features = torch.randn(
        SHAPES, dtype=torch.float64, generator=torch.manual_seed(1), requires_grad=True
    )
    rois = boxes_of_all_kinds()

    assert torch.autograd.gradcheck(
        lambda maps: torch_roi_align(maps, rois, (2, 2), 0.5, 0, aligned), (features,)
    )


def test_no_box_gives_no_features_but_a_gradient() -> None:
    features = torch.randn(SHAPES, requires_grad=True)

    found = roi_align(features, torch.zeros(0, 5), (7, 7))
    found.sum().backward()

    assert found.shape == (0, 3, 7, 7)
    assert features.grad is not None


def test_half_precision_keeps_its_type_and_places_boxes_exactly() -> None:
    ramp = torch.arange(4096.0).expand(1, 1, 2, 4096) / 4096  # half has a step of 4 at 4096
    rois = torch.tensor([[0, 2000.0, 0.0, 2001.0, 1.0]])

    found = roi_align(ramp.half(), rois, (1, 1))

    assert found.dtype == torch.float16
    assert found.item() == pytest.approx(2000 / 4096, abs=2**-11)


def test_the_layer_knows_no_other_pooling() -> None:
    with pytest.raises(ValueError, match="pool_mode 'max'"):
        RoIAlign(7, pool_mode="max")


@pytest.mark.skipif(native.roi_align is None, reason="torchvision's operators do not load")
@pytest.mark.parametrize("ratio", [0, 2])
@pytest.mark.parametrize("aligned", [True, False])
def test_torchvision_gives_the_same(ratio: int, aligned: bool) -> None:
    features = torch.randn(SHAPES, dtype=torch.float64, generator=torch.manual_seed(2))
    rois = boxes_of_all_kinds()

    expected = native.roi_align(features, rois, (3, 2), 0.5, ratio, aligned)

    torch.testing.assert_close(
        torch_roi_align(features, rois, (3, 2), 0.5, ratio, aligned), expected
    )
