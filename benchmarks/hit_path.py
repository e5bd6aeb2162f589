"""Hits beside ``open(path, "rb").read()`` of the same objects as local files.

A real daemon caches ``file://`` objects; the plain files are those objects themselves. Rounds
alternate between both sides in random order, and ratios are medians of the rounds' ratios. Passes
of fresh processes begin after the process has attached, whose time is reported by itself.
Run: python benchmarks/hit_path.py [--folder FOLDER_ON_THE_DISK]
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import random
import shutil
import statistics
import sys
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import common

import forebay
from support.daemon import DaemonProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.synchronize import Barrier

PROCESSES = 4
MANY = 64
LARGE_BYTES = 1 << 30
PAGE = 4096
_SPAWN = multiprocessing.get_context("spawn")


# --- one pass --------------------------------------------------------------------------------


def files_pass(paths: list[str]) -> float:
    started = time.perf_counter()
    for path in paths:
        with open(path, "rb") as file:  # noqa: PTH123  # what people write
            file.read()
    return time.perf_counter() - started


def get_pass(client: forebay.Client, uris: list[str]) -> float:
    get = client.get
    started = time.perf_counter()
    for uri in uris:
        get(uri)
    return time.perf_counter() - started


def get_many_pass(client: forebay.Client, uris: list[str]) -> float:
    started = time.perf_counter()
    for start in range(0, len(uris), MANY):
        client.get_many(uris[start : start + MANY])
    return time.perf_counter() - started


def read_a_byte_per_page(view: memoryview) -> None:
    for at in range(0, len(view), PAGE):
        view[at]


def apply_pass(client: forebay.Client, uris: list[str]) -> float:
    started = time.perf_counter()
    for uri in uris:
        client.apply(uri, read_a_byte_per_page)
    return time.perf_counter() - started


# --- in other processes ----------------------------------------------------------------------


def fresh_pass(
    address: str, uris: list[str] | None, paths: list[str], has_thread: bool
) -> tuple[float, float, int]:
    """Read everything once in random order, beside another thread that counts if *has_thread*.

    Returns seconds, seconds for attaching, and the other thread's loops per second.
    """
    attach_s = 0.0
    if uris is not None:
        started = time.perf_counter()
        client = forebay.Client(address)
        client.get(uris[0])
        attach_s = time.perf_counter() - started
    numbers = list(range(1, len(paths)))
    random.shuffle(numbers)
    stopping = threading.Event()
    loops = 0

    def count() -> None:
        nonlocal loops
        while not stopping.wait(0.0005):
            loops += 1

    counter = threading.Thread(target=count)
    if has_thread:
        counter.start()
    try:
        if uris is None:
            seconds = files_pass([paths[number] for number in numbers])
        else:
            seconds = get_pass(client, [uris[number] for number in numbers])
    finally:
        stopping.set()
        if has_thread:
            counter.join()
    return seconds, attach_s, round(loops / seconds)


def in_fresh_process(
    address: str, uris: list[str] | None, paths: list[str], has_thread: bool
) -> Any:
    with ProcessPoolExecutor(1, mp_context=_SPAWN) as pool:
        return pool.submit(fresh_pass, address, uris, paths, has_thread).result()


def together(
    address: str, uris: list[str], paths: list[str], rounds: int, barrier: Barrier, results: Any
) -> None:
    """One of several processes that read at once, both sides in turn."""
    client = forebay.Client(address)
    for number in range(rounds + 1):
        order = list(range(len(uris)))
        random.shuffle(order)
        barrier.wait()
        files_s = files_pass([paths[number] for number in order])
        barrier.wait()
        get_s = get_pass(client, [uris[number] for number in order])
        if number:
            results.put((number, files_s, get_s))


def compare_together(
    address: str, uris: list[str], paths: list[str], rounds: int
) -> dict[str, Any]:
    barrier = _SPAWN.Barrier(PROCESSES)
    results = _SPAWN.Queue()
    processes = [
        _SPAWN.Process(target=together, args=(address, uris, paths, rounds, barrier, results))
        for _ in range(PROCESSES)
    ]
    for process in processes:
        process.start()
    rows = [results.get() for _ in range(rounds * PROCESSES)]
    for process in processes:
        process.join()
    sums: dict[int, list[float]] = {}
    for number, files_s, get_s in rows:
        row = sums.setdefault(number, [0.0, 0.0])
        row[0] += files_s
        row[1] += get_s
    per = len(uris) * PROCESSES
    return {
        "files_us": round(statistics.median(row[0] for row in sums.values()) / per * 1e6, 3),
        "get_us": round(statistics.median(row[1] for row in sums.values()) / per * 1e6, 3),
        "get_ratio": round(statistics.median(row[1] / row[0] for row in sums.values()), 3),
    }


# --- the parts -------------------------------------------------------------------------------


def compare_warm(client: forebay.Client, uris: list[str], paths: list[str], rounds: int) -> Any:
    def shuffled(values: list[str]) -> list[str]:
        return random.sample(values, len(values))

    works: dict[str, Callable[[], float]] = {
        "files": lambda: files_pass(shuffled(paths)),
        "get": lambda: get_pass(client, shuffled(uris)),
        "get_many": lambda: get_many_pass(client, shuffled(uris)),
        "apply": lambda: apply_pass(client, shuffled(uris)),
    }
    result = common.compare(works, rounds, per=len(uris))
    rows = result["rounds_us"]
    result["get_many_to_get"] = round(common.median_ratio(rows["get_many"], rows["get"]), 3)
    return result


def drop_page_cache(folder: Path) -> None:
    """Drop the pages of all files below *folder*, written ones too."""
    os.sync()
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def compare_fresh(
    address: str,
    uris: list[str],
    paths: list[str],
    rounds: int,
    before: Callable[[], None] | None = None,
) -> dict[str, Any]:
    """Compare passes of fresh processes; with *before* each, also how another thread gets on."""
    rows = []
    has_thread = before is not None
    for _ in range(rounds):
        if before is not None:
            before()
        files_s, _, files_loops = in_fresh_process(address, None, paths, has_thread)
        if before is not None:
            before()
        get_s, attach_s, get_loops = in_fresh_process(address, uris, paths, has_thread)
        rows.append((files_s, get_s, attach_s, files_loops, get_loops))
    per = len(paths) - 1
    files, got, attaching, files_loops_s, get_loops_s = zip(*rows, strict=True)
    result: dict[str, Any] = {
        "files_us": round(statistics.median(files) / per * 1e6, 3),
        "get_us": round(statistics.median(got) / per * 1e6, 3),
        "get_ratio": round(common.median_ratio(list(got), list(files)), 3),
        "attach_ms": round(statistics.median(attaching) * 1e3, 1),
    }
    if has_thread:
        result["other_thread_loops_per_s"] = {
            "files": statistics.median(files_loops_s),
            "get": statistics.median(get_loops_s),
        }
    return result


def compare_large(client: forebay.Client, uri: str, path: str, rounds: int) -> dict[str, Any]:
    def open_files() -> float:
        return files_pass([path])

    def open_client() -> float:
        started = time.perf_counter()
        with client.open(uri) as file:
            file.read()
        return time.perf_counter() - started

    seconds = common.side_by_side({"files": open_files, "open": open_client}, rounds)
    return {
        "files_gb_per_s": round(LARGE_BYTES / statistics.median(seconds["files"]) / 1e9, 2),
        "open_gb_per_s": round(LARGE_BYTES / statistics.median(seconds["open"]) / 1e9, 2),
        "open_speed_ratio": round(common.median_ratio(seconds["files"], seconds["open"]), 3),
    }


@contextlib.contextmanager
def running_daemon(folder: Path, name: str, **settings: object) -> Iterator[DaemonProcess]:
    daemon = DaemonProcess(
        cache_dir=folder / name,
        address=f"unix:{folder}/{name}.sock",
        log_file=folder / f"{name}.log",
        arguments=("--max-bytes", "8GiB"),
        env={f"FOREBAY_{word.upper()}": str(value) for word, value in settings.items()},
    )
    daemon.start()
    try:
        yield daemon
    finally:
        daemon.stop()


def make_files(folder: Path, count: int, size_bytes: int) -> list[str]:
    folder.mkdir(parents=True)
    paths = [folder / f"{number:06d}.jpg" for number in range(count)]
    for path in paths:
        path.write_bytes(os.urandom(size_bytes))
    return [str(path) for path in paths]


def warmed(client: forebay.Client, paths: list[str]) -> list[str]:
    uris = [f"file://{path}" for path in paths]
    assert client.warm(uris).objects_done == len(uris)
    return uris


def measure(folder: Path, objects: int, rounds: int) -> dict[str, Any]:
    result: dict[str, Any] = {"objects": objects, "rounds": rounds}
    paths_100k = make_files(folder / "origin" / "100k", objects, 100_000)
    paths_4k = make_files(folder / "origin" / "4k", objects, 4096)
    large = folder / "origin" / "large.bin"
    with large.open("wb") as file:
        for _ in range(LARGE_BYTES >> 24):
            file.write(os.urandom(1 << 24))
    with running_daemon(folder, "cache") as daemon, forebay.Client(daemon.address) as client:
        # Before this process has hit anything: pages that somebody maps cannot be dropped.
        uris = warmed(client, paths_100k)
        result["page_cache_dropped_100k"] = compare_fresh(
            daemon.address, uris, paths_100k, min(rounds, 5), lambda: drop_page_cache(folder)
        )
        for name, paths in (("100k", paths_100k), ("4k", paths_4k)):
            uris = warmed(client, paths)
            result[f"warm_{name}"] = compare_warm(client, uris, paths, rounds)
            result[f"warm_{name}_{PROCESSES}_processes"] = compare_together(
                daemon.address, uris, paths, rounds
            )
            result[f"fresh_process_{name}"] = compare_fresh(daemon.address, uris, paths, rounds)
        (uri,) = warmed(client, [str(large)])
        result["open_1_gib"] = compare_large(client, uri, str(large), rounds)
    with running_daemon(folder, "aged", max_age_s=1) as daemon:
        for name, paths in (("100k", paths_100k), ("4k", paths_4k)):
            with forebay.Client(daemon.address) as client:
                uris = warmed(client, paths)
                time.sleep(1.5)  # every entry is past max_age now, and in use
                result[f"past_max_age_{name}"] = compare_warm(client, uris, paths, rounds)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--folder", type=Path, help="where to work; about 3 GB on a real disk")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="fb-bench-", dir=arguments.folder))
    try:
        common.report("hit_path", measure(folder, arguments.objects, arguments.rounds))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
