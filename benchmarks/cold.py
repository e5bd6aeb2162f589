"""Cold reads through the daemon, beside obstore and s3fs straight from the same Ceph.

100 KB objects at 32 in flight (get_many, warm) and one object of 256 MiB in parallel 8 MiB ranges.
Rounds alternate; the page caches of client and daemon do not matter, the origin is a Ceph in
memory on the same two cores. Run: python benchmarks/cold.py
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import shutil
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import common
import obstore
import s3fs
from obstore.store import S3Store

import forebay
from support.ceph import Bucket, Ceph, running_ceph
from support.daemon import DaemonProcess

if TYPE_CHECKING:
    from collections.abc import Callable

SMALL_BYTES = 100_000
IN_FLIGHT = 32
LARGE_BYTES = 256 << 20
RANGE_BYTES = 8 << 20


def obstore_small(ceph: Ceph, bucket: str, keys: list[str]) -> None:
    async def read_all() -> None:
        store = make_store(ceph, bucket)
        slots = asyncio.Semaphore(IN_FLIGHT)

        async def read(key: str) -> obstore.Bytes:
            async with slots:
                reply = await obstore.get_async(store, key)
                return await reply.bytes_async()

        found = await asyncio.gather(*(read(key) for key in keys))
        assert all(len(data) == SMALL_BYTES for data in found)

    asyncio.run(read_all())


def obstore_large(ceph: Ceph, bucket: str, key: str) -> None:
    async def read_all() -> None:
        store = make_store(ceph, bucket)
        starts = range(0, LARGE_BYTES, RANGE_BYTES)
        parts = await asyncio.gather(
            *(obstore.get_range_async(store, key, start=s, length=RANGE_BYTES) for s in starts)
        )
        assert len(b"".join(parts)) == LARGE_BYTES

    asyncio.run(read_all())


def make_store(ceph: Ceph, bucket: str) -> S3Store:
    return S3Store(
        bucket,
        endpoint=ceph.endpoint_url,
        access_key_id=ceph.access_key,
        secret_access_key=ceph.secret_key,
        region=ceph.region,
        client_options={"allow_http": True},
    )


def s3fs_small(ceph: Ceph, bucket: str, keys: list[str]) -> None:
    filesystem = s3fs.S3FileSystem(
        key=ceph.access_key,
        secret=ceph.secret_key,
        client_kwargs={"endpoint_url": ceph.endpoint_url, "region_name": ceph.region},
    )
    found = filesystem.cat([f"{bucket}/{key}" for key in keys], batch_size=IN_FLIGHT)
    assert all(len(data) == SMALL_BYTES for data in found.values())


def get_many_small(client: forebay.Client, uris: list[str]) -> None:
    for start in range(0, len(uris), IN_FLIGHT):
        data = client.get_many(uris[start : start + IN_FLIGHT])
        assert all(len(item) == SMALL_BYTES for item in data)


def get_many_at_once(client: forebay.Client, uris: list[str]) -> None:
    assert all(len(item) == SMALL_BYTES for item in client.get_many(uris))


def timed(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="fb-bench-"))
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        ceph = stack.enter_context(running_ceph())
        bucket = Bucket("bench", ceph.client())
        bucket.client.create_bucket(Bucket=bucket.name)
        keys = [f"small/{number:06d}.jpg" for number in range(arguments.objects)]
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda key: bucket.put(key, os.urandom(SMALL_BYTES)), keys))
        bucket.put("large.bin", os.urandom(LARGE_BYTES))
        daemon = DaemonProcess(
            cache_dir=folder / "cache",
            address=f"unix:{folder}/d.sock",
            log_file=folder / "log",
            arguments=("--max-bytes", "4GiB"),
            env={**ceph.env(), "FOREBAY_MAX_REQUESTS": str(IN_FLIGHT)},
        )
        daemon.start()
        stack.callback(daemon.stop)
        client = stack.enter_context(forebay.Client(daemon.address))
        uris = [bucket.url(key) for key in keys]
        small: dict[str, Callable[[], Any]] = {
            "obstore": lambda: obstore_small(ceph, bucket.name, keys),
            "s3fs": lambda: s3fs_small(ceph, bucket.name, keys),
            "get_many_32": lambda: get_many_small(client, uris),
            "get_many": lambda: get_many_at_once(client, uris),
            "warm": lambda: client.warm(uris),
        }
        large: dict[str, Callable[[], Any]] = {
            "obstore_large": lambda: obstore_large(ceph, bucket.name, "large.bin"),
            "get_large": lambda: client.get(bucket.url("large.bin")),
        }
        times: dict[str, list[float]] = {name: [] for name in (*small, *large)}
        for number in range(arguments.rounds + 1):
            for name, work in (*small.items(), *large.items()):
                client.evict(bucket.url())
                seconds = timed(work)
                if number:  # the first round warms up processes and connections
                    times[name].append(seconds)
        medians = {name: statistics.median(values) for name, values in times.items()}
        result: dict[str, Any] = {
            f"{name}_objects_per_s": arguments.objects / medians[name] for name in small
        }
        result |= {f"{name}_mib_per_s": 256 / medians[name] for name in large}
        for name in ("get_many_32", "get_many", "warm"):
            result[f"{name}_to_obstore"] = medians["obstore"] / medians[name]
            result[f"{name}_to_s3fs"] = medians["s3fs"] / medians[name]
        result["get_large_to_obstore"] = medians["obstore_large"] / medians["get_large"]
        common.report("cold", result)


if __name__ == "__main__":
    main()
