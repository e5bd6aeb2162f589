"""Forebay at work: an origin, a data set, the daemon, two epochs, a detector, the statistics.

Run by ``make demo``. What it makes lies in one temporary folder and goes with it, but for the drawn
detections; every process it starts ends with it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

import forebay
from deploy.demo import detector
from deploy.demo.loader import FromOrigin, Loader, ThroughForebay
from deploy.demo.origin import running_origin
from deploy.demo.photos import photos
from support.ceph import Bucket
from support.daemon import DaemonProcess

if TYPE_CHECKING:
    from collections.abc import Iterator

    from deploy.demo.loader import Epoch
    from support.ceph import S3Endpoint

_PHOTOS = 600
_WORKERS = 4
_UPLOADS_AT_ONCE = 8
_BUCKET = "demo"
_LOCAL = "data/demo/"
_RUN = "runs/shapes/"
_SHAPES, _VALIDATION = 1000, 60
_SHOWN = 12
_DRAWN = Path(".demo/detections")

console = Console()


def main() -> None:
    # An orderly end, with all the clean-up below, also when somebody else ends us.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    for name in list(os.environ):  # the demo's S3, not the user's
        if name.startswith(("AWS_", "FOREBAY_")):
            del os.environ[name]
    with contextlib.ExitStack() as stack:
        console.print("[bold]1. An S3 origin[/bold]")
        with console.status("starting"):
            endpoint, what = stack.enter_context(running_origin())
        say(f"{what} at {endpoint.endpoint_url}")
        os.environ.update(endpoint.env())

        console.print(f"[bold]2. A data set of {_PHOTOS} photos, uploaded[/bold]")
        bucket = Bucket(_BUCKET, endpoint.client())
        names = upload(bucket)
        paths = [f"{_LOCAL}{name}" for name in names]
        mapping = {_LOCAL: bucket.url()}

        console.print("[bold]3. The daemon[/bold]")
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fb-demo-")))
        daemon = stack.enter_context(running_daemon(folder, endpoint))
        say(f"forebay serve --cache-dir {daemon.cache_dir} --listen {daemon.address}")

        console.print(f"[bold]4. A loader with {_WORKERS} worker processes[/bold]")
        say(f"which read {paths[0]} and so on; path_mapping = {mapping}")
        table = Table("", "epoch", "photos/s", "reading one", "hits", "misses")
        counts = []
        with forebay.Client(daemon.address) as client:
            before = client.stats()
            for what, epoch in run_epochs(paths, mapping, daemon.address):
                after = client.stats()
                counts.append((after.hits - before.hits, after.misses - before.misses))
                table.add_row(what, *_numbers(epoch), *map(str, counts[-1]))
                before = after
        console.print(table)
        if counts != [(0, 0), (0, _PHOTOS), (_PHOTOS, 0)]:
            sys.exit("epoch 1 should have missed and epoch 2 have hit all photos")

        console.print("[bold]5. A detector, trained for a minute[/bold]")
        train(bucket, daemon.address)

        console.print("[bold]6. forebay stats[/bold]")
        subprocess.run(  # noqa: S603  # our own command
            [sys.executable, "-m", "forebay", "stats", "--address", daemon.address], check=True
        )


def train(bucket: Bucket, address: str) -> None:
    """Train on shapes in the bucket, from there and to there, and draw what the detector finds."""
    with progress() as bar:
        task = bar.add_task("uploading", total=_SHAPES + _VALIDATION)
        detector.upload_shapes(bucket, _SHAPES, _VALIDATION, lambda: bar.advance(task))
    say(f"{_SHAPES} pictures of shapes in {bucket.url('shapes/')}; a line of log every 20 steps")
    run = bucket.url(_RUN)
    options = ["runner.max_epochs=2", "evaluation.interval=2"]
    detector.forebay(
        bucket, address, "train",
        *("--seed", "1", "--device", "cpu", "--work-dir", run, "--cfg-options", *options),
    )  # fmt: skip
    for key in bucket.keys(_RUN):
        say(f"in the bucket: {bucket.url(key)}")
    shown = [bucket.url(key) for key in sorted(bucket.keys("shapes/val/"))[:_SHOWN]]
    detector.forebay(
        bucket, address, "infer", f"{run}latest.pth", *shown, "--out", str(_DRAWN), quiet=True
    )
    say(f"what it finds in {len(shown)} other pictures is drawn in {_DRAWN.resolve()}")


def say(line: str) -> None:
    console.print(f"   {line}", soft_wrap=True, highlight=False, markup=False)


def upload(bucket: Bucket) -> list[str]:
    """Make the photos, put them into the bucket, and return their names."""
    bucket.client.create_bucket(Bucket=bucket.name)
    total_bytes = 0
    names: list[str] = []
    with ThreadPoolExecutor(_UPLOADS_AT_ONCE) as pool, progress() as bar:
        task = bar.add_task("uploading", total=_PHOTOS)
        uploads = []
        for name, data in photos(_PHOTOS):
            names.append(name)
            total_bytes += len(data)
            uploads.append(pool.submit(bucket.put, name, data))
            uploads[-1].add_done_callback(lambda _: bar.advance(task))
        for each in uploads:
            each.result()
    say(f"{total_bytes / 1e6:.0f} MB, {total_bytes / _PHOTOS / 1e3:.0f} KB a photo")
    return names


@contextlib.contextmanager
def running_daemon(folder: Path, endpoint: S3Endpoint) -> Iterator[DaemonProcess]:
    daemon = DaemonProcess(
        cache_dir=folder / "cache",
        address=f"unix:{folder}/forebay.sock",
        log_file=folder / "daemon.log",
        arguments=("--max-bytes", "1GB", "--endpoint-url", endpoint.endpoint_url),
    )
    daemon.start()
    try:
        yield daemon
    finally:
        daemon.stop()


def run_epochs(
    paths: list[str], mapping: dict[str, str], address: str
) -> Iterator[tuple[str, Epoch]]:
    """Yield what each epoch is called and what it took: without Forebay, then two with it."""
    with Loader(FromOrigin(mapping), _WORKERS) as loader:
        yield "S3 directly (s3fs)", _shown(loader, paths, "S3 directly", seed=0)
    with Loader(ThroughForebay(address, mapping), _WORKERS) as loader:
        yield "Forebay, epoch 1", _shown(loader, paths, "epoch 1", seed=1)
        yield "Forebay, epoch 2", _shown(loader, paths, "epoch 2", seed=2)


def _shown(loader: Loader, paths: list[str], title: str, seed: int) -> Epoch:
    with progress() as bar:
        task = bar.add_task(title, total=len(paths))
        return loader.epoch(paths, seed, lambda: bar.advance(task))


def _numbers(epoch: Epoch) -> tuple[str, str, str]:
    return (
        f"{epoch.seconds:.2f} s",
        f"{epoch.photos / epoch.seconds:.0f}",
        f"{epoch.reading_s / epoch.photos * 1000:.2f} ms",
    )


def progress() -> Progress:
    return Progress(
        TextColumn("   {task.description:12}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    )


if __name__ == "__main__":
    main()
