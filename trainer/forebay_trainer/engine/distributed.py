"""The processes of one run, as torchrun starts them; a run of one needs none of it."""

from __future__ import annotations

import gc
import os
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.distributed as dist

if TYPE_CHECKING:
    from collections.abc import Mapping

Value = TypeVar("Value")


def start(device: str, dist_params: Mapping[str, Any] | None = None) -> None:
    """Join the processes that torchrun has started, if it has.

    *device*: ``cpu``, where gloo alone works, or ``cuda``, where the configuration's *dist_params*
    name the ``backend``, nccl if they do not.
    """
    if "LOCAL_RANK" not in os.environ or dist.is_initialized():
        return
    if device.startswith("cuda"):
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        backend = (dist_params or {}).get("backend", "nccl")
        dist.init_process_group(f"cpu:gloo,cuda:{backend}")  # objects are gathered by gloo
    else:
        dist.init_process_group("gloo")


def stop() -> None:
    if dist.is_initialized():
        # Its threads end with the group, which a runner's DistributedDataParallel, in a cycle, has:
        # one that wants Python when the interpreter has ended would abort the process.
        gc.collect()
        dist.destroy_process_group()


def is_distributed() -> bool:
    return bool(dist.is_available() and dist.is_initialized())


def rank() -> int:
    """Return the number of this process, before they have joined, too."""
    return dist.get_rank() if is_distributed() else int(os.environ.get("RANK", "0"))


def world_size() -> int:
    return dist.get_world_size() if is_distributed() else 1


def broadcast(value: Value) -> Value:
    """Return what the first process has."""
    if not is_distributed():
        return value
    values = [value]
    dist.broadcast_object_list(values)
    return values[0]


def gather(value: Value) -> list[Value]:
    """Return every process's, in their order: on the first one; a list of its own on others."""
    if not is_distributed():
        return [value]
    values: list[Value] = [value] * world_size()
    dist.gather_object(value, values if rank() == 0 else None)
    return values if rank() == 0 else [value]
