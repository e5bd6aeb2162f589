"""A run that was killed goes on as if it had not been."""

from __future__ import annotations

import json
from typing import Any

import pytest

torch = pytest.importorskip("torch")

BY_ITERATION = {"interval": 1, "by_epoch": False}


@pytest.mark.parametrize("done", [4, 6])  # within an epoch, and at its end
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"custom_hooks": [{"type": "EMAHook", "momentum": 0.1, "warm_up": 1}]},
        {"custom_hooks": [{"type": "ExpMomentumEMAHook", "momentum": 0.1}]},
        {"optimizer_config": {"type": "GradientCumulativeOptimizerHook", "cumulative_iters": 5}},
        {"runner": {"type": "IterBasedRunner", "max_iters": 12}},
    ],
    ids=["plain", "averages", "averages of buffers", "gradients added up", "by iterations"],
)
def test_the_rest_of_the_losses_are_equal(training: Any, settings: Any, done: int) -> None:
    settings = {**settings, "checkpoint_config": BY_ITERATION}
    whole = training.run(training.runner("whole", **settings))

    resumed = training.runner("resumed", **settings)
    resumed.resume(str(training.folder / f"whole/iter_{done}.pth"))
    rest = training.run(resumed)

    assert len(whole) == 12
    assert rest == whole[done:]


def test_workers_that_stay_change_nothing(training: Any) -> None:
    settings = {"checkpoint_config": BY_ITERATION}
    whole = training.run(training.runner("whole", **settings), training.loader(workers=1))

    resumed = training.runner("resumed", **settings)
    resumed.resume(str(training.folder / "whole/iter_4.pth"))

    assert training.run(resumed, training.loader(workers=1)) == whole[4:]


def test_averages_begin_at_the_weights_of_a_run_that_had_none(training: Any) -> None:
    whole = training.run(training.runner("whole", checkpoint_config={"interval": 1}))
    averaged = training.runner("averaged", custom_hooks=[{"type": "EMAHook"}])
    averaged.resume(str(training.folder / "whole/epoch_1.pth"))

    assert training.run(averaged) == whole[6:]


def test_with_larger_batches_it_goes_on_at_the_same_epoch(training: Any) -> None:
    settings = {"checkpoint_config": {"interval": 1}}
    training.run(training.runner("whole", **settings))
    resumed = training.runner("resumed", **settings)
    resumed.resume(str(training.folder / "whole/epoch_1.pth"))

    losses = training.run(resumed, training.loader(4))

    assert len(losses) == 3
    assert resumed.iter == resumed.max_iters == 6


def test_the_weights_at_the_end_are_equal(training: Any) -> None:
    settings = {"checkpoint_config": {"interval": 1}}
    training.run(training.runner("whole", **settings))
    resumed = training.runner("resumed", **settings)
    resumed.resume(str(training.folder / "whole/epoch_1.pth"))

    training.run(resumed)

    ends = [
        torch.load(training.folder / name / "epoch_2.pth", weights_only=True)
        for name in ("whole", "resumed")
    ]
    for key, value in ends[0]["state_dict"].items():
        assert torch.equal(value, ends[1]["state_dict"][key]), key
    assert ends[0]["meta"]["iter"] == ends[1]["meta"]["iter"] == 12


def test_averages_in_a_log_go_over_the_batches_before_the_kill_too(training: Any) -> None:
    settings = {
        "checkpoint_config": BY_ITERATION,
        "log_config": {"interval": 3, "hooks": [{"type": "TextLoggerHook"}]},
    }
    training.run(training.runner("whole", **settings))
    resumed = training.runner("resumed", **settings)
    resumed.resume(str(training.folder / "whole/iter_2.pth"))

    training.run(resumed)

    logs = [_losses(training.folder / name) for name in ("whole", "resumed")]
    assert len(logs[0]) == 4
    assert logs[0] == logs[1]


def test_weights_alone_are_not_resumed(training: Any) -> None:
    from forebay_trainer.weights import WeightsError

    runner = training.runner(checkpoint_config={"interval": 1, "save_optimizer": False})
    training.run(runner)

    with pytest.raises(WeightsError, match="give it as load_from"):
        training.runner("other").resume(f"{runner.work_dir}/epoch_2.pth")


def _losses(folder: Any) -> list[float]:
    (log,) = folder.glob("*.log.json")
    records = [json.loads(line) for line in log.read_text().splitlines()]
    return [record["loss"] for record in records if record.get("mode") == "train"]
