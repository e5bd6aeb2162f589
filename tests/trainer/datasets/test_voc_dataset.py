"""VOC's XML files, and VOC's way to measure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("torch")
cv2 = pytest.importorskip("cv2")
pytest.importorskip("faster_coco_eval")

from forebay_trainer.datasets import VOCDataset, XMLDataset, build_dataset  # noqa: E402

if TYPE_CHECKING:
    from pathlib import Path


def thing(name: str, *box: float, difficult: str = "<difficult>0</difficult>") -> str:
    sides = zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    corners = "".join(f"<{side}>{value}</{side}>" for side, value in sides)
    return f"<object><name>{name}</name>{difficult}<bndbox>{corners}</bndbox></object>"


SIZE = "<size><width>60</width><height>50</height></size>"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "VOC2007" / "Annotations").mkdir(parents=True)
    (tmp_path / "VOC2007" / "JPEGImages").mkdir()
    return tmp_path / "VOC2007"


def add(root: Path, name: str, *objects: str, size: str = SIZE) -> None:
    text = f"<annotation>{size}{''.join(objects)}</annotation>"
    (root / "Annotations" / f"{name}.xml").write_text(text)
    with (root / "names.txt").open("a") as file:
        file.write(f"{name}\n")


def data_of(root: Path, **arguments: Any) -> VOCDataset:
    return VOCDataset(
        ann_file=str(root / "names.txt"), img_prefix=f"{root}/", pipeline=[], **arguments
    )


def test_pixels_are_counted_from_0_and_difficult_ones_are_apart(root: Path) -> None:
    add(
        root,
        "000005",
        thing("cat", 1, 2.7, 11, 21),
        thing("dog", 5, 5, 20, 20, difficult="<difficult>1</difficult>"),
        thing("person", 3, 3, 30, 30, difficult=""),
        thing("unicorn", 1, 1, 10, 10),
    )

    data = data_of(root)
    found = data.get_ann_info(0)

    assert data.data_infos[0]["filename"] == "JPEGImages/000005.jpg"
    np.testing.assert_array_equal(found["bboxes"], [[0, 1, 10, 20], [2, 2, 29, 29]])
    assert found["labels"].tolist() == [7, 14]
    np.testing.assert_array_equal(found["bboxes_ignore"], [[4, 4, 19, 19]])
    assert found["labels_ignore"].tolist() == [11]
    assert data.get_cat_ids(0) == [7, 11, 14]


def test_objects_below_the_smallest_size_do_not_count(root: Path) -> None:
    add(root, "a", thing("cat", 1, 1, 10, 30), thing("cat", 1, 1, 30, 30))

    found = data_of(root, min_size=15).get_ann_info(0)

    np.testing.assert_array_equal(found["bboxes"], [[0, 0, 29, 29]])
    np.testing.assert_array_equal(found["bboxes_ignore"], [[0, 0, 9, 29]])


def test_images_with_none_of_the_classes_or_too_small_are_not_trained_with(root: Path) -> None:
    add(root, "a", thing("unicorn", 1, 1, 10, 10))
    add(root, "b", thing("cat", 1, 1, 10, 10))
    add(root, "c", thing("cat", 1, 1, 10, 10), size=SIZE.replace("60", "20"))

    assert [info["id"] for info in data_of(root).data_infos] == ["b"]
    assert [info["id"] for info in data_of(root, filter_empty_gt=False).data_infos] == ["a", "b"]
    assert len(data_of(root, test_mode=True)) == 3


def test_a_file_without_a_size_takes_that_of_its_image(root: Path) -> None:
    add(root, "a", thing("cat", 1, 1, 10, 10), size="")
    cv2.imwrite(str(root / "JPEGImages" / "a.jpg"), np.zeros((40, 70, 3), np.uint8))

    (info,) = data_of(root).data_infos

    assert (info["width"], info["height"]) == (70, 40)


def test_a_broken_file_is_told_by_its_name(root: Path) -> None:
    add(root, "bad", "<object><name>cat</name></object>")

    with pytest.raises(ValueError, match=r"bad\.xml .* <object> has no bndbox/xmin"):
        data_of(root)


def test_classes_and_the_year_are_needed(root: Path, tmp_path: Path) -> None:
    add(root, "a", thing("cat", 1, 1, 10, 10))
    arguments: dict[str, Any] = {"ann_file": str(root / "names.txt"), "pipeline": []}

    with pytest.raises(ValueError, match="XMLDataset needs the names of its `classes`"):
        XMLDataset(img_prefix=str(root), **arguments)
    other = tmp_path / "mine"
    root.rename(other)
    with pytest.raises(ValueError, match="has no VOC2007 or VOC2012"):
        VOCDataset(**{**arguments, "ann_file": str(other / "names.txt")}, img_prefix=str(other))


def test_2007_is_measured_at_11_points_and_2012_by_area(root: Path, tmp_path: Path) -> None:
    # One of two cats is found: precision 1 at recalls up to a half.
    add(root, "a", thing("cat", 1, 1, 11, 11), thing("cat", 31, 31, 41, 41))
    found = [np.zeros((0, 5), np.float32)] * 20
    found[7] = np.array([[0, 0, 10, 10, 0.9]], np.float32)

    of_2007 = data_of(root).evaluate([found], logger="silent")
    later = tmp_path / "VOC2012"
    root.rename(later)
    of_2012 = data_of(later).evaluate([found], logger="silent")

    assert list(of_2007) == ["mAP", "AP50"]
    assert of_2007["mAP"] == pytest.approx(6 / 11)
    assert of_2012["mAP"] == pytest.approx(1 / 2)


def test_two_years_can_be_measured_as_one(root: Path) -> None:
    add(root, "a", thing("cat", 1, 1, 11, 11))
    config = {
        "type": "VOCDataset",
        "ann_file": [str(root / "names.txt")] * 2,
        "img_prefix": [f"{root}/"] * 2,
        "separate_eval": False,
        "pipeline": [],
    }
    none = [np.zeros((0, 5), np.float32)] * 20
    found = [*none[:7], np.array([[0, 0, 10, 10, 0.9]], np.float32), *none[8:]]

    data = build_dataset(config)
    scores = data.evaluate([found, none], logger="silent")

    assert scores["mAP"] == pytest.approx(6 / 11)
    assert len(data.datasets[0]) == 1
