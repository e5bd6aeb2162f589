"""Data sets in COCO's format."""

from __future__ import annotations

import json
import logging
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from forebay_trainer.datasets.custom import CustomDataset
from forebay_trainer.evaluation import coco, eval_recalls
from forebay_trainer.evaluation.coco_results import to_records
from forebay_trainer.evaluation.tables import ascii_table, say
from forebay_trainer.registry import DATASETS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from forebay_trainer.evaluation.overlaps import Array

_PRECISIONS = ("mAP", "mAP_50", "mAP_75", "mAP_s", "mAP_m", "mAP_l")

log = logging.getLogger(__name__)


@DATASETS.register_module()
class CocoDataset(CustomDataset):
    """A JSON file as COCO's ``instances_train2017.json``.

    Labels are counted in the order of the file's categories, of those that are among the classes.
    """

    CLASSES: Sequence[str] | None = (
        *("person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat"),
        *("traffic light", "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat"),
        *("dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "backpack"),
        *("umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard", "sports ball"),
        *("kite", "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket"),
        *("bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple"),
        *("sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair"),
        *("couch", "potted plant", "bed", "dining table", "toilet", "tv", "laptop", "mouse"),
        *("remote", "keyboard", "cell phone", "microwave", "oven", "toaster", "sink"),
        *("refrigerator", "book", "clock", "vase", "scissors", "teddy bear", "hair drier"),
        "toothbrush",
    )
    PALETTE: Sequence[tuple[int, int, int]] | None = (
        *((220, 20, 60), (119, 11, 32), (0, 0, 142), (0, 0, 230), (106, 0, 228), (0, 60, 100)),
        *((0, 80, 100), (0, 0, 70), (0, 0, 192), (250, 170, 30), (100, 170, 30), (220, 220, 0)),
        *((175, 116, 175), (250, 0, 30), (165, 42, 42), (255, 77, 255), (0, 226, 252)),
        *((182, 182, 255), (0, 82, 0), (120, 166, 157), (110, 76, 0), (174, 57, 255)),
        *((199, 100, 0), (72, 0, 118), (255, 179, 240), (0, 125, 92), (209, 0, 151)),
        *((188, 208, 182), (0, 220, 176), (255, 99, 164), (92, 0, 73), (133, 129, 255)),
        *((78, 180, 255), (0, 228, 0), (174, 255, 243), (45, 89, 255), (134, 134, 103)),
        *((145, 148, 174), (255, 208, 186), (197, 226, 255), (171, 134, 1), (109, 63, 54)),
        *((207, 138, 255), (151, 0, 95), (9, 80, 61), (84, 105, 51), (74, 65, 105)),
        *((166, 196, 102), (208, 195, 210), (255, 109, 65), (0, 143, 149), (179, 0, 194)),
        *((209, 99, 106), (5, 121, 0), (227, 255, 205), (147, 186, 208), (153, 69, 1)),
        *((3, 95, 161), (163, 255, 0), (119, 0, 170), (0, 182, 199), (0, 165, 120)),
        *((183, 130, 88), (95, 32, 0), (130, 114, 135), (110, 129, 133), (166, 74, 118)),
        *((219, 142, 185), (79, 210, 114), (178, 90, 62), (65, 70, 15), (127, 167, 115)),
        *((59, 105, 106), (142, 108, 45), (196, 172, 0), (95, 54, 80), (128, 76, 255)),
        *((201, 57, 1), (246, 0, 122), (191, 162, 208)),
    )
    METRICS = ("bbox", "segm", "proposal", "proposal_fast")

    def load_annotations(self, ann_file: str) -> list[dict[str, Any]]:
        """Return the file's images; its index is ``coco``."""
        self.coco = coco.index_of(json.loads(Path(ann_file).read_bytes()))
        if len(self.coco.anns) != len(self.coco.dataset.get("annotations", [])):
            raise ValueError(f"{self.ann_file}: two annotations have the same id")
        self.cat_ids = self.coco.get_cat_ids(cat_names=self.CLASSES)
        self._check_classes()
        self.cat2label = {category: label for label, category in enumerate(self.cat_ids)}
        self.img_ids = self.coco.get_img_ids()
        infos: list[dict[str, Any]] = self.coco.load_imgs(self.img_ids)
        for info in infos:
            info["filename"] = info["file_name"]
        return infos

    def _check_classes(self) -> None:
        found = [category["name"] for category in self.coco.load_cats(self.cat_ids)]
        if not found:
            names = [category["name"] for category in self.coco.dataset.get("categories", [])]
            raise ValueError(
                f"{self.ann_file} has none of the classes {list(self.CLASSES or ())}: its "
                f"categories are {names}; set `classes` of the data set"
            )
        if self.CLASSES is not None and found != list(self.CLASSES):
            log.warning(
                "%s: labels follow the categories of the file, %s, and not the classes as "
                "they are told, %s",
                self.ann_file,
                found,
                list(self.CLASSES),
            )

    def get_ann_info(self, idx: int) -> dict[str, Any]:
        """Return ``bboxes``, ``labels``, ``bboxes_ignore`` of crowds, ``masks`` and ``seg_map``.

        Masks are polygons or RLE, as in the file.
        """
        info = self.data_infos[idx]
        return self._parse_ann_info(info, self.coco.img_ann_map[info["id"]])

    def get_cat_ids(self, idx: int) -> list[int]:
        """Return the file's categories of an image's annotations."""
        annotations = self.coco.img_ann_map[self.data_infos[idx]["id"]]
        return [annotation["category_id"] for annotation in annotations]

    def _filter_imgs(self, min_size: int = 32) -> list[int]:
        kept = super()._filter_imgs(min_size)
        if self.filter_empty_gt:
            kept = [index for index in kept if self._has_objects(self.data_infos[index]["id"])]
        self.img_ids = [self.img_ids[index] for index in kept]
        return kept

    def _has_objects(self, image_id: int) -> bool:
        annotations = self.coco.img_ann_map[image_id]
        return any(annotation["category_id"] in self.cat2label for annotation in annotations)

    def _parse_ann_info(
        self, img_info: dict[str, Any], ann_info: Sequence[dict[str, Any]]
    ) -> dict[str, Any]:
        boxes, labels, ignored, masks = [], [], [], []
        for annotation in ann_info:
            if annotation.get("ignore") or annotation["category_id"] not in self.cat2label:
                continue
            left, top, width, height = annotation["bbox"]
            right, bottom = left + width, top + height
            is_inside = min(right, img_info["width"]) > max(left, 0) and min(
                bottom, img_info["height"]
            ) > max(top, 0)
            if not is_inside or annotation["area"] <= 0 or width < 1 or height < 1:
                continue
            if annotation.get("iscrowd"):
                ignored.append([left, top, right, bottom])
                continue
            boxes.append([left, top, right, bottom])
            labels.append(self.cat2label[annotation["category_id"]])
            masks.append(annotation.get("segmentation"))
        return {
            "bboxes": np.array(boxes, np.float32).reshape(-1, 4),
            "labels": np.array(labels, np.int64),
            "bboxes_ignore": np.array(ignored, np.float32).reshape(-1, 4),
            "masks": masks,
            "seg_map": self._seg_map(img_info),
        }

    def _seg_map(self, info: dict[str, Any]) -> str:
        return str(info["filename"].rpartition(".")[0] + self.seg_suffix)

    # --- evaluation --------------------------------------------------------------------------

    def format_results(
        self, results: Sequence[Any], jsonfile_prefix: str | None = None
    ) -> dict[str, str]:
        """Write ``PREFIX.bbox.json`` and what else there is; returns the paths by metric."""
        if jsonfile_prefix is None:
            raise ValueError("format_results needs a jsonfile_prefix: where the files are written")
        written: dict[str, str] = {}
        for kind, records in self._records(results).items():
            if kind == "proposal" and "bbox" in written:
                written[kind] = written["bbox"]
            else:
                written[kind] = f"{jsonfile_prefix}.{kind}.json"
                self.files.put(written[kind], json.dumps(records))
        return written

    def _records(self, results: Sequence[Any]) -> dict[str, Any]:
        if len(results) != len(self):
            raise ValueError(f"there are {len(results)} results of {len(self)} images")
        return to_records(results, self.img_ids, self.cat_ids)

    def evaluate(  # type: ignore[override]  # as upstream's
        self,
        results: Sequence[Any],
        metric: str | Sequence[str] = "bbox",
        logger: logging.Logger | str | None = None,
        jsonfile_prefix: str | None = None,
        classwise: bool = False,
        proposal_nums: Sequence[int] = (100, 300, 1000),
        iou_thrs: Sequence[float] | None = None,
        metric_items: str | Sequence[str] | None = None,
    ) -> dict[str, Any]:
        """Return COCO's scores, ``bbox_mAP`` and so on; tell them as COCO's table.

        Args:
            results: of each image, as ``to_records`` takes them.
            metric: one or some of METRICS.
            logger: as ``say`` has it.
            jsonfile_prefix: where the results are written, as by ``format_results``; nowhere.
            classwise: tell the average precision of each class, too.
            proposal_nums: how many of the best detections of an image are looked at.
            iou_thrs: overlaps with which an object is found, 0.5 to 0.95.
            metric_items: which scores are returned.
        """
        names = self.check_metrics(metric)
        if not self.coco.anns:
            log.warning("%s has no annotations: every score will be -1", self.ann_file)
        thresholds = coco.IOU_THRESHOLDS if iou_thrs is None else np.asarray(iou_thrs)
        if jsonfile_prefix is not None:
            self.format_results(results, jsonfile_prefix)
        records = self._records(results)
        scores: dict[str, Any] = {}
        for name in names:
            say(f"\nEvaluating {name}...", logger)
            if name == "proposal_fast":
                scores |= self._fast_recalls(results, proposal_nums, thresholds, logger)
                continue
            if name not in records:
                raise KeyError(f"metric {name!r}: the model gives {', '.join(records)} only")
            found = coco.evaluate(
                self.coco,
                records[name],
                "segm" if name == "segm" else "bbox",
                category_ids=self.cat_ids,
                image_ids=self.img_ids,
                limits=proposal_nums,
                iou_thrs=thresholds,
                with_categories=name != "proposal",
            )
            say(f"\n{found.summary}", logger)
            if classwise and name != "proposal":
                say(f"\n{self._class_table(found.by_category)}", logger)
            scores |= _named(name, found.by_name, metric_items)
        return scores

    def _class_table(self, precisions: Sequence[float]) -> str:
        names = [category["name"] for category in self.coco.load_cats(self.cat_ids)]
        cells = [
            (name, f"{value:0.3f}" if value >= 0 else "nan")
            for name, value in zip(names, precisions, strict=True)
        ]
        columns = min(3, len(cells))
        rows = zip_longest(*(cells[at::columns] for at in range(columns)), fillvalue=("", ""))
        body = [[text for cell in row for text in cell] for row in rows]
        return ascii_table([["category", "AP"] * columns, *body])

    def _fast_recalls(
        self,
        results: Sequence[Any],
        proposal_nums: Sequence[int],
        iou_thrs: Array,
        logger: logging.Logger | str | None,
    ) -> dict[str, float]:
        """Return the share of all boxes but crowds that proposals find, classes being left out."""
        boxes = []
        for image_id in self.img_ids:
            annotations = [
                annotation["bbox"]
                for annotation in self.coco.img_ann_map[image_id]
                if not (annotation.get("ignore") or annotation.get("iscrowd"))
            ]
            corners = np.array(annotations, np.float32).reshape(-1, 4)
            corners[:, 2:] += corners[:, :2]
            boxes.append(corners)
        recalls = eval_recalls(boxes, results, proposal_nums, iou_thrs.tolist(), "silent")
        means = dict(zip(proposal_nums, recalls.mean(axis=1).tolist(), strict=True))
        say("".join(f"\nAR@{number}\t{mean:.4f}" for number, mean in means.items()), logger)
        return {f"AR@{number}": mean for number, mean in means.items()}


def _named(
    metric: str, scores: dict[str, float], items: str | Sequence[str] | None
) -> dict[str, Any]:
    """Return scores under the names in which a run reports them, with 4 digits."""
    if items is None:
        of_boxes = [name for name in scores if name.startswith("AR")]
        items = of_boxes if metric == "proposal" else _PRECISIONS
    chosen = [items] if isinstance(items, str) else items
    if unknown := set(chosen) - scores.keys():
        raise KeyError(f"metric items {sorted(unknown)} are not among {', '.join(scores)}")
    prefix = "" if metric == "proposal" else f"{metric}_"
    named: dict[str, Any] = {f"{prefix}{name}": round(scores[name], 4) for name in chosen}
    if metric != "proposal":
        line = " ".join(f"{scores[name]:.4f}" for name in _PRECISIONS)
        named[f"{metric}_mAP_copypaste"] = line
    return named
