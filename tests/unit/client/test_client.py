"""What a Client is before it meets a daemon: arguments, pickling, sharing, the public names."""

from __future__ import annotations

import pickle
import time
from typing import TYPE_CHECKING

import grpc
import pytest

import forebay
from forebay._channel import _Attempt

if TYPE_CHECKING:
    from pathlib import Path


def test_the_public_names_are_sorted_and_exist() -> None:
    assert forebay.__all__ == sorted(forebay.__all__)
    assert all(hasattr(forebay, name) for name in forebay.__all__)


def test_a_client_can_be_pickled_unused(short_dir: Path) -> None:
    client = forebay.Client(f"unix:{short_dir}/a.sock", {"data": "s3://bucket"}, 7.0)
    copy = pickle.loads(pickle.dumps(client))  # noqa: S301  # our own
    assert repr(copy) == repr(client)
    assert copy._made_of == client._made_of


class Named(forebay.Client):
    """A client of a user's own."""

    def __init__(self, name: str, address: str) -> None:
        super().__init__(address)
        self.name = name


def test_a_client_of_a_users_own_is_pickled_with_what_it_has(short_dir: Path) -> None:
    copy = pickle.loads(pickle.dumps(Named("mine", f"unix:{short_dir}/a.sock")))  # noqa: S301

    assert (type(copy), copy.name) == (Named, "mine")


def test_clients_of_one_address_share_what_they_have(short_dir: Path) -> None:
    address = f"unix:{short_dir}/a.sock"
    one, other = forebay.Client(address), forebay.Client(address)
    mapped = forebay.Client(address, {"data": "s3://bucket"})
    assert one._hits is other._hits
    assert one._hits is not mapped._hits
    assert one._node is mapped._node


@pytest.mark.parametrize(
    "address", ["unix:relative", "host", "host:port", "unix:/" + "x" * 120, "http://host:1/"]
)
def test_a_malformed_address_is_refused(address: str) -> None:
    with pytest.raises(forebay.InvalidPathError):
        forebay.Client(address)


def test_the_environment_says_where_the_daemon_is(
    short_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FOREBAY_ADDRESS", f"unix:{short_dir}/environment.sock")
    assert "environment.sock" in repr(forebay.Client())
    assert "argument.sock" in repr(forebay.Client(f"unix:{short_dir}/argument.sock"))


def test_a_bad_path_needs_no_daemon_to_be_refused(short_dir: Path) -> None:
    client = forebay.Client(f"unix:{short_dir}/none.sock")
    with pytest.raises(forebay.InvalidPathError, match="empty"):
        client.get("")
    with pytest.raises(TypeError):
        client.get(b"s3://bucket/a")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"'rwb'"):
        client.open("s3://bucket/a", "rwb")


def test_a_daemon_that_is_down_is_waited_for_and_named(short_dir: Path) -> None:
    client = forebay.Client(f"unix:{short_dir}/none.sock", timeout_s=1)
    with pytest.raises(forebay.DaemonUnavailableError, match=r"none\.sock.*forebay serve"):
        client.get("s3://bucket/a")


class CallError(grpc.RpcError):
    """What gRPC raises of a call."""

    def __init__(self, code: grpc.StatusCode) -> None:
        self._code = code

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return self._code.name

    def trailing_metadata(self) -> tuple[()]:
        return ()


def test_a_last_try_without_time_says_what_the_one_before_it_found() -> None:
    down = _Attempt("unix:/a.sock", 60.0, wait=True, has_deadline=True)
    busy = _Attempt("unix:/a.sock", 60.0, wait=True, has_deadline=True)
    with down:
        raise CallError(grpc.StatusCode.UNAVAILABLE)
    for attempt in (down, busy):
        attempt._deadline = time.monotonic()  # it has slept for too long
        assert attempt.left_s == 0.001

    with pytest.raises(forebay.DaemonUnavailableError, match="forebay serve"), down:
        raise CallError(grpc.StatusCode.DEADLINE_EXCEEDED)
    with pytest.raises(forebay.DeadlineExceededError), busy:
        raise CallError(grpc.StatusCode.DEADLINE_EXCEEDED)
