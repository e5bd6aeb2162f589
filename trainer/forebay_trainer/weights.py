"""Checkpoints: where a configuration's weights are, read safely, and put into a model.

Training has no route to the web: a download URL, ``torchvision://`` and ``open-mmlab://`` are names
that a path mapping turns into objects, or that torch's download folder on this machine has.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

import forebay
from forebay_trainer.files import Files

if TYPE_CHECKING:
    from collections.abc import Mapping

_log = logging.getLogger(__name__)

_DOWNLOADS = ("http://", "https://", "torchvision://", "open-mmlab://", "openmmlab://")
_PYTORCH = "https://download.pytorch.org/models/"
_OPENMMLAB = "https://download.openmmlab.com/pretrain/third_party/"

# What the short names stand for, where upstream would download it from.
_ZOO = {
    "torchvision://resnet18": f"{_PYTORCH}resnet18-f37072fd.pth",
    "torchvision://resnet34": f"{_PYTORCH}resnet34-b627a593.pth",
    "torchvision://resnet50": f"{_PYTORCH}resnet50-0676ba61.pth",
    "torchvision://resnet101": f"{_PYTORCH}resnet101-63fe2227.pth",
    "torchvision://resnet152": f"{_PYTORCH}resnet152-394f9c45.pth",
    "open-mmlab://detectron/resnet50_caffe": f"{_OPENMMLAB}resnet50_caffe-788b5fa3.pth",
    "open-mmlab://detectron/resnet101_caffe": f"{_OPENMMLAB}resnet101_caffe-3ad79236.pth",
    "open-mmlab://detectron2/resnet50_caffe": f"{_OPENMMLAB}resnet50_msra-5891d200.pth",
    "open-mmlab://detectron2/resnet101_caffe": f"{_OPENMMLAB}resnet101_msra-6cc46731.pth",
    "open-mmlab://regnetx_400mf": f"{_OPENMMLAB}regnetx_400mf-a5b10d96.pth",
    "open-mmlab://regnetx_800mf": f"{_OPENMMLAB}regnetx_800mf-1f4be4c7.pth",
    "open-mmlab://regnetx_1.6gf": f"{_OPENMMLAB}regnetx_1.6gf-5791c176.pth",
    "open-mmlab://regnetx_3.2gf": f"{_OPENMMLAB}regnetx_3.2gf-c2599b0f.pth",
    "open-mmlab://regnetx_4.0gf": f"{_OPENMMLAB}regnetx_4.0gf-a88f671e.pth",
    "open-mmlab://regnetx_6.4gf": f"{_OPENMMLAB}regnetx_6.4gf-006af45d.pth",
    "open-mmlab://regnetx_8.0gf": f"{_OPENMMLAB}regnetx_8.0gf-3c68abe7.pth",
    "open-mmlab://regnetx_12gf": f"{_OPENMMLAB}regnetx_12gf-4c2a3350.pth",
}


class WeightsError(Exception):
    """Weights that cannot be reached, or are none; the message says what to do."""


def locate(path: str) -> str:
    """Return what to read for *path*: an object's or a local file's path.

    Raises WeightsError if there is nothing, having read nothing.
    """
    files = Files()
    if not path.startswith(_DOWNLOADS):
        found = _latest(files, path)
        if found is None:
            raise WeightsError(f"{path}: there is no such file")
        return found
    url = _ZOO.get(path.replace("openmmlab://", "open-mmlab://"), path)
    for name in dict.fromkeys((path, url)):
        if files.client.is_mapped(name):
            if not files.exists(name):
                raise WeightsError(f"{name}: the path mapping covers it, but the object is missing")
            return name
    downloaded = Path(torch.hub.get_dir(), "checkpoints", url.rpartition("/")[2])
    if downloaded.exists():
        return str(downloaded)
    folder, _, name = url.rpartition("/")
    raise WeightsError(
        f"{path}: nothing is downloaded while training; put {name} into a bucket and give "
        f"--path-mapping {folder}/=s3://BUCKET/FOLDER/, or put it at {downloaded}"
    )


def _latest(files: Files, path: str) -> str | None:
    """Return *path*, or for the ``latest.pth`` of a folder that has none, its newest checkpoint.

    Object stores have no links; there the numbers of the names tell.
    """
    if files.exists(path):
        return path
    folder, _, name = path.rpartition("/")
    return latest_checkpoint(folder or ".") if name == "latest.pth" else None


def latest_checkpoint(folder: str) -> str | None:
    """Return the path of the checkpoint in *folder* with the highest number; if there are several
    kinds, as of epochs and iterations, the youngest one's.
    """
    files = Files()
    newest: dict[str, tuple[int, str]] = {}  # by kind
    for name in files.names(folder):
        match = re.fullmatch(r"(?!best_)(.+)_(\d+)\.pth", name)  # as filename_tmpl has it
        if match:
            path = f"{folder.rstrip('/')}/{name}"
            newest[match[1]] = max((int(match[2]), path), newest.get(match[1], (0, "")))
    paths = [path for _, path in newest.values()]
    return max(paths, key=_modified) if len(paths) > 1 else next(iter(paths), None)


def _modified(path: str) -> float:
    files = Files()
    if files.is_object(path):
        return files.client.stat(path).modified or 0.0
    return Path(path).stat().st_mtime


def read_checkpoint(path: str) -> dict[str, Any]:
    """Return the content of a checkpoint, on the CPU, without running code that it may hold.

    Raises WeightsError, whose message names what was not allowed.
    """
    found = locate(path)
    try:
        with Files().local_path(found) as local, torch.serialization.safe_globals(_allowed()):
            content = torch.load(local, map_location="cpu", weights_only=True)
    except (OSError, MemoryError, forebay.ForebayError):
        raise
    except Exception as error:  # of many classes, from pickle's and zip's to torch's
        unsupported = re.search(r"Unsupported [^\n]*? was not an allowed", str(error))
        if unsupported:
            reason = unsupported[0]
        elif isinstance(error, RuntimeError):  # of torch's reader of archives
            reason = str(error).strip().partition("\n")[0]
        else:  # pickle's, at whatever it came upon first
            reason = "torch has not written it, or not to its end"
        raise WeightsError(f"{path} is not a checkpoint that may be loaded: {reason}") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path} holds no weights but a {type(content).__name__}")
    return content


def state_of(checkpoint: Mapping[str, Any], prefix: str | None = None) -> dict[str, Any]:
    """Return the weights of a checkpoint by name: of the part below *prefix*, without it.

    Names that DataParallel has given are those of the model in it.
    """
    state = checkpoint.get("state_dict", checkpoint.get("model", checkpoint))
    named = {name.removeprefix("module."): value for name, value in state.items()}
    if not prefix:
        return named
    prefix = prefix.rstrip(".") + "."
    return {
        name.removeprefix(prefix): value for name, value in named.items() if name.startswith(prefix)
    }


@dataclass(frozen=True)
class LoadReport:
    """What loading left out: names of each kind, sorted."""

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[str, ...]  # with both shapes

    def __str__(self) -> str:
        parts = {
            "in the model only": self.missing,
            "in the checkpoint only": self.unexpected,
            "of another shape, skipped": self.mismatched,
        }
        return "".join(
            f"\n  {title}: {', '.join(names)}" for title, names in parts.items() if names
        )


def load_state(model: torch.nn.Module, state: Mapping[str, Any]) -> LoadReport:
    """Copy into *model* what fits, by name and shape, and return what did not."""
    own = model.state_dict()
    fitting = {}
    mismatched = []
    for name, value in state.items():
        if name not in own or not torch.is_tensor(value):
            continue
        if value.shape == own[name].shape:
            fitting[name] = value
        else:
            mismatched.append(f"{name} {tuple(value.shape)} for {tuple(own[name].shape)}")
    model.load_state_dict(fitting, strict=False)
    # Torch adds counters to what older versions wrote; they matter to nobody.
    missing = (name for name in own.keys() - state.keys() if "num_batches_tracked" not in name)
    return LoadReport(
        tuple(sorted(missing)), tuple(sorted(state.keys() - own.keys())), tuple(sorted(mismatched))
    )


def load_checkpoint(model: torch.nn.Module, path: str, prefix: str | None = None) -> dict[str, Any]:
    """Load weights as ``load_from`` and ``init_cfg`` name them; log what did not fit.

    Returns the checkpoint. Raises WeightsError if nothing in it is the model's.
    """
    checkpoint = read_checkpoint(path)
    state = state_of(checkpoint, prefix)
    report = load_state(model, state)
    if len(report.unexpected) + len(report.mismatched) == len(state):
        below = f" below {prefix!r}" if prefix else ""
        raise WeightsError(f"{path} has no weight{below} that fits into {type(model).__name__}")
    if str(report):
        # A classifier that a backbone has no use for is nothing to worry about.
        is_whole = not (report.missing or report.mismatched)
        level = logging.INFO if is_whole else logging.WARNING
        _log.log(level, "%s is loaded, but for what is%s", path, report)
    else:
        _log.info("%s: all weights are loaded", path)
    return checkpoint


def _allowed() -> list[Any]:
    """Return what a checkpoint may hold beside tensors and Python's own values: numpy's arrays and
    numbers, which MMDetection's ``meta`` has, under the names of numpy 1 and 2.
    """
    core = np._core if hasattr(np, "_core") else np.core
    rebuilders = (core.multiarray._reconstruct, core.multiarray.scalar)
    named = [
        (function, f"{package}.multiarray.{function.__name__}")
        for package in ("numpy.core", "numpy._core")
        for function in rebuilders
    ]
    kinds = "?bBhHiIlLqQefdUS"
    return [*named, np.ndarray, np.dtype, *{type(np.dtype(kind)) for kind in kinds}]
