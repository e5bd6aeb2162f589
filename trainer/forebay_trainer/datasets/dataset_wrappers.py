"""Data sets made of data sets."""

from __future__ import annotations

import bisect
import itertools
import math
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from forebay_trainer.datasets.coco import CocoDataset
from forebay_trainer.evaluation.tables import say
from forebay_trainer.registry import DATASETS

if TYPE_CHECKING:
    import logging
    from collections.abc import Sequence


def prefetch(dataset: Any, indices: Sequence[int]) -> None:
    """Have a batch's files fetched at once, by a data set that knows how."""
    if hasattr(dataset, "prefetch"):
        dataset.prefetch(indices)


class _Wrapper:
    """Samples of other data sets: number i is ``datasets[a][b]`` for ``(a, b) = _locate(i)``."""

    def __init__(self, datasets: Sequence[Any]) -> None:
        self.datasets = list(datasets)
        self.CLASSES = self.datasets[0].CLASSES
        self.PALETTE = getattr(self.datasets[0], "PALETTE", None)

    def _set_flags(self) -> None:
        """Take over the groups whose images share batches; those of tests have none."""
        if all(hasattr(dataset, "flag") for dataset in self.datasets):
            places = (self._locate(index) for index in range(len(self)))
            flags = [self.datasets[which].flag[inner] for which, inner in places]
            self.flag = np.array(flags, np.uint8)

    def _locate(self, index: int) -> tuple[int, int]:
        raise NotImplementedError

    def __len__(self) -> int:
        raise NotImplementedError

    def __getitem__(self, idx: int) -> Any:
        which, inner = self._locate(idx)
        return self.datasets[which][inner]

    def get_cat_ids(self, idx: int) -> list[int]:
        """Return the categories of an image's objects, one for each."""
        which, inner = self._locate(idx)
        categories: list[int] = self.datasets[which].get_cat_ids(inner)
        return categories

    def get_ann_info(self, idx: int) -> dict[str, Any]:
        """Return the annotations of an image."""
        which, inner = self._locate(idx)
        annotations: dict[str, Any] = self.datasets[which].get_ann_info(inner)
        return annotations

    def prefetch(self, indices: Sequence[int]) -> None:
        """Have the images of a batch that are not cached yet fetched at once."""
        places = [self._locate(index) for index in indices]
        for number, dataset in enumerate(self.datasets):
            if inner := [inner for which, inner in places if which == number]:
                prefetch(dataset, inner)


@DATASETS.register_module()
class ConcatDataset(_Wrapper):
    """One data set after the other."""

    def __init__(self, datasets: Sequence[Any], separate_eval: bool = True) -> None:
        """Join data sets with the same classes.

        *separate_eval*: each is measured by itself; else all as one, of which they must be of one
        class, and not COCO's.
        """
        super().__init__(datasets)
        self.separate_eval = separate_eval
        if not separate_eval and (
            len(set(map(type, self.datasets))) > 1 or isinstance(self.datasets[0], CocoDataset)
        ):
            kinds = ", ".join(sorted({type(dataset).__name__ for dataset in self.datasets}))
            raise NotImplementedError(f"{kinds} cannot be measured as one: set separate_eval=True")
        self.cumulative_sizes = list(itertools.accumulate(map(len, self.datasets)))
        self._set_flags()

    def __len__(self) -> int:
        return self.cumulative_sizes[-1]

    def _locate(self, index: int) -> tuple[int, int]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"there is no image {index} among {len(self)}")
        index %= len(self)
        which = bisect.bisect_right(self.cumulative_sizes, index)
        return which, index - (self.cumulative_sizes[which - 1] if which else 0)

    def evaluate(
        self,
        results: Sequence[Any],
        logger: logging.Logger | str | None = None,
        **arguments: Any,
    ) -> dict[str, Any]:
        """Return the scores of each data set, ``0_mAP`` and so on, or of all as one."""
        if len(results) != len(self):
            raise ValueError(f"there are {len(results)} results of {len(self)} images")
        if self.separate_eval:
            scores = {}
            ends = self.cumulative_sizes
            for number, (start, end) in enumerate(itertools.pairwise([0, *ends])):
                dataset = self.datasets[number]
                say(f"\nEvaluating {dataset.ann_file} with {end - start} images now", logger)
                found = dataset.evaluate(results[start:end], logger=logger, **arguments)
                scores.update({f"{number}_{name}": value for name, value in found.items()})
            return scores
        first = self.datasets[0]
        own = first.data_infos
        first.data_infos = [info for dataset in self.datasets for info in dataset.data_infos]
        try:
            return dict(first.evaluate(results, logger=logger, **arguments))
        finally:
            first.data_infos = own


@DATASETS.register_module()
class RepeatDataset(_Wrapper):
    """A data set some times over, so that an epoch of a small one lasts longer."""

    def __init__(self, dataset: Any, times: int) -> None:
        super().__init__([dataset])
        self.dataset = dataset
        self.times = times
        self._set_flags()

    def __len__(self) -> int:
        return self.times * len(self.dataset)

    def _locate(self, index: int) -> tuple[int, int]:
        return 0, index % len(self.dataset)


@DATASETS.register_module()
class ClassBalancedDataset(_Wrapper):
    """Images of rare classes more often than once (arXiv 1908.03195).

    If a share f of the images has a class, it is to be repeated sqrt(``oversample_thr`` / f) times,
    once at least; an image is repeated as the rarest of its classes, rounded up.
    """

    def __init__(self, dataset: Any, oversample_thr: float, filter_empty_gt: bool = True) -> None:
        """Repeat images of *dataset*; without *filter_empty_gt* "no object" is a class, too."""
        super().__init__([dataset])
        self.dataset = dataset
        present = [set(dataset.get_cat_ids(index)) for index in range(len(dataset))]
        if not filter_empty_gt:
            present = [classes or {len(self.CLASSES)} for classes in present]
        counts = Counter(itertools.chain.from_iterable(present))
        repeats = {
            each: max(1.0, math.sqrt(oversample_thr * len(dataset) / count))
            for each, count in counts.items()
        }
        self.repeat_indices = [
            index
            for index, classes in enumerate(present)
            for _ in range(math.ceil(max((repeats[each] for each in classes), default=1)))
        ]
        self._set_flags()

    def __len__(self) -> int:
        return len(self.repeat_indices)

    def _locate(self, index: int) -> tuple[int, int]:
        return 0, self.repeat_indices[index]
