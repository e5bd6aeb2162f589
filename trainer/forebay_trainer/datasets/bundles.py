"""How a sample's part is to be batched; the seam between the pipelines and the collate function."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class DataContainer:
    """One part of a sample, or of a batch when it was collated.

    ``stack``: tensors are padded with ``padding_value`` in their last ``pad_dims`` dimensions to
    the batch's largest, and become one; others stay a list, an element per sample.
    ``cpu_only``: never moved to a device, as boxes' polygons and images' names.
    """

    data: Any
    stack: bool = False
    padding_value: float = 0
    cpu_only: bool = False
    pad_dims: int | None = 2
