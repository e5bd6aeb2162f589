"""A detector that trains in seconds."""

from __future__ import annotations

import json
import logging
import os
import random
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CONFIG = """
_base_ = ["../_base_/models/mask_rcnn_r50_fpn.py", "../_base_/datasets/coco_instance.py",
          "../_base_/schedules/schedule_1x.py", "../_base_/default_runtime.py"]
model = dict(
    backbone=dict(depth=18, base_channels=8, frozen_stages=-1, norm_eval=False, init_cfg=None),
    neck=dict(in_channels=[8, 16, 32, 64], out_channels=8),
    rpn_head=dict(in_channels=8, feat_channels=8),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=8),
        mask_roi_extractor=dict(out_channels=8),
        bbox_head=dict(in_channels=8, fc_out_channels=8, num_classes=2),
        mask_head=dict(in_channels=8, conv_out_channels=8, num_convs=1, num_classes=2)),
    test_cfg=dict(rpn=dict(max_per_img=4)))
classes = ("red", "green")
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="MultiScaleFlipAug", img_scale=(64, 48), flip=False, transforms=[
        dict(type="Resize", keep_ratio=True), dict(type="Normalize", mean=[0] * 3, std=[255] * 3),
        dict(type="ImageToTensor", keys=["img"]), dict(type="Collect", keys=["img"])])]
train_pipeline = [
    dict(type="LoadImageFromFile"), dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
    dict(type="Resize", img_scale=(64, 48), keep_ratio=True),
    dict(type="RandomFlip", flip_ratio=0.5),
    dict(type="Normalize", mean=[0] * 3, std=[255] * 3), dict(type="DefaultFormatBundle"),
    dict(type="Collect", keys=["img", "gt_bboxes", "gt_labels", "gt_masks"])]
_files = dict(classes=classes, ann_file="data/boxes.json", img_prefix="data/images/")
data = dict(
    workers_per_gpu=0,
    train=dict(pipeline=train_pipeline, **_files),
    val=dict(pipeline=test_pipeline, **_files),
    test=dict(pipeline=test_pipeline, **_files))
runner = dict(max_epochs=1)
log_config = dict(interval=1)
"""


def write_tiny_detector(folder: Path) -> str:
    """Write four images of a red and a green rectangle, and the configuration of a detector that is
    too small to find them; return its path.
    """
    cv2 = pytest.importorskip("cv2")
    (folder / "data/images").mkdir(parents=True)
    images: list[dict[str, Any]] = []
    boxes: list[dict[str, Any]] = []
    for number in range(1, 5):
        image = np.full((48, 64, 3), 90, np.uint8)
        for category, (x, color) in enumerate(((4, (0, 0, 255)), (36, (0, 255, 0))), 1):
            cv2.rectangle(image, (x, 10), (x + 20, 34), color, -1)
            corners = [x, 10, x + 20, 10, x + 20, 34, x, 34]
            box = {"bbox": [x, 10, 20, 24], "segmentation": [corners], "area": 480, "iscrowd": 0}
            boxes.append({"id": len(boxes) + 1, "image_id": number, "category_id": category, **box})
        cv2.imwrite(str(folder / f"data/images/{number}.png"), image)
        images.append({"id": number, "file_name": f"{number}.png", "width": 64, "height": 48})
    categories = [{"id": 1, "name": "red"}, {"id": 2, "name": "green"}]
    document = {"images": images, "annotations": boxes, "categories": categories}
    (folder / "data/boxes.json").write_text(json.dumps(document))
    path = folder / "configs" / "tiny.py"
    path.parent.mkdir()
    path.write_text(CONFIG)
    return str(path)


@pytest.fixture(autouse=True)
def _as_if_alone() -> Iterator[None]:
    """Every test throws the same, on one thread, whatever was run before; and commands, which are
    called as if the process were theirs, leave no logging and no path mapping behind.
    """
    random.seed(0)
    np.random.seed(0)
    torch = sys.modules.get("torch")
    threads = 0
    if torch is not None:
        torch.manual_seed(0)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # the tests beside this one want the other cores
    log = logging.getLogger("forebay_trainer")
    before = log.level, log.propagate, list(log.handlers)
    environment = dict(os.environ)
    yield
    for name in os.environ.keys() - environment.keys():
        if name.startswith("FOREBAY_"):
            del os.environ[name]
    log.setLevel(before[0])
    log.propagate, log.handlers = before[1:]
    if torch is not None:
        torch.set_num_threads(threads)


@pytest.fixture
def tiny_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The path of a configuration whose data are in ``data`` of the current folder, *tmp_path*."""
    monkeypatch.chdir(tmp_path)
    return write_tiny_detector(tmp_path)
