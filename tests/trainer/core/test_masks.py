"""Masks as pixels and as polygons: the same moves give the same masks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("cv2")
pytest.importorskip("faster_coco_eval")

from forebay_trainer.core.masks import (  # noqa: E402
    BitmapMasks,
    InstanceMasks,
    PolygonMasks,
    mask_target,
)

if TYPE_CHECKING:
    from collections.abc import Callable

HEIGHT, WIDTH = 40, 60
BOXES = [(10, 4, 30, 24), (20, 10, 56, 36)]


def rectangle(x1: float, y1: float, x2: float, y2: float) -> np.ndarray[Any, Any]:
    return np.array([x1, y1, x2, y1, x2, y2, x1, y2], dtype=np.float64)


def bitmaps() -> BitmapMasks:
    masks = np.zeros((len(BOXES), HEIGHT, WIDTH), dtype=np.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks, BOXES, strict=True):
        mask[y1:y2, x1:x2] = 1
    return BitmapMasks(masks, HEIGHT, WIDTH)


def polygons() -> PolygonMasks:
    return PolygonMasks([[rectangle(*box)] for box in BOXES], HEIGHT, WIDTH)


BOTH = pytest.mark.parametrize("masks", [bitmaps(), polygons()], ids=["bitmaps", "polygons"])

MOVES: dict[str, tuple[Callable[[InstanceMasks], InstanceMasks], tuple[int, int], list[Any]]] = {
    "resize": (lambda m: m.resize((80, 30)), (80, 30), [(5, 8, 15, 48), (10, 20, 28, 72)]),
    "rescale": (lambda m: m.rescale((30, 99)), (30, 45), [(7.5, 3, 22.5, 18), (15, 7.5, 42, 27)]),
    "horizontal": (lambda m: m.flip(), (40, 60), [(30, 4, 50, 24), (4, 10, 40, 36)]),
    "vertical": (lambda m: m.flip("vertical"), (40, 60), [(10, 16, 30, 36), (20, 4, 56, 30)]),
    "diagonal": (lambda m: m.flip("diagonal"), (40, 60), [(30, 16, 50, 36), (4, 4, 40, 30)]),
    "pad": (lambda m: m.pad((64, 64)), (64, 64), BOXES),
    "crop": (
        lambda m: m.crop(np.array([10, 4, 60, 40])),
        (36, 50),
        [(0, 0, 20, 20), (10, 6, 46, 32)],
    ),
    "expand": (lambda m: m.expand(80, 99, 5, 7), (80, 99), [(17, 9, 37, 29), (27, 15, 63, 41)]),
    "right": (lambda m: m.translate((40, 60), 10), (40, 60), [(20, 4, 40, 24), (30, 10, 60, 36)]),
    "up": (
        lambda m: m.translate((40, 60), -8, "vertical"),
        (40, 60),
        [(10, 0, 30, 16), (20, 2, 56, 28)],
    ),
    "turn": (
        lambda m: m.rotate((40, 60), 90, center=(19.5, 19.5)),
        (40, 60),
        [(16, 10, 36, 30), (4, 20, 30, 40)],
    ),
}


@BOTH
@pytest.mark.parametrize("move", MOVES)
def test_masks_move_as_their_image(masks: InstanceMasks, move: str) -> None:
    function, size, boxes = MOVES[move]

    moved = function(masks)

    assert type(moved) is type(masks)
    assert (moved.height, moved.width) == size
    assert moved.to_ndarray().shape == (2, *size)
    slack = 1 if isinstance(masks, PolygonMasks) or move == "rescale" else 0
    np.testing.assert_allclose(moved.get_bboxes(), boxes, atol=slack)
    sides = np.array(boxes)[:, 2:] - np.array(boxes)[:, :2]
    np.testing.assert_allclose(moved.areas, sides.prod(axis=1), rtol=0.07 * slack)


@BOTH
def test_no_move_changes_the_masks(masks: InstanceMasks) -> None:
    before = masks.to_ndarray().copy()

    for function, _, _ in MOVES.values():
        function(masks)

    np.testing.assert_array_equal(masks.to_ndarray(), before)


def test_polygons_have_the_pixels_they_enclose() -> None:
    np.testing.assert_array_equal(polygons().to_ndarray(), bitmaps().to_ndarray())
    np.testing.assert_array_equal(polygons().to_bitmap().areas, polygons().areas)
    hole_free = PolygonMasks([[rectangle(0, 0, 4, 4), rectangle(10, 0, 12, 4)]], 20, 20)
    assert hole_free.areas.tolist() == [24]
    assert hole_free.to_ndarray().sum() == 24


@BOTH
@pytest.mark.parametrize("direction", ["horizontal", "vertical"])
def test_a_sheared_mask_keeps_its_area(masks: InstanceMasks, direction: str) -> None:
    sheared = masks[:1].shear((HEIGHT, WIDTH), 0.25, direction)

    x1, y1, x2, y2 = sheared.get_bboxes()[0].tolist()
    expected = (11, 4, 36, 24) if direction == "horizontal" else (10, 6.5, 30, 31.5)
    assert (x1, y1, x2, y2) == pytest.approx(expected, abs=1.01)
    assert sheared.areas[0] == pytest.approx(400, rel=0.02)


def test_what_comes_into_the_image_is_filled() -> None:
    moved = bitmaps().translate((HEIGHT, WIDTH), 10, fill_val=1)

    assert moved.masks[:, :, :10].all()


@BOTH
def test_masks_are_chosen_by_index(masks: InstanceMasks) -> None:
    for index in (1, [1], slice(1, None), np.array([False, True])):
        chosen = masks[index]
        assert len(chosen) == 1
        assert chosen.get_bboxes()[0].tolist() == list(BOXES[1])
    assert len(masks[np.array([], dtype=int)]) == 0
    assert len(list(masks)) == len(masks) == 2


@pytest.mark.parametrize("kind", [BitmapMasks, PolygonMasks])
def test_an_image_without_objects_has_masks_too(kind: type[Any]) -> None:
    masks = kind([], HEIGHT, WIDTH)

    for function, size, _ in MOVES.values():
        assert function(masks).to_ndarray().shape == (0, *size)
    assert masks.get_bboxes().shape == (0, 4)
    assert masks.to_tensor(torch.float32, "cpu").shape == (0, HEIGHT, WIDTH)
    assert masks.areas.shape == (0,)


@BOTH
def test_a_mask_head_is_to_predict_the_part_in_the_box(masks: InstanceMasks) -> None:
    # the left half of the first; a box over the second's upper left corner, partly outside
    boxes = torch.tensor([[10.0, 4, 20, 44], [4, -6, 36, 26]])

    target = mask_target([boxes], [torch.tensor([0, 1])], [masks], {"mask_size": 4})

    assert target.dtype == torch.float32
    # the boxes end at the border of the image: 36 and 26 pixels high
    assert target[0].tolist() == [[1.0] * 4] * 2 + [[0.0] * 4] * 2
    assert target[1].tolist() == [[0.0] * 4] * 2 + [[0.0, 0, 1, 1]] * 2


def test_targets_of_bitmaps_may_be_soft() -> None:
    box = torch.tensor([[0.0, 4, 40, 44]])

    target = mask_target(
        [box, torch.zeros(0, 4)],
        [torch.tensor([0]), torch.zeros(0, dtype=torch.long)],
        [bitmaps(), bitmaps()],
        {"mask_size": (1, 4), "soft_mask_target": True},
    )

    share = 20 / 36
    np.testing.assert_allclose(target.numpy(), [[[0, share, share, 0]]], atol=0.03)
    with pytest.raises(ValueError, match="poly2mask=True"):
        polygons().crop_and_resize(box.numpy(), (4, 4), np.array([0]), binarize=False)
