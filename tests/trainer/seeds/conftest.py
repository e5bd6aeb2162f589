"""A user with the configurations as they are printed, and the weights that they begin with."""

from __future__ import annotations

import functools
import io
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from support.training import upload_files
from support.typed import Typist

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import StartDaemon
    from support.ceph import Bucket

_CONFIGS = Path(__file__).with_name("configs")


@pytest.fixture
def user(tmp_path: Path, bucket: Bucket, start_daemon: StartDaemon) -> Typist:
    """Types in *tmp_path*, where ``configs`` have this bucket in the place of the printed ones, and
    where Cityscapes is what is below ``cities/``. The daemon ends before the bucket does.
    """
    shutil.copytree(_CONFIGS, tmp_path / "configs")
    for path in (tmp_path / "configs").rglob("*.py"):
        text = path.read_text()
        for printed in ("s3://yourbucket/", "s3://openmmlab/"):
            text = text.replace(printed, bucket.url())
        path.write_text(text)
    daemon = start_daemon(max_bytes="4GB")
    env = {"FOREBAY_ADDRESS": daemon.address}
    env["FOREBAY_PATH_MAPPING"] = f"data/cityscapes/={bucket.url('cities/')}"
    return Typist(tmp_path, env)


@pytest.fixture
def upload(bucket: Bucket) -> Callable[[Path, str], None]:
    """Puts the files below a folder below a prefix."""
    return functools.partial(upload_files, bucket)


@pytest.fixture
def publish(bucket: Bucket) -> Callable[[str, dict[str, Any]], None]:
    """Puts a checkpoint in MMDetection's form."""
    import torch

    def put(key: str, weights: dict[str, Any]) -> None:
        from forebay_trainer.datasets import CocoDataset

        file = io.BytesIO()
        torch.save({"meta": {"CLASSES": CocoDataset.CLASSES}, "state_dict": weights}, file)
        bucket.put(key, file.getvalue())

    return put
