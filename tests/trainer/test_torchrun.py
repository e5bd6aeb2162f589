"""Two processes, started by torchrun, train one detector and find together what one finds."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("cv2")
pytest.importorskip("mmengine")
pytest.importorskip("faster_coco_eval")

from support.typed import Typist

if TYPE_CHECKING:
    from pathlib import Path


def test_results_of_two_processes_are_those_of_one(tiny_config: str, tmp_path: Path) -> None:
    typist = Typist(tmp_path, {})
    torchrun = "torchrun --nproc-per-node 2 -m forebay_trainer"
    train = f"{torchrun}.train {tiny_config} --device cpu --seed 1"
    told = typist.run(f"{train} --cfg-options data.samples_per_gpu=1")
    assert told.count("Epoch [1][2/2]") == 1  # four images, and one process that tells of them

    found = []
    for name, command in (("one", "forebay test"), ("two", f"{torchrun}.test")):
        checkpoint = "work_dirs/tiny/latest.pth"
        told = typist.run(
            f"{command} {tiny_config} {checkpoint} --eval bbox segm --out {name}.pkl --device cpu "
            "--cfg-options model.test_cfg.rcnn.score_thr=0"
        )
        assert told.count("segm_mAP: ") == 1
        found.append(pickle.loads((tmp_path / f"{name}.pkl").read_bytes()))  # noqa: S301  # ours

    one, two = found
    assert len(one) == len(two) == 4
    assert sum(len(rows) for boxes, _ in one for rows in boxes) > 0
    for (boxes, masks), (others, other_masks) in zip(one, two, strict=True):
        for rows, other_rows in zip(boxes, others, strict=True):
            np.testing.assert_allclose(rows, other_rows, rtol=1e-5)
        assert masks == other_masks
