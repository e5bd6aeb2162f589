"""Cityscapes' instance images into COCO's format."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

cv2 = pytest.importorskip("cv2")
coco_eval = pytest.importorskip("faster_coco_eval")

from forebay_trainer.convert.cityscapes import convert  # noqa: E402

if TYPE_CHECKING:
    from pathlib import Path


def add(root: Path, split: str, stem: str, instances: np.ndarray) -> None:
    city = stem.split("_")[0]
    for kind, name, image in (
        ("leftImg8bit", "leftImg8bit", np.zeros((*instances.shape, 3), np.uint8)),
        ("gtFine", "gtFine_instanceIds", instances.astype(np.uint16)),
    ):
        folder = root / kind / split / city
        folder.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / f"{stem}_{name}.png"), image)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    instances = np.full((6, 8), 7)  # road
    instances[1:4, 2:5] = 26001  # a car
    instances[4:6, 6:8] = 24  # some persons
    instances[0, 0] = 29003  # a caravan, which is not evaluated
    add(tmp_path, "train", "ulm_000001_000019", instances)
    add(tmp_path, "train", "bonn_000000_000019", np.full((6, 8), 7))
    add(tmp_path, "test", "berlin_000000_000019", np.zeros((6, 8)))
    return tmp_path


@pytest.mark.parametrize("nproc", [1, 2])
def test_output_is_upstreams(root: Path, nproc: int) -> None:
    lines: list[str] = []

    written = convert(str(root), f"{root}/annotations", nproc=nproc, tell=lines.append)

    train = f"{root}/annotations/instancesonly_filtered_gtFine_train.json"
    test = f"{root}/annotations/instancesonly_filtered_gtFine_test.json"
    assert written == [train, test]
    assert lines == [
        f"train: 2 images, 2 instances in {train}",
        "val: no images",
        f"test: 1 images, 0 instances in {test}",
    ]
    with open(train) as file:  # noqa: PTH123
        text = file.read()
    content = json.loads(text)
    # Runs of 0 and 1 down the columns: column 2 begins at 12.
    car = {"size": [6, 8], "counts": [13, 3, 3, 3, 3, 3, 20]}
    people = {"size": [6, 8], "counts": [40, 2, 4, 2]}
    expected = [
        (1, 24, [6.0, 4.0, 2.0, 2.0], 4, people, 1, 0),
        (0, 26, [2.0, 1.0, 3.0, 3.0], 9, car, 1, 1),
    ]
    assert content["images"][1] == {
        "file_name": "ulm/ulm_000001_000019_leftImg8bit.png",
        "height": 6,
        "width": 8,
        "segm_file": "ulm/ulm_000001_000019_gtFine_labelIds.png",
        "id": 1,
    }
    for found, (crowd, category, box, area, rle, image, number) in zip(
        content["annotations"], expected, strict=True
    ):
        packed = coco_eval.mask.frPyObjects(rle, 6, 8)
        assert list(found.items()) == [
            ("iscrowd", crowd),
            ("category_id", category),
            ("bbox", box),
            ("area", area),
            ("segmentation", {"size": [6, 8], "counts": packed["counts"].decode()}),
            ("image_id", image),
            ("id", number),
        ]
    assert [each["name"] for each in content["categories"]] == [
        *("person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle")
    ]
    with open(test) as file:  # noqa: PTH123
        assert "annotations" not in json.load(file)


def test_a_wrong_folder_is_told_with_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"leftImg8bit/SPLIT"):
        convert(str(tmp_path), tell=lambda _: None)


def test_an_image_that_is_not_cityscapes_is_told(root: Path) -> None:
    (root / "leftImg8bit" / "train" / "ulm" / "mine.png").touch()

    with pytest.raises(ValueError, match=r"ulm/mine\.png is no \*_leftImg8bit\.png"):
        convert(str(root), tell=lambda _: None)
