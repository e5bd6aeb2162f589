"""What leaves a pipeline: tensors, bundles, and what is known of the image."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("cv2")
pipelines = pytest.importorskip("forebay_trainer.datasets.pipelines")

if TYPE_CHECKING:
    from trainer.pipelines.conftest import MakeSample

_NORMALIZE = {"type": "Normalize", "mean": [1.0, 2.0, 3.0], "std": [1.0, 1.0, 1.0]}


def test_training_sample_has_the_bundles_of_its_keys(make_sample: MakeSample) -> None:
    compose = pipelines.Compose(
        [
            {"type": "Resize", "img_scale": (40, 30)},
            {"type": "RandomFlip", "flip_ratio": 0.0},
            _NORMALIZE,
            {"type": "Pad", "size_divisor": 32},
            {"type": "DefaultFormatBundle"},
            {"type": "Collect", "keys": ["img", "gt_bboxes", "gt_labels", "gt_masks"]},
        ]
    )
    image = np.arange(60 * 80 * 3, dtype=np.uint8).reshape(60, 80, 3)

    results = pickle.loads(  # noqa: S301 # as a worker sends it
        pickle.dumps(compose(make_sample(image, [[8, 8, 40, 40]])))
    )

    assert set(results) == {"img_metas", "img", "gt_bboxes", "gt_labels", "gt_masks"}
    assert results["img"].stack
    assert results["img"].data.shape == (3, 32, 64)
    assert results["img"].data.dtype == torch.float32
    assert results["img"].data.is_contiguous()
    assert results["gt_bboxes"].data.tolist() == [[4, 4, 20, 20]]
    assert not results["gt_bboxes"].stack
    assert results["gt_labels"].data.dtype == torch.int64
    assert results["gt_masks"].cpu_only
    metas = results["img_metas"].data
    assert results["img_metas"].cpu_only
    assert (metas["ori_shape"], metas["img_shape"], metas["pad_shape"]) == (
        (60, 80, 3),
        (30, 40, 3),
        (32, 64, 3),
    )
    assert metas["scale_factor"].tolist() == [0.5] * 4
    assert metas["flip"] is False
    assert metas["flip_direction"] is None
    assert metas["img_norm_cfg"]["to_rgb"] is True


def test_formatting_alone_fills_in_what_was_not_done() -> None:
    image = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)

    results = pipelines.DefaultFormatBundle()({"img": image})

    np.testing.assert_array_equal(results["img"].data.numpy(), image.transpose(2, 0, 1))
    assert results["img"].data.dtype == torch.float32
    assert results["pad_shape"] == (2, 4, 3)
    assert results["scale_factor"] == 1.0
    assert results["img_norm_cfg"]["std"].tolist() == [1, 1, 1]
    grey = pipelines.DefaultFormatBundle(img_to_float=False)({"img": image[..., 0]})
    assert grey["img"].data.shape == (1, 2, 4)
    assert grey["img"].data.dtype == torch.uint8


def test_collect_says_what_is_missing(make_sample: MakeSample) -> None:
    collect = pipelines.Collect(keys=["img", "gt_semantic_seg"], meta_keys=("filename", "flip"))

    with pytest.raises(KeyError, match=r"gt_semantic_seg.*flip"):
        collect(make_sample(np.zeros((4, 4, 3), np.uint8), []))


def _augmented(arguments: dict[str, Any], make_sample: MakeSample) -> dict[str, Any]:
    meta_keys = ("img_shape", "flip", "flip_direction", "scale_factor")
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    augment = pipelines.MultiScaleFlipAug(
        transforms=[
            {"type": "Resize", "keep_ratio": True},
            {"type": "RandomFlip"},
            _NORMALIZE,
            {"type": "ImageToTensor", "keys": ["img"]},
            {"type": "Collect", "keys": ["img"], "meta_keys": meta_keys},
        ],
        **arguments,
    )
    results: dict[str, Any] = augment(make_sample(image, []))
    return results


def test_one_scale_gives_lists_of_one(make_sample: MakeSample) -> None:
    results = _augmented({"img_scale": (40, 30)}, make_sample)

    assert [tuple(each.shape) for each in results["img"]] == [(3, 30, 40)]
    assert [each.data["flip"] for each in results["img_metas"]] == [False]


def test_every_scale_comes_with_every_flip(make_sample: MakeSample) -> None:
    directions = ["horizontal", "vertical"]
    arguments = {"img_scale": [(40, 30), (160, 120)], "flip": True, "flip_direction": directions}

    results = _augmented(arguments, make_sample)

    metas = [each.data for each in results["img_metas"]]
    assert [each["img_shape"][0] for each in metas] == [30] * 3 + [120] * 3
    assert [each["flip_direction"] for each in metas] == [None, *directions] * 2
    plain, mirrored, upside_down = results["img"][:3]
    assert torch.equal(plain.flip(-1), mirrored)
    assert torch.equal(plain.flip(-2), upside_down)


def test_factors_instead_of_sizes(make_sample: MakeSample) -> None:
    results = _augmented({"scale_factor": [0.5, 2.0]}, make_sample)

    assert [tuple(each.shape[1:]) for each in results["img"]] == [(30, 40), (120, 160)]


def test_anything_that_can_be_called_is_a_transform() -> None:
    compose = pipelines.Compose([lambda results: {**results, "seen": True}])

    assert compose({}) == {"seen": True}


def test_transform_that_cannot_be_built_is_named_with_its_place() -> None:
    rotate = {"type": "Rotate", "levl": 5}

    with pytest.raises(ValueError, match="transform 1, 'Resize'"):
        pipelines.Compose([len, "Resize"])
    with pytest.raises(ValueError, match=r"transform 0, Resiz: .*not in"):
        pipelines.Compose([{"type": "Resiz"}])
    with pytest.raises(ValueError, match=r"transform 0, AutoAugment: transform 1, Rotate: .*levl"):
        pipelines.Compose([{"type": "AutoAugment", "policies": [[len, rotate]]}])


def test_users_add_their_own_transforms() -> None:
    registry = pytest.importorskip("forebay_trainer.registry")

    class Mark:
        def __init__(self, word: str) -> None:
            self._word = word

        def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
            return {**results, "mark": self._word}

    registry.PIPELINES.register_module(module=Mark, force=True)  # in a second run, too

    assert pipelines.Compose([{"type": "Mark", "word": "x"}])({}) == {"mark": "x"}
