"""Trains the toy with mmcv 1.x, as ``tools/train.py`` of mmdetection 2 trains a detector.

It knows nothing of Forebay: a configuration's ``custom_imports``, ``--import`` or ``forebay exec``
bring it.
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import time
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
import torch
from mmcv.cnn import MODELS
from mmcv.runner import (
    HOOKS,
    BaseModule,
    DistSamplerSeedHook,
    EpochBasedRunner,
    EvalHook,
    Hook,
    build_optimizer,
)
from mmcv.utils import Registry, build_from_cfg, get_logger
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from support import toy_training as toy

PIPELINES = Registry("pipeline")
DATASETS = Registry("dataset")


# --- data: the parts of mmdetection that read ------------------------------------------------


@PIPELINES.register_module()
class LoadImageFromFile:
    def __init__(self, file_client_args: dict[str, Any] | None = None) -> None:
        self.file_client_args = dict(file_client_args or {"backend": "disk"})
        self.file_client: Any = None

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        if self.file_client is None:
            self.file_client = mmcv.FileClient(**self.file_client_args)
        data = self.file_client.get(results["filename"])
        return {**results, "img": mmcv.imfrombytes(data, flag="color")}


@PIPELINES.register_module()
class RandomFlip:
    def __init__(self, flip_ratio: float) -> None:
        self.flip_ratio = flip_ratio

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        if np.random.random() < self.flip_ratio:
            results["img"] = mmcv.imflip(results["img"])
        return results


@PIPELINES.register_module()
class Normalize:
    def __init__(self, mean: list[float], std: list[float], to_rgb: bool) -> None:
        self.how = np.array(mean, np.float32), np.array(std, np.float32), to_rgb

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        return {**results, "img": mmcv.imnormalize(results["img"], *self.how)}


@DATASETS.register_module()
class ToyCoco(Dataset):  # type: ignore[misc]  # torch has no types here
    def __init__(
        self,
        ann_file: str,
        img_prefix: str,
        pipeline: list[dict[str, Any]],
        file_client_args: dict[str, Any],
    ) -> None:
        client = mmcv.FileClient(**file_client_args)
        with client.get_local_path(ann_file) as path:
            self.pictures = json.loads(Path(path).read_text())
        self.img_prefix = img_prefix
        self.pipeline = [build_from_cfg(step, PIPELINES) for step in pipeline]

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> dict[str, Any]:
        picture = self.pictures[index]
        results = {"filename": self.img_prefix + picture["filename"]}
        for step in self.pipeline:
            results = step(results)
        pixels = np.ascontiguousarray(results["img"].transpose(2, 0, 1))
        return {"img": torch.from_numpy(pixels), "label": picture["label"]}

    def evaluate(self, results: list[float], logger: Any = None) -> dict[str, float]:
        """Return the mean probability of what is right."""
        score = sum(results) / len(results)
        toy.report(score=score)
        return {"bbox": score}


# --- model -----------------------------------------------------------------------------------


@MODELS.register_module()
class ToyBackbone(BaseModule, toy.Backbone):  # type: ignore[misc]  # mmcv has no types
    def __init__(self, init_cfg: dict[str, Any] | None = None) -> None:
        toy.Backbone.__init__(self)
        self.init_cfg, self._is_init = init_cfg, False


@MODELS.register_module()
class ToyDetector(BaseModule):  # type: ignore[misc]  # mmcv has no types
    def __init__(self, backbone: dict[str, Any]) -> None:
        super().__init__()
        self.backbone = MODELS.build(backbone)
        self.head = torch.nn.Linear(4, 2)

    def forward(self, img: Any, label: Any, return_loss: bool = True) -> Any:
        scores = self.head(self.backbone(img))
        if return_loss:
            return torch.nn.functional.cross_entropy(scores, label)
        return scores.softmax(1).gather(1, label[:, None])[:, 0].tolist()

    def train_step(self, data: dict[str, Any], optimizer: Any) -> dict[str, Any]:
        loss = self(**data)
        log_vars = {"loss": loss.item()}
        return {"loss": loss, "log_vars": log_vars, "num_samples": len(data["img"])}


@HOOKS.register_module()
class ReportHook(Hook):  # type: ignore[misc]  # mmcv has no types
    def __init__(self, pause_at: str | None) -> None:
        self.pause_at = pause_at

    def before_train_epoch(self, runner: Any) -> None:
        toy.seed_all(runner.epoch)

    def after_train_iter(self, runner: Any) -> None:
        loss = runner.outputs["loss"].item()
        toy.report_step(runner.epoch + 1, runner.inner_iter, loss, pause_at=self.pause_at)

    def after_train_epoch(self, runner: Any) -> None:
        toy.report(after=runner.epoch + 1, weights=toy.digest(runner.model.state_dict()))


# --- the program -----------------------------------------------------------------------------


def loader(cfg: Any, split: str) -> Any:
    dataset = build_from_cfg(cfg.data[split], DATASETS)
    is_train = split == "train"
    sampler = DistributedSampler(dataset, 1, 0, shuffle=is_train, seed=toy.SEED)
    return DataLoader(
        dataset,
        batch_size=cfg.data.samples_per_gpu,
        num_workers=cfg.data.workers_per_gpu,
        sampler=sampler,
        worker_init_fn=toy.seed_worker,
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("config")
    parser.add_argument("--work-dir", required=True)
    parser.add_argument("--cfg-options", nargs="+", action=mmcv.DictAction, default={})
    parser.add_argument("--import", dest="plug")
    parser.add_argument("--pause-at")
    args = parser.parse_args()
    if args.plug:
        importlib.import_module(args.plug)
    torch.set_num_threads(1)

    cfg = mmcv.Config.fromfile(args.config)
    cfg.merge_from_dict(args.cfg_options)
    work_dir = Path(args.work_dir)
    work_dir.mkdir(parents=True, exist_ok=True)
    cfg.dump(str(work_dir / "config.py"))
    timestamp = time.strftime("%Y%m%d_%H%M%S", time.localtime())
    logger = get_logger("toy", str(work_dir / f"{timestamp}.log"), logging.INFO)

    toy.seed_all(0)
    model = MODELS.build(cfg.model)
    model.init_weights()
    toy.report(initialised=toy.digest(model.backbone.state_dict()))
    runner = EpochBasedRunner(
        model,
        optimizer=build_optimizer(model, cfg.optimizer),
        work_dir=args.work_dir,
        logger=logger,
        meta={"exp_name": Path(args.config).name, "config": cfg.pretty_text},
        max_epochs=toy.EPOCHS,
    )
    runner.timestamp = timestamp
    runner.register_training_hooks(
        cfg.lr_config, cfg.optimizer_config, cfg.checkpoint_config, cfg.log_config
    )
    runner.register_hook(DistSamplerSeedHook())
    # mmcv alone does not know that more of the tutorial's 'bbox' is better.
    evaluation = EvalHook(loader(cfg, "val"), greater_keys=["bbox"], **cfg.evaluation)
    runner.register_hook(evaluation, priority="LOW")
    runner.register_hook(ReportHook(args.pause_at), priority="HIGHEST")
    if cfg.resume_from:
        runner.resume(cfg.resume_from)
    elif cfg.load_from:
        runner.load_checkpoint(cfg.load_from)
    toy.report(loaded=toy.digest(model.state_dict()))
    runner.run([loader(cfg, "train")], cfg.workflow)


if __name__ == "__main__":
    main()
