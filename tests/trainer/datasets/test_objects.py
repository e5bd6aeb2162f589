"""Data sets at s3://, through the daemon."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
cv2 = pytest.importorskip("cv2")
pytest.importorskip("faster_coco_eval")

import forebay  # noqa: E402
from forebay_trainer import files  # noqa: E402
from forebay_trainer.convert.cityscapes import convert  # noqa: E402
from forebay_trainer.datasets import build_dataloader, build_dataset  # noqa: E402

if TYPE_CHECKING:
    from pathlib import Path

    from support.ceph import Bucket
    from support.daemon import DaemonProcess

PIPELINE: list[dict[str, Any]] = [
    {"type": "LoadImageFromFile"},
    {"type": "LoadAnnotations", "with_mask": True},
    {"type": "Resize", "img_scale": (64, 32), "keep_ratio": True},
    {"type": "RandomFlip", "flip_ratio": 0.5},
    {"type": "DefaultFormatBundle"},
    {"type": "Collect", "keys": ["img", "gt_bboxes", "gt_labels", "gt_masks"]},
]


def png(image: np.ndarray) -> bytes:
    return bytes(cv2.imencode(".png", image)[1])


@pytest.fixture
def cityscapes(bucket: Bucket, daemon: DaemonProcess, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the prefix of a tiny Cityscapes of 6 images."""
    monkeypatch.setenv("FOREBAY_ADDRESS", daemon.address)
    files._client.cache_clear()  # of other tests' daemons
    instances = np.full((40, 80), 7, np.uint16)
    instances[5:30, 10:50] = 26001
    for number in range(6):
        image = np.full((40, 80, 3), number * 9, np.uint8)
        stem = f"train/ulm/ulm_{number:06d}_000019"
        bucket.put(f"c/leftImg8bit/{stem}_leftImg8bit.png", png(image))
        bucket.put(f"c/gtFine/{stem}_gtFine_instanceIds.png", png(instances))
    return f"s3://{bucket.name}/c"


def test_a_converted_data_set_is_loaded_by_workers_with_mapped_paths(cityscapes: str) -> None:
    convert(cityscapes, f"{cityscapes}/annotations", nproc=2, tell=lambda _: None)
    mapped = {"backend": "petrel", "path_mapping": {"data/cityscapes/": f"{cityscapes}/"}}
    config: dict[str, Any] = {
        "type": "RepeatDataset",
        "times": 2,
        "dataset": {
            "type": "CityscapesDataset",
            "classes": ["car"],
            "ann_file": "data/cityscapes/annotations/instancesonly_filtered_gtFine_train.json",
            "img_prefix": "data/cityscapes/leftImg8bit/train/",
            "pipeline": [{**PIPELINE[0], "file_client_args": mapped}, *PIPELINE[1:]],
            "file_client_args": mapped,
        },
    }

    data = build_dataset(config)
    batches = list(build_dataloader(data, 4, 2, seed=1))

    levels = sorted(int(image.max()) for batch in batches for image in batch["img"])
    assert levels == sorted([number * 9 for number in range(6)] * 2)
    assert batches[0]["img"].shape == (4, 3, 32, 64)
    assert batches[0]["gt_masks"][0].masks.sum() == 20 * 32
    client = forebay.Client()
    written = f"{cityscapes}/annotations/instancesonly_filtered_gtFine_train.json"
    assert len(json.loads(client.get(written))["images"]) == 6
    assert not client.uploads()


@pytest.mark.parametrize("has_folder", [True, False], ids=["with the folder", "socket only"])
def test_a_batch_of_images_is_fetched_in_one_call_and_once(
    has_folder: bool, cityscapes: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FOREBAY_PATH_MAPPING", f"data/={cityscapes}/")
    if not has_folder:
        monkeypatch.setenv("FOREBAY_CACHE_DIR", str(tmp_path / "nowhere"))
    files._client.cache_clear()
    convert("data", tell=lambda _: None)
    config = {
        "type": "CityscapesDataset",
        "classes": ["car"],
        "ann_file": "instancesonly_filtered_gtFine_train.json",
        "img_prefix": "leftImg8bit/train/",
        "data_root": "data/",
        "pipeline": PIPELINE[:1],
    }
    data = build_dataset(config)
    calls: list[tuple[str, int]] = []
    get_many, apply = forebay.Client.get_many, forebay.Client.apply

    def noting_get_many(self: forebay.Client, paths: Any) -> list[bytes]:
        calls.append(("get_many", len(paths)))
        return get_many(self, paths)

    def noting_apply(self: forebay.Client, *arguments: Any) -> Any:
        calls.append(("apply", 1))
        return apply(self, *arguments)

    monkeypatch.setattr(forebay.Client, "get_many", noting_get_many)
    monkeypatch.setattr(forebay.Client, "apply", noting_apply)
    loader = build_dataloader(data, 6, 0, shuffle=False)
    for expected in ([("get_many", 6)], [("apply", 1)] * 6 if has_folder else [("get_many", 6)]):
        batch = loader.dataset.__getitems__(list(loader.sampler))

        assert [sample["img"].max() for sample in batch] == [0, 9, 18, 27, 36, 45]
        assert calls == expected
        calls.clear()
