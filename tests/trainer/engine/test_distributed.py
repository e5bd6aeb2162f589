"""Two processes, started by torchrun, are one run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("mmengine")

SCRIPT = Path(__file__).with_name("two_ranks.py")


def test_two_processes_learn_the_same_and_test_all_images_in_order(tmp_path: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]

    done = subprocess.run(  # noqa: S603  # what a user types
        [*torchrun, str(SCRIPT), str(tmp_path)], check=True, capture_output=True, text=True
    )

    told = json.loads(done.stdout.splitlines()[-1])
    assert told["batches"] == 4  # of 2 epochs of 8 points, in batches of 2 on each of 2
    assert told["weights"][0] == told["weights"][1]
    assert told["tested"] == [0.0, 1.0, 2.0, 3.0, 4.0]
    checkpoint = torch.load(tmp_path / "epoch_2.pth", weights_only=True)
    assert len(checkpoint["meta"]["resume"]["random"]) == 2
    assert checkpoint["state_dict"].keys() == {"line.weight", "line.bias"}
