"""Batches on their way from a loader to the model."""

from __future__ import annotations

from typing import Any

import torch


def to_device(value: Any, device: torch.device) -> Any:
    """Return a batch with its tensors on *device*; masks and metas stay with the CPU."""
    if torch.is_tensor(value):
        return value.to(device, non_blocking=True)
    if isinstance(value, dict):
        return {key: to_device(inner, device) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_device(inner, device) for inner in value]
    return value
