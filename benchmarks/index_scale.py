"""A million entries: start of the daemon, warm `get`, and memory, beside a thousand entries.

The cache folders are filled through the daemon's own store, without a network: what is measured is
the index. Run: python benchmarks/index_scale.py
"""

from __future__ import annotations

import argparse
import asyncio
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import common

import forebay
from forebay_protos import layout
from forebay_protos.table import PACKED
from forebayd.config import OriginConfig
from forebayd.store.folder import CacheFolder
from forebayd.store.rows import Entry
from forebayd.store.store import Store

OBJECT_BYTES = 4096
SAMPLE = 1000  # of each cache: as many bytes are read, spread over few or many
ROUNDS = 9
FOREVER = (2**64 - 1, 2**32 - 1)
ORIGIN = OriginConfig(prefix="file://", freshness="immutable")


def uri_of(number: int) -> str:
    return f"file:///data/train/{number % 1000:03d}/{number:09d}.jpg"


def fill(path: Path, entries: int) -> None:
    """Make a cache folder with so many objects."""
    folder = CacheFolder(path)
    store = Store(folder, max_bytes=64 << 30, segment_bytes=256 << 20, meta_bytes=1 << 20)
    store.publish_attachment(
        layout.Attachment(
            folder.cache_id,
            store.table.epoch,
            256 << 20,
            {},
            (layout.OriginRow("file://", ORIGIN.identity),),
        )
    )
    key = layout.fingerprint_key(folder.cache_id, ORIGIN.identity)

    async def publish() -> None:
        for number in range(entries):
            data = number.to_bytes(8, "little") * (OBJECT_BYTES // 8)
            uri = uri_of(number)
            store.space.reserve(OBJECT_BYTES)
            segment, offset = store.append(memoryview(data))
            entry = Entry(
                fingerprint=layout.fingerprint(key, uri),
                uri=uri,
                version="1",
                size_bytes=OBJECT_BYTES,
                modified=0.0,
                generation=store.new_generation(),
                flags=PACKED,
                place=segment << 32 | offset // 4096,
                block_shift=0,
                present=1,
                charge_bytes=OBJECT_BYTES,
                validated_at_ns=time.time_ns(),
            )
            store.publish(entry, OBJECT_BYTES, FOREVER, is_new=True)
            if number % 1000 == 999:
                await store.committed()
        store.flush()

    asyncio.run(publish())
    store.sync()
    folder.mark_clean()
    store.close()
    folder.close()


def start_daemon(path: Path, entries: int) -> tuple[subprocess.Popen[bytes], str, float]:
    """Return the process, its address and the seconds to its first answer."""
    address = f"unix:{path}.sock"
    command = [sys.executable, "-m", "forebay", "serve", "--cache-dir", str(path)]
    command += ["--max-bytes", "64GiB", "--listen", address, "--freshness", "immutable"]
    started = time.perf_counter()
    process = subprocess.Popen([*command, "--log-level", "warning"])  # noqa: S603
    with forebay.Client(address) as client:
        assert client.stats().objects == entries
    return process, address, time.perf_counter() - started


def private_bytes(pid: int) -> int:
    """Return the process's share of its pages (PSS) less those of the mapped table."""
    total, in_table = 0, False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        first = line.split()[0]
        if "-" in first and not first.endswith(":"):
            name = line.split()[-1]
            in_table = "/table." in name or "/recency." in name
        elif first == "Pss:" and not in_table:
            total += int(line.split()[1]) * 1024
    return total


def get_us(client: forebay.Client, paths: list[str]) -> float:
    started = time.perf_counter()
    for path in paths:
        client.get(path)
    return (time.perf_counter() - started) / len(paths) * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--dir", type=Path, default=None)
    arguments = parser.parse_args()
    base = Path(tempfile.mkdtemp(prefix="forebay-bench-", dir=arguments.dir))
    sizes = (1000, arguments.entries)
    running = {}
    result: dict[str, object] = {}
    starts: dict[int, list[float]] = {size: [] for size in sizes}
    try:
        for size in sizes:
            started = time.perf_counter()
            fill(base / str(size), size)
            print(f"{size} entries made in {time.perf_counter() - started:.0f} s", flush=True)
        for _ in range(3):
            for size in sizes:
                process, address, seconds = start_daemon(base / str(size), size)
                starts[size].append(seconds)
                running[size] = (process, address)
                if len(starts[size]) < 3:
                    process.terminate()
                    process.wait()
        for size in sizes:
            result[f"start_s_{size}"] = statistics.median(starts[size])
            result[f"private_bytes_{size}"] = private_bytes(running[size][0].pid)
        clients = {size: forebay.Client(running[size][1]) for size in sizes}
        samples = {
            size: [uri_of(n) for n in random.sample(range(size), min(size, SAMPLE))]
            for size in sizes
        }
        for size in sizes:
            get_us(clients[size], samples[size])
        times: dict[int, list[float]] = {size: [] for size in sizes}
        for _ in range(ROUNDS):
            for size in sizes:
                random.shuffle(samples[size])
                times[size].append(get_us(clients[size], samples[size]))
        for size in sizes:
            result[f"get_us_{size}"] = statistics.median(times[size])
            result[f"private_bytes_after_{size}"] = private_bytes(running[size][0].pid)
        many, few = (statistics.median(times[s]) for s in reversed(sizes))
        result["get_ratio"] = many / few
        common.report("index_scale", result)
    finally:
        for process, _ in running.values():
            process.terminate()
            process.wait()
        shutil.rmtree(base)


if __name__ == "__main__":
    main()
