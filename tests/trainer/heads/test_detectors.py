"""Whole detectors: training on odd batches, and what tests return."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("cv2")

from faster_coco_eval.core import mask as coco_mask  # noqa: E402

from forebay_trainer.core.masks import BitmapMasks  # noqa: E402
from forebay_trainer.models.builder import build_detector  # noqa: E402
from forebay_trainer.models.detectors.base import parse_losses  # noqa: E402
from forebay_trainer.models.utils import BaseModule  # noqa: E402
from forebay_trainer.registry import BACKBONES  # noqa: E402

SIZE = 64  # pixels of a picture
NMS = {"type": "nms", "iou_threshold": 0.7}
STRIDES = [8, 16]


@BACKBONES.register_module()
class TwoMaps(BaseModule):
    """Feature maps of two strides, each by one convolution."""

    def __init__(self, init_cfg: Any = None) -> None:
        super().__init__(init_cfg)
        self.maps = torch.nn.ModuleList(torch.nn.Conv2d(3, 4, s, stride=s) for s in STRIDES)

    def forward(self, x: Any) -> tuple[Any, ...]:
        return tuple(each(x) for each in self.maps)


def extractor(size: int) -> dict[str, Any]:
    layer = {"type": "RoIAlign", "output_size": size}
    return {
        "type": "SingleRoIExtractor",
        "roi_layer": layer,
        "out_channels": 4,
        "featmap_strides": STRIDES,
    }


def rcnn(threshold: float) -> dict[str, Any]:
    thresholds = dict.fromkeys(("pos_iou_thr", "neg_iou_thr", "min_pos_iou"), threshold)
    return {
        "assigner": {"type": "MaxIoUAssigner", **thresholds, "match_low_quality": False},
        "sampler": {"type": "RandomSampler", "num": 64, "pos_fraction": 0.25},
        "mask_size": 8,
        "pos_weight": -1,
    }


def config(kind: str, **options: Any) -> dict[str, Any]:
    stages = 3 if kind == "CascadeRCNN" else 1
    box = {
        "type": "Shared2FCBBoxHead",
        "in_channels": 4,
        "fc_out_channels": 8,
        "roi_feat_size": 3,
        "num_classes": 3,
        "reg_class_agnostic": stages > 1,
    }
    mask = {"type": "FCNMaskHead", "num_convs": 1, "in_channels": 4, "conv_out_channels": 4}
    head: dict[str, Any] = {
        "type": "StandardRoIHead",
        "bbox_roi_extractor": extractor(3),
        "bbox_head": box,
    }
    if kind != "FasterRCNN":
        head |= {"mask_roi_extractor": extractor(4), "mask_head": {**mask, "num_classes": 3}}
    training: Any = rcnn(0.5)
    if stages > 1:
        head |= {"type": "CascadeRoIHead", "num_stages": 3, "stage_loss_weights": [1, 0.5, 0.25]}
        training = [rcnn(threshold) for threshold in (0.5, 0.6, 0.7)]
    anchors = {"type": "AnchorGenerator", "scales": [2], "ratios": [1.0], "strides": STRIDES}
    proposals = {"nms_pre": 100, "max_per_img": 50, "nms": NMS, "min_bbox_size": 0}
    rpn = {
        "assigner": {"type": "MaxIoUAssigner", "pos_iou_thr": 0.7, "neg_iou_thr": 0.3},
        "sampler": {"type": "RandomSampler", "num": 64, "pos_fraction": 0.5}
        | {"add_gt_as_proposals": False},
    }
    final = {"score_thr": 0.05, "nms": NMS, "max_per_img": 20, "mask_thr_binary": 0.5}
    detector: dict[str, Any] = {
        "type": kind,
        "backbone": {"type": "TwoMaps"},
        "rpn_head": {"type": "RPNHead", "in_channels": 4, "feat_channels": 4}
        | {"anchor_generator": anchors},
        "roi_head": head,
        "train_cfg": {"rpn": rpn, "rpn_proposal": proposals, "rcnn": training},
        "test_cfg": {"rpn": proposals, "rcnn": final},
    }
    return {**detector, **options}


def detector(kind: str, **options: Any) -> Any:
    torch.manual_seed(0)
    built = build_detector(config(kind, **options))
    for name, parameter in built.named_parameters():  # far enough from zero to detect something
        if "weight" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    return built


def metas(scale: float = 1.0, flip: str | None = None) -> list[dict[str, Any]]:
    shape, before = (SIZE, SIZE, 3), (round(SIZE / scale), round(SIZE / scale), 3)
    one = {"img_shape": shape, "pad_shape": shape, "ori_shape": before}
    factors = np.full(4, scale, dtype=np.float32)
    return [{**one, "scale_factor": factors, "flip": flip is not None, "flip_direction": flip}]


def batch(kind: str, boxes: list[list[list[float]]]) -> dict[str, Any]:
    """One picture for each list of boxes."""
    count = len(boxes)
    data: dict[str, Any] = {
        "img": torch.randn(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1)),
        "img_metas": metas() * count,
        "gt_bboxes": [torch.tensor(each).reshape(-1, 4) for each in boxes],
        "gt_labels": [torch.arange(len(each)) for each in boxes],
    }
    if kind != "FasterRCNN":
        data["gt_masks"] = [
            BitmapMasks(np.ones((len(each), SIZE, SIZE), np.uint8), SIZE, SIZE) for each in boxes
        ]
    return data


KINDS = pytest.mark.parametrize("kind", ["FasterRCNN", "MaskRCNN", "CascadeRCNN"])


@KINDS
def test_pictures_without_objects_give_the_same_losses_and_all_gradients(kind: str) -> None:
    """Ranks with and without objects must agree on both, or distributed training hangs."""
    model = detector(kind)
    some = model.train_step(batch(kind, [[[8.0, 8, 40, 40]], []]))
    none = model.train_step(batch(kind, [[], []]))

    none["loss"].backward()

    assert none["log_vars"].keys() == some["log_vars"].keys()
    assert np.isfinite(list(none["log_vars"].values())).all()
    assert none["num_samples"] == 2
    assert [name for name, each in model.named_parameters() if each.grad is None] == []


def test_regions_in_ignored_places_are_no_samples() -> None:
    whole = config("FasterRCNN")
    for part in (whole["train_cfg"]["rpn"], whole["train_cfg"]["rcnn"]):
        part["assigner"]["ignore_iof_thr"] = 0.5
    data = batch("FasterRCNN", [[[8.0, 8, 40, 40]]])
    everywhere = torch.tensor([[-99.0, -99, 199, 199]])

    numbers = build_detector(whole).train_step({**data, "gt_bboxes_ignore": [everywhere]})

    assert numbers["log_vars"]["loss_rpn_cls"] == 0
    assert numbers["log_vars"]["acc"] in (0, 100)  # only the true box itself is left


@KINDS
def test_an_optimizer_brings_the_loss_down(kind: str) -> None:
    model = detector(kind)
    data = batch(kind, [[[8.0, 8, 40, 40], [20, 30, 60, 60]]])
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    losses = []
    for _ in range(10):
        output = model.train_step(data, optimizer)
        optimizer.zero_grad()
        output["loss"].backward()
        optimizer.step()
        losses.append(output["log_vars"]["loss"])

    assert min(losses[-3:]) < 0.7 * losses[0]


@KINDS
def test_half_precision_is_near(kind: str) -> None:
    model, data = detector(kind), batch(kind, [[[8.0, 8, 40, 40]]])
    torch.manual_seed(0)
    exact = model.train_step(data)["log_vars"]["loss"]
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16):
        output = model.train_step(data)

    output["loss"].backward()
    assert output["log_vars"]["loss"] == pytest.approx(exact, rel=0.1)


@KINDS
def test_without_proposals_nothing_is_found(kind: str) -> None:
    nothing = config(kind)
    nothing["test_cfg"]["rpn"]["min_bbox_size"] = 1000
    model = build_detector(nothing).eval()

    (result,) = model.simple_test(torch.zeros(1, 3, SIZE, SIZE), metas())

    boxes, masks = (result, [[]] * 3) if kind == "FasterRCNN" else result
    assert [each.shape for each in boxes] == [(0, 5)] * 3
    assert [list(each) for each in masks] == [[]] * 3


@KINDS
def test_results_fit_the_picture_before_the_resize_if_asked(kind: str) -> None:
    model, image = detector(kind).eval(), batch(kind, [[]])["img"]

    (after,) = model.simple_test(image, metas(scale=2.0))
    (before,) = model.simple_test(image, metas(scale=2.0), rescale=True)

    if kind != "FasterRCNN":
        (after, after_masks), (before, before_masks) = after, before
        assert {mask.shape for each in before_masks for mask in each} == {(32, 32)}
        assert {mask.shape for each in after_masks for mask in each} == {(64, 64)}
        assert [len(each) for each in before_masks] == [len(each) for each in before]
    assert sum(map(len, before)) > 0
    for small, large in zip(before, after, strict=True):
        assert small[:, :4] * 2 == pytest.approx(large[:, :4], abs=1e-4)
        assert small[:, 4] == pytest.approx(large[:, 4])


def test_a_test_run_gets_run_lengths() -> None:
    model, image = detector("MaskRCNN").eval(), batch("MaskRCNN", [[]])["img"]
    ((boxes, masks),) = model.simple_test(image, metas())

    ((same, encoded),) = model(img=[image], img_metas=[metas()], return_loss=False, rescale=False)

    assert all((one == other).all() for one, other in zip(boxes, same, strict=True))
    for arrays, lengths in zip(masks, encoded, strict=True):
        assert [array.sum() for array in arrays] == [coco_mask.area(each) for each in lengths]


@KINDS
def test_views_of_a_picture_that_are_the_same_give_what_one_gives(kind: str) -> None:
    model, image = detector(kind).eval(), batch(kind, [[]])["img"]
    given = {"img_metas": [metas(2.0)], "return_loss": False, "rescale": True}
    (one,) = model(img=[image], **given)

    (both,) = model(img=[image, image], **{**given, "img_metas": [metas(2.0)] * 2})

    if kind != "FasterRCNN":
        (one, one_masks), (both, both_masks) = one, both
        for masks, others in zip(one_masks, both_masks, strict=True):
            assert [coco_mask.area(each) for each in masks] == [
                coco_mask.area(each) for each in others
            ]
    assert sum(map(len, one)) > 0
    for boxes, others in zip(one, both, strict=True):
        assert boxes == pytest.approx(others, abs=1e-4)


@pytest.mark.parametrize(
    ("flip", "axes"), [("horizontal", (1,)), ("vertical", (0,)), ("diagonal", (0, 1))]
)
def test_what_is_found_in_a_flipped_view_is_flipped_back(flip: str, axes: tuple[int, ...]) -> None:
    model, view = detector("MaskRCNN").eval(), batch("MaskRCNN", [[]])["img"]
    ((boxes, masks),) = model.simple_test(view, metas())

    ((own, own_masks),) = model.aug_test([view], [metas(flip=flip)], rescale=True)

    assert sum(map(len, own)) > 0
    for found, expected in zip(own, boxes, strict=True):
        back = expected.copy()
        for axis in axes:
            first = 1 - axis  # x1 for the axis of columns, which is 1
            back[:, [first, first + 2]] = SIZE - expected[:, [first + 2, first]]
        assert found == pytest.approx(back, abs=1e-3)
    for found_masks, expected_masks in zip(own_masks, masks, strict=True):
        for mask, other in zip(found_masks, expected_masks, strict=True):
            differing = mask != np.flip(other, axes)
            assert differing.mean() < 0.01  # pixels whose centre is on the outline


def test_proposals_alone_are_trained_and_tested() -> None:
    whole = config("FasterRCNN")
    parts = {key: whole[key] for key in ("backbone", "rpn_head", "train_cfg", "test_cfg")}
    model = build_detector({"type": "RPN", "neck": None, **parts})
    data = batch("FasterRCNN", [[[8.0, 8, 40, 40]]])
    del data["gt_labels"]

    model.train_step(data)["loss"].backward()
    (proposals,) = model.eval().simple_test(data["img"], metas(2.0))
    (unscaled,) = model.simple_test(data["img"], metas(2.0), rescale=True)

    assert proposals.shape[1] == 5
    assert unscaled[:, :4] * 2 == pytest.approx(proposals[:, :4], rel=1e-5)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {"type": "Pretrained", "checkpoint": "own.pth"}),
        ({"pretrained": None}, None),
        ({"pretrained": "other.pth"}, {"type": "Pretrained", "checkpoint": "other.pth"}),
    ],
)
def test_pretrained_of_a_detector_decides_on_the_weights_of_its_backbone(
    given: dict[str, Any], expected: Any
) -> None:
    own = {"type": "Pretrained", "checkpoint": "own.pth"}

    model = detector("FasterRCNN", backbone={"type": "TwoMaps", "init_cfg": own}, **given)

    assert model.backbone.init_cfg == expected


def test_losses_are_added_and_other_numbers_only_reported() -> None:
    losses = {"loss_a": [torch.tensor([1.0, 3.0]), torch.tensor(4.0)], "acc": torch.tensor([50.0])}

    total, numbers = parse_losses({**losses, "s0.loss_b": torch.tensor(0.5)})

    assert total.item() == 6.5
    assert numbers == {"loss_a": 6, "acc": 50, "s0.loss_b": 0.5, "loss": 6.5}
