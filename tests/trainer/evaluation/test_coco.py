"""COCO's scores of cases that can be counted by hand."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

coco_eval = pytest.importorskip("faster_coco_eval")

from forebay_trainer.evaluation import coco  # noqa: E402
from forebay_trainer.evaluation.coco_results import to_records  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Sequence

SQUARE = [10, 10, 40, 40]  # left, top, width, height: of medium size
ELSEWHERE = [60, 60, 40, 40]


def annotation(
    number: int, box: Sequence[float], category: int = 7, **others: Any
) -> dict[str, Any]:
    left, top, width, height = box
    right, bottom = left + width, top + height
    return {
        "id": number,
        "image_id": 1,
        "category_id": category,
        "bbox": box,
        "area": width * height,
        "iscrowd": 0,
        "segmentation": [[left, top, right, top, right, bottom, left, bottom]],
        **others,
    }


def truth(*annotations: dict[str, Any]) -> Any:
    return coco.index_of(
        {
            "images": [{"id": 1, "width": 200, "height": 200, "file_name": "a.jpg"}],
            "categories": [{"id": 9, "name": "dog"}, {"id": 7, "name": "cat"}],
            "annotations": list(annotations),
        }
    )


def record(box: Sequence[float], score: float, category: int = 7) -> dict[str, Any]:
    return {"image_id": 1, "bbox": box, "score": score, "category_id": category}


def scores(index: Any, *records: dict[str, Any], **arguments: Any) -> coco.CocoScores:
    chosen = {"iou_type": "bbox", "category_ids": [9, 7], "image_ids": [1], **arguments}
    return coco.evaluate(index, list(records), **chosen)


def test_one_of_two_boxes_found_is_51_of_101_points_of_recall() -> None:
    index = truth(annotation(1, SQUARE), annotation(2, ELSEWHERE))

    found = scores(index, record(SQUARE, 0.9))

    assert found.by_name["mAP"] == pytest.approx(51 / 101)
    assert found.by_name["mAP_m"] == pytest.approx(51 / 101)
    assert found.by_name["AR@100"] == pytest.approx(0.5)
    assert found.by_name["mAP_s"] == found.by_name["AR_l@1000"] == -1


def test_a_box_is_found_at_the_thresholds_it_overlaps_by() -> None:
    # 40 x 32 of 40 x 40: an overlap of 0.8, which is found from 0.5 to 0.8, and not from 0.85.
    found = scores(truth(annotation(1, SQUARE)), record([10, 10, 40, 32.001], 0.9))

    assert found.by_name["mAP"] == pytest.approx(0.7)
    assert found.by_name["mAP_75"] == pytest.approx(1.0)
    assert found.summary.splitlines()[:2] == [
        " Average Precision  (AP) @[ IoU=0.50:0.95 | area=   all | maxDets=100 ] = 0.700",
        " Average Precision  (AP) @[ IoU=0.50      | area=   all | maxDets=1000 ] = 1.000",
    ]


def test_precisions_of_categories_are_in_the_order_that_was_asked_for() -> None:
    index = truth(annotation(1, SQUARE, 9), annotation(2, ELSEWHERE, 7))

    found = scores(index, record(SQUARE, 0.9, 9), record(SQUARE, 0.9, 7))

    assert found.by_category == pytest.approx([1.0, 0.0])


def test_the_annotation_with_the_number_0_is_found_as_any_other() -> None:
    assert scores(truth(annotation(0, SQUARE)), record(SQUARE, 0.9)).by_name["mAP"] == 1.0


def test_what_lies_in_a_crowd_is_not_wrong_and_annotations_stay_as_they_are() -> None:
    index = truth(annotation(1, SQUARE), annotation(2, [60, 60, 100, 100], iscrowd=1))
    before = copy.deepcopy(index.dataset)

    found = scores(index, record(SQUARE, 0.5), record([70, 70, 20, 20], 0.9))

    assert found.by_name["mAP"] == pytest.approx(1.0)
    assert index.dataset == before


def test_masks_have_the_size_of_masks() -> None:
    # A box of 100 x 100, large; its mask is a triangle of half of it, and medium.
    triangle = [[0, 0, 100, 0, 0, 100]]
    index = truth(annotation(1, [0, 0, 100, 100], area=5000, segmentation=triangle))
    (mask,) = coco_eval.mask.frPyObjects(triangle, 200, 200)
    found = {**record([0, 0, 100, 100], 0.9), "segmentation": mask}

    by_name = scores(index, found, iou_type="segm").by_name

    assert by_name["mAP"] == pytest.approx(1.0)
    assert by_name["mAP_m"] == pytest.approx(1.0)
    assert by_name["mAP_l"] == -1


def test_nothing_found_at_all_scores_0() -> None:
    assert scores(truth(annotation(1, SQUARE))).by_name["mAP"] == 0.0


def test_records_take_boxes_masks_and_the_scores_of_masks_from_results() -> None:
    boxes = np.array([[10, 20, 30, 60, 0.5]], np.float32)
    none = np.zeros((0, 5), np.float32)
    mask = {"size": [4, 4], "counts": b"01"}

    plain = to_records([[none, boxes]], [5], [9, 7])
    masked = to_records([([none, boxes], [[], [mask]])], [5], [9, 7])
    rescored = to_records([([none, boxes], ([[], [mask]], [[], [0.25]]))], [5], [9, 7])

    expected = {"image_id": 5, "bbox": [10, 20, 20, 40], "score": 0.5, "category_id": 7}
    assert plain == {"bbox": [expected], "proposal": [expected]}
    segmentation = {"size": [4, 4], "counts": "01"}
    assert masked["segm"] == [{**expected, "segmentation": segmentation}]
    assert rescored["segm"] == [{**expected, "score": 0.25, "segmentation": segmentation}]
    assert to_records([boxes], [5], [9, 7])["proposal"] == [{**expected, "category_id": 1}]
