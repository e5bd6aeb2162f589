"""When a run is evaluated, and which checkpoint it keeps as the best."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("cv2")
pytest.importorskip("mmengine")

from forebay_trainer.config import ConfigError  # noqa: E402
from forebay_trainer.datasets import build_dataloader  # noqa: E402
from forebay_trainer.engine.evaluation import EvalHook  # noqa: E402


class Judged:
    """A data set whose scores are known before."""

    CLASSES = ("a",)

    def __init__(self, scores: list[float]) -> None:
        self._scores = scores
        self.asked = 0

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"x": torch.rand(4)}

    def evaluate(self, results: list[Any], logger: Any = None, **told: Any) -> dict[str, Any]:
        assert len(results) == 2
        self.asked += 1
        return {"bbox_mAP": self._scores[self.asked - 1], "bbox_mAP_copypaste": "0.1 0.2"}


def run(training: Any, scores: list[float], epochs: int = 4, **options: Any) -> tuple[Any, Judged]:
    runner = training.runner(runner={"type": "EpochBasedRunner", "max_epochs": epochs})
    runner.model.forward = _looked(runner.model, runner.model.forward)
    dataset = Judged(scores)
    loader = build_dataloader(dataset, 1, 0, shuffle=False)
    runner.register_hook(EvalHook(loader, **options), "LOW")
    training.run(runner)
    return runner, dataset


def _looked(model: Any, train: Any) -> Any:
    """Let a test's call, which has ``return_loss``, give a result for each image."""

    def forward(x: Any, **test: Any) -> Any:
        if not test:
            return train(x)
        assert not model.training
        assert not torch.is_grad_enabled()
        return [[] for _ in x]

    return forward


def best(runner: Any) -> list[str]:
    return [path.name for path in Path(runner.work_dir).glob("best_*.pth")]


def test_the_best_is_kept_alone(training: Any) -> None:
    runner, _ = run(training, [0.2, 0.5, 0.4, 0.3], save_best="bbox")

    assert best(runner) == ["best_bbox_mAP_epoch_2.pth"]
    assert runner.meta["hook_msgs"]["best_score"] == 0.5


def test_less_may_be_better(training: Any) -> None:
    runner, _ = run(training, [0.2, 0.5, 0.1, 0.3], save_best="bbox_mAP", rule="less")

    assert best(runner) == ["best_bbox_mAP_epoch_3.pth"]


def test_a_resumed_run_knows_what_was_best(training: Any) -> None:
    first, _ = run(training, [0.2, 0.9, 0.4, 0.3], save_best="auto")
    messages = dict(first.meta["hook_msgs"])
    second = training.runner(runner={"type": "EpochBasedRunner", "max_epochs": 1})
    second.model.forward = _looked(second.model, second.model.forward)
    second.meta["hook_msgs"] = messages
    loader = build_dataloader(Judged([0.5]), 1, 0, shuffle=False)
    second.register_hook(EvalHook(loader, save_best="auto"), "LOW")

    training.run(second)

    assert best(second) == ["best_bbox_mAP_epoch_2.pth"]


def test_a_score_that_is_not_there_is_named(training: Any) -> None:
    with pytest.raises(ConfigError, match="'segm' is none of bbox_mAP"):
        run(training, [0.2], save_best="segm")


@pytest.mark.parametrize(
    ("options", "times"),
    [
        ({"interval": 2}, 2),
        ({"start": 3}, 2),
        ({"start": 0, "interval": 2}, 3),  # before the first, too
        ({"interval": 3, "dynamic_intervals": [(3, 1)]}, 2),
        ({"by_epoch": False, "interval": 6}, 4),
    ],
)
def test_when_it_is_due(training: Any, options: dict[str, Any], times: int) -> None:
    _, dataset = run(training, [0.1] * 9, **options)

    assert dataset.asked == times


def test_losses_are_those_of_a_run_without(training: Any) -> None:
    plain = training.run(training.runner("plain"))

    runner = training.runner("evaluated")
    runner.model.forward = _looked(runner.model, runner.model.forward)
    loader = build_dataloader(Judged([0.1, 0.2]), 1, 0, shuffle=False)
    runner.register_hook(EvalHook(loader), "LOW")

    assert training.run(runner) == plain
