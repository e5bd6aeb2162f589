"""A detector of RegNet by a configuration with the backend petrel, two rounds over its data and
logs that are not kept on this machine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("cv2")
pytest.importorskip("mmengine")
pytest.importorskip("faster_coco_eval")

from forebay_trainer.config import load_config
from forebay_trainer.models.builder import build_detector
from support.training import local_files, names_below, text_ending
from support.typed import as_typed
from trainer.seeds.pictures import write_coco

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from support.ceph import Bucket
    from support.typed import Typist

CONFIG = "configs/petrel/regnet_coco.py"
NARROW = {"model.roi_head.bbox_head.fc_out_channels": 64}  # half of the weights are in that layer
SHORT = as_typed(
    NARROW
    | {
        "runner.max_epochs": 1,
        "log_config.interval": 1,
        "data.train.dataset.pipeline.2.img_scale": (64, 48),
        "data.val.pipeline.1.img_scale": (64, 48),
    }
)


def test_it_trains_twice_over_its_data(
    user: Typist,
    bucket: Bucket,
    upload: Callable[[Path, str], None],
    publish: Callable[[str, dict[str, Any]], None],
    tmp_path: Path,
) -> None:
    write_coco(tmp_path / "pictures")
    upload(tmp_path / "pictures", "datasets/detection3d/nuscenes/")
    config = load_config(tmp_path / CONFIG, NARROW)
    detector = build_detector(config.model)
    publish(config.load_from.removeprefix(bucket.url()), detector.state_dict())
    publish("checkpoints/mmdetection3d/regnetx_1.6gf", detector.backbone.state_dict())

    told = user.run(f"forebay train {CONFIG} --seed 1 --cfg-options {SHORT}")

    assert " - WARNING - " not in told
    assert names_below(bucket, "mmdetection3d/regnet_coco/") == {
        *("epoch_1.pth", "best_bbox_mAP_epoch_1.pth"),
        *("TIME.log", "TIME.log.json", "plot.png", "regnet_coco.py"),
    }
    log = text_ending(bucket, "mmdetection3d/regnet_coco/", ".log.json")
    assert log.count('"mode": "train"') == 3  # twice 2 broad images and 1 high one, in twos
    assert local_files(tmp_path / "work_dirs") == set()
