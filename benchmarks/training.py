"""The trainer's loader and checkpoints, beside the same on the local disk.

The loader is that of the shipped ``coco_detection.py``, of photographs with boxes in COCO's form:
an epoch from s3:// that is cached, with Forebay's backend, and one from a folder, with the disk's.
A proxy counts what the origin is asked. The checkpoints are of a detector with its optimizer,
written by the trainer's hook, whose log says how long training stood still; beside a ``torch.save``
of the same content with an fsync.
Run: python benchmarks/training.py
"""

from __future__ import annotations

import json
import logging
import os
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.extend(str(Path(__file__).parents[1] / name) for name in ("tests", ""))

import common
import torch

import forebay
from deploy.demo.photos import photos
from forebay_trainer.config import load_config, normalized
from forebay_trainer.datasets import build_dataloader, build_dataset
from forebay_trainer.engine.hook import Hook
from forebay_trainer.engine.optimizers import build_optimizer
from forebay_trainer.engine.runner import IterBasedRunner
from forebay_trainer.models.builder import build_detector
from forebay_trainer.registry import HOOKS
from forebay_trainer.weights import read_checkpoint
from support.ceph import Bucket, running_ceph
from support.proxy import FaultProxy
from support.serving import serving

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

IMAGES, BOXES, WORKERS, ROUNDS = 200, 7, 2, 9
WIDTH, HEIGHT = 640, 480
SETTLE_S = 1.0  # Ceph goes on for a while with what it has answered
CONFIG = """
_base_ = ["../_base_/models/faster_rcnn_r50_fpn.py", "../_base_/datasets/coco_detection.py",
          "../_base_/schedules/schedule_1x.py", "../_base_/default_runtime.py"]
# With its momentum some 200 MB.
model = dict(backbone=dict(depth=18, init_cfg=None), neck=dict(in_channels=[64, 128, 256, 512]))
"""

# --- the loader -----------------------------------------------------------------------------------


def annotations(names: Sequence[str]) -> dict[str, Any]:
    """Return COCO's document of images with as many boxes as COCO's have."""
    dice = random.Random(0)  # noqa: S311  # the same boxes every time
    images, boxes = [], []
    for number, name in enumerate(names):
        images.append({"id": number, "file_name": name, "width": WIDTH, "height": HEIGHT})
        for _ in range(BOXES):
            width, height = dice.randint(20, 300), dice.randint(20, 300)
            box = [dice.randint(0, WIDTH - width), dice.randint(0, HEIGHT - height), width, height]
            shape = {"bbox": box, "area": width * height, "iscrowd": 0}
            boxes.append({"id": len(boxes), "image_id": number, "category_id": 1, **shape})
    categories = [{"id": 1, "name": "person"}]
    return {"images": images, "annotations": boxes, "categories": categories}


def epoch(config: Any, place: str, backend: str) -> Callable[[], float]:
    """Return what passes over the data set at *place* once, and gives the seconds."""
    train = dict(config.data.train)
    train |= {"ann_file": f"{place}/boxes.json", "img_prefix": f"{place}/images/"}
    loading, *others = train["pipeline"]
    train |= {"classes": ["person"], "file_client_args": {"backend": backend}}
    train["pipeline"] = [{**loading, "file_client_args": {"backend": backend}}, *others]
    dataset = build_dataset(train)
    loader = build_dataloader(dataset, config.data.train_dataloader["samples_per_gpu"], WORKERS)

    def run() -> float:
        began = time.perf_counter()
        seen = sum(len(batch["gt_labels"]) for batch in loader)
        taken = time.perf_counter() - began
        assert seen == IMAGES
        return taken

    return run


def loader(config: Any, folder: Path, bucket: Bucket, proxy: FaultProxy) -> dict[str, Any]:
    (folder / "images").mkdir()
    names, jpegs = zip(*photos(IMAGES), strict=True)
    bodies = {f"images/{name}": jpeg for name, jpeg in zip(names, jpegs, strict=True)}
    bodies["boxes.json"] = json.dumps(annotations(names)).encode()
    for name, body in bodies.items():
        (folder / name).write_bytes(body)
        bucket.put(name, body)
    works = {
        "files": epoch(config, str(folder), "disk"),
        "forebay": epoch(config, bucket.url().rstrip("/"), "petrel"),
    }
    first_s = works["forebay"]()
    filled = proxy.count("GET")
    proxy.forget()
    seconds = common.side_by_side(works, ROUNDS)
    rates = {name: [IMAGES / taken for taken in each] for name, each in seconds.items()}
    return {
        "bytes_an_image": round(statistics.mean(map(len, jpegs))),
        "first_epoch": {"images_per_s": round(IMAGES / first_s, 1), "gets": filled},
        "images_per_s": {name: [round(rate, 1) for rate in each] for name, each in rates.items()},
        "rate_to_files": round(common.median_ratio(rates["forebay"], rates["files"]), 3),
        "gets_at_the_origin": proxy.count("GET"),
    }


# --- checkpoints ----------------------------------------------------------------------------------


class _Idle(torch.nn.Module):
    """A detector whose step costs nothing, but leaves it with gradients for the optimizer."""

    def __init__(self, detector: torch.nn.Module) -> None:
        super().__init__()
        self.detector = detector

    def train_step(self, data: Any, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        for parameter in self.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        optimizer.zero_grad()
        return {"log_vars": {}, "num_samples": len(data)}


class _BesideLocal(Hook):
    """After each checkpoint, saves its content with torch and an fsync.

    Neither meets what the other, or the removal of old ones, has left to do.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "local.pth"
        self._content: Any = None
        self.seconds: dict[str, list[float]] = {"local": [], "forebay": []}

    def before_train_iter(self, runner: Any) -> None:
        self._path.unlink(missing_ok=True)
        self._settle()

    def after_checkpoint(self, runner: Any, path: str, blocked_s: float) -> None:
        self.seconds["forebay"].append(blocked_s)
        self._settle()
        if self._content is None:
            self._content = read_checkpoint(path)
        began = time.perf_counter()
        with self._path.open("wb") as file:
            torch.save(self._content, file)
            file.flush()
            os.fsync(file.fileno())
        self.seconds["local"].append(time.perf_counter() - began)
        self.size_bytes = self._path.stat().st_size

    @staticmethod
    def _settle() -> None:
        forebay.Client().flush()
        os.sync()
        time.sleep(SETTLE_S)


def checkpoints(config: Any, folder: Path, bucket: Bucket) -> dict[str, Any]:
    model = _Idle(build_detector(config.model, config.get("train_cfg"), config.get("test_cfg")))
    runner = IterBasedRunner(
        model,
        build_optimizer(model, config.optimizer),
        bucket.url("run"),
        logging.getLogger("benchmark"),
        max_iters=ROUNDS + 1,
    )
    beside = _BesideLocal(folder)
    saving = {"type": "CheckpointHook", "by_epoch": False, "interval": 1, "max_keep_ckpts": 1}
    for hook in (HOOKS.build(saving), beside):
        runner.register_hook(hook)
    runner.run([build_dataloader(range(ROUNDS + 1), 1, 0)], [("train", 1)])
    seconds = {name: taken[1:] for name, taken in beside.seconds.items()}
    return {
        "mb": round(beside.size_bytes / 1e6),
        **{f"{name}_s": round(statistics.median(each), 3) for name, each in seconds.items()},
        "blocked_to_local": round(common.median_ratio(seconds["forebay"], seconds["local"]), 3),
        "rounds_s": {name: [round(s, 3) for s in each] for name, each in seconds.items()},
    }


def main() -> None:
    with (
        tempfile.TemporaryDirectory(prefix="fb-") as name,
        running_ceph() as ceph,
        FaultProxy(ceph.endpoint_url) as proxy,
        serving(endpoint_url=proxy.url, env=ceph.env(), max_bytes="4GiB") as daemon,
    ):
        os.environ["FOREBAY_ADDRESS"] = daemon.address
        bucket = Bucket("bench", ceph.client())
        bucket.client.create_bucket(Bucket=bucket.name)
        folder = Path(name)
        path = folder / "configs" / "detector.py"
        path.parent.mkdir()
        path.write_text(CONFIG)
        config = normalized(load_config(str(path)))
        result = {
            "loader": loader(config, folder, bucket, proxy),
            "checkpoints": checkpoints(config, folder, bucket),
        }
    common.report("training", result)


if __name__ == "__main__":
    main()
