"""mmengine 0.10.7 trains with its data, weights, checkpoints and logs all at s3://."""

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

PRETRAINED = "demo/pretrained/resnet50.pth"
LOAD_FROM = "demo/pretrained/faster_rcnn.pth"
BATCH = 2

CONFIG = """
backend_args = dict(
    backend='petrel',
    path_mapping=dict({
        './data/toy/': 's3://yourbucket/demo/data/toy/',
        'data/toy/': 's3://yourbucket/demo/data/toy/'
    }))

model = dict(
    type='ToyDetector',
    backbone=dict(
        type='ToyBackbone',
        init_cfg=dict(
            type='Pretrained', checkpoint='s3://yourbucket/demo/pretrained/resnet50.pth')))
train_dataloader = dict(
    batch_size=2,
    num_workers=1,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='ToyCoco', data_root='data/toy/', split='train', flip=0.5,
        backend_args=backend_args))
val_dataloader = dict(
    batch_size=2,
    num_workers=1,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='ToyCoco', data_root='data/toy/', split='val', flip=0.0,
        backend_args=backend_args))
val_evaluator = dict(type='ToyMetric')
train_cfg = dict(by_epoch=True, max_epochs=3, val_interval=1)
val_cfg = dict()
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.05, momentum=0.9, weight_decay=0.0001))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=4),
    dict(type='MultiStepLR', by_epoch=True, milestones=[2]),
]
randomness = dict(seed=20260)
default_hooks = dict(
    logger=dict(
        type='LoggerHook', interval=1, out_dir='s3://yourbucket/demo/logs/', keep_local=False),
    checkpoint=dict(
        type='CheckpointHook', interval=1, max_keep_ckpts=2, save_best='bbox_mAP',
        out_dir='s3://yourbucket/demo/ckpt/'))
log_processor = dict(window_size=1)
load_from = 's3://yourbucket/demo/pretrained/faster_rcnn.pth'
"""
CUSTOM_IMPORTS = "custom_imports = dict(imports=['forebay.mmengine'], allow_failed_imports=False)\n"


@pytest.fixture
def data(bucket: Bucket) -> Bucket:
    """A bucket with all that the configuration wants of it."""
    toy.upload_data(bucket, "demo/data/toy/")
    toy.upload_weights(bucket, PRETRAINED, toy.some_weights(1, "backbone."))
    toy.upload_weights(bucket, LOAD_FROM, toy.some_weights(2))
    return bucket


def write_config(folder: Path, bucket: Bucket, text: str) -> None:
    (folder / "toy.py").write_text(text.replace("yourbucket", bucket.name))


def start(
    folder: Path, daemon: DaemonProcess, work_dir: str, *options: str, under: tuple[str, ...] = ()
) -> Training:
    return Training(
        "train_mmengine",
        "toy.py",
        *("--work-dir", f"work/{work_dir}", *options),
        cwd=folder,
        daemon=daemon,
        under=under,
    )


# --- what it leaves --------------------------------------------------------------------------


def saved(bucket: Bucket, key: str) -> Any:
    return torch.load(io.BytesIO(bucket.get(key)), weights_only=False)


def check_start(training: Training) -> None:
    """Check that the weights of the bucket are what was begun with."""
    assert training.told("initialised") == [toy.digest(toy.some_weights(1, "backbone."))]
    assert training.told("loaded") == [toy.digest(toy.some_weights(2))]


def check_checkpoints(
    bucket: Bucket, prefix: str, weights: dict[int, str], epochs: set[int], best: int
) -> None:
    """Check that checkpoints of *epochs* and the *best* are at the origin, and no other."""
    expected = {f"epoch_{epoch}.pth": epoch for epoch in epochs}
    expected[f"best_bbox_mAP_epoch_{best}.pth"] = best
    assert names_below(bucket, prefix) == set(expected)
    for name, epoch in expected.items():
        checkpoint = saved(bucket, prefix + name)
        assert checkpoint["meta"]["epoch"] == epoch
        assert toy.digest(checkpoint["state_dict"]) == weights[epoch]


def check_logs(bucket: Bucket, prefix: str, training: Training) -> None:
    """Check that the logs at the origin tell what the training did."""
    assert names_below(bucket, prefix) == {
        "TIME.log",
        "vis_data/TIME.json",
        "vis_data/config.py",
        "vis_data/scalars.json",
    }
    lines = [json.loads(x) for x in text_ending(bucket, prefix, "scalars.json").splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert losses == [float.fromhex(loss) for _, _, loss in training.losses]
    scores = [line["bbox_mAP"] for line in lines if "bbox_mAP" in line]
    assert scores == training.told("score")
    log = text_ending(bucket, prefix, ".log")
    assert "Saving checkpoint at 3 epochs" in log
    assert f"is saved to best_bbox_mAP_epoch_{training.best_epoch}.pth" in log


def check_local(folder: Path, *runs: str) -> None:
    """Check that nothing stays on the local disk but what mmengine never sends anywhere."""
    assert local_files(folder / "work") == {
        f"{run}/{name}" for run in runs for name in ("toy.py", "last_checkpoint")
    }


# --- tests -----------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["petrel, custom_imports", "aws, forebay exec"])
def test_a_runner_trains_wholly_at_s3(
    how: str, data: Bucket, daemon: DaemonProcess, client: forebay.Client, tmp_path: Path
) -> None:
    is_exec = "exec" in how
    text = CONFIG.replace("'petrel'", "'aws'") if is_exec else CUSTOM_IMPORTS + CONFIG
    write_config(tmp_path, data, text)

    with start(tmp_path, daemon, "run", under=UNDER_EXEC if is_exec else ()) as training:
        training.finish()
    client.flush()

    assert len(training.losses) == toy.EPOCHS * toy.PICTURES["train"] // BATCH
    check_start(training)
    check_checkpoints(data, "demo/ckpt/run/", training.weights, {2, 3}, training.best_epoch)
    check_logs(data, "demo/logs/run/", training)
    check_local(tmp_path, "run")


def test_killed_in_the_second_epoch_it_resumes_as_if_nothing_had_been(
    data: Bucket, daemon: DaemonProcess, client: forebay.Client, tmp_path: Path
) -> None:
    write_config(tmp_path, data, CONFIG)
    options = ("--import", "forebay.mmengine", "--cfg-options", "train_dataloader.num_workers=2")
    with (
        start(tmp_path, daemon, "whole", *options) as whole,
        start(tmp_path, daemon, "killed", *options, "--pause-at", "2:1") as killed,
    ):
        killed.wait_until_paused()
        killed.kill9()
        with start(tmp_path, daemon, "killed", *options, "--resume") as resumed:
            resumed.finish()
        whole.finish()
    client.flush()

    per_epoch = toy.PICTURES["train"] // BATCH
    assert killed.losses == whole.losses[: per_epoch + 2]
    assert resumed.losses == whole.losses[per_epoch:]
    assert resumed.told("loaded") == [whole.weights[1]]
    assert resumed.weights == {epoch: whole.weights[epoch] for epoch in (2, 3)}
    for run in ("whole", "killed"):
        check_checkpoints(data, f"demo/ckpt/{run}/", whole.weights, {2, 3}, whole.best_epoch)


def test_a_training_outlives_a_crash_of_the_daemon(
    data: Bucket, daemon: DaemonProcess, client: forebay.Client, tmp_path: Path
) -> None:
    write_config(tmp_path, data, CUSTOM_IMPORTS + CONFIG)
    with (
        start(tmp_path, daemon, "quiet") as quiet,
        start(tmp_path, daemon, "crashed", "--pause-at", "2:1") as crashed,
    ):
        crashed.wait_until_paused()
        quiet.finish()
        daemon.kill9()
        daemon.start()
        crashed.go_on()
        crashed.finish()
    client.flush()

    assert crashed.losses == quiet.losses
    for run in ("quiet", "crashed"):
        check_checkpoints(data, f"demo/ckpt/{run}/", quiet.weights, {2, 3}, quiet.best_epoch)
    check_logs(data, "demo/logs/crashed/", crashed)


def test_it_resumes_from_s3_where_no_work_dir_is_left(
    data: Bucket, daemon: DaemonProcess, client: forebay.Client, tmp_path: Path
) -> None:
    write_config(tmp_path, data, CUSTOM_IMPORTS + CONFIG)
    with start(tmp_path, daemon, "first") as whole:
        whole.finish()
    checkpoint = data.url("demo/ckpt/first/epoch_2.pth")

    with start(tmp_path, daemon, "second", "--resume", checkpoint) as resumed:
        resumed.finish()
    client.flush()

    assert resumed.told("loaded") == [whole.weights[2]]
    assert resumed.losses == whole.losses[-len(resumed.losses) :]
    assert whole.best_epoch == 3, "the toy has to get better, for what follows"
    check_checkpoints(data, "demo/ckpt/second/", whole.weights, {3}, 3)


def test_a_configuration_of_local_paths_trains_and_resumes_at_s3_by_one_option(
    data: Bucket, daemon: DaemonProcess, client: forebay.Client, tmp_path: Path
) -> None:
    text = CONFIG.replace("'petrel'", "'local'").replace("'data/toy/'", "'data/toy/data/toy/'")
    text = re.sub(r"path_mapping=dict\(\{.*?\}\)", "", text, flags=re.DOTALL)
    write_config(tmp_path, data, text.replace("s3://yourbucket/demo/", "data/toy/"))
    under = (*UNDER_EXEC, "--path-mapping", f"data/toy/={data.url('demo/')}")

    with start(tmp_path, daemon, "run", under=under) as training:
        training.finish()
    again = ("again", "--resume", "data/toy/ckpt/run/epoch_2.pth")
    with start(tmp_path, daemon, *again, under=under) as resumed:
        resumed.finish()
    client.flush()

    check_start(training)
    assert training.best_epoch == 3, "the toy has to get better, for what follows"
    check_checkpoints(data, "demo/ckpt/run/", training.weights, {2, 3}, 3)
    check_logs(data, "demo/logs/run/", training)
    assert resumed.losses == training.losses[-len(resumed.losses) :]
    check_checkpoints(data, "demo/ckpt/again/", training.weights, {3}, 3)
    check_local(tmp_path, "run", "again")
    assert not (tmp_path / "data").exists()
