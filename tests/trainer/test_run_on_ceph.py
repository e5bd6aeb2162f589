"""A run whose data and checkpoints are in Ceph, and that is killed at random."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from support.ceph import Bucket
    from support.daemon import DaemonProcess

pytest.importorskip("torch")
pytest.importorskip("cv2")
pytest.importorskip("mmengine")
pytest.importorskip("faster_coco_eval")

from support.training import upload_files

WAIT_S = 120.0
KILLS = 2
EPOCHS = 10  # of two batches


def losses(log: Path) -> dict[tuple[int, int], float]:
    """Return the losses of a log by epoch and batch; its last line may be torn."""
    lines = log.read_text().splitlines(keepends=True)
    records = [json.loads(line) for line in lines if line.endswith("\n")]
    return {
        (each["epoch"], each["iter"]): each["loss"]
        for each in records
        if each.get("mode") == "train"
    }


def test_a_run_that_is_killed_again_and_again_goes_on_as_if_it_were_not(
    tiny_config: str, tmp_path: Path, bucket: Bucket, daemon: DaemonProcess
) -> None:
    upload_files(bucket, tmp_path / "data", "data/")
    shutil.rmtree(tmp_path / "data")  # the run can have it from nowhere else
    environment = {name: value for name, value in os.environ.items() if "AWS" not in name}
    environment |= {"FOREBAY_ADDRESS": daemon.address, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "forebay_trainer.train", tiny_config, "--device", "cpu"]
    command += ["--seed", "3", "--no-validate", "--path-mapping", f"data/={bucket.url('data/')}"]

    def start(name: str, part: int = 0) -> subprocess.Popen[bytes]:
        """Start a run, or the next part of one, with its logs in NAME/PART/run."""
        options = [
            *("--cfg-options", f"runner.max_epochs={EPOCHS}", "checkpoint_config.by_epoch=False"),
            *("checkpoint_config.interval=3", f"checkpoint_config.out_dir={bucket.url(name)}"),
        ]
        work_dir = tmp_path / f"{name}/{part}/run"
        with (tmp_path / f"{name}.txt").open("ab") as output:
            return subprocess.Popen(  # noqa: S603  # what a user types
                [*command, "--work-dir", str(work_dir), "--auto-resume", *options],
                env=environment,
                stdout=output,
                stderr=output,
            )

    assert start("whole").wait(WAIT_S) == 0, (tmp_path / "whole.txt").read_text()
    dice = random.Random()
    for part in range(KILLS):
        killed = start("killed", part)
        batches = dice.randint(3, 6)
        folder = tmp_path / f"killed/{part}/run"
        until = time.monotonic() + WAIT_S
        while sum(map(len, map(losses, folder.glob("*.log.json")))) < batches:
            assert killed.poll() is None, (tmp_path / "killed.txt").read_text()
            assert time.monotonic() < until
            time.sleep(0.01)
        time.sleep(dice.uniform(0, 0.1))  # amid a batch, a checkpoint or its upload
        killed.kill()
        assert killed.wait(WAIT_S) == -signal.SIGKILL, (tmp_path / "killed.txt").read_text()

    assert start("killed", KILLS).wait(WAIT_S) == 0, (tmp_path / "killed.txt").read_text()

    whole, *parts = [
        losses(log)
        for name in ("whole/0", *(f"killed/{part}" for part in range(KILLS + 1)))
        for log in (tmp_path / name / "run").glob("*.log.json")
    ]
    assert len(whole) == 2 * EPOCHS
    assert len(parts) == KILLS + 1
    assert all(each.items() <= whole.items() for each in parts)
    assert min(parts[-1]) > (2, 1)  # the first checkpoint was after three batches
    assert max(parts[-1]) == (EPOCHS, 2)
    assert f"killed/run/iter_{2 * EPOCHS}.pth" in bucket.keys("killed/")  # uploaded
