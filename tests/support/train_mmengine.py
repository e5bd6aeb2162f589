"""Trains the toy with mmengine, as ``tools/train.py`` of mmdetection 3 trains a detector.

It knows nothing of Forebay: a configuration's ``custom_imports``, ``--import`` or ``forebay exec``
bring it.
"""

from __future__ import annotations

import argparse
import importlib
import json
from typing import Any

import numpy as np
import torch
from mmengine import fileio
from mmengine.config import Config, DictAction
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.model import BaseModel, BaseModule
from mmengine.registry import DATASETS, HOOKS, METRICS, MODELS
from mmengine.runner import Runner
from torch.utils.data import Dataset

from support import toy_training as toy


@DATASETS.register_module()
class ToyCoco(Dataset):  # type: ignore[misc]  # torch has no types here
    def __init__(
        self, data_root: str, split: str, flip: float, backend_args: dict[str, Any] | None = None
    ) -> None:
        self.folder = f"{data_root}{split}2017"
        self.flip = flip
        self.backend_args = backend_args
        annotations = f"{data_root}annotations/instances_{split}2017.json"
        self.pictures = json.loads(fileio.get_text(annotations, backend_args=backend_args))

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> dict[str, Any]:
        picture = self.pictures[index]
        path = f"{self.folder}/{picture['filename']}"
        pixels = toy.decode(fileio.get(path, backend_args=self.backend_args))
        if np.random.random() < self.flip:
            pixels = pixels[:, ::-1]
        pixels = np.ascontiguousarray(pixels.transpose(2, 0, 1), np.float32) / 128 - 1
        return {"img": torch.from_numpy(pixels), "label": picture["label"]}


@MODELS.register_module()
class ToyBackbone(BaseModule, toy.Backbone):  # type: ignore[misc]  # mmengine is not looked into
    def __init__(self, init_cfg: dict[str, Any] | None = None) -> None:
        toy.Backbone.__init__(self)
        self.init_cfg, self._is_init = init_cfg, False

    def init_weights(self) -> None:
        super().init_weights()
        toy.report(initialised=toy.digest(self.state_dict()))


@MODELS.register_module()
class ToyDetector(BaseModel):  # type: ignore[misc]  # mmengine is not looked into
    def __init__(self, backbone: dict[str, Any]) -> None:
        super().__init__()
        self.backbone = MODELS.build(backbone)
        self.head = torch.nn.Linear(4, 2)

    def forward(self, img: Any, label: Any, mode: str) -> Any:
        scores = self.head(self.backbone(img))
        if mode == "loss":
            return {"loss": torch.nn.functional.cross_entropy(scores, label)}
        return scores.softmax(1).gather(1, label[:, None])[:, 0].tolist()


@METRICS.register_module()
class ToyMetric(BaseMetric):  # type: ignore[misc]  # mmengine is not looked into
    def process(self, data_batch: Any, data_samples: list[float]) -> None:
        self.results.extend(data_samples)

    def compute_metrics(self, results: list[float]) -> dict[str, float]:
        """Return the mean probability of what is right."""
        score = sum(results) / len(results)
        toy.report(score=score)
        return {"bbox_mAP": score}


@HOOKS.register_module()
class ReportHook(Hook):  # type: ignore[misc]  # mmengine is not looked into
    priority = "HIGHEST"

    def __init__(self, pause_at: str | None) -> None:
        self.pause_at = pause_at

    def before_train(self, runner: Any) -> None:
        toy.report(loaded=toy.digest(runner.model.state_dict()))

    def before_train_epoch(self, runner: Any) -> None:
        toy.seed_all(runner.epoch)

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        loss = outputs["loss"].item()
        toy.report_step(runner.epoch + 1, batch_idx, loss, pause_at=self.pause_at)

    def after_train_epoch(self, runner: Any) -> None:
        toy.report(after=runner.epoch + 1, weights=toy.digest(runner.model.state_dict()))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("config")
    parser.add_argument("--work-dir", required=True)
    parser.add_argument("--resume", nargs="?", const="auto")
    parser.add_argument("--cfg-options", nargs="+", action=DictAction, default={})
    parser.add_argument("--import", dest="plug")
    parser.add_argument("--pause-at")
    args = parser.parse_args()
    if args.plug:
        importlib.import_module(args.plug)
    torch.set_num_threads(1)

    cfg = Config.fromfile(args.config)
    cfg.merge_from_dict(args.cfg_options)
    cfg.work_dir = args.work_dir
    cfg.custom_hooks = [{"type": "ReportHook", "pause_at": args.pause_at}]
    if args.resume == "auto":
        cfg.resume, cfg.load_from = True, None
    elif args.resume is not None:
        cfg.resume, cfg.load_from = True, args.resume
    Runner.from_cfg(cfg).train()


if __name__ == "__main__":
    main()
