"""Reading configurations."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")
pytest.importorskip("mmengine")

from typing import TYPE_CHECKING

from forebay_trainer.config import (
    ConfigError,
    as_config,
    load_config,
    normalized,
    parse_options,
)

if TYPE_CHECKING:
    from pathlib import Path


def write(folder: Path, name: str, text: str) -> str:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


def test_bases_that_are_not_there_are_ours(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "configs/mine/a.py",
        '_base_ = ["../_base_/models/cascade_mask_rcnn_r50_fpn.py", '
        '"../_base_/schedules/schedule_20e.py"]\n'
        "model = dict(neck=dict(_delete_=True, type='AugFPN'))\n",
    )

    config = load_config(path)

    assert config.model.neck == {"type": "AugFPN"}
    thresholds = [stage.assigner.pos_iou_thr for stage in config.model.train_cfg.rcnn]
    assert thresholds == [0.5, 0.6, 0.7]
    assert config.runner.max_epochs == 20
    assert config.filename == path


def test_a_users_own_base_goes_before_ours(tmp_path: Path) -> None:
    write(tmp_path, "_base_/schedules/schedule_1x.py", "runner = dict(max_epochs=99)\n")
    path = write(tmp_path, "mine/a.py", '_base_ = "../_base_/schedules/schedule_1x.py"\n')

    assert load_config(path).runner.max_epochs == 99


def test_what_stands_in_braces_is_filled_in(tmp_path: Path) -> None:
    write(tmp_path, "base.py", "size = (8, 4)\nnames = dict(first='a')\n")
    path = write(
        tmp_path,
        "run7.py",
        '_base_ = "./base.py"\n'
        'work_dir = "{{ fileDirname }}/{{ fileBasenameNoExtension }}"\n'
        "step = dict(scale={{ _base_.size }}, name={{ _base_.names.first }})\n"
        'root = "data/${names.first}"\nsame = "${step}"\n',
    )

    config = load_config(path)

    assert config.work_dir == f"{tmp_path}/run7"
    assert config.step == {"scale": (8, 4), "name": "a"}
    assert config.root == "data/a"
    assert config.same == config.step


def test_options_change_what_is_there(tmp_path: Path) -> None:
    path = write(tmp_path, "a.py", "optimizer = dict(lr=1.0)\nsteps = [dict(type='A')]\n")
    pairs = (
        "optimizer.lr=0.5",
        "steps.0.type=B",
        "size=(3,4)",
        "sizes=(3,4),(5,6)",
        "pair=(a,b)",
        "names=a,b",
        "flag=true",
        "n=[1,2]",
    )

    config = load_config(path, parse_options(pairs))

    assert config.optimizer.lr == 0.5
    assert config.steps[0].type == "B"
    assert config.size == (3, 4)
    assert config.sizes == [(3, 4), (5, 6)]
    assert config.pair == ("a", "b")
    assert config.names == ["a", "b"]
    assert config.flag is True
    assert config.n == [1, 2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a = 1\nb = (\n", "a.py:2: "),
        ("a = 1\nb = missing\n", "a.py:2: NameError: name 'missing' is not defined"),
        ('_base_ = "nothing.py"\n', "nothing.py: there is no such configuration"),
        ('a = "${b.c}"\n', r"\$\{b\.c\}: there is no such key"),
    ],
)
def test_an_error_names_its_place(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, "a.py", text)

    with pytest.raises(ConfigError, match=message) as raised:
        load_config(path)
    assert "\n" not in str(raised.value)


def test_yaml_has_bases_too(tmp_path: Path) -> None:
    write(tmp_path, "base.yaml", "optimizer: {type: SGD, lr: 1.0}\n")
    path = write(tmp_path, "a.yaml", "_base_: base.yaml\noptimizer: {lr: 0.5}\n")

    assert load_config(path).optimizer == {"type": "SGD", "lr": 0.5}


def test_old_keys_become_todays(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "a.py",
        "total_epochs = 3\n"
        "data = dict(imgs_per_gpu=4, workers_per_gpu=1, val=dict(samples_per_gpu=2))\n",
    )

    config = normalized(load_config(path))

    assert config.runner == {"type": "EpochBasedRunner", "max_epochs": 3}
    assert config.data.train_dataloader == {"samples_per_gpu": 4, "workers_per_gpu": 1}
    assert config.data.val_dataloader == {"samples_per_gpu": 2, "workers_per_gpu": 1}
    assert config.workflow == [("train", 1)]


def test_epochs_that_contradict_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "a.py", "total_epochs = 3\nrunner = dict(type='X', max_epochs=4)\n")

    with pytest.raises(ConfigError, match="total_epochs is 3"):
        normalized(load_config(path))


@pytest.mark.parametrize("package", ["mmcv", "mmengine"])
def test_configurations_of_others_are_taken(tmp_path: Path, package: str) -> None:
    path = write(tmp_path, "a.py", "model = dict(depth=18)\nsteps = [dict(at=(1, 2))]\n")
    foreign = pytest.importorskip(package).Config.fromfile(path)

    config = as_config(foreign)

    assert config.model.depth == 18
    assert config.steps[0].at == (1, 2)
    assert config.filename == path
    config.model.depth = 50
    assert foreign.model.depth == 18
