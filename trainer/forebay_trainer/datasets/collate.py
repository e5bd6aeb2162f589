"""Samples of a pipeline into a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.nn.functional import pad
from torch.utils.data import default_collate

from forebay_trainer.datasets.bundles import DataContainer


def collate(samples: Sequence[Any]) -> Any:
    """Return a batch with the structure of each sample, its bundles being unpacked.

    A bundle to be stacked becomes one tensor (samples, …), padded at the end of its last
    ``pad_dims`` dimensions to the largest; any other bundle a list with each sample's data.
    """
    first = samples[0]
    if isinstance(first, DataContainer):
        data = [sample.data for sample in samples]
        return _stacked(data, first) if first.stack and not first.cpu_only else data
    if isinstance(first, Mapping):
        return {key: collate([sample[key] for sample in samples]) for key in first}
    if isinstance(first, Sequence) and not isinstance(first, str):
        return [collate(parts) for parts in zip(*samples, strict=True)]
    return default_collate(samples)


def _stacked(tensors: list[torch.Tensor], bundle: DataContainer) -> torch.Tensor:
    dims = bundle.pad_dims or 0
    shapes = [tensor.shape[tensor.ndim - dims :] for tensor in tensors]
    largest = [max(sizes) for sizes in zip(*shapes, strict=True)]
    padded = []
    for tensor, shape in zip(tensors, shapes, strict=True):
        # pad wants the last dimension first.
        missing = [(0, full - size) for full, size in zip(largest, shape, strict=True)][::-1]
        padded.append(
            pad(tensor, [side for pair in missing for side in pair], value=bundle.padding_value)
        )
    return torch.stack(padded)
