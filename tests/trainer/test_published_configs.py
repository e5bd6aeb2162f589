"""The configurations that MMDetection 2.28.2 ships: those of listed parts check, build and learn.

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
pytest.importorskip("faster_coco_eval")

from forebay_trainer import registry  # noqa: E402
from forebay_trainer.check import check_config  # noqa: E402
from forebay_trainer.config import ConfigError, load_config, normalized  # noqa: E402
from forebay_trainer.core.masks import BitmapMasks  # noqa: E402
from forebay_trainer.datasets.pipelines import Compose  # noqa: E402
from forebay_trainer.models.builder import build_detector  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from forebay_trainer.registry import Config

# What the trainer promises, by upstream's names, with the parts that these models are made of.
PARTS = frozenset(
    """FasterRCNN MaskRCNN CascadeRCNN RPN ResNet RegNet NoStemRegNet FPN AugFPN
    RPNHead StandardRoIHead CascadeRoIHead SingleRoIExtractor FCNMaskHead ResLayer
    BBoxHead ConvFCBBoxHead Shared2FCBBoxHead Shared4Conv1FCBBoxHead
    AnchorGenerator DeltaXYWHBBoxCoder MaxIoUAssigner RandomSampler BboxOverlaps2D
    CrossEntropyLoss L1Loss SmoothL1Loss
    CocoDataset CityscapesDataset VOCDataset XMLDataset CustomDataset
    RepeatDataset ConcatDataset ClassBalancedDataset
    LoadImageFromFile LoadAnnotations Resize RandomFlip Pad Normalize RandomCrop Expand
    MinIoURandomCrop PhotoMetricDistortion AutoAugment Rotate Shear Translate ColorTransform
    BrightnessTransform ContrastTransform MultiScaleFlipAug ImageToTensor DefaultFormatBundle
    Collect
    SGD Adam AdamW RMSprop Adagrad DefaultOptimizerConstructor EpochBasedRunner IterBasedRunner
    OptimizerHook Fp16OptimizerHook GradientCumulativeOptimizerHook
    GradientCumulativeFp16OptimizerHook CheckpointHook EMAHook ExpMomentumEMAHook
    LinearMomentumEMAHook TextLoggerHook TensorboardLoggerHook NumClassCheckHook
    CheckInvalidLossHook StepLrUpdaterHook CosineAnnealingLrUpdaterHook
    """.split()  # noqa: SIM905 - lines of names, not a column
)
# Of torch and of functions, which no registry has.
LAYERS = frozenset(["BN", "SyncBN", "MMSyncBN", "GN", "RoIAlign", "nms", "Pretrained"])
HEIGHT, WIDTH = 64, 96


def test_what_is_promised_is_registered() -> None:
    known = [each for each in vars(registry).values() if isinstance(each, registry.Registry)]
    names = {name for each in known for name in each.module_dict}

    assert names >= PARTS


def types(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("type"), str):
            yield value["type"]
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for each in value:
            yield from types(each)


def pipelines(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        if "pipeline" in value:
            yield value["pipeline"]
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for each in value:
            yield from pipelines(each)


@pytest.fixture(scope="module")
def configs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("published")
    fetch = [sys.executable, "-m", "pip", "download", "--no-deps", "mmdet==2.28.2"]
    if subprocess.run([*fetch, "--dest", folder], check=False).returncode:  # noqa: S603
        pytest.skip("the wheel of mmdet 2.28.2 cannot be fetched")
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        wheel.extractall(folder, [name for name in wheel.namelist() if "/.mim/configs/" in name])
    return folder / "mmdet" / ".mim" / "configs"


def listed(path: Path) -> Config | None:
    """Return the configuration if all that it names is ours to have."""
    try:
        config = load_config(path)
    except ConfigError as error:
        assert "custom_imports: No module named 'mmcls'" in str(error)  # noqa: PT017
        return None
    return config if set(types(config._cfg_dict)) <= PARTS | LAYERS else None


def check(config: Config, other: Config) -> None:
    """Check a configuration; what a base leaves to its users is as in *other*."""
    missing = {"model", "data", "optimizer", "runner"} - config.keys()
    for key in missing:
        config[key] = other[key]
    whole = normalized(config)
    warnings = check_config(whole, [key for key in ("train", "val", "test") if key in whole.data])

    # Some files set these two, and name the data in full.
    unused = {line.split(" ")[0] for line in warnings} - {"data_root", "dataset_type"}
    assert missing or not unused
    built = [Compose(each) for each in pipelines(whole.data)]
    assert len(built) >= 2


def each_stage(config: Any) -> list[dict[str, Any]]:
    """Return what there is for each stage, for the only one, or none."""
    return [config] if isinstance(config, dict) else list(config or ())


def loss(model: dict[str, Any]) -> float:
    """Return the loss of a picture; with fewer samples and narrow layers behind them, which take
    most of the time and differ in nothing else from those that are configured.
    """
    for head in each_stage(model.get("roi_head", {}).get("bbox_head")):
        if "fc_out_channels" in head:
            head["fc_out_channels"] = 32
    for stage in each_stage(model["train_cfg"].get("rcnn")):
        stage["sampler"]["num"] = 16
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


@pytest.mark.parametrize(
    ("folders", "files", "walked", "models"),
    [
        ("_base_", 32, 18, 9),
        ("[a-c]*", 53, 21, 10),
        ("[d-f]*", 114, 25, 11),
        ("[g-m]*", 190, 25, 11),
        ("[n-z]*", 277, 41, 32),
    ],
)
def test_configurations_of_what_is_promised_build_and_give_a_loss(
    configs: Path, folders: str, files: int, walked: int, models: int, subtests: pytest.Subtests
) -> None:
    whole = load_config(configs / "faster_rcnn" / "faster_rcnn_r50_fpn_1x_coco.py")
    paths = sorted(path for folder in configs.glob(folders) for path in folder.rglob("*.py"))
    chosen = {path: config for path in paths if (config := listed(path)) is not None}
    different = {
        json.dumps(config.model, sort_keys=True): path
        for path, config in chosen.items()
        if "model" in config
    }

    assert (len(paths), len(chosen), len(different)) == (files, walked, models)
    for path, config in chosen.items():
        with subtests.test(path.name):
            check(config, whole)
    for path in different.values():
        with subtests.test(f"loss of {path.name}"):
            assert np.isfinite(loss(chosen[path].model))
