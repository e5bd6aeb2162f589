"""Images with an XML file of boxes each, as PASCAL VOC has them."""

from __future__ import annotations

import os
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from forebay_trainer.datasets.custom import CustomDataset
from forebay_trainer.registry import DATASETS

if TYPE_CHECKING:
    from forebay_trainer.evaluation.overlaps import Array

_AT_ONCE = 256  # files that are fetched together


@DATASETS.register_module()
class XMLDataset(CustomDataset):
    """A file of names, and below ``img_prefix`` an image and an XML file of each name."""

    def __init__(
        self,
        min_size: float | None = None,
        img_subdir: str = "JPEGImages",
        ann_subdir: str = "Annotations",
        **arguments: Any,
    ) -> None:
        """Read the annotations of all images.

        Args:
            min_size: objects of less pixels either way do not count.
            img_subdir: where images are, below ``img_prefix``.
            ann_subdir: where annotations are, below ``img_prefix``.
            arguments: those of CustomDataset.
        """
        if not (self.CLASSES or arguments.get("classes")):
            raise ValueError(f"{type(self).__name__} needs the names of its `classes`")
        self.min_size = min_size
        self.img_subdir = img_subdir
        self.ann_subdir = ann_subdir
        super().__init__(**arguments)

    def load_annotations(self, ann_file: str) -> list[dict[str, Any]]:
        """Return what is known of each image, its objects included."""
        names = Path(ann_file).read_text().split()
        self.cat2label = {name: label for label, name in enumerate(self.CLASSES or ())}
        infos: list[dict[str, Any]] = []
        for start in range(0, len(names), _AT_ONCE):
            some = names[start : start + _AT_ONCE]
            paths = [self._path(self.ann_subdir, f"{name}.xml") for name in some]
            files = self.files.get_many(paths)
            infos += [self._parse(*each) for each in zip(some, paths, files, strict=True)]
        return infos

    def _parse(self, name: str, path: str, data: bytes) -> dict[str, Any]:
        try:
            return self._info(name, ET.fromstring(data))  # noqa: S314 - as its own data set
        except (ET.ParseError, ValueError) as error:
            raise ValueError(f"{path} has no boxes as VOC's annotations: {error}") from error

    def _info(self, name: str, root: ET.Element) -> dict[str, Any]:
        filename = f"{self.img_subdir}/{name}.jpg"
        size = root.find("size")
        if size is None:
            shape = self.files.apply(self._path(filename), _shape_of)
            height, width = shape[0], shape[1]
        else:
            width, height = (_number(size, side) for side in ("width", "height"))
        objects = [
            (
                each.findtext("name", ""),
                [_number(each, f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax")],
                each.findtext("difficult", "0").strip() not in ("", "0"),
            )
            for each in root.iter("object")
        ]
        return {
            "id": name,
            "filename": filename,
            "width": width,
            "height": height,
            "objects": objects,
        }

    def get_ann_info(self, idx: int) -> dict[str, Any]:
        """Return the boxes of an image, pixels counted from 0; difficult ones do not count."""
        counting: list[tuple[int, list[int]]] = []
        ignored: list[tuple[int, list[int]]] = []
        for name, box, is_difficult in self.data_infos[idx]["objects"]:
            if name in self.cat2label:
                sides = box[2] - box[0], box[3] - box[1]
                is_small = self.min_size is not None and min(sides) < self.min_size
                (ignored if is_difficult or is_small else counting).append(
                    (self.cat2label[name], box)
                )
        bboxes, labels = _arrays(counting)
        bboxes_ignore, labels_ignore = _arrays(ignored)
        return {
            "bboxes": bboxes,
            "labels": labels,
            "bboxes_ignore": bboxes_ignore,
            "labels_ignore": labels_ignore,
        }

    def get_cat_ids(self, idx: int) -> list[int]:
        """Return the labels of an image's objects, difficult ones included."""
        names = (name for name, _, _ in self.data_infos[idx]["objects"])
        return [self.cat2label[name] for name in names if name in self.cat2label]

    def _filter_imgs(self, min_size: int = 32) -> list[int]:
        kept = super()._filter_imgs(min_size)
        if self.filter_empty_gt:
            kept = [index for index in kept if self.get_cat_ids(index)]
        return kept

    def _path(self, *parts: str) -> str:
        return os.path.join(self.img_prefix or "", *parts)  # noqa: PTH118 - URIs, too


def _number(element: ET.Element, path: str) -> int:
    text = element.findtext(path)
    if text is None:
        raise ValueError(f"<{element.tag}> has no {path}")
    return int(float(text))


def _arrays(objects: list[tuple[int, list[int]]]) -> tuple[Array, Array]:
    labels = np.array([label for label, _ in objects], np.int64)
    boxes = np.array([box for _, box in objects], np.float32).reshape(-1, 4) - 1
    return boxes, labels


def _shape_of(data: memoryview) -> tuple[int, ...]:
    shape: tuple[int, ...] = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).shape
    return shape
