"""Small data sets in the forms that the seeds' configurations name."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from forebay_trainer.datasets.coco import CocoDataset

if TYPE_CHECKING:
    from pathlib import Path

ROAD, CROWD_OF_PERSONS = 7, 24  # instance images: a class, or 1000 times that with a number
_CITY_SIZE = (64, 128)  # height, width: an image of Cityscapes has as broad a form

# Of COCO's images: width, height, boxes (left, top, width, height), which of them is a crowd.
_COCO_IMAGES: tuple[tuple[int, int, list[list[int]], int | None], ...] = (
    (96, 64, [[8, 8, 40, 30], [50, 20, 36, 40]], None),
    (64, 96, [[4, 30, 50, 50]], None),
    (128, 64, [[10, 10, 60, 40], [80, 10, 40, 50]], 1),
    (80, 80, [], None),
)


def write_cityscapes(root: Path) -> None:
    """Write ``leftImg8bit`` and ``gtFine``: two pictures to train with and one without an object,
    one to validate with, and one to test with, whose objects nobody knows.
    """
    dice = np.random.default_rng(1)
    for split, city, number in (
        ("train", "aachen", 0),
        ("train", "bochum", 0),
        ("train", "bochum", 1),
        ("val", "frankfurt", 0),
        ("test", "berlin", 0),
    ):
        instances = np.full(_CITY_SIZE, ROAD, np.uint16)
        if split != "test" and number == 0:
            instances[20:50, 10:60] = 26000  # a car
            instances[10:60, 70:100] = 24000  # a person
            instances[30:40, 104:124] = CROWD_OF_PERSONS
        picture = dice.integers(0, 60, (*_CITY_SIZE, 3), np.uint8)
        picture[instances != ROAD] += 150
        stem = f"{city}_{number:06d}_000019"
        for kind, name, image in (
            ("leftImg8bit", "leftImg8bit", picture),
            ("gtFine", "gtFine_instanceIds", instances),
        ):
            _write(root / kind / split / city / f"{stem}_{name}.png", image)


def write_coco(root: Path) -> None:
    """Write the folders and annotations of COCO 2017: images of several sizes, one of them with a
    crowd, one with nothing on it.
    """
    categories = [
        {"id": 1 + number + number // 10, "name": name}  # COCO's have gaps, too
        for number, name in enumerate(CocoDataset.CLASSES or ())
    ]
    dice = np.random.default_rng(2)
    for split in ("train2017", "val2017"):
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for image_id, (width, height, boxes, crowd) in enumerate(_COCO_IMAGES, 1):
            picture = dice.integers(0, 60, (height, width, 3), np.uint8)
            for place, (left, top, across, down) in enumerate(boxes):
                right, bottom = left + across, top + down
                picture[top:bottom, left:right] += 150
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": image_id,
                        "category_id": categories[place]["id"],
                        "bbox": [left, top, across, down],
                        "area": across * down,
                        "segmentation": [[left, top, right, top, right, bottom, left, bottom]],
                        "iscrowd": int(place == crowd),
                    }
                )
            name = f"{image_id:012d}.jpg"
            _write(root / split / name, picture)
            images.append({"id": image_id, "file_name": name, "width": width, "height": height})
        content = {"images": images, "annotations": annotations, "categories": categories}
        path = root / f"annotations/instances_{split}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))


def _write(path: Path, image: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image)
