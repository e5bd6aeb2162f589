"""The plugs beside what their frameworks do with local files, warm, in one run.

``get`` of mmcv's and mmengine's petrel backends beside their disk backends; fsspec's ``cat_file``
beside its local one and ``filecache``; a DataLoader of four workers that decode JPEGs, beside the
same DataLoader on the same files. Objects lie in a real Ceph, all reads are of the page cache.
Run: python benchmarks/plugs.py
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import common

from support.below import STAND_INS

sys.path.append(str(STAND_INS))  # before anything imports mmcv

import fsspec
import mmcv
import numpy as np
import torch
from mmengine.fileio import get_file_backend
from PIL import Image
from skimage import data as photographs
from torch.utils.data import DataLoader

import forebay
import forebay.mmcv
import forebay.mmengine
from forebay.torch import ObjectDataset, Sample
from support.ceph import Bucket, running_ceph
from support.daemon import DaemonProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

OBJECTS, SIZE_BYTES = 1_000, 100_000
IMAGES, WORKERS, BATCH, ROUNDS = 2_000, 4, 32, 9


def upload(bucket: Bucket, folder: Path, bodies: dict[str, bytes]) -> list[str]:
    """Store *bodies* as objects and as files of *folder*; returns the names."""
    folder.mkdir()
    for name, body in bodies.items():
        (folder / name).write_bytes(body)
        bucket.put(name, body)
    return list(bodies)


def reading(read: Callable[[str], Any], paths: Sequence[str]) -> Callable[[], float]:
    def run() -> float:
        began = time.perf_counter()
        for path in paths:
            read(path)
        return time.perf_counter() - began

    return run


# --- one object after the other -------------------------------------------------------------------


def backends(folder: Path, bucket: Bucket, names: list[str]) -> dict[str, Any]:
    files = [str(folder / name) for name in names]
    uris = [bucket.url(name) for name in names]
    result = {}
    for title, disk, petrel in (
        ("mmcv", mmcv.FileClient("disk"), mmcv.FileClient("petrel")),
        ("mmengine", get_file_backend(files[0]), get_file_backend(uris[0])),
    ):
        works = {"files": reading(disk.get, files), "petrel": reading(petrel.get, uris)}
        result[title] = common.compare(works, ROUNDS, per=len(names))
    began = time.perf_counter()
    for _ in range(1_000):
        get_file_backend(uris[0])
    result["mmengine"]["construction_us"] = round((time.perf_counter() - began) * 1e3, 1)
    return result


def file_systems(folder: Path, bucket: Bucket, names: list[str], address: str) -> dict[str, Any]:
    ours = fsspec.filesystem("forebay", address=address)
    cached = fsspec.filesystem(
        "filecache",
        target_protocol="forebay",
        target_options={"address": address},
        cache_storage=str(folder.parent / "filecache"),
    )
    uris = [f"forebay://{bucket.name}/{name}" for name in names]
    works = {
        "files": reading(fsspec.filesystem("file").cat_file, [str(folder / n) for n in names]),
        "forebay": reading(ours.cat_file, uris),
        "filecache": reading(cached.cat_file, uris),
    }
    result = common.compare(works, ROUNDS, per=len(names))
    seconds = result["rounds_us"]
    to_cache = common.median_ratio(seconds["forebay"], seconds["filecache"])
    result["forebay_to_filecache"] = round(to_cache, 3)
    return result


# --- a DataLoader -----------------------------------------------------------------------------


class Files:
    """A client of local files."""

    def get_many(self, paths: list[str]) -> list[bytes]:
        return [Path(path).read_bytes() for path in paths]


class Timed:
    """A client whose reading is measured in all workers."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.seconds = torch.zeros(WORKERS, dtype=torch.float64).share_memory_()

    def get_many(self, paths: list[str]) -> list[bytes]:
        worker = torch.utils.data.get_worker_info()
        began = time.perf_counter()
        found: list[bytes] = self._client.get_many(paths)
        self.seconds[worker.id] += time.perf_counter() - began
        return found


def decode(sample: Sample) -> int:
    with Image.open(io.BytesIO(sample.data)) as image:
        return int(np.asarray(image).shape[0])


def jpegs(count: int) -> dict[str, bytes]:
    """Return photographs of some 100 KB, no two alike."""
    photos = [photographs.astronaut(), photographs.coffee(), photographs.chelsea()]
    dice = np.random.default_rng(0)
    made = {}
    for number in range(count):
        image = Image.fromarray(photos[number % len(photos)]).resize((640, 480))
        pixels = np.asarray(image).astype(np.int16) + dice.integers(-12, 12, (480, 640, 3))
        buffer = io.BytesIO()
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, "jpeg", quality=88)
        made[f"{number:05}.jpg"] = buffer.getvalue()
    return made


def loader_pass(paths: list[str], client: Any, read_s: list[float]) -> Callable[[], float]:
    def run() -> float:
        timed = Timed(client)
        loader = DataLoader(
            ObjectDataset(paths, decode, timed),  # type: ignore[arg-type]  # a stand-in
            BATCH,
            shuffle=True,
            num_workers=WORKERS,
        )
        began = time.perf_counter()
        assert sum(len(batch) for batch in loader) == len(paths)
        taken = time.perf_counter() - began
        read_s.append(float(timed.seconds.sum()))
        return taken

    return run


def data_loader(
    folder: Path, bucket: Bucket, names: list[str], client: forebay.Client
) -> dict[str, Any]:
    uris, files = [bucket.url(name) for name in names], [str(folder / name) for name in names]
    client.warm(uris)
    before = client.stats().origin_requests
    read_s: dict[str, list[float]] = {"files": [], "forebay": []}
    works = {
        "files": loader_pass(files, Files(), read_s["files"]),
        "forebay": loader_pass(uris, client, read_s["forebay"]),
    }
    seconds = common.side_by_side(works, ROUNDS)
    rates = {name: [len(names) / taken for taken in each] for name, each in seconds.items()}
    reads = {name: each[1:] for name, each in read_s.items()}  # without the one for warming up
    return {
        "images_per_s": {name: [round(rate) for rate in each] for name, each in rates.items()},
        "rate_to_files": round(common.median_ratio(rates["forebay"], rates["files"]), 3),
        "read_us_an_item": {
            name: [round(taken / len(names) * 1e6, 1) for taken in each]
            for name, each in reads.items()
        },
        "read_time_to_files": round(common.median_ratio(reads["forebay"], reads["files"]), 3),
        "requests_to_the_origin": client.stats().origin_requests - before,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=("objects", "loader"))
    only = parser.parse_args().only
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fb-")))
        ceph = stack.enter_context(running_ceph())
        boto = ceph.client()
        daemon = DaemonProcess(
            cache_dir=folder / "cache",
            address=f"unix:{folder}/d.sock",
            log_file=folder / "log",
            arguments=("--max-bytes", "4GiB", "--endpoint-url", ceph.endpoint_url),
            env=ceph.env(),
        )
        daemon.start()
        stack.callback(daemon.stop)
        stack.enter_context(contextlib.suppress(KeyboardInterrupt))
        with forebay.Client(daemon.address) as client, _environment(daemon.address):
            result: dict[str, Any] = {}
            if only in (None, "objects"):
                bucket = _bucket(boto, "objects")
                dice = np.random.default_rng(1)
                bodies = {f"{n:05}": dice.bytes(SIZE_BYTES) for n in range(OBJECTS)}
                names = upload(bucket, folder / "objects", bodies)
                client.warm([bucket.url(name) for name in names])
                result |= backends(folder / "objects", bucket, names)
                result["fsspec"] = file_systems(folder / "objects", bucket, names, daemon.address)
            if only in (None, "loader"):
                bucket = _bucket(boto, "images")
                names = upload(bucket, folder / "images", jpegs(IMAGES))
                result["data_loader"] = data_loader(folder / "images", bucket, names, client)
    common.report("plugs", result)


def _bucket(boto: Any, name: str) -> Bucket:
    boto.create_bucket(Bucket=name)
    return Bucket(name, boto)


@contextlib.contextmanager
def _environment(address: str) -> Any:
    import os

    os.environ["FOREBAY_ADDRESS"] = address
    try:
        yield
    finally:
        del os.environ["FOREBAY_ADDRESS"]


if __name__ == "__main__":
    main()
