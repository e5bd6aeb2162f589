"""Hooks: their order, averages of weights, and what stops a run."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("mmengine")

from forebay_trainer.engine import Hook  # noqa: E402
from forebay_trainer.registry import HOOKS  # noqa: E402


def test_a_lower_priority_runs_earlier_and_equals_in_their_order(training: Any) -> None:
    heard: list[str] = []

    class Listener(Hook):
        def __init__(self, name: str) -> None:
            self.name = name

        def after_run(self, runner: Any) -> None:
            heard.append(self.name)

    runner = training.runner()
    for name, priority in (("a", "LOW"), ("b", None), ("c", "VERY_HIGH"), ("d", 50)):
        runner.register_hook(Listener(name), priority)
    training.run(runner)

    assert heard == ["c", "b", "d", "a"]


def test_an_average_by_hand(training: Any) -> None:
    hook = HOOKS.build({"type": "EMAHook", "momentum": 0.5, "warm_up": 3})
    runner = training.runner()
    hook.before_load(runner)
    hook.before_run(runner)
    weight = runner.model.line.bias
    start = weight.item()

    expected = start
    for runner.iter in range(3):  # momenta 1/3, 2/4, and 0.5 as 3/5 is more
        weight.data.fill_(float(runner.iter))
        hook.after_train_iter(runner)
        momentum = (1 / 3, 0.5, 0.5)[runner.iter]
        expected = (1 - momentum) * expected + momentum * runner.iter

    assert runner.model.ema_line_bias.item() == pytest.approx(expected)
    hook.after_train_epoch(runner)
    assert weight.item() == pytest.approx(expected)
    hook.before_train_epoch(runner)
    assert weight.item() == 2.0


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ({"type": "ExpMomentumEMAHook", "total_iter": 2}, 0.9 * 0.6065306597 + 0.1),
        ({"type": "LinearMomentumEMAHook", "warm_up": 20}, 0.05),
    ],
)
def test_momenta_of_the_first_iteration(kind: dict[str, Any], expected: float) -> None:
    assert HOOKS.build({**kind, "momentum": 0.1}).momentum_at(0) == pytest.approx(expected)


def test_heads_with_other_classes_than_the_data_stop_the_run(training: Any) -> None:
    runner = training.runner(custom_hooks=[{"type": "NumClassCheckHook"}])
    runner.model.line.num_classes = 80

    with pytest.raises(
        ValueError, match=r"model\.line\.num_classes is 80, but .* 1 classes: point"
    ):
        training.run(runner)


def test_a_loss_that_is_no_number_stops_the_run(training: Any) -> None:
    runner = training.runner(custom_hooks=[{"type": "CheckInvalidLossHook", "interval": 2}])
    runner.model.line.bias.data.fill_(float("nan"))

    with pytest.raises(FloatingPointError, match="iteration 2"):
        training.run(runner)


def test_phases_have_their_loaders_whatever_their_order(training: Any) -> None:
    runner = training.runner()
    seen: list[tuple[str, int]] = []
    step = runner.model.train_step

    def noted(data: dict[str, Any], optimizer: Any) -> Any:
        seen.append((runner.mode, len(data["x"])))
        return step(data, optimizer)

    runner._step = runner.model.val_step = noted
    runner.run([training.loader(2), training.loader(6)], [("val", 1), ("train", 1)])

    assert seen == 2 * [*2 * [("val", 6)], *6 * [("train", 2)]]
