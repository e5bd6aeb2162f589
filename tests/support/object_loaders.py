"""What the tests of torch's data sets run in workers and ranks, which import it by name."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import torch.utils.data
from torch import distributed

from forebay.torch import IterableObjectDataset, Sample

if TYPE_CHECKING:
    from collections.abc import Sequence


class WrongBytesError(Exception):
    """An object is not what it should be."""


def number_of(sample: Sample) -> int:
    """Return the number that is an object's name, once its bytes were right."""
    number = int(sample.path.rpartition("/")[2])
    if sample.data != content(number):
        raise WrongBytesError(sample.path)
    return number


def content(number: int) -> bytes:
    return b"%d" % number * (1 + number % 5)


def name_and_process(sample: Sample) -> tuple[int, int]:
    return number_of(sample), os.getpid()


def loader(data_set: Any, method: str | None, workers: int = 2, **options: Any) -> Any:
    """Return a DataLoader that hands out lists."""
    if workers:
        options |= {"multiprocessing_context": method, "timeout": 120}
    return torch.utils.data.DataLoader(
        data_set, batch_size=4, num_workers=workers, collate_fn=list, **options
    )


def flat(batches: Any) -> list[Any]:
    return [item for batch in batches for item in batch]


def read_as_rank(
    rank: int, ranks: int, store: str, paths: Sequence[str], method: str, results: Any
) -> None:
    """Read the share of a rank of a real group with two workers; tell its numbers, twice."""
    distributed.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=ranks
    )
    try:
        data_set = IterableObjectDataset(paths, number_of, shuffle=True, seed=3)
        batches = loader(data_set, method, persistent_workers=True)
        for epoch in range(2):
            data_set.set_epoch(epoch)
            results.put((epoch, rank, flat(batches)))
    finally:
        distributed.destroy_process_group()
