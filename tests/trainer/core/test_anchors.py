"""Anchors, and which of them count."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from forebay_trainer.core import (  # noqa: E402
    AnchorGenerator,
    anchor_inside_flags,
    images_to_levels,
)


def test_anchors_have_their_area_and_shape_around_each_cell() -> None:
    generator = AnchorGenerator(strides=[4, 8], ratios=[0.25, 1.0, 4.0], scales=[8, 16])

    fine, coarse = generator.grid_priors([(2, 3), (1, 1)])

    assert generator.num_base_priors == [6, 6]
    assert fine.shape == (2 * 3 * 6, 4)
    # 32 pixels by ratio 1/4 are 64 wide and 16 high
    assert coarse[:3].tolist() == [[-64, -16, 64, 16], [-128, -32, 128, 32], [-32, -32, 32, 32]]
    first = fine[:6]
    torch.testing.assert_close(fine[6:12], first + torch.tensor([4.0, 0, 4, 0]))  # along the row
    torch.testing.assert_close(fine[18:24], first + torch.tensor([0.0, 4, 0, 4]))


def test_scales_of_an_octave_double_after_so_many_steps() -> None:
    generator = AnchorGenerator([8], [1.0], octave_base_scale=4, scales_per_octave=2)

    (anchors,) = generator.base_anchors

    assert (anchors[:, 2] - anchors[:, 0]).tolist() == pytest.approx([32, 32 * 2**0.5])


def test_scale_minor_anchors_differ_in_ratio_first() -> None:
    generator = AnchorGenerator([16], [1.0, 4.0], [1.0, 2.0], scale_major=False)

    heights = generator.base_anchors[0][:, 3] - generator.base_anchors[0][:, 1]

    assert heights.tolist() == [16, 32, 32, 64]


def test_anchors_may_be_centred_in_their_cell() -> None:
    generator = AnchorGenerator([(16, 8)], [1.0], [1.0], center_offset=0.5)

    (anchors,) = generator.grid_priors([(2, 2)])

    assert anchors.tolist() == [[0, 0, 8, 8], [16, 0, 24, 8], [0, 8, 8, 16], [16, 8, 24, 16]]


def test_scales_are_given_in_one_way() -> None:
    with pytest.raises(ValueError, match="either scales, or octave_base_scale"):
        AnchorGenerator([4], [1.0])
    with pytest.raises(ValueError, match="1 base_sizes, 2 strides"):
        AnchorGenerator([4, 8], [1.0], [1.0], base_sizes=[4])


def test_cells_outside_a_smaller_image_are_not_valid() -> None:
    generator = AnchorGenerator([4], [1.0, 2.0], [1.0])

    (flags,) = generator.valid_flags([(3, 2)], (9, 4, 3))

    assert flags.tolist() == [True, True, False, False] * 3


def test_anchors_may_stand_out_by_so_many_pixels() -> None:
    anchors = torch.tensor([[0.0, 0, 10, 10], [-3, 0, 7, 10], [0, 0, 31, 19], [0, 0, 5, 22]])
    valid = torch.tensor([False, True, True, True])

    def inside(border: float) -> list[bool]:
        return list(anchor_inside_flags(anchors, valid, (20, 30, 3), border).tolist())

    assert inside(0) == [False, False, False, False]
    assert inside(3) == [False, True, True, True]
    assert inside(2) == [False, False, True, False]
    assert inside(-1) == valid.tolist()


def test_targets_of_images_become_targets_of_levels() -> None:
    levels = images_to_levels([torch.arange(5), torch.arange(5) + 10], [3, 2])

    assert [level.tolist() for level in levels] == [[[0, 1, 2], [10, 11, 12]], [[3, 4], [13, 14]]]
