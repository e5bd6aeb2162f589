"""Learning rates against numbers worked out by hand."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("mmengine")

from forebay_trainer.engine.schedules import policy_hook_name  # noqa: E402
from forebay_trainer.registry import HOOKS  # noqa: E402

EPOCHS, BATCHES = 4, 5


def rates(policy: str, **arguments: Any) -> list[float]:
    """Return the learning rate of each of the 20 batches of a run; the optimizer's is 1."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    runner = SimpleNamespace(
        optimizer=optimizer,
        iter=0,
        max_epochs=EPOCHS,
        max_iters=EPOCHS * BATCHES,
        data_loader=range(BATCHES),
    )
    hook = HOOKS.build({"type": policy_hook_name(policy), **arguments})
    hook.before_run(runner)
    found = []
    for runner.epoch in range(EPOCHS):
        hook.before_train_epoch(runner)
        for _ in range(BATCHES):
            hook.before_train_iter(runner)
            found.append(optimizer.param_groups[0]["lr"])
            runner.iter += 1
    return found


def test_steps_come_after_epochs() -> None:
    found = rates("step", step=[1, 3], gamma=0.1)

    assert found == pytest.approx([1.0] * 5 + [0.1] * 10 + [0.01] * 5)


def test_a_step_of_one_number_repeats_and_stops_at_the_minimum() -> None:
    found = rates("step", step=1, gamma=0.5, min_lr=0.2)

    assert found[::BATCHES] == pytest.approx([1.0, 0.5, 0.25, 0.2])


@pytest.mark.parametrize(
    ("warmup", "expected"),
    [
        ("linear", [0.1, 0.325, 0.55, 0.775, 1.0]),
        ("constant", [0.1, 0.1, 0.1, 0.1, 1.0]),
        ("exp", [0.1, 10**-0.75, 10**-0.5, 10**-0.25, 1.0]),
    ],
)
def test_warm_up_leads_to_the_policy(warmup: str, expected: list[float]) -> None:
    found = rates("fixed", warmup=warmup, warmup_iters=4, warmup_ratio=0.1)

    assert found[:5] == pytest.approx(expected)
    assert found[5:] == [1.0] * 15


def test_warm_up_over_epochs_counts_their_batches() -> None:
    found = rates("fixed", warmup="linear", warmup_iters=2, warmup_ratio=0.5, warmup_by_epoch=True)

    assert found[5] == pytest.approx(0.75)
    assert found[10] == 1.0


def test_cosine_by_iterations_falls_to_the_ratio() -> None:
    found = rates("CosineAnnealing", by_epoch=False, min_lr_ratio=0.2)

    assert found[0] == 1.0
    assert found[10] == pytest.approx(0.6)
    assert found[19] == pytest.approx(0.2 + 0.4 * (1 + math.cos(math.pi * 19 / 20)))


def test_flat_cosine_begins_late() -> None:
    found = rates("FlatCosineAnnealing", start_percent=0.5, min_lr=0.0)

    assert found[::BATCHES] == pytest.approx([1.0, 1.0, 1.0, 0.5])


def test_polynomial_is_straight_with_power_one() -> None:
    found = rates("poly", min_lr=0.2)

    assert found[::BATCHES] == pytest.approx([1.0, 0.8, 0.6, 0.4])


def test_cyclic_goes_up_and_down() -> None:
    found = rates("cyclic", target_ratio=(10, 0.1), step_ratio_up=0.5)

    assert found[0] == pytest.approx(1.0)
    assert found[5] == pytest.approx(5.5)
    assert found[10] == pytest.approx(10.0)
    assert found[15] == pytest.approx(5.05)


def test_a_wrong_warm_up_is_refused() -> None:
    with pytest.raises(ValueError, match="'linear'"):
        rates("fixed", warmup="lineer", warmup_iters=3)


def test_a_policy_by_iterations_in_a_run_by_epochs(training: Any) -> None:
    """Of 12 iterations 4 lead up to ten times the rate of 0.01, and 8 down."""
    runner = training.runner(lr_config={"policy": "cyclic", "target_ratio": (10, 1e-4)})

    training.run(runner)

    last = 1e-6 + 0.5 * (0.1 - 1e-6) * (math.cos(math.pi * 7 / 8) + 1)
    assert runner.optimizer.param_groups[0]["lr"] == pytest.approx(last)
