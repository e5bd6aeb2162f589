"""Checkpoints of PyTorch: torch.save, and torch.distributed.checkpoint from one and two ranks."""

from __future__ import annotations

import io
import multiprocessing
import threading
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch.distributed import checkpoint
from torch.distributed.checkpoint._fsspec_filesystem import FsspecReader, FsspecWriter

import forebay
import forebay.torch
from forebay.torch import StorageReader, StorageWriter
from support.checkpoints import (
    COLUMNS,
    ROWS,
    CallsWhenSaved,
    Unsaveable,
    UnsaveableError,
    save_and_load_as_rank,
    whole,
)
from support.proxy import FaultProxy
from support.serving import serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from conftest import StartDaemon
    from support.ceph import Bucket, Ceph

pytestmark = pytest.mark.filterwarnings(
    "ignore:torch.distributed is disabled, unavailable or uninitialized",
    "ignore:Detected an existing checkpoint",
)


@pytest.fixture(scope="module")
def origin(ceph: Ceph) -> Iterator[FaultProxy]:
    """Ceph, seen through a proxy that counts."""
    with FaultProxy(ceph.endpoint_url) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def address(ceph: Ceph, origin: FaultProxy) -> Iterator[str]:
    with serving(endpoint_url=origin.url, env=ceph.env(), request_lingers_s=0.05) as running:
        yield running.address


@pytest.fixture
def client(
    address: str, bucket: Bucket, origin: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> Iterator[forebay.Client]:
    """A client of a daemon that all clients find."""
    monkeypatch.setenv("FOREBAY_ADDRESS", address)
    origin.forget()
    with forebay.Client() as connected:
        yield connected
        connected.settle_uploads(discard=True)
        connected.flush(timeout_s=60)  # before the bucket is removed


@pytest.fixture
def url(client: forebay.Client, bucket: Bucket) -> str:
    return bucket.url("run/step_1")


def _state(step: int = 1, **more: Any) -> dict[str, Any]:
    return {"weight": torch.full((1000, 100), step), "bias": torch.arange(7), "step": step, **more}


def _loaded(reader: Any) -> dict[str, Any]:
    state = _state(0)
    checkpoint.load(state, storage_reader=reader)
    return state


def _is_state(state: dict[str, Any], step: int) -> bool:
    wanted = _state(step)
    return state["step"] == step and all(
        torch.equal(state[name], wanted[name]) for name in ("weight", "bias")
    )


# --- torch.save -------------------------------------------------------------------------------


def test_saved_value_is_loaded_also_by_others(url: str, bucket: Bucket) -> None:
    forebay.torch.save(_state(3), url)

    assert _is_state(forebay.torch.load(url), 3)
    assert _is_state(forebay.torch.load(url, map_location="cpu", weights_only=True), 3)
    forebay.Client().flush(url)
    assert _is_state(torch.load(io.BytesIO(bucket.get("run/step_1"))), 3)
    with pytest.raises(ValueError, match="mmap"):
        forebay.torch.load(url, mmap=True)
    with pytest.raises(FileNotFoundError):
        forebay.torch.load(f"{url}-absent")


def test_value_that_cannot_be_saved_replaces_nothing(url: str) -> None:
    forebay.torch.save(_state(1), url)

    with pytest.raises(UnsaveableError):
        forebay.torch.save(_state(2, bad=Unsaveable()), url)

    assert _is_state(forebay.torch.load(url), 1)


def test_daemon_that_goes_while_a_value_is_saved_is_what_the_error_tells(tmp_path: Path) -> None:
    """``torch.save`` raises another one, as it ends its archive."""
    with serving() as daemon, forebay.Client(daemon.address, timeout_s=3) as client:
        value = {"last words": CallsWhenSaved(daemon.kill9), "weight": torch.zeros(4 << 20)}

        with pytest.raises(forebay.DaemonUnavailableError, match="forebay serve"):
            forebay.torch.save(value, f"file://{tmp_path}/checkpoint", client)


def write_and_fail_later(client: forebay.Client, path: str, kill: Callable[[], object]) -> None:
    with client.open(path, "wb") as file:
        kill()
        with pytest.raises(forebay.DaemonUnavailableError):
            file.write(bytes(32 << 20))
        raise RuntimeError("mine")


def test_later_error_of_a_users_own_is_what_is_raised(tmp_path: Path) -> None:
    with serving() as daemon, forebay.Client(daemon.address, timeout_s=3) as client:
        url = f"file://{tmp_path}/a"

        with pytest.raises(RuntimeError, match="mine"):
            write_and_fail_later(client, url, daemon.kill9)


def test_checkpoint_that_is_larger_than_the_cache_is_loaded(
    start_daemon: StartDaemon, bucket: Bucket
) -> None:
    value = torch.arange(12 << 20)  # 96 MiB
    file = io.BytesIO()
    torch.save(value, file)
    bucket.put("large", file.getvalue())

    with forebay.Client(start_daemon(max_bytes="70MB").address) as client:
        assert torch.equal(forebay.torch.load(bucket.url("large"), client), value)


# --- one rank ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"single_file_per_rank": False, "thread_count": 3},
        {"wait_for_upload": False, "thread_count": 2},
    ],
)
def test_checkpoint_is_saved_and_loaded(url: str, bucket: Bucket, options: dict[str, Any]) -> None:
    checkpoint.save(_state(5), storage_writer=StorageWriter(url, **options))

    assert _is_state(_loaded(StorageReader(url)), 5)
    forebay.Client().flush()
    keys = bucket.keys("run/")
    assert "run/step_1/.metadata" in keys
    assert all(key.startswith("run/step_1/") and not key.endswith(".tmp") for key in keys)


def test_writer_goes_on_with_another_checkpoint(url: str, client: forebay.Client) -> None:
    writer, reader = StorageWriter(url), StorageReader(url)
    checkpoint.save(_state(1), storage_writer=writer)
    checkpoint.save(_state(2), storage_writer=writer, checkpoint_id=f"{url}-next")

    assert _is_state(_loaded(reader), 1)
    state = _state(0)
    checkpoint.load(state, storage_reader=reader, checkpoint_id=f"{url}-next")
    assert _is_state(state, 2)


def test_checkpoint_is_saved_behind_the_training(url: str) -> None:
    state = _state(4)
    future = checkpoint.async_save(state, storage_writer=StorageWriter(url))
    state["weight"].zero_()  # which the training does meanwhile

    future.result(timeout=60)

    assert _is_state(_loaded(StorageReader(url)), 4)


def test_checkpoint_goes_by_fsspec(url: str, address: str) -> None:
    forebay_url = url.replace("s3://", "forebay://")
    for step in (1, 2):  # the second one over the first
        writer = FsspecWriter(forebay_url, sync_files=False, address=address)
        checkpoint.save(_state(step), storage_writer=writer)
        reader = FsspecReader(forebay_url, address=address)
        assert _is_state(_loaded(reader), step)
    assert _is_state(_loaded(StorageReader(url)), 2)


@pytest.mark.parametrize(
    "make",
    [
        StorageWriter,
        lambda url: StorageWriter(url, thread_count=2),
        lambda url: FsspecWriter(url.replace("s3://", "forebay://"), sync_files=False),
    ],
    ids=["one thread", "two threads", "fsspec"],
)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # of torch's
def test_exception_while_writing_publishes_no_metadata(
    url: str, client: forebay.Client, make: Callable[[str], Any]
) -> None:
    state = {f"bad{number}": Unsaveable() for number in range(2)}

    with pytest.raises(checkpoint.CheckpointException):
        checkpoint.save(_state(2, **state), storage_writer=make(url))

    assert not [entry for entry in client.list(url, recursive=True) if "metadata" in str(entry)]
    with pytest.raises(checkpoint.CheckpointException, match="metadata"):
        _loaded(StorageReader(url))


class SaveableInMainThread:
    """Fails in another thread, and is saved by the main one after that."""

    has_failed = threading.Event()

    def __reduce__(self) -> Any:
        if threading.current_thread() is threading.main_thread():
            assert self.has_failed.wait(60)
            return SaveableInMainThread, ()
        self.has_failed.set()
        raise UnsaveableError


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # of torch's
def test_exception_in_a_thread_of_torch_publishes_no_metadata(
    url: str, client: forebay.Client
) -> None:
    state = {f"object{number}": SaveableInMainThread() for number in range(2)}

    with pytest.raises(checkpoint.CheckpointException, match="a thread has failed"):
        checkpoint.save(state, storage_writer=StorageWriter(url, thread_count=2))

    assert SaveableInMainThread.has_failed.is_set()
    assert not client.exists(f"{url}/.metadata")


def test_checkpoint_that_fails_leaves_the_last_one_whole(url: str) -> None:
    checkpoint.save(_state(1), storage_writer=StorageWriter(url))

    with pytest.raises(checkpoint.CheckpointException):
        checkpoint.save(_state(2, bad=Unsaveable()), storage_writer=StorageWriter(url))

    assert _is_state(_loaded(StorageReader(url)), 1)


def test_metadata_comes_when_the_data_is_in_the_origin(
    url: str, client: forebay.Client, bucket: Bucket, origin: FaultProxy
) -> None:
    writer = StorageWriter(url)
    with origin.gate("__0_0.distcp", method="PUT") as gate:
        saving = threading.Thread(
            target=checkpoint.save, args=(_state(1),), kwargs={"storage_writer": writer}
        )
        saving.start()
        gate.wait_for(1)
        assert not client.exists(f"{url}/.metadata")
    saving.join(60)

    assert not saving.is_alive()
    assert bucket.find("run/step_1/.metadata") is not None


def test_checkpoint_that_does_not_wait_is_loaded_before_it_is_uploaded(
    url: str, bucket: Bucket, origin: FaultProxy
) -> None:
    with origin.gate("__0_0.distcp", method="PUT") as gate:
        checkpoint.save(_state(1), storage_writer=StorageWriter(url, wait_for_upload=False))
        gate.wait_for(1)
        assert _is_state(_loaded(StorageReader(url)), 1)
        assert bucket.find("run/step_1/__0_0.distcp") is None


def test_data_that_the_origin_refuses_keeps_the_metadata_away(
    url: str, client: forebay.Client, origin: FaultProxy
) -> None:
    refusal = origin.fail("__0_0.distcp", status=403, code="AccessDenied", method="PUT", times=None)
    with pytest.raises(checkpoint.CheckpointException, match=r"AccessDenied|refused|403"):
        checkpoint.save(_state(1), storage_writer=StorageWriter(url))
    refusal.remove()

    assert not client.exists(f"{url}/.metadata")


def test_overwriting_never_leaves_a_moment_without_metadata(
    url: str, client: forebay.Client, origin: FaultProxy
) -> None:
    checkpoint.save(_state(1), storage_writer=StorageWriter(url))
    before = client.get(f"{url}/.metadata")
    origin.forget()
    is_over, has_looked = threading.Event(), threading.Event()
    missing: list[str] = []

    def watch() -> None:
        with forebay.Client() as other:
            while not is_over.is_set() and not missing:
                if not other.exists(f"{url}/.metadata"):
                    missing.append(f"{url}/.metadata")
                has_looked.set()

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        for step in range(2, 6):
            assert has_looked.wait(60), "it has not begun, or not gone on"
            has_looked.clear()
            checkpoint.save(_state(step), storage_writer=StorageWriter(url))
    finally:
        is_over.set()
        watcher.join(60)

    assert missing == []
    assert client.get(f"{url}/.metadata") != before
    methods = {each.method for each in origin.requests if each.path.endswith(".metadata")}
    assert "PUT" in methods
    assert "DELETE" not in methods
    assert _is_state(_loaded(StorageReader(url)), 5)


def test_path_object_and_existing_checkpoint_are_refused(url: str, tmp_path: Path) -> None:
    assert not StorageWriter.validate_checkpoint_id(tmp_path)
    assert StorageReader.validate_checkpoint_id(url)
    checkpoint.save(_state(1), storage_writer=StorageWriter(url))

    with pytest.raises(checkpoint.CheckpointException, match="already exists"):
        checkpoint.save(_state(2), storage_writer=StorageWriter(url, overwrite=False))

    assert _is_state(_loaded(StorageReader(url)), 1)


# --- two ranks --------------------------------------------------------------------------------


def test_two_ranks_save_and_load_a_sharded_state(
    url: str, client: forebay.Client, bucket: Bucket, tmp_path: Path
) -> None:
    context: Any = multiprocessing.get_context("spawn")
    results = context.Queue()
    ranks = [
        context.Process(
            target=save_and_load_as_rank, args=(rank, 2, str(tmp_path / "store"), url, results)
        )
        for rank in range(2)
    ]
    for rank in ranks:
        rank.start()
    try:
        told = sorted(results.get(timeout=150) for _ in ranks)
    finally:
        for rank in ranks:
            rank.join(30)
            rank.kill()
            rank.join()

    assert told == [(0, True, 7, "[1]"), (1, True, 7, "[1]")]
    assert {"__0_0.distcp", "__1_0.distcp", ".metadata"} == {
        key.removeprefix("run/step_1/") for key in bucket.keys("run/step_1/")
    }
    assert not client.exists(f"{url}-failed/.metadata")
    state = {"weight": torch.zeros(ROWS, COLUMNS, dtype=torch.int64)}  # one rank reads them all
    checkpoint.load(state, storage_reader=StorageReader(url))
    assert torch.equal(state["weight"], whole())
