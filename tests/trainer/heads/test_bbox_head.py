"""Targets, losses and boxes of regions, computed by hand."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("cv2")

from forebay_trainer.models.roi_heads import (  # noqa: E402
    BBoxHead,
    ConvFCBBoxHead,
    Shared2FCBBoxHead,
    Shared4Conv1FCBBoxHead,
)

CODER = {"type": "DeltaXYWHBBoxCoder", "target_stds": (1.0, 1.0, 1.0, 1.0)}
ABSOLUTE = {"type": "L1Loss", "loss_weight": 1.0}


def head(**options: Any) -> BBoxHead:
    given = {"num_classes": 2, "in_channels": 1, "bbox_coder": CODER, "loss_bbox": ABSOLUTE}
    return BBoxHead(**{**given, **options})


def samples() -> Any:
    """One positive sample, 10 x 10 at (0, 0), whose true box is at (2, 1), and one negative."""
    positive, negative = torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([[20.0, 20, 30, 30]])
    return SimpleNamespace(
        pos_bboxes=positive,
        neg_bboxes=negative,
        bboxes=torch.cat([positive, negative]),
        pos_gt_bboxes=torch.tensor([[2.0, 1, 12, 11]]),
        pos_gt_labels=torch.tensor([1]),
    )


def test_targets_are_the_true_class_and_shift_and_the_background() -> None:
    labels, label_weights, boxes, box_weights = head().get_targets([samples()], [], [], {})

    assert labels.tolist() == [1, 2]
    assert label_weights.tolist() == [1, 1]
    assert boxes[0].tolist() == pytest.approx([0.2, 0.1, 0, 0])
    assert box_weights.tolist() == [[1] * 4, [0] * 4]


def test_positive_samples_can_weigh_more() -> None:
    assert head().get_targets([samples()], [], [], {"pos_weight": 4})[1].tolist() == [4, 1]


def test_the_deltas_of_the_true_class_are_in_the_loss() -> None:
    own = head()
    targets = own.get_targets([samples()], [], [], {})
    rois = torch.nn.functional.pad(samples().bboxes, (1, 0))
    deltas = torch.tensor([[9.0, 9, 9, 9, 0.2, 0.1, 0, 0.5], [7.0] * 8])

    losses = own.loss(torch.zeros(2, 3), deltas, rois, *targets)

    assert losses["loss_bbox"].item() == pytest.approx(0.5 / 2)  # over positive and negative
    assert losses["loss_cls"].item() == pytest.approx(math.log(3))
    assert losses["acc"].item() == 0


def test_decoded_boxes_are_compared_in_pixels() -> None:
    own = head(reg_decoded_bbox=True, reg_class_agnostic=True)
    targets = own.get_targets([samples()], [], [], {})
    rois = torch.nn.functional.pad(samples().bboxes, (1, 0))

    losses = own.loss(torch.zeros(2, 3), torch.zeros(2, 4), rois, *targets)

    assert losses["loss_bbox"].item() == pytest.approx((2 + 1 + 2 + 1) / 2)


def test_without_a_region_all_losses_are_zero_and_reach_the_weights() -> None:
    own = head(roi_feat_size=2)
    score, deltas = own(torch.zeros(0, 1, 2, 2))
    nothing = [torch.zeros(0, 4)] * 2
    losses = own.loss(
        score, deltas, torch.zeros(0, 5), torch.zeros(0).long(), torch.zeros(0), *nothing
    )

    (losses["loss_cls"] + losses["loss_bbox"]).backward()

    assert losses.keys() == {"loss_cls", "loss_bbox", "acc"}
    assert [value.item() for value in losses.values()] == [0, 0, 0]
    assert all(not parameter.grad.any() for parameter in own.parameters())


def test_detections_are_scaled_back_and_chosen_by_class() -> None:
    rois = torch.tensor([[0.0, 0, 0, 10, 20], [0, 30, 30, 60, 60]])
    scores = torch.tensor([[0.0, 5, 0], [0, 0, 9]])  # the second is background
    cfg = {"score_thr": 0.05, "nms": {"type": "nms", "iou_threshold": 0.5}, "max_per_img": 10}

    boxes, labels = head(reg_class_agnostic=True).get_bboxes(
        rois, scores, torch.zeros(2, 4), (50, 50), [2.0, 4.0, 2.0, 4.0], rescale=True, cfg=cfg
    )

    assert labels.tolist() == [1]
    assert boxes[0].tolist() == pytest.approx([0, 0, 5, 5, math.exp(5) / (math.exp(5) + 2)])


def test_a_next_stage_begins_with_moved_boxes_without_the_true_ones() -> None:
    rois = torch.tensor([[0.0, 0, 0, 10, 10], [0, 20, 20, 30, 30], [1, 0, 0, 10, 10]])
    deltas = torch.zeros(3, 8)
    deltas[1, 4] = 0.5  # of class 1: half a width to the right
    deltas[2, 0] = -0.5  # of class 0, and cut at the border
    shapes = [{"img_shape": (50, 50)}, {"img_shape": (8, 50)}]

    first, second = head().refine_bboxes(
        rois,
        torch.tensor([0, 1, 0]),
        deltas,
        [torch.tensor([1], dtype=torch.uint8), torch.tensor([0], dtype=torch.uint8)],
        shapes,
    )

    assert first.tolist() == [[25, 20, 35, 30]]
    assert second.tolist() == [[0, 0, 5, 8]]


def test_layers_have_the_shapes_of_published_heads() -> None:
    norm = {"type": "GN", "num_groups": 2}
    own = Shared4Conv1FCBBoxHead(
        in_channels=4, conv_out_channels=4, fc_out_channels=6, num_classes=2, norm_cfg=norm
    )
    shapes = {name: tuple(value.shape) for name, value in own.state_dict().items()}

    assert list(shapes)[:4] == ["fc_cls.weight", "fc_cls.bias", "fc_reg.weight", "fc_reg.bias"]
    assert shapes["fc_reg.weight"] == (8, 6)
    assert shapes["shared_convs.3.conv.weight"] == (4, 4, 3, 3)
    assert shapes["shared_convs.3.gn.weight"] == (4,)
    assert shapes["shared_fcs.0.weight"] == (6, 4 * 49)
    assert own(torch.zeros(3, 4, 7, 7))[1].shape == (3, 8)


@pytest.mark.parametrize("pooled", [False, True])
def test_branches_of_their_own_meet_the_predictors(pooled: bool) -> None:
    own = ConvFCBBoxHead(
        num_shared_convs=1,
        num_cls_fcs=1,
        num_reg_convs=1,
        in_channels=3,
        conv_out_channels=4,
        fc_out_channels=5,
        num_classes=2,
        roi_feat_size=3,
        with_avg_pool=pooled,
    )

    score, deltas = own(torch.zeros(2, 3, 3, 3))

    assert own.fc_cls.in_features == 5
    assert own.fc_reg.in_features == (4 if pooled else 36)
    assert (score.shape, deltas.shape) == ((2, 3), (2, 8))


def test_a_fresh_head_predicts_almost_nothing() -> None:
    torch.manual_seed(0)
    own = Shared2FCBBoxHead(in_channels=16, fc_out_channels=64)

    own.init_weights()

    assert own.fc_cls.weight.std().item() == pytest.approx(0.01, rel=0.1)
    assert own.fc_reg.weight.std().item() == pytest.approx(0.001, rel=0.1)
    bound = math.sqrt(6 / (16 * 49 + 64))  # Xavier, uniform
    assert own.shared_fcs[0].weight.abs().max().item() == pytest.approx(bound, rel=0.01)
    assert not own.shared_fcs[0].bias.any()


def test_losses_of_boxes_without_a_positive_sample_are_zero() -> None:
    for decoded in (False, True):
        own = head(reg_decoded_bbox=decoded, roi_feat_size=2)
        score, deltas = own(torch.ones(1, 1, 2, 2))
        negative = samples()
        negative.bboxes = negative.neg_bboxes
        negative.pos_bboxes = negative.pos_gt_bboxes = torch.zeros(0, 4)
        negative.pos_gt_labels = torch.zeros(0).long()
        targets = own.get_targets([negative], [], [], {})

        losses = own.loss(score, deltas, torch.zeros(1, 5), *targets)

        losses["loss_bbox"].backward()
        assert losses["loss_bbox"].item() == 0
        assert not own.fc_reg.weight.grad.any()
