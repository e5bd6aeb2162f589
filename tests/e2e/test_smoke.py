"""The shortest way through all parts: a real daemon, a real socket, files as the origin.

Every interpreter runs this; nothing here needs Ceph.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import forebay
from support.serving import serving

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.daemon import DaemonProcess

SMALL = b"pixels" * 1000
LARGE = os.urandom(3 << 20)  # above the packing limit


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The origin: two data sets of files."""
    for name, data in {
        "images/1.jpg": SMALL,
        "images/2.jpg": SMALL[::-1],
        "weights/r50.pth": LARGE,
        "empty": b"",
    }.items():
        file = tmp_path / "origin" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    return tmp_path / "origin"


@pytest.fixture
def daemon() -> Iterator[DaemonProcess]:
    with serving() as running:
        yield running


@pytest.fixture
def client(daemon: DaemonProcess, folder: Path) -> Iterator[forebay.Client]:
    with forebay.Client(daemon.address, {"data": folder.as_uri()}) as connected:
        yield connected


def test_first_read_is_a_miss_and_second_a_hit(client: forebay.Client) -> None:
    assert client.get("data/images/1.jpg") == SMALL
    assert client.get("data/images/1.jpg", start=1, end=3) == b"ix"

    stats = client.stats()
    assert (stats.misses, stats.hits) == (1, 1)


def test_every_way_to_read_gives_the_same_bytes(client: forebay.Client) -> None:
    for path, data in {
        "data/images/1.jpg": SMALL,
        "data/weights/r50.pth": LARGE,
        "data/empty": b"",
    }.items():
        assert client.get(path) == data
        assert client.get_many([path, path]) == [data, data]
        assert client.apply(path, bytes) == data
        with client.open(path) as file:
            assert file.read() == data
        with client.local_path(path) as name:
            assert Path(name).read_bytes() == data


def test_names_are_listed(client: forebay.Client, folder: Path) -> None:
    listed = [e if isinstance(e, str) else e.uri for e in client.list("data")]

    assert sorted(listed) == [
        f"{folder.as_uri()}/empty",
        f"{folder.as_uri()}/images/",
        f"{folder.as_uri()}/weights/",
    ]
    assert client.isdir("data/images")
    assert client.isfile("data/images/1.jpg")
    assert not client.exists("data/images/3.jpg")


def test_missing_object_is_a_file_not_found_error(client: forebay.Client) -> None:
    with pytest.raises(FileNotFoundError, match=r"images/3\.jpg"):
        client.get("data/images/3.jpg")


def test_warm_evict_and_check(client: forebay.Client) -> None:
    assert client.warm("data").objects_done == 4
    assert client.evict("data/images") == (2, 2 * 8192)
    assert client.check().problems == ()
    assert client.stats().objects == 2


def test_hits_go_on_while_the_daemon_is_down(daemon: DaemonProcess, client: forebay.Client) -> None:
    assert client.get("data/images/1.jpg") == SMALL

    daemon.kill9()

    assert client.get("data/images/1.jpg") == SMALL


def test_restarted_daemon_has_what_it_cached(
    daemon: DaemonProcess, client: forebay.Client, folder: Path
) -> None:
    assert client.get("data/weights/r50.pth") == LARGE

    daemon.restart()

    stat = client.stat("data/weights/r50.pth")
    assert (stat.size_bytes, stat.cached_bytes) == (len(LARGE), len(LARGE))


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")  # so are our users'
def test_worker_processes_hit_and_miss(client: forebay.Client, method: str) -> None:
    assert client.get("data/images/1.jpg") == SMALL

    with multiprocessing.get_context(method).Pool(2) as pool:
        # The client is pickled with its method.
        reading = pool.map_async(client.get, ["data/images/1.jpg", "data/images/2.jpg"] * 4, 1)
        assert reading.get(timeout=60) == [SMALL, SMALL[::-1]] * 4


def test_command_line_reads_and_counts(daemon: DaemonProcess, folder: Path) -> None:
    assert _forebay(daemon, "cat", f"{folder.as_uri()}/images/1.jpg") == SMALL

    stats = json.loads(_forebay(daemon, "stats", "--json"))
    assert stats["since_start"]["misses"] == 1


def _forebay(daemon: DaemonProcess, *arguments: str) -> bytes:
    return subprocess.run(  # noqa: S603  # the command under test
        [sys.executable, "-m", "forebay", *arguments],
        env={**os.environ, "FOREBAY_ADDRESS": daemon.address},
        stdout=subprocess.PIPE,
        check=True,
    ).stdout
