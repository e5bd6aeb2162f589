"""A torch data set that reads through a client. The only module of the tests that imports torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch.utils.data  # type: ignore[import-not-found,unused-ignore]  # not installed everywhere

from support.forks import WorkerFailedError, expected

if TYPE_CHECKING:
    import forebay


class Photos(torch.utils.data.Dataset[int]):  # type: ignore[misc,name-defined,unused-ignore]  # the same
    """Objects by number; an item is the number, once its bytes were right."""

    def __init__(self, client: forebay.Client, prefix: str, count: int) -> None:
        self._client = client
        self._prefix = prefix
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: int) -> int:
        if self._client.get(f"{self._prefix}{number}") != expected(number):
            raise WorkerFailedError(f"object {number} is wrong")
        return number


def make_loader(photos: Photos, method: str, workers: int) -> Any:
    """Return a shuffling loader whose workers live on from epoch to epoch."""
    return torch.utils.data.DataLoader(
        photos,
        batch_size=8,
        shuffle=True,
        num_workers=workers,
        multiprocessing_context=method,
        persistent_workers=True,
        collate_fn=list,
        timeout=90,
    )
