"""In which order images come, and what decides the dice that are thrown over each.

Both depend on nothing but seed, epoch and position, whoever the workers are: a run that goes on in
the middle of an epoch sees what the uninterrupted one would.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from forebay_trainer.evaluation.overlaps import Array


class Draw(NamedTuple):
    """An image, and the seed of its transforms."""

    image: int
    seed: int


class Draws:
    """The draws of one rank in an epoch. For ``sampler`` of a DataLoader."""

    def __init__(
        self,
        flags: Array,
        batch_size: int,
        *,
        shuffle: bool,
        seed: int = 0,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        """Divide images among ranks.

        Args:
            flags: of each image the number of its group (n,).
            batch_size: images.
            shuffle: in another order in each epoch, each batch of one group, some images twice to
                make all batches full; else one image after the other.
            seed: the same in all ranks.
            rank: this process.
            ranks: of how many.
        """
        self._flags = flags
        self._batch_size = batch_size
        self._shuffle = shuffle
        self._seed = seed
        self._rank = rank
        self._ranks = ranks
        self.set_epoch(0)
        self._length = len(self._images())

    def set_epoch(self, epoch: int, first: int = 0) -> None:
        """Choose the epoch, from 0, that is iterated over next, and the draw it begins with."""
        self._epoch = epoch
        self._first = first

    def __len__(self) -> int:
        """Return the number of draws in a whole epoch."""
        return self._length

    def __iter__(self) -> Iterator[Draw]:
        images = self._images()
        place = np.random.SeedSequence((self._seed, self._epoch, self._rank))
        draws = zip(images.tolist(), place.generate_state(len(images)).tolist(), strict=True)
        return iter([Draw(*each) for each in draws][self._first :])

    def _images(self) -> Array:
        return self._grouped() if self._shuffle else self._in_order()

    def _grouped(self) -> Array:
        """Return this rank's images, batch after batch, in the order that upstream's ranks have."""
        dice = torch.Generator().manual_seed(self._seed + self._epoch)
        multiple = self._batch_size * self._ranks
        padded = []
        for group in np.unique(self._flags):
            images = np.flatnonzero(self._flags == group)
            images = images[torch.randperm(len(images), generator=dice).numpy()]
            padded.append(np.resize(images, _round_up(len(images), multiple)))
        batches = np.concatenate(padded).reshape(-1, self._batch_size)
        batches = batches[torch.randperm(len(batches), generator=dice).numpy()]
        return np.split(batches, self._ranks)[self._rank].ravel()

    def _in_order(self) -> Array:
        """Return every ranks-th image, the first ones again so that ranks have equally many."""
        images = np.arange(_round_up(len(self._flags), self._ranks)) % len(self._flags)
        return images[self._rank :: self._ranks]


def _round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
