"""What a user is told whose run cannot begin, and one who ends it: lines that help."""

from __future__ import annotations

import os
import re
import signal
import sys
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("torch")
pytest.importorskip("cv2")
pytest.importorskip("mmengine")
pytest.importorskip("faster_coco_eval")

from support.shell import WAIT_S, Shell
from support.terminal import Terminal
from support.training import text_ending

if TYPE_CHECKING:
    from pathlib import Path

    from support.ceph import Bucket
    from support.daemon import DaemonProcess

URL = "https://download.openmmlab.com/mmdetection/v2.0/a/mask_rcnn_r18.pth"


def test_weights_come_before_data_and_where_to_put_them_is_told(
    tiny_config: str, daemon: DaemonProcess, bucket: Bucket
) -> None:
    """There are no data here either, but that is not what is told."""
    shell = Shell(FOREBAY_ADDRESS=daemon.address)
    arguments = ("train", tiny_config, "--device", "cpu", "--cfg-options", f"load_from={URL}")
    mapping = ["--path-mapping", f"data/={bucket.url('nothing/')}"]

    line = shell.error(*arguments, *mapping, code=2)
    assert line.startswith(f"forebay: load_from: {URL}: nothing is downloaded while training; put ")
    assert "--path-mapping https://download.openmmlab.com/mmdetection/v2.0/a/=s3://" in line

    folder = URL.rpartition("/")[0]
    mapping += ["--path-mapping", f"{folder}/={bucket.url('weights/')}"]
    line = shell.error(*arguments, *mapping, code=2)
    assert "the path mapping covers it, but the object is missing" in line


def test_data_that_are_not_there_are_named(
    tiny_config: str, daemon: DaemonProcess, bucket: Bucket
) -> None:
    shell = Shell(FOREBAY_ADDRESS=daemon.address)
    arguments = ("train", tiny_config, "--device", "cpu", "--path-mapping")

    line = shell.error(*arguments, f"data/={bucket.url('nothing/')}", code=2)
    assert line.startswith("forebay: data.train.ann_file: data/boxes.json ")

    line = shell.error(*arguments, "data/=s3://no-such-bucket/", code=2)
    assert "s3://no-such-bucket/boxes.json" in line


def test_a_bucket_to_write_to_that_is_not_there_is_named(
    tiny_config: str, daemon: DaemonProcess
) -> None:
    shell = Shell(FOREBAY_ADDRESS=daemon.address)
    arguments = ("train", tiny_config, "--device", "cpu")

    line = shell.error(*arguments, "--work-dir", "s3://no-such-bucket/run", code=2)
    assert line.startswith(
        "forebay: work_dir: s3://no-such-bucket/run: no such bucket: `forebay mb`"
    )

    out_dir = ("--cfg-options", "checkpoint_config.out_dir=s3://no-such-bucket")
    line = shell.error(*arguments, *out_dir, code=2)
    assert line.startswith("forebay: checkpoint_config.out_dir: s3://no-such-bucket")


def test_a_daemon_that_is_waited_for_is_named(tiny_config: str, tmp_path: Path) -> None:
    shell = Shell(FOREBAY_ADDRESS=f"unix:{tmp_path}/nobody.sock")

    with shell.start("train", tiny_config, "--path-mapping", "data/=s3://bucket/") as process:
        assert process.stderr is not None
        line = process.stderr.readline().decode()
        process.send_signal(signal.SIGINT)
        assert process.wait(WAIT_S) == 130

    assert line.startswith(f"no Forebay daemon answers at unix:{tmp_path}/nobody.sock: waiting")


def test_classes_that_the_model_does_not_have_are_one_line(tiny_config: str) -> None:
    options = ("--cfg-options", "model.roi_head.mask_head.num_classes=3")

    code, _, told = Shell().run("train", tiny_config, "--device", "cpu", *options)

    assert code == 2
    assert "Traceback" not in told
    line = "forebay: model.roi_head.mask_head.num_classes is 3, but the data set has 2 classes: "
    assert told.splitlines()[-1].startswith(line)


def test_a_run_that_fails_leaves_its_logs_in_the_bucket(
    tiny_config: str, daemon: DaemonProcess, bucket: Bucket
) -> None:
    shell = Shell(FOREBAY_ADDRESS=daemon.address)
    work_dir = ("--work-dir", bucket.url("run"))
    options = ("--cfg-options", "evaluation.save_best=beauty", "evaluation.rule=greater")

    code, _, told = shell.run("train", tiny_config, "--device", "cpu", *work_dir, *options)
    shell.out("flush", bucket.url("run/"))

    assert code == 2
    assert "evaluation.save_best: 'beauty' is none of bbox_mAP" in told.splitlines()[-1]
    log = text_ending(bucket, "run/", ".log.json")
    assert '"mode": "train"' in log


def test_progress_is_seen_and_ctrl_c_leaves_a_clean_terminal(tiny_config: str) -> None:
    command = (sys.executable, "-m", "forebay", "train", tiny_config, "--device", "cpu")
    options = ("--cfg-options", "runner.max_epochs=1000", "data.workers_per_gpu=2")
    environment = {**os.environ, "TERM": "xterm-256color", "OMP_NUM_THREADS": "1"}

    with Terminal(*command, *options, env=environment, columns=160) as terminal:
        terminal.wait_for(r"epoch \d+/1000 .* \d/2 .* eta .*data_time \d.*loss \d")
        terminal.type("\x03")
        code = terminal.end()

        assert code == 130
        assert not terminal.is_cursor_hidden()
        told = terminal.raw.decode()
    assert "interrupted: --auto-resume goes on from the last checkpoint" in told
    assert not re.search("Traceback|Error", told)
