"""Images and annotations as they come from files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

cv2 = pytest.importorskip("cv2")
pipelines = pytest.importorskip("forebay_trainer.datasets.pipelines")

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from support.ceph import Bucket
    from support.daemon import DaemonProcess

_SQUARE = [10, 10, 30, 10, 30, 20, 10, 20]
_FAR = [50, 5, 60, 5, 60, 15, 50, 15]
# 10 rows x 4 columns, column by column: 0 in the first, 1 in the second, and so on.
_RLE = {"size": [10, 4], "counts": [10, 10, 10, 10]}


def _picture() -> npt.NDArray[Any]:
    return np.random.default_rng(0).integers(0, 256, (24, 36, 3), np.uint8)


def _written(folder: Path, name: str, image: npt.NDArray[Any]) -> dict[str, Any]:
    assert cv2.imwrite(str(folder / name), image)
    return {"img_info": {"filename": name}, "img_prefix": str(folder)}


def test_image_is_read_with_its_names_and_shapes(tmp_path: Path) -> None:
    picture = _picture()

    results = pipelines.LoadImageFromFile()(_written(tmp_path, "a.png", picture))

    np.testing.assert_array_equal(results["img"], picture)
    assert results["filename"] == str(tmp_path / "a.png")
    assert results["ori_filename"] == "a.png"
    assert results["img_shape"] == results["ori_shape"] == (24, 36, 3)
    assert results["img_fields"] == ["img"]
    results["img"][0] = 0  # it is the sample's own


def test_image_is_decoded_as_asked(tmp_path: Path) -> None:
    picture = _picture()

    def load(**arguments: Any) -> npt.NDArray[Any]:
        results = pipelines.LoadImageFromFile(**arguments)(_written(tmp_path, "a.png", picture))
        image: npt.NDArray[Any] = results["img"]
        return image

    assert load(to_float32=True).dtype == np.float32
    np.testing.assert_array_equal(load(to_float32=True), picture)
    np.testing.assert_array_equal(load(channel_order="rgb"), picture[..., ::-1])
    grey = picture @ [0.114, 0.587, 0.299]
    np.testing.assert_allclose(load(color_type="grayscale"), grey, atol=1.5)


def test_depth_and_alpha_stay_in_what_is_unchanged(tmp_path: Path) -> None:
    deep = np.arange(24 * 36, dtype=np.uint16).reshape(24, 36) * 50
    clear = np.dstack([_picture(), np.full((24, 36), 7, np.uint8)])
    load = pipelines.LoadImageFromFile(color_type="unchanged")

    np.testing.assert_array_equal(load(_written(tmp_path, "deep.png", deep))["img"], deep)
    np.testing.assert_array_equal(load(_written(tmp_path, "clear.png", clear))["img"], clear)


def test_image_from_memory_needs_no_file() -> None:
    results = pipelines.LoadImageFromFile()({"img": _picture()})

    assert results["img_shape"] == (24, 36, 3)
    assert results["filename"] is None


def test_mapped_image_comes_from_the_cache(
    bucket: Bucket, daemon: DaemonProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = _picture()
    monkeypatch.setenv("FOREBAY_ADDRESS", daemon.address)
    bucket.put("val/a.png", cv2.imencode(".png", picture)[1].tobytes())
    load = pipelines.LoadImageFromFile(
        file_client_args={"backend": "aws", "path_mapping": {"data/": f"s3://{bucket.name}/"}}
    )

    def sample() -> dict[str, Any]:
        return {"img_info": {"filename": "a.png"}, "img_prefix": "data/val"}

    first = load(sample())
    bucket.delete_all()
    second = load(sample())

    assert first["filename"] == "data/val/a.png"
    np.testing.assert_array_equal(first["img"], picture)
    np.testing.assert_array_equal(second["img"], picture)


@pytest.mark.parametrize("data", [b"", b"no image"], ids=["empty", "text"])
def test_what_is_no_image_is_named(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(data)

    with pytest.raises(ValueError, match=str(path)):
        pipelines.LoadImageFromFile()({"img_info": {"filename": str(path)}, "img_prefix": None})
    with pytest.raises(FileNotFoundError, match=r"other\.jpg"):
        pipelines.LoadImageFromFile()({"img_info": {"filename": str(tmp_path / "other.jpg")}})


def _annotated(masks: list[Any], height: int, width: int) -> dict[str, Any]:
    boxes = np.arange(4 * len(masks), dtype=np.float32).reshape(-1, 4)
    return {
        "img_info": {"filename": "a.jpg", "height": height, "width": width},
        "ann_info": {
            "bboxes": boxes,
            "labels": np.arange(len(masks)),
            "bboxes_ignore": np.ones((2, 4), np.float32),
            "masks": masks,
        },
        "bbox_fields": [],
        "mask_fields": [],
    }


def test_annotations_are_copies_under_their_keys() -> None:
    sample = _annotated([[_SQUARE]], 30, 70)

    results = pipelines.LoadAnnotations(with_mask=True)(sample)

    assert set(results["bbox_fields"]) == {"gt_bboxes", "gt_bboxes_ignore"}
    assert results["mask_fields"] == ["gt_masks"]
    results["gt_bboxes"] += 1
    results["gt_labels"] += 1
    assert sample["ann_info"]["bboxes"].tolist() == [[0, 1, 2, 3]]
    assert sample["ann_info"]["labels"].tolist() == [0]


def test_parts_of_an_object_are_one_mask() -> None:
    results = pipelines.LoadAnnotations(with_mask=True)(_annotated([[_SQUARE, _FAR]], 30, 70))
    expected = np.zeros((30, 70), np.uint8)
    expected[10:20, 10:30] = 1
    expected[5:15, 50:60] = 1

    np.testing.assert_array_equal(results["gt_masks"].masks, [expected])
    assert results["gt_masks"].masks.dtype == np.uint8


def test_run_lengths_become_bitmaps_packed_or_not() -> None:
    coco_mask = pytest.importorskip("faster_coco_eval").mask
    expected = np.zeros((10, 4), np.uint8)
    expected[:, 1::2] = 1
    packed = coco_mask.encode(np.asfortranarray(expected))
    as_text = {**packed, "counts": packed["counts"].decode()}
    sample = _annotated([_RLE, packed, as_text], 10, 4)

    results = pipelines.LoadAnnotations(with_mask=True)(sample)

    np.testing.assert_array_equal(results["gt_masks"].masks, [expected] * 3)


def test_polygons_stay_polygons_without_those_that_have_no_area() -> None:
    load = pipelines.LoadAnnotations(with_mask=True, poly2mask=False)
    line = [1, 1, 5, 5]

    results = load(_annotated([[_SQUARE, line], [_FAR]], 30, 70))

    assert [[len(part) for part in mask] for mask in results["gt_masks"].masks] == [[8], [8]]
    with pytest.raises(ValueError, match="poly2mask"):
        load(_annotated([_RLE], 10, 4))


def test_object_without_area_has_an_empty_mask_and_an_image_may_have_no_object() -> None:
    load = pipelines.LoadAnnotations(with_mask=True)

    assert load(_annotated([[[1, 1, 5, 5]], []], 30, 70))["gt_masks"].areas.tolist() == [0, 0]
    assert load(_annotated([], 30, 70))["gt_masks"].masks.shape == (0, 30, 70)
