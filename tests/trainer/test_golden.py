"""Losses, gradients and detections are those that MMDetection 2.28 gives, recorded in golden/.

Weights and pictures are random numbers that depend on nothing but their names and shapes.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("cv2")

from faster_coco_eval.core import mask as coco_mask  # noqa: E402

from forebay_trainer.core.masks import BitmapMasks  # noqa: E402
from forebay_trainer.models.builder import build_detector  # noqa: E402
from forebay_trainer.models.detectors.base import parse_losses  # noqa: E402

FOLDER = Path(__file__).parent / "golden"
NAMES = ["faster_rcnn_r50_fpn", "cascade_mask_rcnn_r50_fpn_cityscapes"]
BOXES = [
    [[8, 10, 90, 100], [60, 40, 150, 140], [100, 16, 130, 60]],
    [[20, 20, 70, 150], [80, 60, 160, 120]],
]
HEIGHT, WIDTH = 160, 192


def noise(name: str, shape: tuple[int, ...]) -> Any:
    generator = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))
    return torch.from_numpy(generator.standard_normal(shape, dtype=np.float32))


def weight(name: str, shape: tuple[int, ...]) -> Any:
    values = noise(name, shape)
    if name.endswith("running_mean"):
        return 0.02 * values
    if name.endswith("running_var"):
        return 1 + 0.1 * values.abs()
    if name.endswith(".bias"):
        return 0.01 * values
    if values.dim() == 1:
        return 0.5 + 0.05 * values
    return values / np.sqrt(np.prod(shape[1:]))


class Case:
    def __init__(self, name: str) -> None:
        self.golden = json.loads((FOLDER / f"{name}.json").read_text())
        self.keys = json.loads((FOLDER / f"{name}.keys.json").read_text())
        self.detector = build_detector(self.golden["model"])
        for key, tensor in self.detector.state_dict().items():
            if not key.endswith("num_batches_tracked"):
                tensor.copy_(weight(key, tuple(tensor.shape)))
        self.image = noise("image 2x3x160x192", (2, 3, HEIGHT, WIDTH))
        self.metas = [
            {
                "img_shape": (HEIGHT - 8 * i, WIDTH - 16 * i, 3),
                "ori_shape": (HEIGHT - 8 * i, WIDTH - 16 * i, 3),
                "pad_shape": (HEIGHT, WIDTH, 3),
                "scale_factor": np.ones(4, dtype=np.float32),
                "flip": False,
                "flip_direction": None,
            }
            for i in range(2)
        ]

    def train(self) -> dict[str, Any]:
        classes = self.golden["classes"]
        truth: dict[str, Any] = {
            "gt_bboxes": [torch.tensor(boxes, dtype=torch.float32) for boxes in BOXES],
            "gt_labels": [
                torch.tensor([(i + j) % classes for j in range(len(boxes))])
                for i, boxes in enumerate(BOXES)
            ],
        }
        if self.detector.with_mask:
            truth["gt_masks"] = [
                BitmapMasks(np.stack([ellipse(box) for box in boxes]), HEIGHT, WIDTH)
                for boxes in BOXES
            ]
        self.detector.train()
        return self.detector.forward_train(self.image, self.metas, **truth)  # type: ignore[no-any-return]

    def test(self) -> list[Any]:
        self.detector.eval()
        return self.detector.simple_test(self.image, self.metas, rescale=False)  # type: ignore[no-any-return]


def ellipse(box: list[int]) -> Any:
    x1, y1, x2, y2 = box
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    inside = ((x - (x1 + x2) / 2) / ((x2 - x1) / 2)) ** 2 + (
        (y - (y1 + y2) / 2) / ((y2 - y1) / 2)
    ) ** 2
    return (inside <= 1).astype(np.uint8)


@pytest.fixture(scope="module", params=NAMES)
def case(request: pytest.FixtureRequest) -> Case:
    return Case(request.param)


def test_names_and_shapes_are_those_of_published_checkpoints(case: Case) -> None:
    own = {key: list(value.shape) for key, value in case.detector.state_dict().items()}

    assert list(own.items()) == list(case.keys.items())


def test_losses_and_gradients_are_equal(case: Case) -> None:
    losses = case.train()

    golden = case.golden["losses"]
    assert losses.keys() == golden.keys()
    for name, expected in golden.items():
        values = (
            [v.item() for v in losses[name]] if isinstance(expected, list) else losses[name].item()
        )
        assert values == pytest.approx(expected, rel=1e-4, abs=1e-9), name

    total, _ = parse_losses(losses)
    assert total.item() == pytest.approx(case.golden["total"], rel=1e-4)
    case.detector.zero_grad()
    total.backward()
    parameters = dict(case.detector.named_parameters())
    for name, norm in case.golden["grad_norms"].items():
        assert parameters[name].grad.norm().item() == pytest.approx(norm, rel=1e-3, abs=1e-9), name


def test_features_are_equal(case: Case) -> None:
    case.detector.eval()
    with torch.no_grad():
        levels = case.detector.extract_feat(case.image)

    assert [list(level.shape) for level in levels] == [f["shape"] for f in case.golden["features"]]
    for level, expected in zip(levels, case.golden["features"], strict=True):
        assert level.mean().item() == pytest.approx(expected["mean"], rel=1e-4, abs=1e-6)
        assert level.std().item() == pytest.approx(expected["std"], rel=1e-4)


def test_detections_are_equal(case: Case) -> None:
    for result, expected in zip(case.test(), case.golden["detections"], strict=True):
        boxes, masks = result if case.detector.with_mask else (result, None)
        found = [
            (label, index, row)
            for label, rows in enumerate(boxes)
            for index, row in enumerate(rows)
        ]
        found.sort(key=lambda one: -one[2][4])

        assert len(found) == len(expected)
        for (label, index, row), detection in zip(found, expected, strict=True):
            assert label == detection["label"]
            assert row[:4] == pytest.approx(detection["box"], abs=0.05)
            assert row[4] == pytest.approx(detection["score"], abs=1e-4)
            if masks is not None:
                recorded = coco_mask.decode(detection["mask"]).astype(bool)
                own = masks[label][index]
                assert own.shape == recorded.shape
                union = (own | recorded).sum()
                assert union == 0 or (own & recorded).sum() / union >= 0.999
