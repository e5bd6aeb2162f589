"""Images with boxes from a list of plain dicts; what all other data sets are made of."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from forebay_trainer.datasets.annotation_files import load
from forebay_trainer.datasets.pipelines import Compose, LoadImageFromFile
from forebay_trainer.evaluation import eval_map, eval_recalls
from forebay_trainer.evaluation.tables import say
from forebay_trainer.files import Files
from forebay_trainer.registry import DATASETS

if TYPE_CHECKING:
    import logging
    from collections.abc import Mapping, Sequence

    from forebay_trainer.evaluation.overlaps import Array

_TRIES = 1000  # images of which the pipeline may leave nothing, until that is no chance any more


@DATASETS.register_module()
class CustomDataset:
    """A pickle or JSON file with a list of one dict per image.

    It has ``filename``, ``width``, ``height``, and for training ``ann``: ``bboxes`` (n, 4) in
    pixels as left, top, right, bottom, ``labels`` (n,), and, if there are any that are not to
    count, ``bboxes_ignore`` (k, 4) and ``labels_ignore`` (k,).
    """

    CLASSES: Sequence[str] | None = None
    PALETTE: Sequence[tuple[int, int, int]] | None = None  # a colour per class, RGB
    METRICS: ClassVar[tuple[str, ...]] = ("mAP", "recall")
    # How boxes are measured.
    _ends_with_last_pixel = False
    _has_11_points = False

    def __init__(
        self,
        ann_file: str,
        pipeline: Sequence[Mapping[str, Any]],
        classes: str | Sequence[str] | None = None,
        data_root: str | None = None,
        img_prefix: str | None = "",
        seg_prefix: str | None = None,
        seg_suffix: str = ".png",
        proposal_file: str | None = None,
        test_mode: bool = False,
        filter_empty_gt: bool = True,
        file_client_args: Mapping[str, Any] | None = None,
    ) -> None:
        """Read the annotations.

        Args:
            ann_file: a path, below *data_root* if that is given, as all others.
            pipeline: the transforms of an image.
            classes: their names, or a file with a name per line; the data set's own by default.
            data_root: a folder, or a prefix of objects.
            img_prefix: where images are.
            seg_prefix: where segmentation maps are.
            seg_suffix: what a segmentation map's name ends with.
            proposal_file: a pickle with an array of boxes per image.
            test_mode: give all images, and none with its annotations.
            filter_empty_gt: leave out images with nothing on them (data sets with annotations in
                files of their own format do so).
            file_client_args: a ``backend`` and its ``path_mapping``.
        """
        self.ann_file = below(data_root, ann_file)
        self.data_root = data_root
        self.img_prefix = None if img_prefix is None else below(data_root, img_prefix)
        self.seg_prefix = None if seg_prefix is None else below(data_root, seg_prefix)
        self.seg_suffix = seg_suffix
        self.proposal_file = None if proposal_file is None else below(data_root, proposal_file)
        self.test_mode = test_mode
        self.filter_empty_gt = filter_empty_gt
        self.files = Files.of(file_client_args)
        self.CLASSES = self.get_classes(classes)
        with self.files.local_path(self.ann_file) as path:
            self.data_infos = self.load_annotations(path)
        self.proposals = None
        if self.proposal_file is not None:
            self.proposals = load(self.files.get(self.proposal_file))
        if not test_mode:
            self._leave_out()
            self._set_group_flag()
        self.pipeline = Compose(pipeline)
        loading = [each for each in self.pipeline.transforms if isinstance(each, LoadImageFromFile)]
        self._image_files = loading[0].files if loading else None

    def get_classes(self, classes: str | Sequence[str] | None = None) -> Sequence[str] | None:
        """Return the names of the classes: as given, of a file, or the data set's own."""
        if classes is None:
            return self.CLASSES
        if isinstance(classes, str):
            return self.files.get(classes).decode().splitlines()
        return classes

    # --- what other formats do in another way ------------------------------------------------

    def load_annotations(self, ann_file: str) -> list[dict[str, Any]]:
        """Return what is known of each image; *ann_file* is a local path of the file."""
        infos: list[dict[str, Any]] = load(Path(ann_file).read_bytes())
        return infos

    def get_ann_info(self, idx: int) -> dict[str, Any]:
        """Return the annotations of an image."""
        annotation = dict(self.data_infos[idx]["ann"])
        for key in annotation.keys() & {"bboxes", "bboxes_ignore"}:
            annotation[key] = np.asarray(annotation[key], np.float32).reshape(-1, 4)
        for key in annotation.keys() & {"labels", "labels_ignore"}:
            annotation[key] = np.asarray(annotation[key], np.int64)
        return annotation

    def get_cat_ids(self, idx: int) -> list[int]:
        """Return the categories of an image's objects, one for each."""
        labels: list[int] = self.get_ann_info(idx)["labels"].tolist()
        return labels

    def _filter_imgs(self, min_size: int = 32) -> list[int]:
        """Return which images are trained with: of 32 pixels each way at least."""
        return [
            index
            for index, info in enumerate(self.data_infos)
            if min(info["width"], info["height"]) >= min_size
        ]

    # --- images ------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.data_infos)

    def __getitem__(self, idx: int) -> Any:
        """Return what the pipeline makes of an image; in training of another if that is nothing."""
        if self.test_mode:
            return self.prepare_test_img(idx)
        for _ in range(_TRIES):
            data = self.prepare_train_img(idx)
            if data is not None:
                return data
            idx = self._rand_another(idx)
        raise RuntimeError(f"the pipeline leaves nothing of {_TRIES} images of {self.ann_file}")

    def prepare_train_img(self, idx: int) -> Any:
        """Return what the pipeline makes of an image and its annotations; None if nothing."""
        return self._prepare(idx, ann_info=self.get_ann_info(idx))

    def prepare_test_img(self, idx: int) -> Any:
        """Return what the pipeline makes of an image alone."""
        return self._prepare(idx)

    def _prepare(self, idx: int, **known: Any) -> Any:
        results = {"img_info": self.data_infos[idx], **known}
        if self.proposals is not None:
            results["proposals"] = self.proposals[idx]
        self.pre_pipeline(results)
        return self.pipeline(results)

    def pre_pipeline(self, results: dict[str, Any]) -> None:
        """Add what pipelines expect of all data sets."""
        results["img_prefix"] = self.img_prefix
        results["seg_prefix"] = self.seg_prefix
        results["proposal_file"] = self.proposal_file
        for kind in ("bbox", "mask", "seg"):
            results[f"{kind}_fields"] = []

    def prefetch(self, indices: Sequence[int]) -> None:
        """Have the images of a batch that are not cached yet fetched at once."""
        if self._image_files is not None:
            names = [self.data_infos[index]["filename"] for index in indices]
            prefix = self.img_prefix or ""
            self._image_files.prefetch([os.path.join(prefix, name) for name in names])  # noqa: PTH118 - URIs

    def _leave_out(self) -> None:
        kept = self._filter_imgs()
        if not kept:
            raise ValueError(
                f"{self.ann_file}: none of {len(self.data_infos)} images can be trained with: they "
                f"are too small, or have nothing of the classes {self.CLASSES}"
            )
        self.data_infos = [self.data_infos[index] for index in kept]
        if self.proposals is not None:
            self.proposals = [self.proposals[index] for index in kept]

    def _set_group_flag(self) -> None:
        """Set the groups whose images share batches: 1 is broader than high, 0 all else."""
        broad = [info["width"] > info["height"] for info in self.data_infos]
        self.flag = np.array(broad, np.uint8)

    def _rand_another(self, idx: int) -> int:
        return int(np.random.choice(np.flatnonzero(self.flag == self.flag[idx])))

    # --- evaluation --------------------------------------------------------------------------

    def evaluate(
        self,
        results: Sequence[Any],
        metric: str | Sequence[str] = "mAP",
        logger: logging.Logger | str | None = None,
        proposal_nums: Sequence[int] = (100, 300, 1000),
        iou_thr: float | Sequence[float] = 0.5,
        scale_ranges: Sequence[tuple[float, float]] | None = None,
    ) -> dict[str, Any]:
        """Return mean average precisions ("mAP") or recalls of proposals ("recall").

        Of each image *results* has boxes (n, 5) of each class, or proposals (n, 5). See
        ``eval_map`` and ``eval_recalls`` for the rest.
        """
        names = self.check_metrics(metric)
        annotations = [self.get_ann_info(index) for index in range(len(self))]
        thresholds = [iou_thr] if isinstance(iou_thr, float) else list(iou_thr)
        scores: dict[str, Any] = {}
        if "mAP" in names:
            scores |= self._mean_aps(results, annotations, thresholds, scale_ranges, logger)
        if "recall" in names:
            scores |= self._recalls(results, annotations, proposal_nums, thresholds, logger)
        return scores

    def check_metrics(self, metric: str | Sequence[str]) -> list[str]:
        """Return the names of metrics as a list. Raises KeyError if one is not known."""
        names = [metric] if isinstance(metric, str) else list(metric)
        for name in names:
            if name not in self.METRICS:
                raise KeyError(
                    f"metric {name!r} is not supported by {type(self).__name__}, which has "
                    f"{', '.join(self.METRICS)}"
                )
        return names

    def _mean_aps(
        self,
        results: Sequence[Any],
        annotations: Sequence[Mapping[str, Any]],
        iou_thrs: Sequence[float],
        scale_ranges: Sequence[tuple[float, float]] | None,
        logger: logging.Logger | str | None,
    ) -> dict[str, Any]:
        boxes = [each[0] if isinstance(each, tuple) else each for each in results]
        means = {}
        for threshold in iou_thrs:
            say(f"\n{'-' * 15}iou_thr: {threshold}{'-' * 15}", logger)
            means[f"AP{int(threshold * 100):02d}"], _ = eval_map(
                boxes,
                annotations,
                scale_ranges,
                threshold,
                self.CLASSES,
                logger,
                self._ends_with_last_pixel,
                self._has_11_points,
            )
        rounded = {key: np.round(mean, 3).tolist() for key, mean in means.items()}
        return {"mAP": np.mean(list(means.values()), axis=0).tolist(), **rounded}

    def _recalls(
        self,
        results: Sequence[Array],
        annotations: Sequence[Mapping[str, Any]],
        proposal_nums: Sequence[int],
        iou_thrs: Sequence[float],
        logger: logging.Logger | str | None,
    ) -> dict[str, float]:
        boxes = [annotation["bboxes"] for annotation in annotations]
        recalls = eval_recalls(
            boxes, results, proposal_nums, iou_thrs, logger, self._ends_with_last_pixel
        )
        named = {
            f"recall@{number}@{threshold}": float(recalls[row, column])
            for row, number in enumerate(proposal_nums)
            for column, threshold in enumerate(iou_thrs)
        }
        if len(iou_thrs) > 1:
            means = zip(proposal_nums, recalls.mean(axis=1).tolist(), strict=True)
            named |= {f"AR@{number}": mean for number, mean in means}
        return named


def below(root: str | None, path: str) -> str:
    """Return where *path* is, if it may be one below *root*."""
    if root is None or os.path.isabs(path) or "://" in path:  # noqa: PTH117 - URIs, too
        return path
    return os.path.join(root, path)  # noqa: PTH118 - URIs, too
