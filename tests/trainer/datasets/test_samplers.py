"""Orders of images."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("cv2")
pytest.importorskip("faster_coco_eval")

from forebay_trainer.datasets.samplers import Draws  # noqa: E402

FLAGS = np.array([0, 1, 1, 0, 1, 1, 1, 0, 1, 1, 0], np.uint8)  # 4 and 7 images


def images(draws: Draws) -> list[int]:
    return [draw.image for draw in draws]


def test_each_batch_is_of_one_group_and_each_image_is_there() -> None:
    drawn = images(Draws(FLAGS, 4, shuffle=True, seed=1))

    assert len(drawn) == 12
    assert all(len(set(FLAGS[drawn[at : at + 4]])) == 1 for at in range(0, 12, 4))
    assert set(drawn) == set(range(11))


def test_ranks_share_the_images_in_the_order_that_upstream_has() -> None:
    parts = [images(Draws(FLAGS, 2, shuffle=True, seed=5, rank=rank, ranks=2)) for rank in (0, 1)]

    # MMDetection 2.28.2's DistributedGroupSampler, seed 5, epoch 0.
    assert parts == [[9, 8, 6, 5, 10, 3], [0, 7, 5, 1, 4, 2]]
    assert set(parts[0] + parts[1]) == set(range(11))


def test_epochs_differ_and_are_the_same_again() -> None:
    draws = Draws(FLAGS, 2, shuffle=True, seed=1)
    first = list(draws)
    draws.set_epoch(1)
    second = list(draws)
    draws.set_epoch(0)

    assert [draw.image for draw in first] != [draw.image for draw in second]
    assert not {draw.seed for draw in first} & {draw.seed for draw in second}
    assert list(draws) == first


def test_an_epoch_goes_on_where_it_was_left() -> None:
    draws = Draws(FLAGS, 2, shuffle=True, seed=1)
    whole = list(draws)

    draws.set_epoch(0, first=6)

    assert list(draws) == whole[6:]
    assert len(draws) == len(whole)


def test_ranks_have_dice_of_their_own() -> None:
    seeds = Counter(
        draw.seed for rank in range(3) for draw in Draws(FLAGS, 2, shuffle=True, rank=rank, ranks=3)
    )

    assert max(seeds.values()) == 1


@pytest.mark.parametrize(
    ("ranks", "expected"), [(1, [[0, 1, 2, 3, 4]]), (2, [[0, 2, 4], [1, 3, 0]])]
)
def test_in_order_every_rank_has_equally_many(ranks: int, expected: list[list[int]]) -> None:
    flags = np.zeros(5, np.uint8)

    parts = [
        images(Draws(flags, 2, shuffle=False, rank=rank, ranks=ranks)) for rank in range(ranks)
    ]

    assert parts == expected


def test_more_ranks_than_images_all_have_one() -> None:
    flags = np.zeros(2, np.uint8)

    assert [images(Draws(flags, 1, shuffle=False, rank=rank, ranks=5)) for rank in range(5)] == [
        [0],
        [1],
        [0],
        [1],
        [0],
    ]
