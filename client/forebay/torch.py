"""PyTorch: data sets of objects, checkpoints, and storage of distributed checkpoints.

Everything here works in DataLoaders with fork, spawn, forkserver and persistent workers.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import distributed
from torch.distributed.checkpoint import filesystem
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from forebay._client import Client
from forebay._errors import CacheFullError
from forebay._values import Stat

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch.distributed.checkpoint.metadata import Metadata
    from torch.distributed.checkpoint.planner import SavePlan, SavePlanner
    from torch.distributed.checkpoint.storage import WriteResult
    from torch.futures import Future

    from forebay._paths import StrPath

_READ_AHEAD = 32  # objects; a batch of images
_METADATA = ".metadata"


class Sample(NamedTuple):
    """An object of a data set."""

    path: str
    data: bytes


Transform = Callable[[Sample], Any]


def _nothing(sample: Sample) -> Sample:
    return sample


def list_objects(prefix: StrPath, suffix: str | tuple[str, ...] = "") -> list[str]:
    """Return the URIs of the objects below *prefix* that end with *suffix*, in order.

    Raises FileNotFoundError if there are none: an empty data set is a wrong path.
    """
    client = Client()
    found = [
        entry.uri
        for entry in client.list(prefix, recursive=True)
        if isinstance(entry, Stat)
        and not entry.uri.endswith("/")  # the marker of a folder
        and entry.uri.endswith(suffix)
    ]
    if not found:
        ending = f" that end with {suffix!r}" if suffix else ""
        raise FileNotFoundError(f"there are no objects{ending} below {os.fspath(prefix)}")
    return sorted(found)


class ObjectDataset(Dataset[Any]):
    """Objects by index. A DataLoader with ``batch_size`` asks for a whole batch at once."""

    def __init__(
        self,
        paths: Iterable[StrPath],
        transform: Transform = _nothing,
        client: Client | None = None,
    ) -> None:
        """Make a data set of *paths*; *transform* turns a Sample into what is returned.

        *client*: None is one with the defaults.
        """
        self.paths = [os.fspath(path) for path in paths]
        self._transform = transform
        self._client = client or Client()

    @classmethod
    def from_prefix(
        cls,
        prefix: StrPath,
        transform: Transform = _nothing,
        *,
        suffix: str | tuple[str, ...] = "",
    ) -> ObjectDataset:
        """Make a data set of what lies below *prefix* now. See ``list_objects``."""
        return cls(list_objects(prefix, suffix), transform)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Any:
        path = self.paths[index]
        return self._transform(Sample(path, self._client.get(path)))

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        """Return what a DataLoader wants for a batch; misses are filled concurrently."""
        paths = [self.paths[index] for index in indices]
        pairs = zip(paths, self._client.get_many(paths), strict=True)
        return [self._transform(Sample(path, data)) for path, data in pairs]


class IterableObjectDataset(IterableDataset[Any]):
    """Objects one after the other, each to one worker of one rank, with read-ahead."""

    def __init__(
        self,
        paths: Iterable[StrPath],
        transform: Transform = _nothing,
        *,
        shuffle: bool = False,
        seed: int = 0,
        drop_uneven: bool = False,
        read_ahead: int = _READ_AHEAD,
        client: Client | None = None,
    ) -> None:
        """Make a data set of *paths*.

        Args:
            paths: of objects.
            transform: turns a Sample into what is returned.
            shuffle: in an order that *seed* and the epoch decide, the same in all ranks.
            seed: any number.
            drop_uneven: leave out the last objects so that all ranks get equally many; else some
                get one more, and a training with collectives has to allow for that.
            read_ahead: how many objects are fetched at once, while as many are being used.
            client: None is one with the defaults.
        """
        if read_ahead < 1:
            raise ValueError(f"read_ahead must be 1 at least, not {read_ahead!r}")
        self.paths = [os.fspath(path) for path in paths]
        self._transform = transform
        self._shuffle = shuffle
        self._seed = seed
        self._drop_uneven = drop_uneven
        self._read_ahead = read_ahead
        self._client = client or Client()
        self._rank_and_ranks: tuple[int, int] | None = None  # of who pickled it
        # Shared, for persistent workers, which have a copy of everything else.
        self._epoch = torch.zeros(1, dtype=torch.int64).share_memory_()

    @classmethod
    def from_prefix(
        cls,
        prefix: StrPath,
        transform: Transform = _nothing,
        *,
        suffix: str | tuple[str, ...] = "",
        **options: Any,
    ) -> IterableObjectDataset:
        """Make a data set of what lies below *prefix* now; *options* are the constructor's."""
        return cls(list_objects(prefix, suffix), transform, **options)

    def set_epoch(self, epoch: int) -> None:
        """Shuffle the next epoch differently; call it before each, in every rank."""
        self._epoch[0] = epoch

    def __getstate__(self) -> dict[str, Any]:
        # What is spawned has no process group, and without torchrun no variables of one.
        return {**self.__dict__, "_rank_and_ranks": _group() or self._rank_and_ranks}

    def _share(self) -> list[str]:
        """Return the paths of this worker of this rank."""
        rank, ranks = _group() or self._rank_and_ranks or _torchrun()
        order: Sequence[int] = range(len(self.paths))
        if self._shuffle:
            generator = torch.Generator().manual_seed(self._seed + int(self._epoch[0]))
            order = torch.randperm(len(self.paths), generator=generator).tolist()
        if self._drop_uneven:
            order = order[: len(order) // ranks * ranks]
        worker = get_worker_info()
        number, workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        return [self.paths[at] for at in order[rank::ranks][number::workers]]

    def __iter__(self) -> Iterator[Any]:
        left = iter(self._share())
        with ThreadPoolExecutor(1, "forebay-read-ahead") as reader:
            paths = list(islice(left, self._read_ahead))
            ahead = reader.submit(self._client.get_many, paths)
            while paths:
                data, current = ahead.result(), paths
                paths = list(islice(left, self._read_ahead))
                ahead = reader.submit(self._client.get_many, paths)
                for path, content in zip(current, data, strict=True):
                    yield self._transform(Sample(path, content))


def _group() -> tuple[int, int] | None:
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return None


def _torchrun() -> tuple[int, int]:
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


# --- checkpoints ------------------------------------------------------------------------------


def save(value: object, path: StrPath, client: Client | None = None, **options: Any) -> None:
    """``torch.save`` to an object; durable on this node when this returns.

    *options* are those of ``torch.save``.
    """
    with (client or Client()).open(path, "wb") as file:
        torch.save(value, file, **options)


def load(path: StrPath, client: Client | None = None, **options: Any) -> Any:
    """``torch.load`` of an object; *options* are those of ``torch.load``, but for ``mmap``."""
    if options.pop("mmap", None):
        raise ValueError("mmap=True: what is mapped may leave the cache: load it without")
    reader = client or Client()
    try:
        with reader.local_path(path) as local:
            return torch.load(local, **options)
    except CacheFullError:  # more than the cache may hold
        with reader.open(path) as file:
            return torch.load(file, **options)


class _Files(filesystem.FileSystemBase):
    """Objects as files of a distributed checkpoint."""

    def __init__(self, client: Client) -> None:
        self.client = client

    @contextmanager
    def create_stream(self, path: str | os.PathLike[str], mode: str) -> Iterator[Any]:
        with self.client.open(path, mode) as stream:  # publishes nothing if it fails
            yield stream

    def concat_path(self, path: str | os.PathLike[str], suffix: str) -> str:
        return f"{os.fspath(path).rstrip('/')}/{suffix}"

    def init_path(self, path: str | os.PathLike[str]) -> str:
        return os.fspath(path)

    def rename(self, path: str | os.PathLike[str], new_path: str | os.PathLike[str]) -> None:
        self.client.move(path, new_path)

    def mkdir(self, path: str | os.PathLike[str]) -> None:
        """Do nothing: prefixes are there when something is below them."""

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        return not isinstance(checkpoint_id, Path)  # it has lost a slash of s3://

    def exists(self, path: str | os.PathLike[str]) -> bool:
        return self.client.exists(path)

    def rm_file(self, path: str | os.PathLike[str]) -> None:
        self.client.remove(path)


class StorageWriter(filesystem.FileSystemWriter):
    """Writes distributed checkpoints, also those of ``async_save``.

    The metadata, without which a checkpoint is none, is written last and replaced in one step.
    """

    def __init__(
        self,
        path: StrPath,
        *,
        client: Client | None = None,
        wait_for_upload: bool = True,
        thread_count: int = 1,
        **options: Any,
    ) -> None:
        """Make a writer.

        Args:
            path: the prefix of the checkpoint.
            client: None is one with the defaults.
            wait_for_upload: the metadata is written once the data of all ranks is in Ceph/S3, so
                that a checkpoint seen there is complete whatever becomes of the nodes. False: once
                it is durable on the ranks' nodes. With ``async_save`` waiting costs nothing.
            thread_count: of files that a rank writes at once.
            options: of ``torch.distributed.checkpoint.FileSystemWriter``.
        """
        # Nothing is to be synced: it is when a file is closed.
        options["sync_files"] = False
        super().__init__(os.fspath(path), thread_count=thread_count, **options)
        self.fs = _Files(client or Client())
        self.path = self.fs.init_path(os.fspath(path))
        self._wait_for_upload = wait_for_upload

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        results = super().write_data(plan, planner)
        written, planned = len(results.value()), len(plan.items)
        if written != planned:  # torch does not look at how its threads end
            raise RuntimeError(f"{written} of {planned} items were written: a thread has failed")
        if self._wait_for_upload:
            self.fs.client.flush(self.path)
        return results

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        metadata.version = filesystem.CURRENT_DCP_VERSION
        metadata.storage_data = {
            result.index: result.storage_data for written in results for result in written
        }
        metadata.storage_meta = self.storage_meta()
        is_one_of_many = not self.use_collectives and self.rank is not None
        target = self._get_metadata_path(self.rank if is_one_of_many else None)
        self.fs.client.put(target, pickle.dumps(metadata))
        if self._wait_for_upload:
            self.fs.client.flush([target])

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        return _Files.validate_checkpoint_id(checkpoint_id)


class StorageReader(filesystem.FileSystemReader):
    """Reads distributed checkpoints."""

    def __init__(self, path: StrPath, *, client: Client | None = None) -> None:
        super().__init__(os.fspath(path))
        self.fs = _Files(client or Client())
        self.path = self.fs.init_path(os.fspath(path))

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        return _Files.validate_checkpoint_id(checkpoint_id)
