"""Data sets and their loaders from configurations."""

from __future__ import annotations

import contextlib
import multiprocessing
import random
import signal
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch
from torch import distributed
from torch.utils.data import DataLoader

from forebay_trainer.datasets.collate import collate
from forebay_trainer.datasets.dataset_wrappers import ConcatDataset, prefetch
from forebay_trainer.datasets.samplers import Draws
from forebay_trainer.registry import DATASETS, PIPELINES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from forebay_trainer.datasets.samplers import Draw

__all__ = ["DATASETS", "PIPELINES", "build_dataloader", "build_dataset"]

_WRAPPERS = ("ClassBalancedDataset", "ConcatDataset", "RepeatDataset")
PER_FILE = ("ann_file", "img_prefix", "seg_prefix", "proposal_file")


def build_dataset(cfg: Any, default_args: Mapping[str, Any] | None = None) -> Any:
    """Return a data set; of a list of configurations, or of files, all of them one after the other.

    *default_args* are arguments of each data set that is not a wrapper of others.
    """
    if not isinstance(cfg, Mapping):
        return ConcatDataset([build_dataset(each, default_args) for each in cfg])
    arguments = dict(cfg)
    if cfg["type"] in _WRAPPERS:
        if "datasets" in arguments:
            arguments["datasets"] = [build_dataset(each, default_args) for each in cfg["datasets"]]
        else:
            arguments["dataset"] = build_dataset(cfg["dataset"], default_args)
        return DATASETS.build(arguments)
    if isinstance(cfg.get("ann_file"), (list, tuple)):
        separate_eval = arguments.pop("separate_eval", True)
        lists = {key: cfg[key] for key in PER_FILE if isinstance(cfg.get(key), (list, tuple))}
        datasets = [
            build_dataset({**arguments, **dict(zip(lists, parts, strict=True))}, default_args)
            for parts in zip(*lists.values(), strict=True)
        ]
        return ConcatDataset(datasets, separate_eval)
    return DATASETS.build({**(default_args or {}), **arguments})


def build_dataloader(
    dataset: Any,
    samples_per_gpu: int,
    workers_per_gpu: int,
    *,
    dist: bool = True,
    shuffle: bool = True,
    seed: int = 0,
    persistent_workers: bool = False,
    **arguments: Any,
) -> DataLoader:
    """Return a loader of batches as ``collate`` makes them.

    Its ``sampler`` is a Draws: call its ``set_epoch`` before each epoch. Its ``dataset`` has all
    attributes of *dataset*.

    Args:
        dataset: with ``__getitem__`` and ``__len__``, and ``flag``, the groups of images that share
            batches; without, all do.
        samples_per_gpu: images in a batch of this process.
        workers_per_gpu: processes that load; 0 is this one.
        dist: divide the images among the ranks, if there are more than one.
        shuffle: see Draws.
        seed: of order and transforms; the same in all ranks.
        persistent_workers: keep the workers from epoch to epoch.
        arguments: others of the DataLoader.
    """
    is_divided = dist and distributed.is_available() and distributed.is_initialized()
    draws = Draws(
        getattr(dataset, "flag", np.zeros(len(dataset), np.uint8)),
        samples_per_gpu,
        shuffle=shuffle,
        seed=seed,
        rank=distributed.get_rank() if is_divided else 0,
        ranks=distributed.get_world_size() if is_divided else 1,
    )
    return _Loader(
        _Drawn(dataset),
        batch_size=samples_per_gpu,
        sampler=draws,
        num_workers=workers_per_gpu,
        collate_fn=collate,
        worker_init_fn=_begin_worker,
        persistent_workers=persistent_workers and workers_per_gpu > 0,
        generator=torch.Generator(),  # an iterator draws a number: not from the model's dice
        **arguments,
    )


class _Loader(DataLoader[Any]):
    """A loader whose workers do not hear Ctrl-C, which a terminal sends to them as well: they end
    with this process, and at their start and end would each leave a traceback.
    """

    def __iter__(self) -> Any:
        if (self.multiprocessing_context or multiprocessing).get_start_method() != "fork":
            return super().__iter__()  # a server of processes would keep it blocked for all others
        # What a worker is started with blocked stays so until it is ignored.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            return super().__iter__()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Drawn:
    """A data set by draws instead of by indices, a batch's files being fetched at once."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __getattr__(self, name: str) -> Any:
        if name == "dataset":  # asked for before it is set, when this is unpickled
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitems__(self, draws: Sequence[Draw]) -> list[Any]:
        prefetch(self.dataset, [draw.image for draw in draws])
        return [self._load(draw) for draw in draws]

    def _load(self, draw: Draw) -> Any:
        with _dice(draw.seed):
            return self.dataset[draw.image]


@contextlib.contextmanager
def _dice(seed: int) -> Iterator[None]:
    """Seed all dice that transforms may throw; those of this process are as before afterwards."""
    # torch.manual_seed would look for devices each time, which takes as long as a small image.
    dice = torch.default_generator
    python, numpy, state = random.getstate(), np.random.get_state(), dice.get_state()
    random.seed(seed)
    np.random.seed(seed)
    dice.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        dice.set_state(state)


def _begin_worker(_: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    # Workers are the parallelism; threads of OpenCV in each would fight for the same cores.
    cv2.setNumThreads(0)
