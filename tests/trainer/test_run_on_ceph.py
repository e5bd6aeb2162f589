"""A run whose data and checkpoints are in Ceph, and that is killed."""

from __future__ import annotations

import json
import os
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

WAIT_S = 120.0


def losses(folder: Path) -> dict[tuple[int, int], float]:
    """Return the losses of the log in *folder* by epoch and batch."""
    logs = list(folder.glob("*.log.json"))
    lines = logs[0].read_text().splitlines(keepends=True) if logs else []
    records = [json.loads(line) for line in lines if line.endswith("\n")]
    return {
        (each["epoch"], each["iter"]): each["loss"]
        for each in records
        if each.get("mode") == "train"
    }


def test_a_killed_run_goes_on_from_its_checkpoint(
    tiny_config: str, tmp_path: Path, bucket: Bucket, daemon: DaemonProcess
) -> None:
    for path in (tmp_path / "data").rglob("*.*"):
        bucket.put(path.relative_to(tmp_path).as_posix(), path.read_bytes())
        path.unlink()  # the run can have it from nowhere else
    environment = {name: value for name, value in os.environ.items() if "AWS" not in name}
    environment |= {"FOREBAY_ADDRESS": daemon.address, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "forebay_trainer.train", tiny_config, "--device", "cpu"]
    command += ["--seed", "3", "--no-validate", "--path-mapping", f"data/={bucket.url('data/')}"]

    def start(name: str, *arguments: str) -> subprocess.Popen[bytes]:
        options = [
            *("--cfg-options", "runner.max_epochs=3", "checkpoint_config.by_epoch=False"),
            *("checkpoint_config.interval=1", f"checkpoint_config.out_dir={bucket.url(name)}"),
        ]
        with (tmp_path / f"{name}.txt").open("ab") as output:
            return subprocess.Popen(  # noqa: S603  # what a user types
                [*command, "--work-dir", f"{tmp_path}/{name}/run", *arguments, *options],
                env=environment,
                stdout=output,
                stderr=output,
            )

    assert start("whole").wait(WAIT_S) == 0, (tmp_path / "whole.txt").read_text()
    killed = start("killed")
    until = time.monotonic() + WAIT_S
    while len(losses(tmp_path / "killed/run")) < 3 and time.monotonic() < until:
        time.sleep(0.01)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait(WAIT_S)
    (before,) = (tmp_path / "killed/run").glob("*.log.json")
    before.unlink()

    resumed = start("killed", "--auto-resume").wait(WAIT_S)

    assert resumed == 0, (tmp_path / "killed.txt").read_text()
    whole, rest = losses(tmp_path / "whole/run"), losses(tmp_path / "killed/run")
    assert len(whole) == 6
    assert 0 < len(rest) < 6
    assert rest.items() <= whole.items()
    keys = {key.rpartition("/")[2] for key in bucket.keys("killed/")}
    assert keys == {f"iter_{number}.pth" for number in range(1, 7)}  # uploaded, all of them
