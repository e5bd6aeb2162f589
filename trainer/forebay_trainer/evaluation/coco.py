"""Average precision and recall as COCO measures them, by faster-coco-eval."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster

if TYPE_CHECKING:
    from collections.abc import Sequence

    from forebay_trainer.evaluation.coco_results import Records
    from forebay_trainer.evaluation.overlaps import Array

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)

_AREAS = {"all": 0, "small": 1, "medium": 2, "large": 3}
_SIZES = ("small", "medium", "large")
_BUSIEST = 100  # detections an image that COCO's AP is of, if so few are among the limits


@dataclass(frozen=True)
class CocoScores:
    """What COCO's evaluation gives; -1 where there is nothing to find."""

    by_name: dict[str, float]  # mAP, mAP_50 … AR_l@1000
    summary: str  # COCO's table
    by_category: list[float]  # average precision of each category that was asked for


def index_of(dataset: dict[str, Any]) -> COCO:
    """Return the index of a COCO file's content."""
    with warnings.catch_warnings():
        # Of an annotation with the number 0, which `evaluate` does not let the matching see.
        warnings.filterwarnings("ignore", "Found annotation id 0")
        return COCO(dataset)


def evaluate(
    truth: COCO,
    records: Records,
    iou_type: str,
    *,
    category_ids: Sequence[int],
    image_ids: Sequence[int],
    limits: Sequence[int] = (100, 300, 1000),
    iou_thrs: Array = IOU_THRESHOLDS,
    with_categories: bool = True,
) -> CocoScores:
    """Measure records as ``to_records`` makes them.

    Args:
        truth: the annotations; they are not changed.
        records: detections of some of the images.
        iou_type: "bbox" or "segm".
        category_ids: what is counted.
        image_ids: what is counted.
        limits: how many of the best detections of an image are looked at.
        iou_thrs: overlaps with which something is found.
        with_categories: whether the category has to be right.
    """
    copied = _copy_of(truth)
    # Sizes of masks are those of masks, which only records without a box have.
    hidden = {"bbox"} if iou_type == "segm" else set()
    found = [{key: each[key] for key in each.keys() - hidden} for each in records]
    measured = COCOeval_faster(copied, copied.loadRes(found), iou_type)
    measured.params.catIds = list(category_ids)
    measured.params.imgIds = list(image_ids)
    measured.params.maxDets = sorted(limits)
    measured.params.iouThrs = np.asarray(iou_thrs)
    measured.params.useCats = int(with_categories)
    measured.evaluate()
    measured.accumulate()
    return _scores(measured, category_ids)


def _copy_of(truth: COCO) -> COCO:
    """Return a copy that an evaluation may write into, annotations being numbered from 1.

    It marks crowds as ignored, which data sets would leave out from then on, and takes the number 0
    for that of no annotation.
    """
    annotations = [
        {**annotation, "id": number}
        for number, annotation in enumerate(truth.dataset.get("annotations", []), 1)
    ]
    return COCO({**truth.dataset, "annotations": annotations})


def _scores(measured: COCOeval_faster, category_ids: Sequence[int]) -> CocoScores:
    limits = measured.params.maxDets
    most = limits[-1]
    lines = []

    def score(letter: str, limit: int, threshold: float | None = None, area: str = "all") -> float:
        value = _mean(measured, letter, limit, threshold, area)
        lines.append(_line(measured.params.iouThrs, letter, limit, threshold, area, value))
        return value

    by_name = {
        "mAP": score("P", _BUSIEST if _BUSIEST in limits else most),
        "mAP_50": score("P", most, 0.5),
        "mAP_75": score("P", most, 0.75),
    }
    by_name |= {f"mAP_{area[0]}": score("P", most, area=area) for area in _SIZES}
    by_name |= {f"AR@{limit}": score("R", limit) for limit in limits}
    by_name |= {f"AR_{area[0]}@{most}": score("R", most, area=area) for area in _SIZES}
    by_category: list[float] = []
    if measured.params.useCats:
        precision = measured.eval["precision"][
            :, :, :, _AREAS["all"], -1
        ]  # (iou, recall, category)
        counted = list(measured.params.catIds)
        by_category = [_mean_of(precision[..., counted.index(each)]) for each in category_ids]
    return CocoScores(by_name, "\n".join(lines), by_category)


def _mean(
    measured: COCOeval_faster, letter: str, limit: int, threshold: float | None, area: str
) -> float:
    # precision is (iou, recall, category, area, limit); recall lacks the second.
    values = np.asarray(measured.eval["precision" if letter == "P" else "recall"])
    if threshold is not None:
        values = values[np.isclose(measured.params.iouThrs, threshold)]
    return _mean_of(values[..., _AREAS[area], measured.params.maxDets.index(limit)])


def _mean_of(values: Array) -> float:
    known = values[values > -1]
    return float(known.mean()) if known.size else -1.0


def _line(
    iou_thrs: Array, letter: str, limit: int, threshold: float | None, area: str, value: float
) -> str:
    title = "Average Precision" if letter == "P" else "Average Recall"
    overlap = (
        f"{iou_thrs[0]:0.2f}:{iou_thrs[-1]:0.2f}" if threshold is None else f"{threshold:0.2f}"
    )
    where = f"@[ IoU={overlap:<9} | area={area:>6s} | maxDets={limit:>3d} ]"
    return f" {title:<18} (A{letter}) {where} = {value:0.3f}"
