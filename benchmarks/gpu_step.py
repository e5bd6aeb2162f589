"""A training step of Faster R-CNN R50-FPN on a GPU, beside torchvision's own model.

Both: mixed precision, two images of 800x1333 a step, 8 boxes an image, 80 classes, batch norm and
the first stage frozen, SGD. Says so where CUDA, or a torchvision that loads, is missing.
Run: python benchmarks/gpu_step.py [--images-per-step 8] [--device cpu --steps 1 --rounds 1]
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import common
import torch

from forebay_trainer import configs
from forebay_trainer.config import load_config, normalized
from forebay_trainer.engine.training import place_model
from forebay_trainer.models.builder import build_detector

if TYPE_CHECKING:
    from collections.abc import Callable

HEIGHT, WIDTH, BOXES, CLASSES = 800, 1333, 8, 80
PADDED_WIDTH = 1344  # to a multiple of 32, as the pipelines do; torchvision pads itself
_CONFIG = Path(configs.__file__).parent / "_base_/models/faster_rcnn_r50_fpn.py"


def boxes(device: torch.device) -> torch.Tensor:
    """Return boxes (n, 4) of 32 to 400 pixels."""
    size = 32 + torch.rand(BOXES, 2) * 368
    corner = torch.rand(BOXES, 2) * (torch.tensor([WIDTH, HEIGHT]) - size)
    return torch.cat([corner, corner + size], 1).to(device)


def ours(device: torch.device, images: int) -> tuple[torch.nn.Module, Callable[[], torch.Tensor]]:
    """Return the model, and what takes its loss of a batch."""
    config = normalized(load_config(str(_CONFIG), {"model.backbone.init_cfg": None}))
    model: Any = build_detector(config.model)
    model.init_weights()
    place_model(model, device, is_mixed=True)
    model.train()
    shape = (HEIGHT, WIDTH, 3)
    meta = {"img_shape": shape, "ori_shape": shape, "scale_factor": 1.0, "flip": False}
    batch = {
        "img": torch.randn(images, 3, HEIGHT, PADDED_WIDTH, device=device),
        "img_metas": [{**meta, "pad_shape": (HEIGHT, PADDED_WIDTH, 3)}] * images,
        "gt_bboxes": [boxes(device) for _ in range(images)],
        "gt_labels": [torch.arange(BOXES, device=device) for _ in range(images)],
    }
    return model, lambda: model.train_step(batch)["loss"]


def theirs(device: torch.device, images: int) -> tuple[torch.nn.Module, Callable[[], torch.Tensor]]:
    from torchvision.models.detection import FasterRCNN
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
    from torchvision.ops import FrozenBatchNorm2d

    backbone = resnet_fpn_backbone(
        backbone_name="resnet50", weights=None, norm_layer=FrozenBatchNorm2d, trainable_layers=3
    )
    model = FasterRCNN(backbone, CLASSES + 1, min_size=HEIGHT, max_size=WIDTH).to(device).train()
    pictures = [torch.rand(3, HEIGHT, WIDTH, device=device) for _ in range(images)]
    targets = [
        {"boxes": boxes(device), "labels": torch.arange(1, BOXES + 1, device=device)}
        for _ in range(images)
    ]
    return model, lambda: sum(model(pictures, targets).values())


def stepper(
    model: torch.nn.Module, loss: Callable[[], torch.Tensor], device: torch.device, steps: int
) -> Callable[[], float]:
    """Return what trains for *steps* and returns the seconds it took."""
    trained = [each for each in model.parameters() if each.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=1e-4, momentum=0.9, weight_decay=1e-4)
    scaler = torch.amp.GradScaler(device.type)

    def run() -> float:
        wait(device)
        began = time.perf_counter()
        for _ in range(steps):
            with torch.autocast(device.type):
                value = loss()
            optimizer.zero_grad()
            scaler.scale(value).backward()
            scaler.step(optimizer)
            scaler.update()
        wait(device)
        return time.perf_counter() - began

    return run


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images-per-step", type=int, default=2)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--device", default="cuda")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        print("gpu_step.py: there is no CUDA device here: nothing was measured")
        return
    device, images = torch.device(options.device), options.images_per_step
    works = {"forebay": stepper(*ours(device, images), device, options.steps)}
    try:
        works["torchvision"] = stepper(*theirs(device, images), device, options.steps)
    except (ImportError, OSError, RuntimeError) as error:
        print(f"gpu_step.py: torchvision does not load, ours alone: {error}", file=sys.stderr)
    seconds = common.side_by_side(works, options.rounds)
    result: dict[str, Any] = {"images_per_step": images}
    if device.type == "cuda":
        result["device"] = torch.cuda.get_device_name()
    for name, taken in seconds.items():
        rates = sorted(options.steps * images / each for each in taken)
        result[f"{name}_images_per_s"] = round(rates[len(rates) // 2], 2)
    if "torchvision" in seconds:
        result["ratio"] = round(common.median_ratio(seconds["torchvision"], seconds["forebay"]), 3)
    if device.type == "cuda":
        common.report("gpu_step", result)
    else:
        print(result)


if __name__ == "__main__":
    main()
