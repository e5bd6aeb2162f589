"""Detections in the form of COCO's result files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from forebay_trainer.evaluation.overlaps import Array

Records = list[dict[str, Any]]


def to_records(
    results: Sequence[Any], image_ids: Sequence[int], category_ids: Sequence[int]
) -> dict[str, Records]:
    """Return records by metric: "bbox" and "proposal" of boxes, "segm" of masks.

    Of each image *results* has either proposals (n, 5), or a list of boxes (n, 5) per class, or a
    tuple of such a list and a list of masks (RLE) per class; instead of the latter a tuple of it
    and the masks' own scores per class.
    """
    found: dict[str, Records] = {}
    for image_id, result in zip(image_ids, results, strict=True):
        if hasattr(result, "shape"):
            found.setdefault("proposal", []).extend(_box_records(result, image_id, 1))
            continue
        classes, masks = result if isinstance(result, tuple) else (result, None)
        found.setdefault("bbox", [])
        for label, boxes in enumerate(classes):
            records = _box_records(boxes, image_id, category_ids[label])
            found["bbox"] += records
            if masks is not None:
                found.setdefault("segm", []).extend(_mask_records(records, masks, label))
    if "bbox" in found:
        found["proposal"] = found["bbox"]
    return found


def _box_records(boxes: Array, image_id: int, category_id: int) -> Records:
    return [
        {
            "image_id": image_id,
            "bbox": [left, top, right - left, bottom - top],
            "score": score,
            "category_id": category_id,
        }
        for left, top, right, bottom, score in boxes.tolist()
    ]


def _mask_records(boxes: Records, masks: Any, label: int) -> Records:
    of_class, scores = (
        (masks[0][label], masks[1][label])
        if isinstance(masks, tuple)
        else (
            masks[label],
            [record["score"] for record in boxes],
        )
    )
    return [
        {**record, "score": float(score), "segmentation": _as_text(mask)}
        for record, mask, score in zip(boxes, of_class, scores, strict=True)
    ]


def _as_text(mask: dict[str, Any]) -> dict[str, Any]:
    counts = mask["counts"]
    return {**mask, "counts": counts.decode() if isinstance(counts, bytes) else counts}
