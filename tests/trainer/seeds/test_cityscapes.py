"""Cascade Mask R-CNN with AugFPN on Cityscapes, by a configuration that names local paths and a URL
for its weights: a path mapping alone brings it to Ceph.
"""

from __future__ import annotations

import json
import pickle
import re
from typing import TYPE_CHECKING, Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("cv2")
pytest.importorskip("mmengine")
pytest.importorskip("faster_coco_eval")

from forebay_trainer.config import load_config  # noqa: E402
from forebay_trainer.models.builder import build_detector  # noqa: E402
from support.typed import as_typed  # noqa: E402
from trainer.seeds.pictures import write_cityscapes  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from support.ceph import Bucket
    from support.typed import Typist

NAME = "cascade_mask_rcnn_r50_augfpn_autoaug_10e_cityscapes"
CONFIG = f"configs/cityscapes/{NAME}.py"
WEIGHTS = (
    "v2.0/cascade_rcnn/cascade_mask_rcnn_r50_fpn_1x_coco/"
    "cascade_mask_rcnn_r50_fpn_1x_coco_20200203-9d4dcb24.pth"
)
SPLIT = "data/cityscapes/annotations/instancesonly_filtered_gtFine_{}.json"
# Narrow layers: a checkpoint of 100 MB instead of 600.
NARROW = {
    "model.backbone.base_channels": 8,
    "model.neck.in_channels": [32, 64, 128, 256],
    **{f"model.roi_head.bbox_head.{stage}.fc_out_channels": 64 for stage in range(3)},
}
SHORT = as_typed(
    NARROW
    | {
        "total_epochs": 1,
        "data.train.times": 1,
        "data.workers_per_gpu": 1,
        "log_config.interval": 1,
        "data.train.dataset.pipeline.3.img_scale": [(64, 32), (64, 48)],
        "data.val.pipeline.1.img_scale": (64, 32),
    }
)


def coco_detector(folder: Path) -> dict[str, Any]:
    """Return weights of the detector with 80 classes and FPN that the run begins with."""
    (folder / "coco").mkdir()
    path = folder / "coco" / "cascade_mask_rcnn_r50_fpn_1x_coco.py"
    path.write_text("_base_ = '../_base_/models/cascade_mask_rcnn_r50_fpn.py'\n")
    weights: dict[str, Any] = build_detector(load_config(path, NARROW).model).state_dict()
    return weights


def test_it_converts_trains_and_tests(
    user: Typist,
    bucket: Bucket,
    upload: Callable[[Path, str], None],
    publish: Callable[[str, dict[str, Any]], None],
    tmp_path: Path,
) -> None:
    write_cityscapes(tmp_path / "pictures")
    upload(tmp_path / "pictures", "cities/")
    publish(f"models/{WEIGHTS}", coco_detector(tmp_path))
    with (tmp_path / CONFIG).open("a") as file:  # as its tutorial has it, with the stray ".py"
        file.write(
            "custom_imports = dict(imports=['mmdet.models.necks.augfpn.py'], "
            "allow_failed_imports=False)\n"
        )
    told = user.run(
        "forebay convert cityscapes ./data/cityscapes --nproc 2 "
        "--out-dir ./data/cityscapes/annotations"
    )
    assert "train: 3 images, 6 instances in" in told

    models = f"http://download.openmmlab.com/mmdetection/={bucket.url('models/')}"
    told = user.run(
        f"forebay train {CONFIG} --seed 1 --path-mapping {models} --cfg-options {SHORT}"
    )
    check_warnings(told)
    work_dir = tmp_path / "work_dirs" / NAME
    check_log(work_dir)
    assert {path.name for path in work_dir.iterdir()} > {"epoch_1.pth", "plot.png", f"{NAME}.py"}
    trained = torch.load(work_dir / "latest.pth", weights_only=True)
    assert trained["meta"]["CLASSES"] == (
        *("person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"),
    )
    assert (trained["meta"]["epoch"], trained["meta"]["iter"]) == (1, 2)

    told = user.run(
        f"forebay test {CONFIG} work_dirs/{NAME}/latest.pth --eval bbox segm "
        f"--show-dir {bucket.url('shown')} --out found.pkl --show-score-thr 0 --cfg-options "
        f"{as_typed(NARROW)} data.test.ann_file={SPLIT.format('val')} data.workers_per_gpu=0 "
        "data.test.img_prefix=data/cityscapes/leftImg8bit/val/ "
        "'data.test.pipeline.1.img_scale=(64,32)'"
    )
    assert re.search(r"^segm_mAP: \d", told, re.MULTILINE)
    assert bucket.keys("shown/") == ["shown/frankfurt/frankfurt_000000_000019_leftImg8bit.png"]
    ((boxes, masks),) = pickle.loads((tmp_path / "found.pkl").read_bytes())  # noqa: S301  # ours
    assert sum(map(len, masks)) > 0
    assert [len(each) for each in boxes] == [len(each) for each in masks]
    assert all(mask["size"] == [64, 128] for each in masks for mask in each)


def check_warnings(told: str) -> None:
    """Only what the checkpoint does not have, and what does not fit, is warned of: all of it."""
    lines = told.splitlines()
    (number,) = [number for number, line in enumerate(lines) if " - WARNING - " in line]
    assert lines[number].endswith(f"{WEIGHTS} is loaded, but for what is")
    missing, mismatched = lines[number + 1 : number + 3]
    assert missing.startswith("  in the model only: neck.augmentation.")
    assert all(".augmentation." in name for name in missing.partition(": ")[2].split(", "))
    assert mismatched.startswith("  of another shape, skipped: ")
    assert "roi_head.bbox_head.2.fc_cls.weight (81, 64) for (9, 64)" in mismatched
    assert mismatched.count(" for ") == 12  # weight and bias of 3 classifiers, and of 3 masks'


def check_log(work_dir: Path) -> None:
    """Its lines have the keys of MMDetection's logs, in their order."""
    (log,) = work_dir.glob("*.log.json")
    about, *records = [json.loads(line) for line in log.read_text().splitlines()]
    assert about["seed"] == 1
    assert about["exp_name"] == f"{NAME}.py"
    first, second, scores = [record for record in records if "mode" in record]
    stages = [
        f"s{stage}.{name}"
        for stage in range(3)
        for name in ("loss_cls", "acc", "loss_bbox", "loss_mask")
    ]
    losses = ["loss_rpn_cls", "loss_rpn_bbox", *stages, "loss"]
    assert list(first) == ["mode", "epoch", "iter", "lr", "data_time", *losses, "time"]
    assert [(each["mode"], each["epoch"], each["iter"]) for each in (first, second, scores)] == [
        ("train", 1, 1),
        ("train", 1, 2),
        ("val", 1, 1),
    ]
    assert first["lr"] == pytest.approx(0.01 * 0.001)
    assert list(scores)[:5] == ["mode", "epoch", "iter", "lr", "bbox_mAP"]
    assert {"segm_mAP", "segm_mAP_copypaste"} < scores.keys()
