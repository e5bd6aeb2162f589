"""Writes: checkpoints and small objects, beside the local disk, boto3 and s3fs at the same Ceph.

Puts run while earlier ones are being uploaded, as they do in a training. The test Ceph shares disk
and cores with everything else here, so what goes to it directly is slower than elsewhere.
Needs torch, which `make bench` installs. Run: python benchmarks/writes.py
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import shutil
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import common
import psutil
import s3fs
import torch

import forebay
from support.ceph import Bucket, Ceph, running_ceph
from support.daemon import DaemonProcess

if TYPE_CHECKING:
    from collections.abc import Callable

SMALL_BYTES = 100_000
MIB = 1 << 20
WRITERS = 8
PUTS = 300  # of each writer in a round


def timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


# --- checkpoints ---------------------------------------------------------------------------------


class Checkpoints:
    """The ways to save one state dict."""

    def __init__(self, folder: Path, ceph: Ceph, bucket: Bucket, mib: int) -> None:
        self._folder = folder
        self._ceph = ceph
        self._bucket = bucket
        self._state = {f"layer{n}": torch.rand(MIB // 4) for n in range(mib)}  # 1 MiB each

    def local(self) -> float:
        def save() -> None:
            with (self._folder / "checkpoint.pth").open("wb") as file:
                torch.save(self._state, file)
                file.flush()
                os.fsync(file.fileno())

        return timed(save)

    def forebay(self, client: forebay.Client, key: str) -> float:
        def save() -> None:
            with client.open(self._bucket.url(key), "wb") as file:
                torch.save(self._state, file)

        return timed(save)

    def s3fs(self) -> float:
        filesystem = s3fs.S3FileSystem(
            key=self._ceph.access_key,
            secret=self._ceph.secret_key,
            client_kwargs={
                "endpoint_url": self._ceph.endpoint_url,
                "region_name": self._ceph.region,
            },
        )

        def save() -> None:
            with filesystem.open(f"{self._bucket.name}/s3fs.pth", "wb") as file:
                torch.save(self._state, file)

        return timed(save)

    def boto3(self) -> float:
        """Return how long boto3's parallel upload of the local file takes."""
        path = str(self._folder / "checkpoint.pth")
        return timed(lambda: self._bucket.client.upload_file(path, self._bucket.name, "boto3.pth"))


def checkpoints(
    checkpoint: Checkpoints, client: forebay.Client, bucket: Bucket, rounds: int
) -> dict[str, Any]:
    seconds: dict[str, list[float]] = {}
    for number in range(rounds + 1):
        key = f"checkpoint{number}.pth"
        taken = {
            "local": checkpoint.local(),
            "forebay": checkpoint.forebay(client, key),
            "forebay_upload": timed(client.flush),
            "boto3": checkpoint.boto3(),
            "s3fs": checkpoint.s3fs(),
        }
        client.remove(bucket.url(key))
        client.flush()
        os.sync()
        for name, value in taken.items() if number else ():
            seconds.setdefault(name, []).append(value)
    return {
        **{f"{name}_s": statistics.median(values) for name, values in seconds.items()},
        "save_to_local": common.median_ratio(seconds["forebay"], seconds["local"]),
        "upload_rate_to_boto3": common.median_ratio(seconds["boto3"], seconds["forebay_upload"]),
        "rounds_s": seconds,
    }


# --- small objects -------------------------------------------------------------------------------


def save_locally(folder: Path, count: int) -> None:
    """Save files as carefully as a put does."""
    folder.mkdir(exist_ok=True)
    data = os.urandom(SMALL_BYTES)
    folder_fd = os.open(folder, os.O_RDONLY)
    for number in range(count):
        fd = os.open(folder / "new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.write(fd, data)
        os.fsync(fd)
        os.close(fd)
        os.rename(folder / "new", folder / f"{number}")  # noqa: PTH104  # no slower than it can be
        os.fsync(folder_fd)
    os.close(folder_fd)


def put_all(client: forebay.Client, prefix: str, count: int) -> None:
    data = os.urandom(SMALL_BYTES)
    for number in range(count):
        client.put(f"{prefix}/{number}", data)


def _wait_and(work: Callable[..., None], barrier: Any, arguments: tuple[Any, ...]) -> None:
    work(*arguments, 3)  # what a process does once
    barrier.wait()
    work(*arguments, PUTS)
    barrier.wait()


def together(work: Callable[..., None], arguments: list[tuple[Any, ...]]) -> float:
    """Return how long *work* takes in several processes at once."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(len(arguments) + 1)
    processes = [
        context.Process(target=_wait_and, args=(work, barrier, each)) for each in arguments
    ]
    for process in processes:
        process.start()
    barrier.wait()
    seconds = timed(barrier.wait)
    for process in processes:
        process.join()
    return seconds


def puts(
    folder: Path, daemon: DaemonProcess, client: forebay.Client, bucket: Bucket, rounds: int
) -> dict[str, Any]:
    def one_local(number: int) -> float:
        return timed(lambda: save_locally(folder / f"local-{number}", PUTS))

    def one_put(number: int) -> float:
        return timed(lambda: put_all(client, bucket.url(f"one-{number}"), PUTS))

    def many_local(number: int) -> float:
        each = [(folder / f"local-{number}-{writer}",) for writer in range(WRITERS)]
        return together(save_locally, each)

    def many_put(number: int) -> float:
        each = [
            (forebay.Client(daemon.address), bucket.url(f"many-{number}-{writer}"))
            for writer in range(WRITERS)
        ]
        return together(put_all, each)

    seconds: dict[str, list[float]] = {}
    works = {"one_local": one_local, "one": one_put, "many_local": many_local, "many": many_put}
    for number in range(rounds + 1):
        for name, work in works.items():
            taken = work(number)
            client.flush()  # the next is not to wait for what this one has left
            if number:
                seconds.setdefault(name, []).append(taken)
    return {
        "put_ms": statistics.median(seconds["one"]) / PUTS * 1e3,
        "local_ms": statistics.median(seconds["one_local"]) / PUTS * 1e3,
        "put_rate_to_local": common.median_ratio(seconds["one_local"], seconds["one"]),
        "put_rate_to_local_8_writers": common.median_ratio(seconds["many_local"], seconds["many"]),
        "rounds_s": seconds,
    }


# --- memory --------------------------------------------------------------------------------------


def memory(daemon: DaemonProcess, client: forebay.Client, bucket: Bucket) -> dict[str, Any]:
    """Write and upload four GiB at once; return the most private memory of the daemon."""
    process = psutil.Process(daemon.pid)
    most, is_over = 0, threading.Event()

    def watch() -> None:
        nonlocal most
        while not is_over.wait(0.05):
            most = max(most, process.memory_full_info().uss)

    piece = os.urandom(8 * MIB)

    def write(number: int) -> None:
        with client.open(bucket.url(f"memory{number}"), "wb") as file:
            for _ in range(128):
                file.write(piece)

    watcher = threading.Thread(target=watch)
    watcher.start()
    writers = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    client.flush()
    is_over.set()
    watcher.join()
    return {"private_mib": most / MIB}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=1024, help="of a checkpoint")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=["checkpoints", "puts", "memory"])
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="fb-bench-"))
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        ceph = stack.enter_context(running_ceph())
        bucket = Bucket("bench", ceph.client())
        bucket.client.create_bucket(Bucket=bucket.name)
        daemon = DaemonProcess(
            cache_dir=folder / "cache",
            address=f"unix:{folder}/d.sock",
            log_file=folder / "log",
            arguments=("--max-bytes", "16GiB"),
            env=ceph.env(),
        )
        daemon.start()
        stack.callback(daemon.stop)
        client = stack.enter_context(forebay.Client(daemon.address))
        result: dict[str, Any] = {}
        if arguments.only in (None, "puts"):
            result["puts"] = puts(folder, daemon, client, bucket, arguments.rounds)
        if arguments.only in (None, "checkpoints"):
            checkpoint = Checkpoints(folder, ceph, bucket, arguments.mib)
            result["checkpoints"] = checkpoints(checkpoint, client, bucket, arguments.rounds)
        if arguments.only in (None, "memory"):
            result["memory"] = memory(daemon, client, bucket)
        common.report("writes", result)


if __name__ == "__main__":
    main()
