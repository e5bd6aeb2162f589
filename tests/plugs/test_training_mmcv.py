"""mmcv 1.7.2 trains with its data, weights, checkpoints and logs all at s3://."""

from __future__ import annotations

import io
import json
import re
from typing import TYPE_CHECKING, Any

import pytest
import torch

from support import toy_training as toy
from support.training import UNDER_EXEC, Training, local_files, names_below, text_ending

if TYPE_CHECKING:
    from pathlib import Path

    import forebay
    from support.ceph import Bucket
    from support.daemon import DaemonProcess

PRETRAINED = "demo/pretrained/resnet50_batch256_imagenet_20200708-cfb998bf.pth"
LOAD_FROM = "demo/pretrained/faster_rcnn_r50_fpn_1x_coco_20200130-047c8118.pth"

BASE = """
data_root = 'data/coco/'
data = dict(
    train=dict(
        type='ToyCoco',
        ann_file=data_root + 'annotations/instances_train2017.json',
        img_prefix=data_root + 'train2017/'),
    val=dict(
        type='ToyCoco',
        ann_file=data_root + 'annotations/instances_val2017.json',
        img_prefix=data_root + 'val2017/'))
model = dict(type='ToyDetector', backbone=dict(type='ToyBackbone'))
optimizer = dict(type='SGD', lr=0.05, momentum=0.9, weight_decay=0.0001)
optimizer_config = dict(grad_clip=None)
lr_config = dict(policy='step', warmup='linear', warmup_iters=4, warmup_ratio=0.1, step=[2])
resume_from = None
workflow = [('train', 1)]
"""

# From "How to use S3" of mmdetection, to the letter but for steps of the pipelines that read
# nothing; keep_local=False is from its part on logs.
TUTORIAL = """
_base_ = ['base.py']

file_client_args = dict(
    backend='aws',
    path_mapping=dict({
        'data/coco/': 's3://yourbucket/demo/data/coco/',
        'data/coco/': 's3://yourbucket/demo/data/coco/'
    }))
img_norm_cfg = dict(
    mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)
train_pipeline = [
    dict(type='LoadImageFromFile', file_client_args=file_client_args),
    dict(type='RandomFlip', flip_ratio=0.5),
    dict(type='Normalize', **img_norm_cfg),
]
test_pipeline = [
    dict(type='LoadImageFromFile', file_client_args=file_client_args),
    dict(type='Normalize', **img_norm_cfg),
]

data = dict(
    samples_per_gpu=1,
    workers_per_gpu=1,
    train=dict(pipeline=train_pipeline, file_client_args=file_client_args),
    val=dict(pipeline=test_pipeline, file_client_args=file_client_args),
    test=dict(pipeline=test_pipeline, file_client_args=file_client_args))

evaluation = dict(
    interval=1, save_best='bbox', out_dir='s3://yourbucket/demo/ckpt/')

model = dict(
    backbone=dict(
        init_cfg=dict(
            type='Pretrained',
            checkpoint='s3://yourbucket/demo/pretrained/resnet50_batch256_imagenet_20200708-cfb998bf.pth'
        )))

# finetune
load_from = 's3://yourbucket/demo/pretrained/faster_rcnn_r50_fpn_1x_coco_20200130-047c8118.pth'

# checkpoint saving
checkpoint_config = dict(
    interval=1, max_keep_ckpts=2, out_dir='s3://yourbucket/demo/ckpt/')

log_config = dict(
    interval=1,
    hooks=[
        dict(type='TextLoggerHook', out_dir='s3://yourbucket/demo/logs/', keep_local=False),
        # dict(type='TensorboardLoggerHook')
    ])  # yapf:enable
"""
CUSTOM_IMPORTS = "custom_imports = dict(imports=['forebay.mmcv'], allow_failed_imports=False)\n"


@pytest.fixture
def data(bucket: Bucket) -> Bucket:
    """A bucket with all that the tutorial wants of it."""
    toy.upload_data(bucket, "demo/data/coco/")
    toy.upload_weights(bucket, PRETRAINED, toy.some_weights(1, "backbone."))
    toy.upload_weights(bucket, LOAD_FROM, toy.some_weights(2))
    return bucket


def write_config(folder: Path, bucket: Bucket, text: str = TUTORIAL, base: str = BASE) -> None:
    (folder / "base.py").write_text(base)
    (folder / "toy.py").write_text(text.replace("yourbucket", bucket.name))


def start(
    folder: Path, daemon: DaemonProcess, work_dir: str, *options: str, under: tuple[str, ...] = ()
) -> Training:
    return Training(
        "train_mmcv",
        "toy.py",
        *("--work-dir", f"work/{work_dir}", *options),
        cwd=folder,
        daemon=daemon,
        under=under,
    )


# --- what it leaves --------------------------------------------------------------------------


def saved(bucket: Bucket, key: str) -> Any:
    return torch.load(io.BytesIO(bucket.get(key)))


def check_start(training: Training) -> None:
    """Check that the weights of the bucket are what was begun with."""
    assert training.told("initialised") == [toy.digest(toy.some_weights(1, "backbone."))]
    assert training.told("loaded") == [toy.digest(toy.some_weights(2))]


def check_checkpoints(bucket: Bucket, prefix: str, weights: dict[int, str], best: set[int]) -> None:
    """Check that the last two checkpoints and the *best* are at the origin, and no other."""
    expected = {"epoch_2.pth": 2, "epoch_3.pth": 3}
    expected |= {f"best_bbox_epoch_{epoch}.pth": epoch for epoch in best}
    assert names_below(bucket, prefix) == set(expected)
    for name, epoch in expected.items():
        checkpoint = saved(bucket, prefix + name)
        assert checkpoint["meta"]["epoch"] == epoch
        assert toy.digest(checkpoint["state_dict"]) == weights[epoch]


def check_logs(bucket: Bucket, prefix: str, training: Training) -> None:
    """Check that the logs at the origin tell what the training did."""
    assert names_below(bucket, prefix) == {"TIME.log", "TIME.log.json", "config.py"}
    _, *lines = map(json.loads, text_ending(bucket, prefix, ".log.json").splitlines())
    steps = [(line["epoch"], line["iter"], line["loss"]) for line in lines if "loss" in line]
    assert steps == [
        (epoch, step + 1, round(float.fromhex(loss), 5)) for epoch, step, loss in training.losses
    ]
    scores = [line["bbox"] for line in lines if line["mode"] == "val"]
    assert scores == [round(score, 5) for score in training.told("score")]
    log = text_ending(bucket, prefix, ".log")
    assert "Saving checkpoint at 3 epochs" in log
    assert "Now best checkpoint is saved as best_bbox_epoch_" in log


# --- tests -----------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["aws, custom_imports", "petrel, forebay exec"])
def test_the_tutorials_configuration_trains_wholly_at_s3(
    how: str, data: Bucket, daemon: DaemonProcess, client: forebay.Client, tmp_path: Path
) -> None:
    is_exec = "exec" in how
    text = TUTORIAL.replace("'aws'", "'petrel'") if is_exec else CUSTOM_IMPORTS + TUTORIAL
    write_config(tmp_path, data, text)

    with start(tmp_path, daemon, "run", under=UNDER_EXEC if is_exec else ()) as training:
        training.finish()
    client.flush()

    assert len(training.losses) == toy.EPOCHS * toy.PICTURES["train"]
    check_start(training)
    check_checkpoints(data, "demo/ckpt/run/", training.weights, {training.best_epoch})
    check_logs(data, "demo/logs/run/", training)
    assert local_files(tmp_path / "work") == set()


def test_killed_in_the_third_epoch_it_resumes_as_if_nothing_had_been(
    data: Bucket, daemon: DaemonProcess, client: forebay.Client, tmp_path: Path
) -> None:
    write_config(tmp_path, data)
    options = ("--import", "forebay.mmcv", "--cfg-options", "data.workers_per_gpu=2")
    with (
        start(tmp_path, daemon, "whole", *options) as whole,
        start(tmp_path, daemon, "killed", *options, "--pause-at", "3:2") as killed,
    ):
        killed.wait_until_paused()
        killed.kill9()
        at = data.url("demo/ckpt/killed/")
        listed = [str(getattr(entry, "uri", entry)) for entry in client.list(at)]
        last = max(uri for uri in listed if "/epoch_" in uri)
        assert last == f"{at}epoch_2.pth"
        with start(tmp_path, daemon, "killed", *options, f"resume_from={last}") as resumed:
            resumed.finish()
        whole.finish()
    client.flush()

    per_epoch = toy.PICTURES["train"]
    assert killed.losses == whole.losses[: 2 * per_epoch + 3]
    assert resumed.losses == whole.losses[2 * per_epoch :]
    assert resumed.told("loaded") == [whole.weights[2]]
    assert resumed.weights == {3: whole.weights[3]}
    assert whole.best_epoch == 3, "the toy has to get better, for what follows"
    check_checkpoints(data, "demo/ckpt/whole/", whole.weights, {3})
    # mmcv saves epoch 2 before it knows that it is the best so far, and forgets of that one.
    check_checkpoints(data, "demo/ckpt/killed/", whole.weights, {2, 3})


def test_a_configuration_of_local_paths_trains_and_resumes_at_s3_by_one_option(
    data: Bucket, daemon: DaemonProcess, client: forebay.Client, tmp_path: Path
) -> None:
    text = TUTORIAL.replace("'aws'", "'disk'").replace("s3://yourbucket/demo/", "data/toy/")
    text = re.sub(r"path_mapping=dict\(\{.*?\}\)", "", text, flags=re.DOTALL)
    base = BASE.replace("'data/coco/'", "'data/toy/data/coco/'")
    write_config(tmp_path, data, text, base)
    under = (*UNDER_EXEC, "--path-mapping", f"data/toy/={data.url('demo/')}")

    with start(tmp_path, daemon, "run", under=under) as training:
        training.finish()
    again = ("again", "--cfg-options", "resume_from=data/toy/ckpt/run/epoch_2.pth")
    with start(tmp_path, daemon, *again, under=under) as resumed:
        resumed.finish()
    client.flush()

    check_start(training)
    check_checkpoints(data, "demo/ckpt/run/", training.weights, {training.best_epoch})
    check_logs(data, "demo/logs/run/", training)
    assert resumed.told("loaded") == [training.weights[2]]
    assert resumed.losses == training.losses[-len(resumed.losses) :]
    assert local_files(tmp_path / "work") == set()
    assert not (tmp_path / "data").exists()
