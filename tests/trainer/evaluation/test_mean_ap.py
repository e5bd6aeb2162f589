"""Mean average precision and recall of small cases that can be counted by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from forebay_trainer.evaluation import eval_map, eval_recalls
from forebay_trainer.evaluation.mean_ap import match
from forebay_trainer.evaluation.overlaps import pairwise_iou

if TYPE_CHECKING:
    from collections.abc import Sequence

LEFT, RIGHT, FAR = [0, 0, 10, 10], [20, 0, 30, 10], [50, 50, 60, 60]


def boxes(*rows: Sequence[float]) -> np.ndarray:
    return np.array(rows, np.float32).reshape(len(rows), -1)


def annotation(
    *rows: Sequence[float], ignored: Sequence[Sequence[float]] = ()
) -> dict[str, np.ndarray]:
    return {
        "bboxes": np.array(rows, np.float32).reshape(-1, 4),
        "labels": np.zeros(len(rows), np.int64),
        "bboxes_ignore": np.array(ignored, np.float32).reshape(-1, 4),
        "labels_ignore": np.zeros(len(ignored), np.int64),
    }


def test_overlap_counts_the_last_pixel_of_boxes_that_end_with_it() -> None:
    first, second = boxes([0, 0, 9, 9]), boxes([5, 0, 14, 9])

    assert pairwise_iou(first, second).item() == pytest.approx(36 / (81 + 81 - 36))
    assert pairwise_iou(first, second, 1.0).item() == pytest.approx(50 / 150)


def test_only_the_best_detection_of_a_box_is_right() -> None:
    detections = boxes([0, 0, 10, 9, 0.6], [*LEFT, 0.9], [*FAR, 0.8])

    right, wrong = match(detections, boxes(LEFT), np.zeros((0, 4)), 0.5)

    assert right.tolist() == [False, True, False]
    assert wrong.tolist() == [True, False, True]


def test_what_finds_an_ignored_box_is_neither_right_nor_wrong() -> None:
    right, wrong = match(boxes([*RIGHT, 0.9], [*LEFT, 0.8]), boxes(LEFT), boxes(RIGHT), 0.5)

    assert right.tolist() == [False, True]
    assert wrong.tolist() == [False, False]


def test_precision_is_the_area_under_the_curve_or_the_mean_at_11_recalls() -> None:
    # Right, wrong, right, of 3 boxes: precision 1, 1/2, 2/3 at recall 1/3, 1/3, 2/3.
    results = [[boxes([*LEFT, 0.9], [*FAR, 0.8])], [boxes([*LEFT, 0.7])]]
    truths = [annotation(LEFT), annotation(LEFT, RIGHT)]

    area, (of_class,) = eval_map(results, truths, logger="silent")
    points, _ = eval_map(results, truths, logger="silent", by_points=True)

    assert area == pytest.approx(1 / 3 + 1 / 3 * 2 / 3)
    assert points == pytest.approx((4 * 1 + 3 * 2 / 3) / 11)  # recalls 0-0.3, and 0.4-0.6
    assert (of_class["num_gts"], of_class["num_dets"]) == (3, 3)


def test_precision_has_the_bits_that_upstream_rounds() -> None:
    # Found at recalls of 1/2 and 1 with precisions of 1 and 2/3: 0.8333…, in 32 bits.
    results = [[boxes([*LEFT, 0.9], [*FAR, 0.8], [*RIGHT, 0.7])]]

    mean, _ = eval_map(results, [annotation(LEFT, RIGHT)], logger="silent")

    assert mean == 0.8333333134651184


def test_classes_that_do_not_occur_do_not_count() -> None:
    results = [[boxes([*LEFT, 0.9]), boxes([*FAR, 0.9])]]

    mean, classes = eval_map(results, [annotation(LEFT)], logger="silent")

    assert mean == pytest.approx(1.0)
    assert classes[1]["ap"] == 0


def test_ranges_of_sizes_are_measured_apart() -> None:
    large = [0, 0, 40, 40]
    results = [[boxes([*large, 0.9], [*FAR, 0.8])]]

    means, (of_class,) = eval_map(
        results, [annotation(LEFT, large)], scale_ranges=[(0, 20), (20, 100)], logger="silent"
    )

    assert means == pytest.approx([0.0, 1.0])
    assert of_class["num_gts"] == [1, 1]


def test_scores_are_told_as_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    eval_map([[boxes([*LEFT, 0.9])]], [annotation(LEFT)], dataset=("cat",))

    assert capsys.readouterr().out.splitlines() == [
        "",
        "+-------+-----+------+--------+-------+",
        "| class | gts | dets | recall | ap    |",
        "+-------+-----+------+--------+-------+",
        "| cat   | 1   | 1    | 1.000  | 1.000 |",
        "+-------+-----+------+--------+-------+",
        "| mAP   |     |      |        | 1.000 |",
        "+-------+-----+------+--------+-------+",
    ]


def test_a_proposal_finds_one_box_only() -> None:
    # Over both boxes by 9/11 each; the second proposal finds the second box by 7/10.
    truths = boxes([0, 0, 10, 10], [1, 0, 11, 10])
    proposals = boxes([0, 0, 11, 10, 0.9], [1, 0, 8, 10, 0.8])

    recalls = eval_recalls([truths], [proposals], (1, 2), (0.6, 0.75), "silent")

    np.testing.assert_allclose(recalls, [[0.5, 0.5], [1.0, 0.5]])


def test_the_later_of_equal_proposals_is_the_better_one() -> None:
    proposals = boxes([*LEFT, 0.9], [*FAR, 0.9])

    recalls = eval_recalls([boxes(LEFT)], [proposals], (1, 2), (0.5,), "silent")

    assert recalls.tolist() == [[0.0], [1.0]]


def test_images_without_boxes_or_proposals_are_no_trouble() -> None:
    none = np.zeros((0, 4), np.float32)

    recalls = eval_recalls(
        [none, boxes(LEFT)],
        [boxes([*LEFT, 0.9]), np.zeros((0, 5), np.float32)],
        (10,),
        (0.5,),
        "silent",
    )

    assert recalls.tolist() == [[0.0]]
