"""Parameter groups, and steps of the optimizer."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("mmengine")

from forebay_trainer.config import normalized  # noqa: E402
from forebay_trainer.engine.optimizers import build_optimizer  # noqa: E402
from forebay_trainer.engine.training import scaled_optimizer  # noqa: E402
from forebay_trainer.registry import Config  # noqa: E402

nn: Any = torch.nn


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))
        self.depth = nn.Conv2d(4, 4, 1, groups=4)
        self.head = nn.Linear(4, 2)


def groups(**paramwise: Any) -> dict[str, tuple[Any, Any]]:
    """Return learning rate and weight decay of each parameter."""
    model = Model()
    config = {"type": "SGD", "lr": 1.0, "weight_decay": 0.1, "paramwise_cfg": paramwise}
    found = build_optimizer(model, config).param_groups
    names = [name for name, _ in model.named_parameters()]
    pairs = zip(names, found, strict=True)
    return {name: (group["lr"], pytest.approx(group["weight_decay"])) for name, group in pairs}


def test_norms_and_biases_have_their_own_decay() -> None:
    found = groups(norm_decay_mult=0.0, bias_lr_mult=2.0, bias_decay_mult=0.5)

    assert found["backbone.0.weight"] == (1.0, 0.1)
    assert found["backbone.0.bias"] == (2.0, 0.05)
    assert found["backbone.1.bias"] == (1.0, 0.0)
    assert found["head.bias"] == (2.0, 0.05)


def test_depthwise_convolutions_are_told_by_their_groups() -> None:
    found = groups(dwconv_decay_mult=0.0, bias_decay_mult=0.5)

    assert found["depth.weight"] == (1.0, 0.0)
    assert found["depth.bias"] == (1.0, 0.0)
    assert found["backbone.0.weight"] == (1.0, 0.1)


def test_the_longest_custom_key_decides_alone() -> None:
    keys = {"backbone": {"lr_mult": 0.1}, "backbone.1": {"lr_mult": 0.5, "decay_mult": 0.0}}

    found = groups(custom_keys=keys, norm_decay_mult=0.2)

    assert found["backbone.0.weight"] == (0.1, 0.1)
    assert found["backbone.1.weight"] == (0.5, 0.0)
    assert found["head.weight"] == (1.0, 0.1)


def test_what_is_frozen_keeps_its_place() -> None:
    """Checkpoints number the groups, and upstream's have one for each parameter."""
    model = Model()
    model.backbone.requires_grad_(False)
    config = {"type": "SGD", "lr": 1.0, "paramwise_cfg": {"bias_lr_mult": 2.0}}

    assert len(build_optimizer(model, config).param_groups) == 8


def test_gradients_of_several_batches_step_once(training: Any) -> None:
    """Plain SGD over 12 batches: every 5 of them, and the last 2, make a step by their mean."""
    settings = {"optimizer": {"type": "SGD", "lr": 0.01}}
    adding = {"type": "GradientCumulativeOptimizerHook", "cumulative_iters": 5}
    runner = training.runner(optimizer_config=adding, **settings)
    steps: list[int] = []
    step = runner.optimizer.step

    def noted() -> None:
        steps.append(runner.iter + 1)
        step()

    runner.optimizer.step = noted

    training.run(runner)

    assert steps == [5, 10, 12]


def test_gradients_are_clipped_and_their_norm_logged(training: Any) -> None:
    clip = {"grad_clip": {"max_norm": 0.001, "norm_type": 2}}
    runner = training.runner(optimizer={"type": "SGD", "lr": 1.0}, optimizer_config=clip)
    before = [parameter.detach().clone() for parameter in runner.model.parameters()]

    runner.max_epochs = 1
    training.run(runner)

    moved = [(a - b).norm() for a, b in zip(before, runner.model.parameters(), strict=True)]
    assert torch.stack(moved).norm() <= 6 * 0.001 + 1e-6
    assert runner.log_buffer.history()["grad_norm"][0][0] > 0.001


def test_half_precision_learns_the_same_line(training: Any) -> None:
    full = training.run(training.runner("full"))

    half = training.run(training.runner("half", fp16={"loss_scale": 512.0}))

    assert half == pytest.approx(full, rel=0.05)
    assert half != full


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "RAdam", "NAdam"])
def test_optimizers_go_by_torchs_names(training: Any, name: str) -> None:
    runner = training.runner(optimizer={"type": name, "lr": 0.01})

    losses = training.run(runner)

    assert type(runner.optimizer) is getattr(torch.optim, name)
    assert len(set(losses)) == len(losses)


@pytest.mark.parametrize(("is_asked_for", "rate"), [(True, 0.005), (False, 0.02)])
def test_the_learning_rate_follows_the_batch_size(is_asked_for: bool, rate: float) -> None:
    config = Config(
        {
            "runner": {"type": "EpochBasedRunner", "max_epochs": 1},
            "data": {"samples_per_gpu": 4},
            "optimizer": {"type": "SGD", "lr": 0.02},
            "auto_scale_lr": {"enable": is_asked_for, "base_batch_size": 16},
        }
    )

    assert scaled_optimizer(normalized(config))["lr"] == pytest.approx(rate)
