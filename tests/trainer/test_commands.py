"""The commands on a detector that is too small to find anything."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

torch = pytest.importorskip("torch")
cv2 = pytest.importorskip("cv2")
pytest.importorskip("mmengine")
pytest.importorskip("faster_coco_eval")

from click.testing import CliRunner, Result  # noqa: E402

from forebay_trainer import cli  # noqa: E402

if TYPE_CHECKING:
    from pathlib import Path


def run(command: Any, *arguments: str) -> Result:
    return CliRunner().invoke(command, arguments, catch_exceptions=False)


def test_train_test_and_infer(tiny_config: str, tmp_path: Path) -> None:
    done = run(cli.train_command, tiny_config, "--seed", "1", "--device", "cpu")
    assert done.exit_code == 0, done.output
    folder = tmp_path / "work_dirs/tiny"
    assert {path.name for path in folder.iterdir()} >= {"epoch_1.pth", "latest.pth", "plot.png"}
    (log,) = folder.glob("*.log.json")
    records = [json.loads(line) for line in log.read_text().splitlines()]
    assert [each["iter"] for each in records if each.get("mode") == "train"] == [1, 2]
    assert {"bbox_mAP", "segm_mAP"} <= records[-1].keys()
    checkpoint = str(folder / "latest.pth")

    done = run(
        cli.test_command,
        *(tiny_config, checkpoint, "--eval", "bbox", "segm", "--out", "results.pkl"),
        *("--show-dir", "shown", "--work-dir", "scores", "--device", "cpu"),
    )
    assert done.exit_code == 0, done.output
    assert "segm_mAP:" in done.output
    assert len(list((tmp_path / "shown").iterdir())) == 4
    (scores,) = (tmp_path / "scores").glob("eval_*.json")
    assert "bbox_mAP" in json.loads(scores.read_text())["metric"]
    assert (tmp_path / "results.pkl").exists()

    image = str(tmp_path / "data/images/1.png")
    arguments = ("--out", "found", "--score-thr", "0", "--device", "cpu")
    done = run(cli.infer_command, tiny_config, checkpoint, image, *arguments)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["image"] == image
    assert cv2.imread(str(tmp_path / "found/1.png")).shape == (48, 64, 3)


def test_a_workflow_with_validation_logs_its_losses_after_each_epoch(
    tiny_config: str, tmp_path: Path
) -> None:
    workflow = ("workflow=[('train',1),('val',1)]", "runner.max_epochs=2")

    done = run(
        cli.train_command,
        *(tiny_config, "--device", "cpu", "--no-validate", "--seed", "1"),
        *("--cfg-options", *workflow),
    )

    assert done.exit_code == 0, done.output
    (log,) = (tmp_path / "work_dirs/tiny").glob("*.log.json")
    records = [json.loads(line) for line in log.read_text().splitlines()]
    told = [(each["mode"], each["epoch"]) for each in records if {"loss", "loss_val"} & each.keys()]
    assert told == [(mode, epoch) for epoch in (1, 2) for mode in ("train", "train", "val")]
    assert all("loss_val" in each for each in records if each.get("mode") == "val")


def test_browse_draws_the_boxes_where_the_pipeline_put_them(
    tiny_config: str, tmp_path: Path
) -> None:
    done = run(cli.browse_command, tiny_config, "--count", "2", "--out", "seen")

    assert done.exit_code == 0, done.output
    assert len(list((tmp_path / "seen").iterdir())) == 2
    drawn = cv2.imread(str(next((tmp_path / "seen").iterdir())))
    assert drawn.shape == (48, 64, 3)


def test_config_prints_what_it_comes_to(tiny_config: str) -> None:
    done = run(
        cli.config_command, tiny_config, "--cfg-options", "optimizer.lr=0.5", "runner.max_epochs=3"
    )

    assert done.exit_code == 0, done.output
    assert "max_epochs=3" in done.output
    assert "lr=0.5" in done.output


def test_a_wrong_configuration_is_one_line(tiny_config: str) -> None:
    done = run(
        cli.train_command, tiny_config, "--cfg-options", "model.neck.type=FPM", "--device", "cpu"
    )

    assert done.exit_code == 2
    assert "model.neck.type: model 'FPM' is not known" in done.output
    assert "Traceback" not in done.output


def test_a_test_has_to_be_for_something(tiny_config: str) -> None:
    done = run(cli.test_command, tiny_config, "a.pth")

    assert done.exit_code == 2
    assert "--eval" in done.output
