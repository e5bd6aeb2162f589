"""The example Job trains: its own command line, once for each node, each with a daemon."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from support.kustomize import FOLDER, only, read

if TYPE_CHECKING:
    from conftest import StartDaemon
    from support.ceph import Bucket

_LONGEST_S = 170.0  # a machine that is busy with other tests; usually a sixth of it


def test_job_trains_on_two_nodes(start_daemon: StartDaemon, bucket: Bucket, address: str) -> None:
    pytest.importorskip("torch")
    job = only(read("training/job.yaml"), "Job")
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["command"] == ["torchrun"]
    there = {
        "--rdzv-endpoint=train-0.train:29400": f"--rdzv-endpoint={address}",
        "/opt/train/train.py": str(FOLDER / "training" / "train.py"),
        "s3://runs/example": bucket.url("example"),
    }
    assert set(there) <= set(container["args"])
    arguments = [there.get(argument, argument) for argument in container["args"]]

    nodes = [
        subprocess.Popen(  # noqa: S603  # torchrun
            [sys.executable, "-m", "torch.distributed.run", *arguments],
            env={**os.environ, "FOREBAY_ADDRESS": start_daemon().address, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(job["spec"]["completions"])
    ]
    try:
        said = "".join(node.communicate(timeout=_LONGEST_S)[0] for node in nodes)
    finally:
        for node in nodes:
            node.terminate()  # and its workers with it
            node.wait()

    assert [node.returncode for node in nodes] == [0, 0], said
    assert "epoch 1 saved" in said
    assert "rank 0 of 2 has read 32 samples twice" in said
    assert "rank 1 of 2 has read 32 samples twice" in said
