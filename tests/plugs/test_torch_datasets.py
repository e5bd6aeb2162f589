"""Data sets for PyTorch, in DataLoaders as trainings use them."""

from __future__ import annotations

import multiprocessing
import pickle
import threading
from typing import TYPE_CHECKING, Any

import pytest

import forebay
from forebay.torch import IterableObjectDataset, ObjectDataset, Sample, list_objects
from support.object_loaders import (
    WrongBytesError,
    content,
    flat,
    loader,
    name_and_process,
    number_of,
    read_as_rank,
)
from support.proxy import FaultProxy
from support.serving import serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.ceph import Bucket, Ceph

_OBJECTS = 23
_METHODS = ("fork", "spawn", "forkserver")
_NUMBERS = list(range(_OBJECTS))

pytestmark = pytest.mark.filterwarnings(
    # Python 3.12 and later: that this goes well is what is tested here.
    "ignore:This process .* is multi-threaded, use of fork:DeprecationWarning",
    "ignore:This DataLoader will create",  # more workers than there are cores
)


@pytest.fixture(scope="module")
def origin(ceph: Ceph) -> Iterator[FaultProxy]:
    """Ceph, seen through a proxy that counts."""
    with FaultProxy(ceph.endpoint_url) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def address(ceph: Ceph, origin: FaultProxy) -> Iterator[str]:
    with serving(endpoint_url=origin.url, env=ceph.env()) as running:
        yield running.address


@pytest.fixture
def prefix(
    address: str, bucket: Bucket, origin: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> str:
    """Where objects are whose names are numbers; a daemon that all clients find has none yet."""
    monkeypatch.setenv("FOREBAY_ADDRESS", address)
    for number in _NUMBERS:
        bucket.put(f"data/{number}", content(number))
    bucket.put("data/", b"")
    origin.forget()
    return bucket.url("data/")


@pytest.fixture
def paths(prefix: str) -> list[str]:
    return [f"{prefix}{number}" for number in _NUMBERS]


# --- by index ---------------------------------------------------------------------------------


@pytest.mark.parametrize("method", _METHODS)
def test_indexed_objects_are_each_read_once_in_persistent_workers(
    paths: list[str], origin: FaultProxy, method: str
) -> None:
    data_set = ObjectDataset(paths, number_of)
    assert data_set[0] == 0  # the parent has used its client
    batches = loader(data_set, method, shuffle=True, persistent_workers=True)

    for _ in range(2):
        assert sorted(flat(batches)) == _NUMBERS

    assert {origin.gets(f"data/{number}") for number in _NUMBERS} == {1}


def test_batch_is_read_at_once(paths: list[str], origin: FaultProxy) -> None:
    data_set = ObjectDataset(paths, number_of)
    with origin.gate(lambda request: request.method == "GET" and "/data/" in request.path) as gate:
        batches = iter(loader(data_set, "fork", 1, prefetch_factor=1))
        gate.wait_for(4)
    assert next(batches) == [0, 1, 2, 3]
    assert data_set.__getitems__([5, 1, 5]) == [5, 1, 5]


def test_object_that_is_missing_is_an_error_in_the_parent(paths: list[str]) -> None:
    data_set = ObjectDataset([*paths[:4], "s3://no-such-bucket/absent"], number_of)

    with pytest.raises(FileNotFoundError, match="absent"):
        flat(loader(data_set, "fork", 1))


def test_prefix_is_listed_in_order_without_markers_of_folders(
    prefix: str, paths: list[str]
) -> None:
    assert list_objects(prefix) == sorted(paths)
    assert list_objects(prefix, "7") == [f"{prefix}17", f"{prefix}7"]
    assert list_objects(prefix, ("1", "22")) == [
        f"{prefix}{end}" for end in ("1", "11", "21", "22")
    ]
    assert ObjectDataset.from_prefix(prefix, suffix="9")[0] == Sample(f"{prefix}19", content(19))
    assert len(IterableObjectDataset.from_prefix(prefix, read_ahead=5).paths) == _OBJECTS


@pytest.mark.parametrize("kind", [ObjectDataset, IterableObjectDataset])
def test_empty_prefix_is_an_error(prefix: str, kind: Any) -> None:
    with pytest.raises(FileNotFoundError, match="no objects"):
        kind.from_prefix(f"{prefix}absent/")
    with pytest.raises(FileNotFoundError, match=r"no objects that end with '\.jpg'"):
        kind.from_prefix(prefix, suffix=".jpg")


def test_pickled_data_set_reads_with_the_same_client(
    paths: list[str], address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FOREBAY_ADDRESS", "unix:/nowhere.sock")
    with forebay.Client(address) as client:
        for kind in (ObjectDataset, IterableObjectDataset):
            again = pickle.loads(pickle.dumps(kind(paths, number_of, client=client)))  # noqa: S301
            assert list(again) == _NUMBERS


# --- one after the other ----------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("read_ahead", [1, 4, 100])
def test_workers_share_the_objects(paths: list[str], workers: int, read_ahead: int) -> None:
    data_set = IterableObjectDataset(paths, name_and_process, read_ahead=read_ahead)

    pairs = flat(loader(data_set, "fork", workers))

    assert sorted(number for number, _ in pairs) == _NUMBERS
    assert len({process for _, process in pairs}) == max(1, workers)
    if workers < 2:
        assert [number for number, _ in pairs] == _NUMBERS


@pytest.mark.parametrize("method", _METHODS)
def test_epochs_are_shuffled_differently_also_in_persistent_workers(
    paths: list[str], method: str
) -> None:
    data_set = IterableObjectDataset(paths, number_of, shuffle=True, seed=1, read_ahead=3)
    batches = loader(data_set, method, persistent_workers=True)
    orders = []
    for epoch in (0, 1, 0):
        data_set.set_epoch(epoch)
        orders.append(flat(batches))

    assert [sorted(order) for order in orders] == [_NUMBERS] * 3
    assert orders[0] == orders[2] != orders[1]
    assert orders[0] != _NUMBERS


@pytest.mark.parametrize(("drop_uneven", "shares"), [(False, [6, 6, 6, 5]), (True, [5, 5, 5, 5])])
def test_ranks_of_torchrun_share_the_objects(
    paths: list[str], monkeypatch: pytest.MonkeyPatch, drop_uneven: bool, shares: list[int]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    data_set = IterableObjectDataset(paths, number_of, shuffle=True, drop_uneven=drop_uneven)
    read = []
    for rank in range(4):
        monkeypatch.setenv("RANK", str(rank))
        read.append(flat(loader(data_set, "fork", 2)))

    assert [len(share) for share in read] == shares
    together = [number for share in read for number in share]
    assert len(set(together)) == len(together) == sum(shares)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_ranks_of_a_process_group_share_the_objects(
    paths: list[str], tmp_path: Path, method: str
) -> None:
    context: Any = multiprocessing.get_context("spawn")
    results = context.Queue()
    ranks = [
        context.Process(
            target=read_as_rank, args=(rank, 2, str(tmp_path / "store"), paths, method, results)
        )
        for rank in range(2)
    ]
    for rank in ranks:
        rank.start()
    try:
        told = [results.get(timeout=150) for _ in range(4)]
    finally:
        for rank in ranks:
            rank.join(30)
            rank.kill()
            rank.join()

    for epoch in range(2):
        shares = {rank: numbers for at, rank, numbers in told if at == epoch}
        assert sorted(shares[0] + shares[1]) == _NUMBERS
    first, second = ([numbers for _, rank, numbers in sorted(told) if rank == at] for at in (0, 1))
    assert first[0] != first[1]
    assert {len(first[0]), len(second[0])} == {11, 12}


def test_read_ahead_is_under_way_while_objects_are_used(
    paths: list[str], origin: FaultProxy
) -> None:
    numbers = iter(IterableObjectDataset(paths, number_of, read_ahead=4))
    with origin.gate(lambda request: request.path.endswith(("/4", "/5", "/6", "/7"))) as gate:
        assert next(numbers) == 0
        gate.wait_for(4)
        assert [next(numbers) for _ in range(3)] == [1, 2, 3]
    assert list(numbers) == _NUMBERS[4:]


def test_loop_that_is_left_and_errors_leave_no_threads(paths: list[str], bucket: Bucket) -> None:
    def running() -> list[str]:
        return [each.name for each in threading.enumerate() if "forebay-read" in each.name]

    numbers: Any = iter(IterableObjectDataset(paths, number_of, read_ahead=2))
    assert next(numbers) == 0
    assert running()
    numbers.close()
    assert not running()
    bucket.put("data/4", b"wrong")
    with pytest.raises(WrongBytesError):
        list(IterableObjectDataset(paths, number_of, read_ahead=2))
    with pytest.raises(FileNotFoundError):
        list(IterableObjectDataset([*paths[:4], f"{paths[0]}x"], number_of, read_ahead=2))
    assert not running()
