"""Which checkpoints a run leaves, and what is in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.pth"))


def test_the_last_ones_are_kept_and_linked(training: Any) -> None:
    runner = training.runner(
        checkpoint_config={"interval": 1, "max_keep_ckpts": 2},
        runner={"type": "EpochBasedRunner", "max_epochs": 4},
    )

    training.run(runner)

    folder = Path(runner.work_dir)
    assert names(folder) == ["epoch_3.pth", "epoch_4.pth", "latest.pth"]
    assert (folder / "latest.pth").readlink() == Path("epoch_4.pth")


def test_out_dir_gets_a_folder_for_the_run(training: Any) -> None:
    out = training.folder / "out"
    runner = training.runner("run7", checkpoint_config={"interval": 5, "out_dir": str(out)})

    training.run(runner)

    assert names(out / "run7") == ["epoch_2.pth", "latest.pth"]  # the last, whatever the interval
    assert names(Path(runner.work_dir)) == []


def test_the_content_is_upstreams(training: Any) -> None:
    runner = training.runner(checkpoint_config={"interval": 1})
    runner.meta["CLASSES"] = ("point",)

    training.run(runner)

    found = torch.load(f"{runner.work_dir}/epoch_1.pth", weights_only=True)
    assert found.keys() == {"meta", "state_dict", "optimizer"}
    assert found["state_dict"].keys() == runner.model.state_dict().keys()
    assert found["meta"]["epoch"] == 1
    assert found["meta"]["iter"] == 6
    assert found["meta"]["CLASSES"] == ("point",)
    assert found["meta"]["hook_msgs"]["last_ckpt"].endswith("epoch_1.pth")


def test_the_time_that_training_stood_still_is_in_the_log(training: Any) -> None:
    runner = training.runner(checkpoint_config={"interval": 1})

    training.run(runner)

    lines = (Path(runner.work_dir) / f"{runner.timestamp}.log.json").read_text().splitlines()
    told = [json.loads(line) for line in lines if "blocked_s" in line]
    assert [Path(each["checkpoint"]).name for each in told] == ["epoch_1.pth", "epoch_2.pth"]
    assert all(each["blocked_s"] > 0 for each in told)
