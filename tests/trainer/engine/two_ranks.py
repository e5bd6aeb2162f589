"""Run by torchrun: trains a line on two processes; the first one prints what came of it."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

import torch

from forebay_trainer.datasets import build_dataloader
from forebay_trainer.engine import EpochBasedRunner, distributed
from forebay_trainer.engine.checkpoint_hook import CheckpointHook
from forebay_trainer.engine.optimizer_hooks import OptimizerHook
from forebay_trainer.engine.testing import run_test


class Line(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.line = torch.nn.Linear(1, 1)

    def train_step(self, data: Any, optimizer: Any) -> dict[str, Any]:
        loss = (self.line(data["x"]) - data["y"]).square().mean()
        return {"loss": loss, "log_vars": {"loss": loss.item()}, "num_samples": len(data["x"])}

    def forward(self, x: Any, **_: Any) -> list[float]:
        return [float(each) for each in x]


class Points:
    CLASSES = ("point",)

    def __init__(self, count: int, *, has_answers: bool) -> None:
        self._count = count
        self._has_answers = has_answers

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> dict[str, Any]:
        x = torch.tensor([float(index)])
        return {"x": x, "y": 2 * x} if self._has_answers else {"x": x}


def main(folder: str) -> None:
    distributed.start("cpu")
    torch.manual_seed(0)
    model = Line()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    runner = EpochBasedRunner(model, optimizer, folder, logging.getLogger(), max_epochs=2)
    runner.register_hook(OptimizerHook())
    runner.register_hook(CheckpointHook(1))
    runner.run([build_dataloader(Points(8, has_answers=True), 2, 0, seed=1)], [("train", 1)])
    weights = distributed.gather([each.tolist() for each in model.parameters()])
    tested = run_test(model, build_dataloader(Points(5, has_answers=False), 1, 0, shuffle=False))
    if distributed.rank() == 0:
        print(json.dumps({"weights": weights, "tested": tested, "batches": runner.iter}))
    distributed.stop()


if __name__ == "__main__":
    main(sys.argv[1])
