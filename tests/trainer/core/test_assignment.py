"""Which candidates are for which true box, and which of them are sampled."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

torch = pytest.importorskip("torch")

from forebay_trainer.core import (  # noqa: E402
    AssignResult,
    build_assigner,
    build_sampler,
)
from forebay_trainer.core.bbox import MaxIoUAssigner  # noqa: E402

if TYPE_CHECKING:
    from torch import Tensor

TRUE = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 20], [100, 100, 110, 110]])
CANDIDATES = torch.tensor(
    [
        [0.0, 0, 10, 9],  # 0.9 of the first, 0.45 of the second
        [0, 0, 10, 16],  # 10/16 of the first, 0.8 of the second
        [0, 5, 10, 10],  # half of the first
        [50, 50, 60, 60],  # of nothing
        [100, 100, 110, 102],  # 0.2 of the third
        [100, 108, 110, 110],  # 0.2 of the third
    ]
)


def assign(**options: object) -> list[int]:
    config = {"type": "MaxIoUAssigner", "pos_iou_thr": 0.7, "neg_iou_thr": 0.3, **options}
    indices: list[int] = build_assigner(config).assign(CANDIDATES, TRUE).gt_inds.tolist()
    return indices


def test_thresholds_make_positive_negative_and_neither() -> None:
    assert assign(match_low_quality=False) == [1, 2, -1, 0, 0, 0]
    assert assign(match_low_quality=False, neg_iou_thr=(0.1, 0.3)) == [1, 2, -1, -1, 0, 0]


def test_each_true_box_gets_its_best_candidates() -> None:
    assert assign(min_pos_iou=0.1) == [1, 2, -1, 0, 3, 3]
    assert assign(min_pos_iou=0.1, gt_max_assign_all=False) == [1, 2, -1, 0, 3, 0]
    assert assign(min_pos_iou=0.3) == [1, 2, -1, 0, 0, 0]


def test_of_two_true_boxes_that_want_one_candidate_the_later_gets_it() -> None:
    true = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 20]])

    found = MaxIoUAssigner(0.7, 0.3).assign(torch.tensor([[0.0, 0, 10, 11]]), true)

    assert found.gt_inds.tolist() == [2]
    assert found.max_overlaps.tolist() == pytest.approx([10 / 11])


def test_candidates_get_the_labels_of_their_true_boxes() -> None:
    found = MaxIoUAssigner(0.7, 0.3, 0.1).assign(
        CANDIDATES, TRUE, gt_labels=torch.tensor([7, 8, 9])
    )

    assert found.labels is not None
    assert found.labels.tolist() == [7, 8, -1, -1, 9, 9]


def test_crowds_are_neither() -> None:
    crowd = torch.tensor([[45.0, 45, 70, 70]])

    within = MaxIoUAssigner(0.7, 0.3, ignore_iof_thr=0.5).assign(CANDIDATES, TRUE, crowd)
    contained = MaxIoUAssigner(0.7, 0.3, ignore_iof_thr=0.5, ignore_wrt_candidates=False).assign(
        CANDIDATES, TRUE, crowd
    )

    assert within.gt_inds[3] == -1
    assert contained.gt_inds[3] == 0  # the candidate has less than half of the crowd


@pytest.mark.parametrize("count", [0, 4])
def test_without_true_boxes_all_is_background(count: int) -> None:
    found = MaxIoUAssigner(0.7, 0.3).assign(
        torch.rand(count, 4), torch.zeros(0, 4), gt_labels=torch.zeros(0, dtype=torch.long)
    )

    assert found.gt_inds.tolist() == [0] * count
    assert found.labels is not None
    assert found.labels.tolist() == [-1] * count


def result(positive: int, negative: int) -> tuple[AssignResult, Tensor]:
    inds = torch.tensor([1] * positive + [-1] + [0] * negative)
    labels = torch.where(inds > 0, 5, -1)
    return AssignResult(1, inds, torch.zeros(len(inds)), labels), torch.rand(len(inds), 4)


def sample(positive: int, negative: int, **options: object) -> tuple[int, int]:
    config = {"type": "RandomSampler", "num": 8, "pos_fraction": 0.25, **options}
    sampler = build_sampler({"add_gt_as_proposals": False, **config}, context=None)
    assigned, boxes = result(positive, negative)
    found = sampler.sample(assigned, boxes, torch.rand(1, 4), torch.tensor([5]))
    assert len(found.bboxes) == len(found.pos_inds) + len(found.neg_inds)
    assert found.pos_gt_labels.tolist() == [5] * len(found.pos_inds)
    return len(found.pos_inds), len(found.neg_inds)


def test_a_sample_has_so_many_and_so_many_positive() -> None:
    assert sample(10, 20) == (2, 6)
    assert sample(1, 20) == (1, 7)
    assert sample(10, 3) == (2, 3)
    assert sample(1, 20, neg_pos_ub=3) == (1, 3)
    assert sample(0, 20, neg_pos_ub=3) == (0, 3)


def test_a_sample_depends_on_the_seed_alone() -> None:
    config = {"type": "RandomSampler", "num": 8, "pos_fraction": 0.5}
    sampler = build_sampler(config, add_gt_as_proposals=False)
    assigned, boxes = result(20, 20)

    def draw(seed: int) -> list[int]:
        torch.manual_seed(seed)
        found = sampler.sample(assigned, boxes, torch.rand(1, 4))
        assert found.pos_inds.tolist() == sorted(found.pos_inds.tolist())
        inds: list[int] = found.pos_inds.tolist()
        return inds

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)


def test_true_boxes_are_candidates_too() -> None:
    sampler = build_sampler({"type": "RandomSampler", "num": 100, "pos_fraction": 1.0})
    assigned, boxes = result(2, 1)
    true = torch.rand(1, 4)

    found = sampler.sample(assigned, boxes, true, torch.tensor([5]))

    assert found.pos_inds.tolist() == [0, 1, 2]
    assert found.pos_is_gt.tolist() == [1, 0, 0]
    torch.testing.assert_close(found.pos_bboxes, torch.cat([true, boxes[:2]]))
    torch.testing.assert_close(found.pos_gt_bboxes, true.expand(3, 4))
    assert found.neg_inds.tolist() == [4]


def test_the_pseudo_sampler_takes_all() -> None:
    assigned, boxes = result(2, 3)

    found = build_sampler({"type": "PseudoSampler"}).sample(assigned, boxes, torch.rand(1, 4))

    assert found.pos_inds.tolist() == [0, 1]
    assert found.neg_inds.tolist() == [3, 4, 5]


def test_what_a_sampler_does_not_look_at_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """A configuration that changes the type alone takes the other's arguments over."""
    build_sampler({"type": "PseudoSampler", "num": 8, "pos_fraction": 0.5}, context=None)

    assert caplog.messages == ["PseudoSampler has no use for num, pos_fraction"]
