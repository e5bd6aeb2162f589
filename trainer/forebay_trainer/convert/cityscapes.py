"""Cityscapes' instance images into COCO's format."""

from __future__ import annotations

import json
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from faster_coco_eval.core import mask as coco_mask

from forebay_trainer.files import Files

if TYPE_CHECKING:
    from collections.abc import Callable

# The classes of cityscapesScripts' labels.py that have instances and are evaluated.
CATEGORIES = {
    24: "person",
    25: "rider",
    26: "car",
    27: "truck",
    28: "bus",
    31: "train",
    32: "motorcycle",
    33: "bicycle",
}
SPLITS = ("train", "val", "test")

_IMAGE_SUFFIX = "leftImg8bit.png"


def convert(
    source: str,
    out_dir: str | None = None,
    *,
    img_dir: str = "leftImg8bit",
    gt_dir: str = "gtFine",
    nproc: int = 1,
    tell: Callable[[str], None] = print,
) -> list[str]:
    """Write ``instancesonly_filtered_gtFine_SPLIT.json`` of each split that is there.

    Args:
        source: a folder or prefix with *img_dir* and *gt_dir*, each with a folder per split, with a
            folder per city.
        out_dir: a folder or prefix; *source* by default.
        img_dir: where images are.
        gt_dir: where instance images are.
        nproc: how many processes read.
        tell: called with a line per split.

    Returns:
        The paths of what was written, and uploaded.
    """
    written = []
    for split in SPLITS:
        names = _images(f"{source.rstrip('/')}/{img_dir}/{split}")
        if not names:
            tell(f"{split}: no images")
            continue
        read = partial(_read, f"{source.rstrip('/')}/{gt_dir}/{split}")
        if nproc > 1:
            with ProcessPoolExecutor(nproc) as pool:
                images = list(pool.map(read, names, chunksize=8))
        else:
            images = [read(name) for name in names]
        content = _content(images)
        path = f"{(out_dir or source).rstrip('/')}/instancesonly_filtered_gtFine_{split}.json"
        Files().put(path, json.dumps(content))
        written.append(path)
        found = len(content.get("annotations", []))
        tell(f"{split}: {len(names)} images, {found} instances in {path}")
    if not written:
        raise FileNotFoundError(
            f"there are no images CITY/*_{_IMAGE_SUFFIX} below {source}/{img_dir}/SPLIT"
        )
    files = Files()
    files.client.flush([path for path in written if files.is_object(path)])
    return written


def _images(folder: str) -> list[str]:
    """Return CITY/NAME of the images of a split."""
    files = Files()
    if files.is_object(folder):
        listed = files.client.list(f"{folder}/", recursive=True)
        paths = [entry if isinstance(entry, str) else entry.uri for entry in listed]
    else:
        paths = [str(path) for path in Path(folder).glob("*/*.png")]
    names = sorted("/".join(path.rsplit("/", 2)[1:]) for path in paths if path.endswith(".png"))
    if strange := [name for name in names if not name.endswith(_IMAGE_SUFFIX)]:
        raise ValueError(f"{folder}/{strange[0]} is no *_{_IMAGE_SUFFIX}")
    return names


def _read(folder: str, name: str) -> dict[str, Any]:
    """Return an image's entry, with its annotations under ``annotations``."""
    stem = name.removesuffix(_IMAGE_SUFFIX)
    path = f"{folder}/{stem}gtFine_instanceIds.png"
    instances = Files().apply(path, _decode)
    if instances is None:
        raise ValueError(f"{path} is no image that OpenCV can decode")
    ids = [int(each) for each in np.unique(instances)]
    annotations = [
        _annotation(instances == each, each) for each in ids if _label(each) in CATEGORIES
    ]
    return {
        "file_name": name,
        "height": instances.shape[0],
        "width": instances.shape[1],
        "segm_file": f"{stem}gtFine_labelIds.png",
        "annotations": annotations,
    }


def _decode(data: memoryview) -> Any:
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)


def _label(instance: int) -> int:
    """Return the class of an instance; a group of some that nobody told apart has no number."""
    return instance // 1000 if instance >= 1000 else instance


def _annotation(mask: Any, instance: int) -> dict[str, Any]:
    encoded = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    return {
        "iscrowd": int(instance < 1000),
        "category_id": _label(instance),
        "bbox": coco_mask.toBbox(encoded).tolist(),
        "area": int(coco_mask.area(encoded)),
        "segmentation": {**encoded, "counts": encoded["counts"].decode()},
    }


def _content(images: list[dict[str, Any]]) -> dict[str, Any]:
    """Return COCO's form; as upstream's converter, numbered from 0, without annotations if none."""
    annotations: list[dict[str, Any]] = []
    entries = []
    for number, image in enumerate(images):
        own = image.pop("annotations")
        entries.append({**image, "id": number})
        for annotation in own:
            annotations.append({**annotation, "image_id": number, "id": len(annotations)})
    categories = [{"id": number, "name": name} for number, name in CATEGORIES.items()]
    content = {"images": entries, "categories": categories}
    return {**content, "annotations": annotations} if annotations else content
