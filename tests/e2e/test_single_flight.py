"""However many read a cold object at once, the origin is asked once for each block."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from support.readers import Sealed, read_at_once
from support.remote import RemoteClient
from support.rounds import rounds
from support.sealed import shelf_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import forebay
    from conftest import StartDaemon
    from support.ceph import Bucket
    from support.daemon import DaemonProcess
    from support.proxy import FaultProxy, Request

MIB = 1 << 20
BLOCK = 8 * MIB
FIRST_BLOCK = f"bytes=0-{BLOCK - 1}"
PROCESSES, THREADS = 8, 10
READERS = PROCESSES * THREADS
WAYS = ("get", "get", "get", "get", "apply", "apply", "get_many", "get_many", "open", "open")
SIZES = pytest.mark.parametrize("size", [100_000, 20 * MIB], ids=["packed", "blob"])


@pytest.fixture
def daemon(start_daemon: StartDaemon, proxy: FaultProxy) -> DaemonProcess:
    return start_daemon(endpoint_url=proxy.url)


@pytest.fixture
def crowd(daemon: DaemonProcess) -> Iterator[list[RemoteClient]]:
    """Eight processes."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(RemoteClient(daemon.address)) for _ in range(PROCESSES)]


def expected_gets(size: int) -> dict[str, int]:
    """Return one GET for each block, by its Range header."""
    first_bytes = [(start, start + BLOCK) for start in range(0, size, BLOCK)]
    return {
        # The first asks for a whole block before anything is known of the object.
        f"bytes={start}-{(end if start == 0 else min(end, size)) - 1}": 1
        for start, end in first_bytes
    }


def asks_for(range_: str) -> Callable[[Request], bool]:
    return lambda request: (request.range or FIRST_BLOCK) == range_


def gets(proxy: FaultProxy, key: str) -> dict[str, int]:
    """Return the number of GETs by Range header; a GET of the whole is one of the first block."""
    found: Counter[str] = Counter()
    for (method, path, range_), count in proxy.by_range().items():
        if method == "GET" and path.endswith("/" + key):
            found[range_ or FIRST_BLOCK] += count
    return found


@SIZES
@rounds("count", 5, 100)
def test_eighty_readers_of_a_cold_object_cost_one_get_per_block(
    crowd: list[RemoteClient],
    client: forebay.Client,
    bucket: Bucket,
    proxy: FaultProxy,
    size: int,
    count: int,
) -> None:
    shelf = shelf_in(bucket)
    for version in range(1, count + 1):
        sealed = Sealed("cold", shelf.put("cold", version, size + version), size)
        client.evict(sealed.url)
        proxy.forget()

        for process in crowd:
            process.start(read_at_once, sealed, WAYS, version)

        assert [process.result() for process in crowd] == [[]] * PROCESSES
        assert gets(proxy, "cold") == expected_gets(size + version)
    assert client.check().problems == ()


@SIZES
def test_readers_wait_for_the_fill_under_way(
    crowd: list[RemoteClient],
    client: forebay.Client,
    bucket: Bucket,
    proxy: FaultProxy,
    size: int,
) -> None:
    sealed = Sealed("cold", shelf_in(bucket).put("cold", 1, size), size)
    with contextlib.ExitStack() as gates:
        # Each block's GET is held until all readers are known to want it.
        held = [gates.enter_context(proxy.gate(asks_for(range_))) for range_ in expected_gets(size)]
        for process in crowd:
            process.start(read_at_once, sealed, ("get",) * THREADS, 1)
        held[0].wait_for(1)
        wait_until_joined(client, READERS - 1)
        held[0].release()
        for gate in held[1:]:
            gate.wait_for(1)
        wait_until_joined(client, len(held) * (READERS - 1))

    assert [process.result() for process in crowd] == [[]] * PROCESSES
    assert gets(proxy, "cold") == expected_gets(size)


def test_readers_of_ranges_share_the_blocks_that_they_have_in_common(
    client: forebay.Client, bucket: Bucket, proxy: FaultProxy
) -> None:
    data = bytes(range(256)) * (20 * MIB // 256)
    bucket.put("cold", data)

    for start in range(0, 20 * MIB, MIB):
        assert client.get(bucket.url("cold"), start, start + MIB) == data[start : start + MIB]

    assert gets(proxy, "cold") == expected_gets(20 * MIB)


def wait_until_joined(client: forebay.Client, count: int) -> None:
    """Wait until *count* readers wait for a fill that another began."""
    deadline = time.monotonic() + 60
    for _ in itertools.count():
        joined = client.stats().raw["deduplicated_fills"]
        if joined >= count:
            assert joined == count
            return
        assert time.monotonic() < deadline, f"{joined} of {count} readers wait"
        time.sleep(0.01)
