"""Losses against numbers computed by hand, or by torch from the definition."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch")

from torch.nn import functional  # noqa: E402

from forebay_trainer.models.builder import build_loss  # noqa: E402
from forebay_trainer.models.losses import accuracy  # noqa: E402


def test_smooth_l1_is_quadratic_near_zero() -> None:
    pred, target = torch.tensor([[0.0, 0.1, 3.0]]), torch.zeros(1, 3)

    loss = build_loss({"type": "SmoothL1Loss", "beta": 0.5, "loss_weight": 2.0})(
        pred, target, reduction_override="none"
    )

    assert loss[0].tolist() == pytest.approx([0, 2 * 0.5 * 0.01 / 0.5, 2 * (3 - 0.25)])


def test_l1_is_weighted_and_averaged() -> None:
    loss = build_loss({"type": "L1Loss"})
    pred, target = torch.tensor([1.0, 2.0, 4.0]), torch.zeros(3)
    weight = torch.tensor([1.0, 0.0, 0.5])

    assert loss(pred, target).item() == pytest.approx(7 / 3)
    assert loss(pred, target, weight).item() == pytest.approx(1)
    assert loss(pred, target, weight, avg_factor=2).item() == pytest.approx(1.5)
    assert build_loss({"type": "L1Loss", "reduction": "sum"})(pred, target, weight).item() == 3
    with pytest.raises(ValueError, match="goes with reduction 'mean'"):
        loss(pred, target, avg_factor=2, reduction_override="sum")


def test_without_samples_a_loss_is_zero_and_has_gradients() -> None:
    pred = torch.zeros(0, 4, requires_grad=True)

    for kind in ("L1Loss", "SmoothL1Loss"):
        loss = build_loss({"type": kind})(pred, torch.zeros(0, 4))
        loss.backward()
        assert loss.item() == 0
    # nor does it divide by zero
    assert build_loss({"type": "L1Loss"})(torch.ones(1), torch.ones(1), avg_factor=0).item() == 0


def test_softmax_cross_entropy_is_averaged_over_the_factor() -> None:
    scores, labels = torch.tensor([[2.0, 0.0], [0.0, 0.0]]), torch.tensor([0, 1])
    loss = build_loss({"type": "CrossEntropyLoss", "class_weight": [1.0, 3.0], "loss_weight": 0.5})
    first, second = math.log(1 + math.exp(-2)), 3 * math.log(2)

    assert loss(scores, labels).item() == pytest.approx(0.5 * (first + second) / 2)
    weighted = loss(scores, labels, torch.tensor([1, 0]), avg_factor=4)
    assert weighted.item() == pytest.approx(0.5 * first / 4)


def test_ignored_labels_count_in_the_mean_unless_told() -> None:
    scores, labels = torch.zeros(4, 2), torch.tensor([0, 1, 9, 9])
    config = {"type": "CrossEntropyLoss", "ignore_index": 9}

    assert build_loss(config)(scores, labels).item() == pytest.approx(math.log(2) / 2)
    told = build_loss({**config, "avg_non_ignore": True})
    assert told(scores, labels).item() == pytest.approx(math.log(2))
    sigmoid = build_loss({**config, "use_sigmoid": True, "avg_non_ignore": True})
    # two rows of two channels count, each log 2
    assert sigmoid(scores, labels).item() == pytest.approx(math.log(2))


def test_sigmoid_cross_entropy_takes_the_last_label_as_background() -> None:
    scores = torch.tensor([[1.0, -2.0], [0.5, 3.0], [0.0, 0.0]])
    labels, weight = torch.tensor([1, 2, 0]), torch.tensor([1.0, 2.0, 0.0])
    one_hot = torch.tensor([[0.0, 1.0], [0.0, 0.0], [1.0, 0.0]])
    each = functional.binary_cross_entropy_with_logits(scores, one_hot, reduction="none")

    loss = build_loss({"type": "CrossEntropyLoss", "use_sigmoid": True})

    torch.testing.assert_close(loss(scores, labels), each.mean())
    expected = (each.sum(dim=1) * weight).sum() / 3
    torch.testing.assert_close(loss(scores, labels, weight, avg_factor=3), expected)
    torch.testing.assert_close(loss(scores, one_hot), each.mean())


def test_a_mask_is_judged_in_the_channel_of_its_class() -> None:
    scores = torch.randn(3, 4, 5, 5, generator=torch.manual_seed(0))
    target, labels = torch.ones(3, 5, 5), torch.tensor([3, 0, 2])

    loss = build_loss({"type": "CrossEntropyLoss", "use_mask": True})(scores, target, labels)

    own = torch.stack([scores[0, 3], scores[1, 0], scores[2, 2]])
    expected = functional.binary_cross_entropy_with_logits(own, target)
    torch.testing.assert_close(loss, expected.reshape(1))


def test_one_way_to_see_scores() -> None:
    with pytest.raises(ValueError, match="one of use_sigmoid and use_mask"):
        build_loss({"type": "CrossEntropyLoss", "use_sigmoid": True, "use_mask": True})


def test_accuracy_is_a_percentage() -> None:
    scores = torch.tensor([[3.0, 2, 1], [1, 3, 2], [1, 2, 3], [3, 1, 2]])
    labels = torch.tensor([0, 0, 2, 1])

    assert accuracy(scores, labels).tolist() == [50]
    assert [value.item() for value in accuracy(scores, labels, topk=(1, 3))] == [50, 100]
    assert accuracy(scores[:0], labels[:0]).tolist() == [0]
