"""Wrong configurations end in one line that names the place, before anything is read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("cv2")
pytest.importorskip("faster_coco_eval")

from forebay_trainer.check import check_config, check_files
from forebay_trainer.config import ConfigError, load_config, normalized

if TYPE_CHECKING:
    from pathlib import Path

    from forebay_trainer.registry import Config

BASES = (
    '_base_ = ["../_base_/models/mask_rcnn_r50_fpn.py", "../_base_/datasets/coco_instance.py", '
    '"../_base_/schedules/schedule_1x.py", "../_base_/default_runtime.py"]\n'
)


def config_of(folder: Path, text: str = "", **options: Any) -> Config:
    path = folder / "mine" / "a.py"
    path.parent.mkdir()
    path.write_text(BASES + text)
    return normalized(load_config(path, options))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (
            "model.type",
            "MaskRCN",
            "model.type: model 'MaskRCN' is not known; did you mean MaskRCNN",
        ),
        ("model.backbone.depht", 50, "model.backbone.depht: ResNet has no such argument; did you"),
        ("model.neck.type", "FPM", "model.neck.type: model 'FPM' is not known"),
        (
            "model.roi_head.bbox_head.bbox_coder.type",
            "Delta",
            "model.roi_head.bbox_head.bbox_coder.type: box coder 'Delta' is not known",
        ),
        (
            "model.train_cfg.rpn.assigner.pos_iou",
            1,
            "model.train_cfg.rpn.assigner.pos_iou: MaxIoUAssigner has no such argument",
        ),
        ("data.train.ann_fil", "x", "data.train.ann_fil: CocoDataset has no such argument"),
        (
            "data.val.pipeline.1.transforms.0.type",
            "Resiz",
            r"data.val.pipeline\[1\].transforms\[0\].type: transform 'Resiz' is not known",
        ),
        ("optimizer.type", "SDG", "optimizer.type: optimizer 'SDG' is not known; did you mean SGD"),
        ("optimizer.momentun", 0, "optimizer.momentun: SGD has no such argument"),
        ("optimizer.paramwise_cfg", {"bias_lr": 2}, "optimizer.paramwise_cfg.bias_lr: there is no"),
        ("lr_config.policy", "stepp", "lr_config.policy: 'stepp' is not known"),
        ("evaluation.metrics", "bbox", "evaluation.metrics: neither the hook nor CocoDataset"),
        ("custom_hooks", [{"type": "Foo"}], r"custom_hooks\[0\].type: hook 'Foo' is not known"),
        ("custom_hooks", ["Foo"], r"custom_hooks\[0\] is a dict with a type, not 'Foo'"),
        ("checkpoint_config.max_keep", 2, "checkpoint_config.max_keep: CheckpointHook has no such"),
        (
            "data.train_dataloader.worker",
            2,
            "data.train_dataloader.worker: there is no such option",
        ),
        (
            "runner",
            {"type": "IterBasedRunner", "_delete_": True},
            "runner: IterBasedRunner needs max",
        ),
        ("workflow", [("trian", 1)], r"workflow\[0\]: 'trian' is neither 'train' nor 'val'"),
    ],
)
def test_the_place_of_an_error(tmp_path: Path, key: str, value: Any, message: str) -> None:
    config = config_of(tmp_path, **{key: value})

    with pytest.raises(ConfigError, match=message) as raised:
        check_config(config, ["train", "val"])
    assert "\n" not in str(raised.value)


def test_a_part_that_needs_more_says_what(tmp_path: Path) -> None:
    text = "model = dict(neck=dict(_delete_=True, type='FPN', in_channels=[1]))\n"
    config = config_of(tmp_path, text)

    with pytest.raises(ConfigError, match=r"model\.neck: FPN needs num_outs, out_channels"):
        check_config(config, ["train"])


def test_upstreams_own_bases_give_no_warning(tmp_path: Path) -> None:
    assert check_config(config_of(tmp_path), ["train", "val", "test"]) == []


def test_keys_that_nothing_reads_are_warned_of(tmp_path: Path) -> None:
    """A pipeline that is changed but given to no data set is the mistake that costs a week."""
    text = (
        "size = (64, 32)\n"
        "train_pipeline = [dict(type='Resize', img_scale=size)]\n"
        "optimzer = dict(lr=1)\n"
        "model = dict(test_cfg=dict(rpn=dict(nms_prae=3)))\n"
        "data = dict(sampels_per_gpu=4)\n"
    )

    warnings = check_config(config_of(tmp_path, text, fp61=1), ["train"])

    assert [warning.split(" ")[0] for warning in warnings] == [
        "fp61",
        "optimzer",
        "train_pipeline",
        "model.test_cfg.rpn.nms_prae",
        "data.sampels_per_gpu",
    ]


def test_data_that_are_not_there_are_named(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    config.model.backbone.init_cfg = None

    with pytest.raises(
        ConfigError, match=r"data\.train\.ann_file: data/coco/annotations/instances"
    ):
        check_files(config, ["train"])


def test_weights_that_cannot_be_reached_come_before_data(tmp_path: Path) -> None:
    config = config_of(tmp_path, load_from="http://download.example.org/models/a.pth")
    config.model.backbone.init_cfg = None

    with pytest.raises(
        ConfigError, match=r"load_from: .*--path-mapping http://download.example.org/m"
    ):
        check_files(config, ["train"])


def test_weights_of_a_part_are_named_with_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model\.backbone\.init_cfg\.checkpoint: torchvision://"):
        check_files(config_of(tmp_path), ["train"])
