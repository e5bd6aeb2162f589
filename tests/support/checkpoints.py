"""What ranks of the tests of distributed checkpoints run; spawn imports it by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import distributed
from torch.distributed import checkpoint
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor, zeros

from forebay.torch import StorageReader, StorageWriter

if TYPE_CHECKING:
    from collections.abc import Callable

ROWS, COLUMNS = 10, 1000


class UnsaveableError(Exception):
    """What something raises that cannot be saved."""


class Unsaveable:
    def __reduce__(self) -> Any:
        raise UnsaveableError


class CallsWhenSaved:
    """Calls something when it is pickled, and is loaded as 0."""

    def __init__(self, function: Callable[[], object]) -> None:
        self._function = function

    def __reduce__(self) -> Any:
        self._function()
        return int, ()


def whole() -> Any:
    """Return the tensor that the ranks share."""
    return torch.arange(ROWS * COLUMNS).reshape(ROWS, COLUMNS)


def save_and_load_as_rank(rank: int, ranks: int, store: str, url: str, results: Any) -> None:
    """Save a sharded tensor, load it; then fail in the last rank to save it elsewhere."""
    distributed.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=ranks
    )
    try:
        mesh = init_device_mesh("cpu", (ranks,))
        state = {"weight": distribute_tensor(whole(), mesh, [Shard(0)]), "step": 7}
        checkpoint.save(state, storage_writer=StorageWriter(url))
        empty = zeros(ROWS, COLUMNS, dtype=torch.int64, device_mesh=mesh, placements=[Shard(0)])
        loaded = {"weight": empty, "step": 0}
        checkpoint.load(loaded, storage_reader=StorageReader(url))
        is_same = torch.equal(loaded["weight"].to_local(), state["weight"].to_local())
        error = ""
        if rank == ranks - 1:
            state["mine"] = Unsaveable()
        try:
            checkpoint.save(state, storage_writer=StorageWriter(f"{url}-failed"))
        except checkpoint.CheckpointException as raised:
            error = str(sorted(raised.failures))
        results.put((rank, is_same, loaded["step"], error))
    finally:
        distributed.destroy_process_group()
