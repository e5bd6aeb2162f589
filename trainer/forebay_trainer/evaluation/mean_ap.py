"""Mean average precision as PASCAL VOC measures it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from forebay_trainer.evaluation.overlaps import areas, pairwise_iou
from forebay_trainer.evaluation.tables import ascii_table, say

if TYPE_CHECKING:
    import logging
    from collections.abc import Mapping, Sequence

    from forebay_trainer.evaluation.overlaps import Array

_EVERYTHING = -float("inf"), float("inf")
_TINY = float(np.finfo(np.float32).eps)


def average_precision(recalls: Array, precisions: Array, *, by_points: bool = False) -> float:
    """Return the area under a precision-recall curve, both (n,), in falling order of scores.

    *by_points*: the mean of the best precisions at recalls of 0, 0.1 … 1, as VOC did until 2007.
    """
    if by_points:
        points = np.arange(0, 1 + 1e-3, 0.1)
        area = sum(precisions[recalls >= at].max(initial=0) for at in points) / 11
    else:
        best = np.maximum.accumulate(precisions[::-1])[::-1]
        area = (np.diff(recalls, prepend=0.0) * best).sum()
    return float(np.float32(area))  # upstream's precision, which decides how it is rounded


def match(
    detections: Array,
    truths: Array,
    ignored: Array,
    iou_thr: float,
    area_range: tuple[float, float] = _EVERYTHING,
    extra: float = 0.0,
) -> tuple[Array, Array]:
    """Tell which of one image's detections (n, 5) of a class are right, and which are wrong: (n,).

    The best detection of a box is right, others of it are wrong. Neither right nor wrong is what
    finds a box (k, 4) that is ignored or not of this area, and what finds nothing and is not of
    this area itself.
    """
    low, high = area_range
    all_truths = np.concatenate([truths, ignored])
    sizes = areas(detections, extra)
    wrong = (low <= sizes) & (sizes < high)
    right = np.zeros_like(wrong)
    if not len(all_truths) or not len(detections):
        return right, wrong
    overlaps = pairwise_iou(detections, all_truths, extra)
    nearest = overlaps.argmax(axis=1)
    is_found = overlaps.max(axis=1) >= iou_thr
    truth_sizes = areas(all_truths, extra)
    counts = (
        (np.arange(len(all_truths)) < len(truths)) & (low <= truth_sizes) & (truth_sizes < high)
    )
    wrong = np.where(is_found, counts[nearest], wrong)
    order = np.argsort(-detections[:, 4], kind="stable")
    finders = order[(is_found & counts[nearest])[order]]
    _, firsts = np.unique(nearest[finders], return_index=True)
    right[finders[firsts]] = True
    return right, wrong & ~right


def eval_map(
    det_results: Sequence[Sequence[Array]],
    annotations: Sequence[Mapping[str, Any]],
    scale_ranges: Sequence[tuple[float, float]] | None = None,
    iou_thr: float = 0.5,
    dataset: Sequence[str] | None = None,
    logger: logging.Logger | str | None = None,
    use_legacy_coordinate: bool = False,
    by_points: bool = False,
) -> tuple[Any, list[dict[str, Any]]]:
    """Return the mean over the classes that occur, and a dict for each class; tell it as a table.

    Args:
        det_results: of each image, of each class, boxes with scores (n, 5).
        annotations: of each image ``bboxes`` (n, 4) and ``labels`` (n,), and what is not counted
            in ``bboxes_ignore`` and ``labels_ignore``.
        scale_ranges: from and to which side of a square, in pixels, boxes are counted; the mean
            and the values of each class are lists then.
        iou_thr: the overlap with which a box is found.
        dataset: the names of the classes.
        logger: as ``say`` has it.
        use_legacy_coordinate: boxes end with their last pixel, not behind it.
        by_points: as ``average_precision`` has it.
    """
    extra = 1.0 if use_legacy_coordinate else 0.0
    ranges = [_EVERYTHING] if scale_ranges is None else [(a**2, b**2) for a, b in scale_ranges]
    per_range = [
        [
            _of_class(det_results, annotations, label, iou_thr, each, extra, by_points)
            for label in range(len(det_results[0]))
        ]
        for each in ranges
    ]
    means = []
    for number, classes in enumerate(per_range):
        means.append(_mean([each["ap"] for each in classes if each["num_gts"]]))
        if scale_ranges is not None:
            say(f"Scale range {scale_ranges[number]}", logger)
        say(f"\n{_table(classes, means[-1], dataset)}", logger)
    if scale_ranges is None:
        return means[0], per_range[0]
    joined = [
        {key: [each[key] for each in ranged] for key in ranged[0]}
        for ranged in zip(*per_range, strict=True)
    ]
    return means, joined


def _of_class(
    det_results: Sequence[Sequence[Array]],
    annotations: Sequence[Mapping[str, Any]],
    label: int,
    iou_thr: float,
    area_range: tuple[float, float],
    extra: float,
    by_points: bool,
) -> dict[str, Any]:
    rights, wrongs, scores, truth_count = [], [], [], 0
    for result, annotation in zip(det_results, annotations, strict=True):
        truths = annotation["bboxes"][annotation["labels"] == label]
        ignored = np.zeros((0, 4), np.float32)
        if annotation.get("labels_ignore") is not None:
            ignored = annotation["bboxes_ignore"][annotation["labels_ignore"] == label]
        right, wrong = match(result[label], truths, ignored, iou_thr, area_range, extra)
        rights.append(right)
        wrongs.append(wrong)
        scores.append(result[label][:, 4])
        sizes = areas(truths, extra)
        truth_count += int(((area_range[0] <= sizes) & (sizes < area_range[1])).sum())
    order = np.argsort(-np.concatenate(scores), kind="stable")
    right_count = np.cumsum(np.concatenate(rights)[order])
    all_count = right_count + np.cumsum(np.concatenate(wrongs)[order])
    recall = right_count / max(truth_count, _TINY)
    precision = right_count / np.maximum(all_count, _TINY)
    return {
        "num_gts": truth_count,
        "num_dets": len(order),
        "recall": recall,
        "precision": precision,
        "ap": average_precision(recall, precision, by_points=by_points),
    }


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values, dtype=np.float32)) if values else 0.0


def _table(classes: Sequence[Mapping[str, Any]], mean: float, dataset: Sequence[str] | None) -> str:
    names = range(len(classes)) if dataset is None else dataset
    rows: list[Sequence[object]] = [("class", "gts", "dets", "recall", "ap")]
    for name, each in zip(names, classes, strict=True):
        recall = each["recall"][-1] if len(each["recall"]) else 0.0
        numbers = each["num_gts"], each["num_dets"], f"{recall:.3f}", f"{each['ap']:.3f}"
        rows.append((name, *numbers))
    rows.append(("mAP", "", "", "", f"{mean:.3f}"))
    return ascii_table(rows, has_footer=True)
