"""Wrong configurations end in one line that names the place, before anything is read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("cv2")
pytest.importorskip("faster_coco_eval")

from forebay_trainer.check import check_config, check_files, errors_of_parts
from forebay_trainer.config import ConfigError, load_config, normalized
from forebay_trainer.models.builder import build_detector

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
        ("model", {"_delete_": True, "neck": None}, r"model\.type is missing"),
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
        (
            "data.train.pipeline.2.multiscale_mode",
            "all",
            r"data.train.pipeline\[2\]: .*multiscale_mode 'all' is none of range, value",
        ),
        ("data.train_dataloader", {"num_workers": 1}, "data.train_dataloader.num_workers: say sam"),
        (
            "data.val",
            {
                **{"_delete_": True, "type": "RepeatDataset", "times": 2},
                "dataset": {"type": "CocoDataset", "ann_file": "a.json", "pipeline": []},
            },
            "data.val.type: RepeatDataset is to train with, not to evaluate",
        ),
        ("evaluation.metrics", "bbox", "evaluation.metrics: neither the hook nor CocoDataset"),
        ("evaluation.metric", ["bbox", "mAP"], "evaluation.metric: CocoDataset has bbox, segm, p"),
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
        ("runner.max_epochs", "3", "runner.max_epochs is a whole number from 1 up, not '3'"),
        ("workflow", [("trian", 1)], r"workflow\[0\]: 'trian' is neither 'train' nor 'val'"),
        ("workflow", [("train",)], r"workflow\[0\] is a pair as \('train', 1\), not \('train',\)"),
        ("workflow", [("val", 1)], r"workflow: there is no \('train', 1\)"),
        ("data.samples_per_gpu", 0, "data.train_dataloader.samples_per_gpu is a whole number from"),
        ("data.workers_per_gpu", "2", "data.train_dataloader.workers_per_gpu is a whole number"),
        ("data.train.pipeline", "flip", "data.train.pipeline is a list of transforms, not 'flip'"),
        (
            "data.train.pipeline.3.flip_ratio",
            3,
            r"data.train.pipeline\[3\]: flip_ratio 3 is no probability",
        ),
        (
            "model.test_cfg.rcnn.nms.sigma",
            0.5,
            "model.test_cfg.rcnn.nms: got an unexpected keyword argument 'sigma'",
        ),
        (
            "model.test_cfg.rcnn.nms.type",
            "nmss",
            "model.test_cfg.rcnn.nms: unknown nms type 'nmss'",
        ),
        (
            "optimizer.paramwise_cfg",
            {"custom_keys": {"backbone": {"lr_mul": 0.1}}},
            "optimizer.paramwise_cfg.custom_keys.backbone.lr_mul: there is no such rule",
        ),
        (
            "optimizer_config",
            {"_delete_": True, "grad_clip": {"max_nrm": 35}},
            "optimizer_config: (missing a required argument: 'max_norm'|got an unexpected keyword)",
        ),
        ("lr_config.warmup", "liner", "lr_config: warmup is 'constant', 'linear' or 'exp', not"),
        ("evaluation.interval", 0, "evaluation: interval is 1 or more, not 0"),
        (
            "custom_hooks",
            [{"type": "NumClassCheckHook", "every": 2}],
            r"custom_hooks\[0\].every: NumClassCheckHook has no such argument",
        ),
        (
            "custom_hooks",
            [{"type": "NumClassCheckHook", "priority": "HIGHER"}],
            r"custom_hooks\[0\].priority: 'HIGHER' is none of HIGHEST, VERY_HIGH",
        ),
        (
            "auto_scale_lr",
            {"_delete_": True, "enable": True},
            "auto_scale_lr.base_batch_size is missing",
        ),
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


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("model.backbone.depth", 51, r"model\.backbone: ResNet has no depth 51"),
        ("model.rpn_head.anchor_generator.scales", None, r"model\.rpn_head\.anchor_generator: "),
        (
            "model.roi_head.mask_roi_extractor.roi_layer.type",
            "RoIPool",
            r"model\.roi_head\.mask_roi_extractor: roi_layer is of type RoIAlign, not 'RoIPool'",
        ),
        ("model.roi_head.bbox_head", None, r"model\.roi_head: "),
    ],
)
def test_the_innermost_part_that_cannot_be_built_is_named(
    tmp_path: Path, key: str, value: Any, message: str
) -> None:
    config = config_of(tmp_path, **{key: value})

    with pytest.raises(ConfigError, match=message), errors_of_parts(config.model):
        build_detector(config.model)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train_cfg=None", r"model\.train_cfg\.rpn is missing"),
        ("test_cfg=dict(rcnn=None)", r"model\.test_cfg\.rcnn is missing"),
        (
            "train_cfg=dict(rcnn=dict(_delete_=True, assigner=dict(type='MaxIoUAssigner', "
            "pos_iou_thr=0.5, neg_iou_thr=0.5)))",
            r"model\.train_cfg\.rcnn\.sampler is missing",
        ),
        (
            "test_cfg=dict(rpn=dict(_delete_=True, nms_pre=10, max_per_img=10))",
            r"model\.test_cfg\.rpn\.nms is missing",
        ),
    ],
)
def test_what_a_stage_needs_is_looked_for(tmp_path: Path, text: str, message: str) -> None:
    config = config_of(tmp_path, f"model = dict({text})\n")

    with pytest.raises(ConfigError, match=message):
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
        "log_config = dict(intervall=5)\n"
        "auto_scale_lr = dict(enabled=True)\n"
        "dist_params = dict(port=29500)\n"
    )

    warnings = check_config(config_of(tmp_path, text, fp61=1), ["train"])

    assert [warning.split(" ")[0] for warning in warnings] == [
        "fp61",
        "optimzer",
        "train_pipeline",
        "auto_scale_lr.enabled",
        "data.sampels_per_gpu",
        "dist_params.port",
        "log_config.intervall",
        "model.test_cfg.rpn.nms_prae",
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
