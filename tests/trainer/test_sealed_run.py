"""Training with no keys and no network: all that it reads and writes goes through the daemon."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("cv2")
pytest.importorskip("mmengine")
pytest.importorskip("faster_coco_eval")

from forebay_trainer.config import load_config, normalized  # noqa: E402
from forebay_trainer.models.builder import build_detector  # noqa: E402
from support.training import names_below, text_ending, upload_files  # noqa: E402

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import StartDaemon
    from support.ceph import Bucket
    from support.daemon import DaemonProcess
    from support.proxy import FaultProxy, Request

WAIT_S = 120.0
_SEALED = ("unshare", "--net")  # not even loopback is up in there


def may_seal() -> bool:
    command = [*_SEALED, "true"]
    if shutil.which(command[0]) is None:
        return False
    return subprocess.run(command, capture_output=True, check=False).returncode == 0  # noqa: S603


def upload_data(bucket: Bucket, folder: Path) -> None:
    """Let *bucket* be the only place that has the data."""
    upload_files(bucket, folder / "data", "data/")
    shutil.rmtree(folder / "data")


def upload_weights(bucket: Bucket, config: str, folder: Path) -> None:
    built = normalized(load_config(config))
    torch.manual_seed(5)
    model = build_detector(built.model, built.get("train_cfg"), built.get("test_cfg"))
    torch.save({"state_dict": model.state_dict()}, folder / "start.pth")
    bucket.put("start.pth", (folder / "start.pth").read_bytes())
    (folder / "start.pth").unlink()


def train(
    folder: Path,
    daemon: DaemonProcess,
    *arguments: str,
    under: tuple[str, ...] = (),
    environment: dict[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run the command to its end, where *environment* and little more is known."""
    home, here = folder / "home", folder / "here"
    home.mkdir()
    here.mkdir()
    known = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    known |= {"HOME": str(home), "FOREBAY_ADDRESS": daemon.address, "OMP_NUM_THREADS": "1"}
    command = [*under, sys.executable, "-m", "forebay_trainer.train", *arguments, "--device", "cpu"]
    return subprocess.run(  # noqa: S603  # what a user types
        command,
        env=known | (environment or {}),
        cwd=here,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=WAIT_S,
        check=False,
    )


@pytest.mark.skipif(not may_seal(), reason="may not make network namespaces here (needs root)")
@pytest.mark.parametrize("has_folder", [True, False], ids=["with the folder", "socket only"])
def test_a_run_without_keys_and_network(
    has_folder: bool, tiny_config: str, tmp_path: Path, bucket: Bucket, daemon: DaemonProcess
) -> None:
    upload_data(bucket, tmp_path)
    upload_weights(bucket, tiny_config, tmp_path)

    done = train(
        tmp_path,
        daemon,
        *(tiny_config, "--seed", "1", "--work-dir", bucket.url("out/run")),
        *("--path-mapping", f"data/={bucket.url('data/')}"),
        *("--cfg-options", f"load_from={bucket.url('start.pth')}", "data.workers_per_gpu=2"),
        *("evaluation.save_best=bbox", "evaluation.rule=greater"),
        under=_SEALED,
        environment={} if has_folder else {"FOREBAY_CACHE_DIR": str(tmp_path / "nowhere")},
    )

    assert done.returncode == 0, done.stdout
    assert names_below(bucket, "out/run/") == {
        *("epoch_1.pth", "best_bbox_mAP_epoch_1.pth"),
        *("TIME.log", "TIME.log.json", "tiny.py", "plot.png"),
    }
    records = [json.loads(line) for line in text_ending(bucket, "out/run/", ".json").splitlines()]
    told: dict[str, Any] = {key: value for each in records for key, value in each.items()}
    assert {"loss", "bbox_mAP", "checkpoint"} <= told.keys()
    assert "start.pth: all weights are loaded" in done.stdout
    assert list((tmp_path / "here").iterdir()) == []


def test_a_run_whose_uploads_cannot_get_out_fails_and_names_them(
    tiny_config: str,
    tmp_path: Path,
    bucket: Bucket,
    proxy: FaultProxy,
    start_daemon: StartDaemon,
) -> None:
    upload_data(bucket, tmp_path)
    daemon = start_daemon(endpoint_url=proxy.url)
    writes: list[Request] = []

    def goes_down_with_the_first_write(request: Request) -> bool:
        if request.method in ("PUT", "POST"):
            writes.append(request)
        return bool(writes)

    proxy.reset(goes_down_with_the_first_write, method=None, times=None)

    done = train(
        tmp_path,
        daemon,
        *(tiny_config, "--no-validate", "--work-dir", bucket.url("out/run")),
        *("--path-mapping", f"data/={bucket.url('data/')}", "--flush-timeout", "2"),
        *("--cfg-options", "runner.max_epochs=2", "checkpoint_config.max_keep_ckpts=1"),
    )

    assert done.returncode == 1, done.stdout
    last = done.stdout.splitlines()[-1]
    assert "are left after 2 s" in last
    assert bucket.url("out/run/epoch_1.pth") in last
    assert "Epoch [2][2/2]" in done.stdout  # training did not wait for it
    assert bucket.keys("out/") == []
