"""A run whose data and checkpoints are in Ceph, and that is killed at random."""

from __future__ import annotations

import json
import random
import shutil
import signal
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
from support.typed import Typist

KILLS = 2
EPOCHS = 10  # of two batches
# The run has the kernel kill it: whoever waits for a batch of it to see may see it late, when the
# run has ended. The alarm is as abrupt as SIGKILL, and comes amid any of the next two batches, or a
# checkpoint, or its upload.
DEADLY = """
import os, random, signal, time
from forebay_trainer.engine import Hook
from forebay_trainer.registry import HOOKS


@HOOKS.register_module()
class DeadlyHook(Hook):
    def __init__(self):
        self.left = int(os.environ.get("KILLED_AFTER", "0"))
        self.times_s = [time.monotonic()]

    def after_train_iter(self, runner):
        self.times_s.append(time.monotonic())
        self.left -= 1
        if self.left == 0:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            batch_s = min(b - a for a, b in zip(self.times_s, self.times_s[1:]))
            signal.setitimer(signal.ITIMER_REAL, random.SystemRandom().uniform(0.01, 2) * batch_s)
"""


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
    (tmp_path / "configs" / "deadly.py").write_text(DEADLY)
    with open(tiny_config, "a") as file:  # noqa: PTH123
        file.write("custom_imports = dict(imports=['deadly'])\n")
        file.write("custom_hooks = [dict(type='DeadlyHook', priority='LOWEST')]\n")

    def run(name: str, part: int = 0, killed_after: int = 0) -> None:
        """Do a run, or the next part of one, with its logs in NAME/PART/run."""
        seed = "" if part else "--seed 3"  # a checkpoint has it
        environment = {"FOREBAY_ADDRESS": daemon.address, "KILLED_AFTER": str(killed_after)}
        Typist(tmp_path, environment).run(
            f"forebay train {tiny_config} --device cpu {seed} --no-validate --auto-resume "
            f"--path-mapping data/={bucket.url('data/')} --work-dir {tmp_path}/{name}/{part}/run "
            f"--cfg-options runner.max_epochs={EPOCHS} checkpoint_config.by_epoch=False "
            f"checkpoint_config.interval=3 checkpoint_config.out_dir={bucket.url(name)}",
            code=-signal.SIGALRM if killed_after else 0,
        )

    run("whole")
    dice = random.SystemRandom()  # other places each time
    for part in range(KILLS):
        run("killed", part, killed_after=dice.randint(3, 6))
    run("killed", KILLS)

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
