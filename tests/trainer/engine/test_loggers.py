"""What a run tells, and where its logs are then."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import forebay

pytest.importorskip("torch")
pytest.importorskip("mmengine")

from forebay_trainer.engine.plots import plot_run, read_curves
from forebay_trainer.engine.training import flush, log_folder
from forebay_trainer.registry import Config

if TYPE_CHECKING:
    from support.ceph import Bucket
    from support.daemon import DaemonProcess


def records(folder: Path) -> list[dict[str, Any]]:
    (log,) = folder.rglob("*.log.json")
    return [json.loads(line) for line in log.read_text().splitlines()]


def test_lines_are_means_of_their_interval(training: Any) -> None:
    runner = training.runner(log_config={"interval": 4, "hooks": [{"type": "TextLoggerHook"}]})

    losses = training.run(runner)

    about, *lines = records(Path(runner.work_dir))
    assert about == {"batches_per_epoch": 6, "by_epoch": True}
    assert [(line["mode"], line["epoch"], line["iter"]) for line in lines] == [
        ("train", 1, 4),
        ("train", 2, 4),
    ]
    assert lines[0]["loss"] == pytest.approx(sum(losses[:4]) / 4, abs=1e-5)
    assert lines[1]["loss"] == pytest.approx(sum(losses[6:10]) / 4, abs=1e-5)
    assert lines[0].keys() >= {"lr", "time", "data_time"}


def test_logs_are_copied_out_and_their_originals_removed(training: Any) -> None:
    out = training.folder / "out"
    hook = {"type": "TextLoggerHook", "out_dir": str(out), "keep_local": False}
    runner = training.runner("run7", log_config={"interval": 1, "hooks": [hook]})

    training.run(runner)

    assert len(records(out)) == 13
    assert sorted(path.suffix for path in (out / "run7").iterdir()) == [".json", ".png"]
    assert list(Path(runner.work_dir).iterdir()) == []


def test_curves_of_a_resumed_run_take_the_later_line() -> None:
    lines = [
        {"batches_per_epoch": 10, "by_epoch": True},
        {"mode": "train", "epoch": 1, "iter": 5, "loss": 3.0},
        {"mode": "train", "epoch": 2, "iter": 5, "loss": 9.0},
        {"mode": "train", "epoch": 2, "iter": 5, "loss": 2.0, "lr": 0.1},
        {"checkpoint": "epoch_2.pth", "blocked_s": 0.1},
        {"mode": "val", "epoch": 2, "iter": 4, "bbox_mAP": 0.5, "bbox_mAP_l": -1.0},
    ]

    losses, scores = read_curves([json.dumps(line) for line in lines])

    assert losses == {"loss": ([0.5, 1.5], [3.0, 2.0])}
    assert scores == {"bbox_mAP": ([2], [0.5])}


def test_a_plot_is_a_picture_even_of_nothing() -> None:
    assert plot_run([]).startswith(b"\x89PNG")


def test_scalars_for_tensorboard(training: Any) -> None:
    reading = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    runner = training.runner(
        log_config={"interval": 1, "hooks": [{"type": "TensorboardLoggerHook"}]}
    )

    losses = training.run(runner)

    found = reading.EventAccumulator(f"{runner.work_dir}/tf_logs").Reload()
    assert [each.value for each in found.Scalars("train/loss")] == pytest.approx(losses)
    assert [each.step for each in found.Scalars("learning_rate")] == list(range(1, 13))


def test_scalars_for_tensorboard_go_to_a_prefix(
    training: Any, bucket: Bucket, daemon: DaemonProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboard")
    monkeypatch.setenv("FOREBAY_ADDRESS", daemon.address)
    hook = {"type": "TensorboardLoggerHook", "log_dir": bucket.url("board")}
    runner = training.runner(log_config={"interval": 1, "hooks": [hook]})

    training.run(runner)
    flush(runner.written)

    (written,) = (Path(runner.work_dir) / "tf_logs").iterdir()
    assert bucket.get(f"board/{written.name}") == written.read_bytes()


def fail(config: Config) -> None:
    with log_folder(config, "20260102_030405") as folder:
        Path(folder, "20260102_030405.log.json").write_text("{}")
        raise forebay.DaemonUnavailableError("gone")


def test_logs_that_no_daemon_takes_stay_where_they_are(caplog: pytest.LogCaptureFixture) -> None:
    config = Config({"work_dir": "s3://bucket/run"})

    with pytest.raises(forebay.DaemonUnavailableError):
        fail(config)

    (folder,) = re.findall(r"in (/\S+):", caplog.text)
    left = sorted(path.name for path in Path(folder).iterdir())
    assert left == ["20260102_030405.log", "20260102_030405.log.json", "config.py"]
    shutil.rmtree(folder)
