"""The configurations that MMDetection 2.28.2 ships: those of our parts build and give a loss.

They come from its wheel, which is fetched; without a network the tests are skipped.
"""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("cv2")

from forebay_trainer.config import ConfigError, load_config  # noqa: E402
from forebay_trainer.core.masks import BitmapMasks  # noqa: E402
from forebay_trainer.models.builder import build_detector  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

DETECTORS = frozenset(["FasterRCNN", "MaskRCNN", "CascadeRCNN", "RPN"])
PARTS = DETECTORS | frozenset(
    """ResNet RegNet FPN ResLayer BN SyncBN MMSyncBN GN Pretrained
    RPNHead AnchorGenerator DeltaXYWHBBoxCoder MaxIoUAssigner RandomSampler nms
    StandardRoIHead CascadeRoIHead SingleRoIExtractor RoIAlign BBoxHead ConvFCBBoxHead
    Shared2FCBBoxHead Shared4Conv1FCBBoxHead FCNMaskHead CrossEntropyLoss L1Loss SmoothL1Loss
    """.split()  # noqa: SIM905 - lines of names, not a column
)
# Gives a Faster R-CNN a bbox_head, which it has not; MMDetection does not build it either.
BROKEN = "retinanet_r50_fpn_syncbn_1350k_obj365v1.py"
HEIGHT, WIDTH = 64, 96


def types(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("type"), str):
            yield value["type"]
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for each in value:
            yield from types(each)


@pytest.fixture(scope="module")
def configs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("published")
    fetch = [sys.executable, "-m", "pip", "download", "--no-deps", "mmdet==2.28.2"]
    if subprocess.run([*fetch, "--dest", folder], check=False).returncode:  # noqa: S603
        pytest.skip("the wheel of mmdet 2.28.2 cannot be fetched")
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        wheel.extractall(folder, [name for name in wheel.namelist() if "/.mim/configs/" in name])
    return folder / "mmdet" / ".mim" / "configs"


def models(paths: Iterable[Path]) -> dict[str, dict[str, Any]]:
    """Return the different models of our parts, by the file that has it first."""
    found: dict[str, tuple[str, dict[str, Any]]] = {}
    for path in sorted(paths):
        try:
            model = load_config(path).get("model", {})
        except ConfigError as error:
            assert "mmcls" in str(error)  # which some import  # noqa: PT017
            continue
        if model.get("type") in DETECTORS and set(types(model)) <= PARTS and path.name != BROKEN:
            found.setdefault(json.dumps(model, sort_keys=True), (path.name, model))
    return dict(found.values())


def loss(model: dict[str, Any]) -> float:
    shape = (HEIGHT, WIDTH, 3)
    meta = {"img_shape": shape, "ori_shape": shape, "pad_shape": shape, "scale_factor": 1.0}
    batch: dict[str, Any] = {
        "img": torch.randn(1, 3, HEIGHT, WIDTH),
        "img_metas": [{**meta, "flip": False}],
        "gt_bboxes": [torch.tensor([[5.0, 6, 50, 60]])],
    }
    detector: Any = build_detector(model)
    if model["type"] != "RPN":
        batch["gt_labels"] = [torch.tensor([0])]
    if detector.with_mask:
        batch["gt_masks"] = [BitmapMasks(np.ones((1, HEIGHT, WIDTH), np.uint8), HEIGHT, WIDTH)]
    return float(detector.train().train_step(batch)["log_vars"]["loss"])


def check_losses(found: dict[str, dict[str, Any]], subtests: pytest.Subtests) -> None:
    torch.set_num_threads(1)
    for name, model in found.items():
        with subtests.test(name):
            assert np.isfinite(loss(model))


def test_one_of_each_set_of_parts_gives_a_loss(configs: Path, subtests: pytest.Subtests) -> None:
    families = ("faster_rcnn", "mask_rcnn", "cascade_rcnn", "rpn", "regnet")
    found = models(path for family in families for path in (configs / family).glob("*_1x_*.py"))
    kinds = {frozenset(types(model)): (name, model) for name, model in found.items()}

    assert len(kinds) >= 10
    check_losses(dict(kinds.values()), subtests)


@pytest.mark.stress
def test_all_models_of_our_parts_give_a_loss(configs: Path, subtests: pytest.Subtests) -> None:
    found = models(configs.glob("[!_]*/*.py"))

    assert len(found) >= 70
    check_losses(found, subtests)
