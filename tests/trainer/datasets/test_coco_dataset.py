"""What CocoDataset and CityscapesDataset make of an annotation file, and of results."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("cv2")
pytest.importorskip("faster_coco_eval")

from forebay_trainer.datasets import CityscapesDataset, CocoDataset, build_dataset

if TYPE_CHECKING:
    from pathlib import Path

CATEGORIES = [{"id": 3, "name": "dog"}, {"id": 1, "name": "cat"}, {"id": 2, "name": "cow"}]
POLYGON = [[0, 0, 20, 0, 20, 20]]


def image(number: int, width: int = 64, height: int = 48) -> dict[str, Any]:
    names = {"file_name": f"{number}.jpg", "segm_file": f"{number}_ids.png"}
    return {"id": number, "width": width, "height": height, **names}


def annotation(
    number: int, image_id: int, category: int = 3, bbox: Any = (0, 0, 20, 20), **others: Any
) -> dict[str, Any]:
    return {
        "id": number,
        "image_id": image_id,
        "category_id": category,
        "bbox": list(bbox),
        "area": bbox[2] * bbox[3],
        "iscrowd": 0,
        "segmentation": POLYGON,
        **others,
    }


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def write(images: list[Any], annotations: list[Any], categories: Any = CATEGORIES) -> str:
        path = tmp_path / "instances.json"
        content = {"images": images, "annotations": annotations, "categories": categories}
        path.write_text(json.dumps(content))
        return str(path)

    return write


def test_labels_follow_the_categories_of_the_file(
    write: Any, caplog: pytest.LogCaptureFixture
) -> None:
    path = write([image(1)], [annotation(5, 1, 1), annotation(6, 1, 3), annotation(7, 1, 2)])

    with caplog.at_level(logging.WARNING):
        data = CocoDataset(path, [], classes=["cat", "dog"])

    assert data.cat_ids == [3, 1]
    assert data.get_ann_info(0)["labels"].tolist() == [1, 0]
    assert "labels follow the categories of the file" in caplog.text


def test_boxes_that_cannot_be_learnt_are_left_out_and_crowds_are_apart(write: Any) -> None:
    annotations = [
        annotation(1, 1, bbox=(50, 10, 30, 20)),  # partly outside
        annotation(2, 1, bbox=(0, 0, 10, 10), iscrowd=1),
        annotation(3, 1, bbox=(0, 0, 0.5, 10)),
        annotation(4, 1, bbox=(64, 0, 10, 10)),  # outside
        annotation(5, 1, area=0),
        annotation(6, 1, ignore=1),
    ]

    found = CocoDataset(write([image(1)], annotations), [], ["dog"]).get_ann_info(0)

    np.testing.assert_array_equal(found["bboxes"], [[50, 10, 80, 30]])
    np.testing.assert_array_equal(found["bboxes_ignore"], [[0, 0, 10, 10]])
    assert found["masks"] == [POLYGON]
    assert found["seg_map"] == "1.png"
    assert found["bboxes"].dtype == np.float32


def test_small_and_empty_images_are_not_trained_with_but_tested(write: Any) -> None:
    images = [image(1, 31), image(2), image(3), image(4)]
    annotations = [annotation(1, 1), annotation(2, 3, category=2), annotation(3, 4)]
    path = write(images, annotations)

    train = CocoDataset(path, [], ["dog", "cat"])
    with_empty = CocoDataset(path, [], ["dog", "cat"], filter_empty_gt=False)
    test = CocoDataset(path, [], ["dog", "cat"], test_mode=True)

    assert train.img_ids == [4]
    assert with_empty.img_ids == [2, 3, 4]
    assert len(with_empty.get_ann_info(0)["bboxes"]) == 0
    assert test.img_ids == [1, 2, 3, 4]


def test_images_are_grouped_by_their_aspect_ratio(write: Any) -> None:
    images = [image(1, 64, 48), image(2, 48, 64), image(3, 48, 48)]
    path = write(images, [annotation(number, number) for number in (1, 2, 3)])

    assert CocoDataset(path, [], ["dog"]).flag.tolist() == [1, 0, 0]


def test_a_file_of_other_classes_is_told_with_its_own(write: Any) -> None:
    path = write([image(1)], [annotation(1, 1)], [{"id": 3, "name": "unicorn"}])

    with pytest.raises(ValueError, match=r"has none of the classes.*unicorn"):
        CocoDataset(path, [])


def test_two_annotations_with_one_id_are_an_error(write: Any) -> None:
    path = write([image(1)], [annotation(1, 1), annotation(1, 1)])

    with pytest.raises(ValueError, match="the same id"):
        CocoDataset(path, [], ["dog"])


def test_nothing_to_train_with_is_an_error(write: Any) -> None:
    with pytest.raises(ValueError, match="none of 1 images"):
        CocoDataset(write([image(1)], []), [], ["dog"])


def test_cityscapes_leaves_out_images_of_crowds_alone_and_names_its_own_maps(write: Any) -> None:
    categories = [{"id": 26, "name": "car"}]
    annotations = [annotation(1, 1, 26, iscrowd=1), annotation(2, 2, 26)]

    data = CityscapesDataset(write([image(1), image(2)], annotations, categories), [])

    assert data.img_ids == [2]
    assert data.get_ann_info(0)["seg_map"] == "2_ids.png"


def test_scores_have_upstreams_names(write: Any, tmp_path: Path, capsys: Any) -> None:
    path = write([image(1)], [annotation(1, 1, 3), annotation(2, 1, 1, (30, 10, 20, 20))])
    data = CocoDataset(path, [], ["dog", "cat"], test_mode=True)
    right = np.array([[0, 0, 20, 20, 0.9]], np.float32)
    wrong = np.array([[0, 30, 10, 40, 0.9]], np.float32)

    scores = data.evaluate(
        [[right, wrong]], classwise=True, jsonfile_prefix=str(tmp_path / "deep" / "found")
    )

    assert scores == {
        "bbox_mAP": 0.5,
        "bbox_mAP_50": 0.5,
        "bbox_mAP_75": 0.5,
        "bbox_mAP_s": 0.5,
        "bbox_mAP_m": -1.0,
        "bbox_mAP_l": -1.0,
        "bbox_mAP_copypaste": "0.5000 0.5000 0.5000 0.5000 -1.0000 -1.0000",
    }
    printed = capsys.readouterr().out
    assert "| dog      | 1.000 | cat      | 0.000 |" in printed
    assert "maxDets=100 ] = 0.500" in printed
    written = json.loads((tmp_path / "deep" / "found.bbox.json").read_text())
    assert written[0]["category_id"] == 3


def test_proposals_are_scored_by_recall_in_both_ways(write: Any) -> None:
    path = write([image(1)], [annotation(1, 1, 3), annotation(2, 1, 1, (30, 10, 20, 20))])
    data = CocoDataset(path, [], ["dog", "cat"], test_mode=True)
    proposals = [np.array([[0, 0, 20, 20, 0.9]], np.float32)]

    slow = data.evaluate(proposals, "proposal", "silent")
    fast = data.evaluate(proposals, ["proposal_fast"], "silent")

    assert list(slow) == ["AR@100", "AR@300", "AR@1000", "AR_s@1000", "AR_m@1000", "AR_l@1000"]
    assert slow["AR@300"] == 0.5
    assert fast == {"AR@100": 0.5, "AR@300": 0.5, "AR@1000": 0.5}


def test_metrics_nobody_has_are_told_with_those_there_are(write: Any) -> None:
    data = CocoDataset(write([image(1)], [annotation(1, 1)]), [], ["dog"])
    results = [[np.zeros((0, 5), np.float32)]]

    with pytest.raises(
        KeyError, match="metric 'mAP' is not supported by CocoDataset, which has bbox"
    ):
        data.evaluate(results, "mAP")
    with pytest.raises(KeyError, match="the model gives bbox, proposal only"):
        data.evaluate(results, "segm", "silent")


def test_a_crowd_is_still_a_crowd_after_an_evaluation(write: Any) -> None:
    path = write([image(1)], [annotation(1, 1), annotation(2, 1, iscrowd=1)])
    data = CocoDataset(path, [], ["dog"], test_mode=True)

    data.evaluate([[np.zeros((0, 5), np.float32)]], "bbox", "silent")

    assert len(data.get_ann_info(0)["bboxes_ignore"]) == 1


def test_lists_of_files_become_one_data_set_that_is_measured_by_parts(write: Any) -> None:
    path = write([image(1)], [annotation(1, 1)])
    config = {
        "type": "CocoDataset",
        "ann_file": [path, path],
        "img_prefix": ["a/", "b/"],
        "classes": ["dog"],
        "pipeline": [],
    }

    data = build_dataset(config, {"test_mode": True})
    scores = data.evaluate([[np.array([[0, 0, 20, 20, 0.9]])], [np.zeros((0, 5))]], logger="silent")

    assert [each.img_prefix for each in data.datasets] == ["a/", "b/"]
    assert (scores["0_bbox_mAP"], scores["1_bbox_mAP"]) == (1.0, 0.0)
