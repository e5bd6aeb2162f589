"""What all data sets do, shown by the plainest of them."""

from __future__ import annotations

import json
import os
import pickle
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("cv2")
pytest.importorskip("faster_coco_eval")

from forebay_trainer.datasets import CustomDataset
from forebay_trainer.registry import PIPELINES

if TYPE_CHECKING:
    from pathlib import Path


@PIPELINES.register_module()
class OnlyBroadImages:
    """Leaves nothing of images that are not 100 pixels wide."""

    def __call__(self, results: dict[str, Any]) -> dict[str, Any] | None:
        return results if results["img_info"]["width"] >= 100 else None


def info(name: str, width: int = 64, height: int = 40) -> dict[str, Any]:
    boxes = np.array([[0, 0, 10, 10]], np.float32)
    annotation = {"bboxes": boxes, "labels": np.array([1]), "bboxes_ignore": boxes[:0]}
    return {"filename": name, "width": width, "height": height, "ann": annotation}


def as_lists(infos: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {**each, "ann": {key: value.tolist() for key, value in each["ann"].items()}}
        for each in infos
    ]


def write(path: Path, infos: list[dict[str, Any]]) -> str:
    path.write_bytes(pickle.dumps(infos))
    return str(path)


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_pickles_and_json_give_the_same(tmp_path: Path, protocol: int) -> None:
    (tmp_path / "a.pkl").write_bytes(pickle.dumps([info("a.jpg")], protocol))
    (tmp_path / "a.json").write_text(json.dumps(as_lists([info("a.jpg")])))

    found = [
        CustomDataset(name, [], ["cat", "dog"], str(tmp_path)).get_ann_info(0)
        for name in ("a.pkl", "a.json")
    ]

    for annotation in found:
        np.testing.assert_array_equal(annotation["bboxes"], [[0, 0, 10, 10]])
        assert annotation["labels"].tolist() == [1]
        assert annotation["bboxes_ignore"].shape == (0, 4)
        assert annotation["labels"].dtype == np.int64


def test_a_pickle_that_would_call_something_is_refused(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "sprung"),)

    (tmp_path / "trap.pkl").write_bytes(pickle.dumps([Trap()]))

    with pytest.raises(pickle.UnpicklingError, match="mkdir is not loaded"):
        CustomDataset(str(tmp_path / "trap.pkl"), [])
    assert not (tmp_path / "sprung").exists()


def test_paths_are_below_the_root_unless_they_are_whole(tmp_path: Path) -> None:
    write(tmp_path / "a.pkl", [info("a.jpg")])
    arguments: dict[str, Any] = {"ann_file": "a.pkl", "pipeline": [], "data_root": str(tmp_path)}

    below = CustomDataset(**arguments, img_prefix="images/")
    whole = CustomDataset(**arguments, img_prefix="s3://bucket/images/")

    assert below.img_prefix == f"{tmp_path}/images/"
    assert whole.img_prefix == "s3://bucket/images/"


def test_classes_are_the_lines_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("traffic light\ndog\n")

    path = write(tmp_path / "a.pkl", [info("a.jpg")])

    assert CustomDataset(path, [], str(tmp_path / "classes.txt")).CLASSES == [
        "traffic light",
        "dog",
    ]


def test_another_image_of_the_group_stands_in_where_the_pipeline_leaves_nothing(
    tmp_path: Path,
) -> None:
    infos = [info("a.jpg"), info("high.jpg", 100, 200), info("broad.jpg", 100)]
    data = CustomDataset(write(tmp_path / "a.pkl", infos), [{"type": "OnlyBroadImages"}])

    assert data[0]["img_info"]["filename"] == "broad.jpg"
    assert data[1]["img_info"]["filename"] == "high.jpg"


def test_a_pipeline_that_leaves_nothing_of_anything_is_an_error(tmp_path: Path) -> None:
    data = CustomDataset(write(tmp_path / "a.pkl", [info("a.jpg")]), [{"type": "OnlyBroadImages"}])

    with pytest.raises(RuntimeError, match="leaves nothing of 1000 images"):
        data[0]


def test_pipelines_get_what_they_expect_and_tests_no_annotations(tmp_path: Path) -> None:
    path = write(tmp_path / "a.pkl", [info("a.jpg")])
    proposals = write(tmp_path / "proposals.pkl", [np.ones((2, 5), np.float32)])  # type: ignore[list-item]

    train = CustomDataset(path, [], img_prefix="x/", proposal_file=proposals)[0]
    test = CustomDataset(path, [], img_prefix="x/", test_mode=True)[0]

    assert train["ann_info"]["labels"].tolist() == [1]
    assert train["proposals"].shape == (2, 5)
    assert test == {
        "img_info": test["img_info"],
        "img_prefix": "x/",
        "seg_prefix": None,
        "proposal_file": None,
        "bbox_fields": [],
        "mask_fields": [],
        "seg_fields": [],
    }


def test_boxes_are_measured_at_each_overlap(tmp_path: Path) -> None:
    data = CustomDataset(write(tmp_path / "a.pkl", [info("a.jpg")]), [], ["cat", "dog"])
    none = np.zeros((0, 5), np.float32)
    found = np.array([[0, 0, 10, 8, 0.9]], np.float32)  # an overlap of 0.8

    scores = data.evaluate([[none, found]], logger="silent", iou_thr=[0.5, 0.9])
    recalls = data.evaluate([found], "recall", "silent", (1, 10), [0.5, 0.9])

    assert scores == {"mAP": 0.5, "AP50": 1.0, "AP90": 0.0}
    assert recalls == {
        "recall@1@0.5": 1.0,
        "recall@1@0.9": 0.0,
        "recall@10@0.5": 1.0,
        "recall@10@0.9": 0.0,
        "AR@1": 0.5,
        "AR@10": 0.5,
    }
