"""Data sets made of data sets."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("cv2")
pytest.importorskip("faster_coco_eval")

from forebay_trainer.datasets import (
    ClassBalancedDataset,
    ConcatDataset,
    RepeatDataset,
    build_dataset,
)
from forebay_trainer.registry import DATASETS


@DATASETS.register_module()
class Letters:
    """Each letter is a sample, and the class it is of."""

    CLASSES = ("a", "b", "c")

    def __init__(self, text: str, test_mode: bool = False) -> None:
        self.text = text
        self.test_mode = test_mode
        self.flag = np.array([letter == "b" for letter in text], np.uint8)
        self.fetched: list[list[int]] = []

    def __len__(self) -> int:
        return len(self.text)

    def __getitem__(self, index: int) -> str:
        return self.text[index]

    def get_cat_ids(self, index: int) -> list[int]:
        return [self.CLASSES.index(letter) for letter in self.text[index].strip(".")]

    def get_ann_info(self, index: int) -> dict[str, Any]:
        return {"labels": self.get_cat_ids(index)}

    def prefetch(self, indices: list[int]) -> None:
        self.fetched.append(indices)


def samples(data: Any) -> str:
    return "".join(data[index] for index in range(len(data)))


def test_data_sets_follow_each_other() -> None:
    data = ConcatDataset([Letters("ab"), Letters("cb")])

    assert samples(data) == "abcb"
    assert data[-1] == "b"
    assert data.flag.tolist() == [0, 1, 0, 1]
    assert data.get_cat_ids(2) == [2]
    assert data.get_ann_info(3) == {"labels": [1]}
    with pytest.raises(IndexError, match="no image 4 among 4"):
        data[4]


def test_a_data_set_is_repeated() -> None:
    data = RepeatDataset(Letters("ab"), 3)

    assert samples(data) == "ababab"
    assert data.flag.tolist() == [0, 1, 0, 1, 0, 1]
    assert data.CLASSES == ("a", "b", "c")


def test_images_of_rare_classes_are_repeated() -> None:
    # b is on 1 of 16 images, and sqrt(0.5 / (1/16)) is 2.8; a is on most; one has nothing.
    data = ClassBalancedDataset(Letters("a" * 14 + "b."), 0.5)
    with_nothing = ClassBalancedDataset(Letters("a" * 14 + "b."), 0.5, filter_empty_gt=False)

    assert samples(data) == "a" * 14 + "bbb."
    assert data.flag.tolist() == [0] * 14 + [1, 1, 1, 0]
    assert samples(with_nothing) == "a" * 14 + "bbb..."


def test_each_data_set_fetches_its_own_of_a_batch() -> None:
    first, second = Letters("ab"), Letters("abc")

    ConcatDataset([RepeatDataset(first, 2), second]).prefetch([3, 0, 5, 2])

    assert first.fetched == [[1, 0, 0]]
    assert second.fetched == [[1]]


def test_wrappers_are_built_with_what_they_wrap() -> None:
    letters = {"type": "Letters", "text": "ab"}
    config = {
        "type": "ConcatDataset",
        "datasets": [{"type": "RepeatDataset", "times": 2, "dataset": letters}, letters],
    }

    data = build_dataset(config, {"test_mode": True})
    listed = build_dataset([letters, {**letters, "test_mode": False}], {"test_mode": True})

    assert samples(data) == "ababab"
    assert data.datasets[0].dataset.test_mode is True
    assert [each.test_mode for each in listed.datasets] == [True, False]


def test_different_data_sets_are_not_measured_as_one() -> None:
    with pytest.raises(NotImplementedError, match="Letters, RepeatDataset cannot be measured"):
        ConcatDataset([Letters("a"), RepeatDataset(Letters("a"), 2)], separate_eval=False)
