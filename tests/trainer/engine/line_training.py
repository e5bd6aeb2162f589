"""A model of one layer and the images of nobody: what the loop needs, and no more."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import torch

from forebay_trainer.config import normalized
from forebay_trainer.datasets import build_dataloader
from forebay_trainer.engine.optimizers import build_optimizer
from forebay_trainer.engine.training import register_hooks
from forebay_trainer.registry import RUNNERS, Config

if TYPE_CHECKING:
    from pathlib import Path

    from forebay_trainer.engine import Runner


class Line(torch.nn.Module):
    """y = w x + b with dropout, so that each step uses up random numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.line = torch.nn.Linear(4, 1)
        self.norm = torch.nn.BatchNorm1d(4)

    def forward(self, x: Any) -> Any:
        return self.line(torch.nn.functional.dropout(self.norm(x), 0.5, self.training))

    def train_step(self, data: dict[str, Any], optimizer: Any) -> dict[str, Any]:
        loss = (self(data["x"]) - data["y"]).square().mean()
        return {"loss": loss, "log_vars": {"loss": loss.item()}, "num_samples": len(data["x"])}

    val_step = train_step


class Points:
    """Twelve points, whose places are drawn anew each time, as augmented images are."""

    CLASSES = ("point",)

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"x": index / 12 + torch.rand(4), "y": torch.tensor([float(index % 2)])}


class Training:
    """Makes runners whose only difference is what the test says."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def runner(self, name: str = "run", **settings: Any) -> Runner:
        """Return a runner of two epochs with a new model; *settings* are of the configuration."""
        torch.manual_seed(7)
        config = normalized(
            Config(
                {
                    "data": {},
                    "optimizer": {"type": "SGD", "lr": 0.01, "momentum": 0.9},
                    "runner": {"type": "EpochBasedRunner", "max_epochs": 2},
                    "log_config": {"interval": 1, "hooks": [{"type": "TextLoggerHook"}]},
                    **settings,
                }
            )
        )
        work_dir = self.folder / name
        work_dir.mkdir(exist_ok=True)
        arguments = dict(config.runner)
        kind: Any = RUNNERS.get(arguments.pop("type"))
        model = Line()
        runner: Runner = kind(
            model,
            build_optimizer(model, config.optimizer),
            str(work_dir),
            logging.getLogger("toy"),
            **arguments,
        )
        register_hooks(runner, config)
        runner.call_hook("before_load")
        return runner

    @staticmethod
    def loader(batch: int = 2, *, workers: int = 0) -> Any:
        return build_dataloader(Points(), batch, workers, seed=3, persistent_workers=True)

    def run(self, runner: Runner, loader: Any = None) -> list[float]:
        """Run to the end; return the losses of all batches."""
        losses: list[float] = []
        step = runner._step

        def noted(*arguments: Any) -> Any:
            outputs = step(*arguments)
            losses.append(outputs["log_vars"]["loss"])
            return outputs

        runner._step = noted
        runner.run([loader or self.loader()], [("train", 1)])
        return losses
