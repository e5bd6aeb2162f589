"""Faster R-CNN on COCO, by a configuration that names S3 for all that it reads and writes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("cv2")
pytest.importorskip("mmengine")
pytest.importorskip("faster_coco_eval")

from forebay_trainer.config import load_config  # noqa: E402
from forebay_trainer.models.builder import build_detector  # noqa: E402
from support.training import local_files, names_below  # noqa: E402
from support.typed import as_typed  # noqa: E402
from trainer.seeds.pictures import write_coco  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from support.ceph import Bucket
    from support.typed import Typist

NAME = "faster_rcnn_r50_fpn_1x_coco_s3"
CONFIG = f"configs/s3/{NAME}.py"
# Narrow layers: checkpoints of 20 MB instead of 330, of which a run writes five.
NARROW = {
    "model.backbone.base_channels": 8,
    "model.neck.in_channels": [32, 64, 128, 256],
    "model.roi_head.bbox_head.fc_out_channels": 64,
}
SHORT = as_typed(
    NARROW
    | {
        f"data.{split}.img_scale": (64, 48)
        for split in ("train.pipeline.2", "val.pipeline.1", "test.pipeline.1")
    }
)


def test_it_keeps_its_last_two_checkpoints_the_best_and_the_logs_at_s3(
    user: Typist,
    bucket: Bucket,
    upload: Callable[[Path, str], None],
    publish: Callable[[str, dict[str, Any]], None],
    tmp_path: Path,
) -> None:
    write_coco(tmp_path / "pictures")
    upload(tmp_path / "pictures", "demo/data/coco/")
    detector = build_detector(load_config(tmp_path / CONFIG, NARROW).model)
    pretrained = "demo/pretrained/"
    publish(f"{pretrained}faster_rcnn_r50_fpn_1x_coco_20200130-047c8118.pth", detector.state_dict())
    backbone = detector.backbone.state_dict()
    publish(
        f"{pretrained}resnet50_batch256_imagenet_20200708-cfb998bf.pth",
        {**backbone, "fc.bias": torch.zeros(1000)},
    )
    checkpoints = f"demo/ckpt/{NAME}/"

    told = user.run(f"forebay train {CONFIG} --cfg-options runner.max_epochs=3 {SHORT}")

    assert " - WARNING - " not in told
    assert "  in the checkpoint only: fc.bias" in told
    assert re.search(r" - seed \d+$", told, re.MULTILINE)  # for another time
    kept = names_below(bucket, checkpoints)
    assert kept - {name for name in kept if name.startswith("best_bbox_mAP_epoch_")} == {
        "epoch_2.pth",
        "epoch_3.pth",
    }
    assert len(kept) == 3
    logs = {"TIME.log", "TIME.log.json", "plot.png", f"{NAME}.py"}
    assert names_below(bucket, f"demo/logs/{NAME}/") == logs
    assert len(local_files(tmp_path / "work_dirs" / NAME)) == len(logs)  # and no checkpoint

    found = user.run(
        f"forebay test {CONFIG} {bucket.url(checkpoints)}latest.pth --format-only --eval-options "
        f"jsonfile_prefix={bucket.url('found')} --cfg-options {SHORT}"
    )
    assert "latest.pth: all weights are loaded" in found
    assert bucket.keys("found") == ["found.bbox.json"]
