"""Which checkpoints a run leaves, and what is in them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import forebay

torch = pytest.importorskip("torch")

pytest.importorskip("cv2")
pytest.importorskip("mmengine")

from forebay_trainer.engine.checkpoint_hook import CheckpointHook  # noqa: E402
from forebay_trainer.weights import latest_checkpoint  # noqa: E402
from support.below import STAND_INS  # noqa: E402
from support.spooled import wait_until  # noqa: E402

if TYPE_CHECKING:
    from support.daemon import DaemonProcess


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


def test_those_of_the_run_that_is_resumed_are_removed_too(training: Any) -> None:
    keeping = {"interval": 1, "max_keep_ckpts": 2}
    first = training.runner(checkpoint_config=keeping)
    training.run(first)
    runner = training.runner(
        checkpoint_config=keeping, runner={"type": "EpochBasedRunner", "max_epochs": 3}
    )
    runner.resume(f"{first.work_dir}/epoch_2.pth")

    training.run(runner)

    assert names(Path(runner.work_dir)) == ["epoch_2.pth", "epoch_3.pth", "latest.pth"]


def test_the_log_tells_of_uploads_that_have_failed(
    training: Any,
    daemon: DaemonProcess,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("FOREBAY_ADDRESS", daemon.address)
    runner = training.runner()
    training.run(runner)
    with forebay.Client() as client:
        runner.save_checkpoint("s3://no-such-bucket/run", "one.pth")
        wait_until(lambda: [each.state for each in client.uploads()] == ["failed"], "a failure")
        runner.save_checkpoint("s3://no-such-bucket/run", "two.pth")

        warnings = [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]
        client.settle_uploads(discard=True)
        wait_until(lambda: all(each.state == "failed" for each in client.uploads()), "the second")
        client.settle_uploads(discard=True)

    told = r"[12] uploads have failed for good, first s3://no-such-bucket/run/one\.pth \("
    assert re.match(told, warnings[-1])


def test_out_dir_gets_a_folder_for_the_run(training: Any) -> None:
    out = training.folder / "out"
    runner = training.runner("run7", checkpoint_config={"interval": 5, "out_dir": str(out)})

    training.run(runner)

    assert names(out / "run7") == ["epoch_2.pth", "latest.pth"]  # the last, whatever the interval
    assert names(Path(runner.work_dir)) == []


def test_a_hooks_own_mapping_is_for_its_folder(training: Any) -> None:
    mapping = {"backend": "petrel", "path_mapping": {"out/": "s3://bucket/kept/"}}
    runner = training.runner("run7")
    hook = CheckpointHook(1, out_dir="out", file_client_args=mapping)

    assert hook.folder(runner) == "s3://bucket/kept/run7"
    assert CheckpointHook(1, file_client_args=mapping).folder(runner) == runner.work_dir


def test_the_newest_is_found_whatever_it_is_called(tmp_path: Path) -> None:
    for name in ("ckpt_9.pth", "ckpt_10.pth", "best_mAP_epoch_12.pth", "resnet50.pth"):
        (tmp_path / name).touch()

    assert latest_checkpoint(str(tmp_path)) == f"{tmp_path}/ckpt_10.pth"


def test_meta_of_the_configuration_is_read_by_the_safe_loader(training: Any) -> None:
    meta = {"about": {"tags": ["a", ("b", 1)]}}
    runner = training.runner(checkpoint_config={"interval": 1, "meta": meta})

    training.run(runner)

    found = torch.load(f"{runner.work_dir}/epoch_1.pth", weights_only=True)
    assert found["meta"]["about"] == meta["about"]


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


def test_mmcv_loads_and_resumes_from_it(training: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """MMDetection 2.x reads checkpoints by these two functions of mmcv's."""
    monkeypatch.syspath_prepend(STAND_INS)
    theirs = pytest.importorskip("mmcv.runner")
    runner = training.runner(checkpoint_config={"interval": 1})
    runner.meta["config"] = "optimizer = dict(type='SGD')\n"
    training.run(runner)
    path = f"{runner.work_dir}/epoch_2.pth"

    other = training.runner("other")
    found = theirs.load_checkpoint(other.model, path, strict=True)
    assert found["meta"]["epoch"] == 2
    weights = (other.model.state_dict().values(), runner.model.state_dict().values())
    assert all(map(torch.equal, *weights))

    resumed = theirs.EpochBasedRunner(
        other.model, optimizer=other.optimizer, logger=other.logger, meta={}, max_epochs=3
    )
    resumed.resume(path, map_location="cpu")
    assert (resumed.epoch, resumed.iter) == (2, 12)
    momenta = [state["momentum_buffer"] for state in other.optimizer.state_dict()["state"].values()]
    ours = [state["momentum_buffer"] for state in runner.optimizer.state_dict()["state"].values()]
    assert all(map(torch.equal, momenta, ours))
