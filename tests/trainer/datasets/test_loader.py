"""Batches from a data set: their form, their dice, their workers."""

from __future__ import annotations

import pickle
import random
import signal
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("cv2")
pytest.importorskip("faster_coco_eval")

from forebay_trainer.datasets import build_dataloader  # noqa: E402
from forebay_trainer.datasets.bundles import DataContainer  # noqa: E402
from forebay_trainer.datasets.collate import collate  # noqa: E402


class Dice:
    """Samples that are throws of all three dice."""

    CLASSES = ("a",)

    def __init__(self) -> None:
        self.fetched: list[list[int]] = []

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> dict[str, Any]:
        throws = [random.random(), np.random.random(), torch.rand(()).item()]
        return {"throws": torch.tensor(throws, dtype=torch.float64), "index": index}

    def prefetch(self, indices: list[int]) -> None:
        self.fetched.append(indices)


def epoch(workers: int, number: int = 0, first: int = 0) -> list[Any]:
    loader = build_dataloader(Dice(), 2, workers, seed=3)
    loader.sampler.set_epoch(number, first)
    return [(batch["index"].tolist(), batch["throws"].tolist()) for batch in loader]


def test_throws_depend_on_seed_and_place_and_not_on_who_loads() -> None:
    whole = epoch(0)

    assert epoch(0) == epoch(2) == whole
    assert epoch(1, first=4) == whole[2:]
    assert epoch(0, number=1) != whole
    throws = [throw for _, batch in whole for sample in batch for throw in sample]
    assert len(set(throws)) == len(throws)


def test_throws_of_the_process_itself_are_as_if_nothing_was_loaded() -> None:
    def throws() -> list[float]:
        return [random.random(), np.random.random(), torch.rand(()).item()]

    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    expected = throws()
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    loader = build_dataloader(Dice(), 2, 0, seed=3)
    loader.dataset.__getitems__([*loader.sampler][:2])

    assert throws() == expected


def test_a_batch_is_fetched_at_once() -> None:
    data = Dice()

    for _ in build_dataloader(data, 4, 0, shuffle=False):
        pass

    assert data.fetched == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_the_loaders_data_set_has_all_that_the_data_set_has() -> None:
    loader = build_dataloader(Dice(), 4, 0, shuffle=False)

    again = pickle.loads(pickle.dumps(loader.dataset))  # noqa: S301 - our own

    assert (again.CLASSES, len(again), len(loader)) == (("a",), 10, 3)
    with pytest.raises(AttributeError, match="evaluate"):
        _ = loader.dataset.evaluate


class Ears(Dice):
    """Samples that say whether who loads them ends by an interrupt."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        is_blocked = signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())
        is_ignored = signal.getsignal(signal.SIGINT) == signal.SIG_IGN
        return {"hears": not is_ignored, "is_blocked": is_blocked}


@pytest.mark.parametrize("workers", [0, 1])
def test_an_interrupt_is_for_the_process_and_not_for_its_workers(workers: int) -> None:
    batch = next(iter(build_dataloader(Ears(), 2, workers)))

    assert batch["hears"].tolist() == 2 * [workers == 0]
    assert batch["is_blocked"].tolist() == [False, False]


def bundle(*shape: int, **arguments: Any) -> DataContainer:
    return DataContainer(torch.ones(shape), **arguments)


def test_images_are_padded_to_the_largest_of_a_batch() -> None:
    samples = [
        {"img": bundle(3, 2, 5, stack=True, padding_value=7)},
        {"img": bundle(3, 4, 1, stack=True, padding_value=7)},
    ]

    images = collate(samples)["img"]

    assert images.shape == (2, 3, 4, 5)
    assert images[0, :, 2:].eq(7).all()
    assert images[1, :, :, 1:].eq(7).all()
    assert images.eq(1).sum() == 3 * (2 * 5 + 4 * 1)


def test_what_is_not_stacked_is_a_list_and_what_has_no_padding_has_to_fit() -> None:
    boxes = collate([{"gt": bundle(1, 4)}, {"gt": bundle(3, 4)}])["gt"]
    plain = collate([bundle(2, stack=True, pad_dims=None)] * 3)

    assert [tuple(each.shape) for each in boxes] == [(1, 4), (3, 4)]
    assert plain.shape == (3, 2)
    with pytest.raises(RuntimeError, match="equal size"):
        collate([bundle(2, stack=True, pad_dims=None), bundle(3, stack=True, pad_dims=None)])


def test_variants_of_a_test_image_stay_apart() -> None:
    meta = DataContainer({"name": "a.jpg"}, cpu_only=True)
    sample = {"img": [torch.ones(3, 4, 4), torch.ones(3, 8, 8)], "img_metas": [meta, meta]}

    batch = collate([sample, sample])

    assert [tuple(each.shape) for each in batch["img"]] == [(2, 3, 4, 4), (2, 3, 8, 8)]
    assert batch["img_metas"] == [[{"name": "a.jpg"}] * 2] * 2
