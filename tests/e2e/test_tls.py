"""Clients of other hosts: TLS, a token, and what is refused."""

from __future__ import annotations

import contextlib
import datetime
import os
import socket
from typing import TYPE_CHECKING

import pytest

import forebay
from support.certificates import Authority, issue, make_authority
from support.daemon import DaemonFailedError
from support.ports import free_address
from support.spooled import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import StartDaemon
    from support.ceph import Bucket

_HOUR = datetime.timedelta(hours=1)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return make_authority(tmp_path / "tls")


@pytest.fixture
def token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, authority: Authority) -> Path:
    """The token's file; this process' clients know it, and the CA."""
    path = tmp_path / "token"
    path.write_text("s3cret\n")
    monkeypatch.setenv("FOREBAY_CA", str(authority.file))
    monkeypatch.setenv("FOREBAY_TOKEN_FILE", str(path))
    return path


def start(start_daemon: StartDaemon, authority: Authority, token: Path, **dates: object) -> str:
    """Start a daemon with TLS and a token; returns its address when it listens there."""
    certificate, key = issue(authority, **dates)  # type: ignore[arg-type]
    address = free_address()
    server_token = token.with_name("server-token")
    server_token.write_text(token.read_text())
    start_daemon(
        address=address,
        wait=False,
        tls_cert=str(certificate),
        tls_key=str(key),
        token_file=str(server_token),
    )
    # A client that has only five seconds is not to spend them on the start.
    wait_until(lambda: is_listening(address), "a daemon that listens")
    return address


def is_listening(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with contextlib.suppress(OSError), socket.create_connection((host, int(port))):
        return True
    return False


def test_bytes_go_both_ways(
    start_daemon: StartDaemon, authority: Authority, token: Path, bucket: Bucket
) -> None:
    data = os.urandom(20 << 20)
    bucket.put("small", b"x")
    bucket.put("large", data)
    address = start(start_daemon, authority, token)

    with forebay.Client(address) as client:
        assert client.get(bucket.url("small")) == b"x"
        assert client.get(bucket.url("large")) == data
        with client.open(bucket.url("new"), "wb") as file:
            file.write(data)
        client.flush()
    assert bucket.get("new") == data


@pytest.mark.parametrize(
    ("told", "text"), [("wrong", "the token is wrong"), (None, "there is no token")]
)
def test_without_the_token_nothing_is_told(
    start_daemon: StartDaemon,
    authority: Authority,
    token: Path,
    bucket: Bucket,
    monkeypatch: pytest.MonkeyPatch,
    told: str | None,
    text: str,
) -> None:
    bucket.put("k", b"x")
    address = start(start_daemon, authority, token)
    if told is None:
        monkeypatch.delenv("FOREBAY_TOKEN_FILE")
    else:
        token.write_text(told)

    with forebay.Client(address) as client:
        for call in (
            lambda: client.get(bucket.url("k")),
            lambda: client.put(bucket.url("k"), b"y"),
            lambda: list(client.list(bucket.url())),
            client.stats,
        ):
            with pytest.raises(forebay.AccessDeniedError, match=f"{text}: set FOREBAY_TOKEN_FILE"):
                call()
    assert bucket.get("k") == b"x"


def test_a_new_token_is_taken_by_both_without_a_restart(
    start_daemon: StartDaemon, authority: Authority, token: Path
) -> None:
    address = start(start_daemon, authority, token)
    with forebay.Client(address) as client:
        client.stats()
        token.with_name("server-token").write_text("other")
        with pytest.raises(forebay.AccessDeniedError):
            client.stats()
        token.write_text("other")
        client.stats()


def test_an_unknown_ca_is_refused(
    start_daemon: StartDaemon,
    authority: Authority,
    token: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    address = start(start_daemon, authority, token)
    monkeypatch.setenv("FOREBAY_CA", str(make_authority(tmp_path / "other").file))

    with (
        forebay.Client(address) as client,
        pytest.raises(forebay.DaemonUnavailableError, match=r"is not trusted .*set FOREBAY_CA"),
    ):
        client.stats()


def test_an_expired_certificate_is_refused(
    start_daemon: StartDaemon, authority: Authority, token: Path
) -> None:
    address = start(start_daemon, authority, token, begins=-2 * _HOUR, ends=-_HOUR)

    with (
        forebay.Client(address) as client,
        pytest.raises(forebay.DaemonUnavailableError, match=r"is not trusted .*expired"),
    ):
        client.stats()


def test_certificate_of_another_host_is_told(
    start_daemon: StartDaemon, authority: Authority, token: Path
) -> None:
    address = start(start_daemon, authority, token).replace("127.0.0.1", "localhost")

    with (
        forebay.Client(address) as client,
        pytest.raises(forebay.DaemonUnavailableError, match="does not name this host"),
    ):
        client.stats()


def test_client_that_knows_of_no_tls_is_given_a_hint(
    start_daemon: StartDaemon,
    authority: Authority,
    token: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    address = start(start_daemon, authority, token)
    monkeypatch.delenv("FOREBAY_CA")
    monkeypatch.delenv("FOREBAY_TOKEN_FILE")

    with (
        forebay.Client(address, timeout_s=5) as client,
        pytest.raises(forebay.DaemonUnavailableError, match="wants TLS, set FOREBAY_CA"),
    ):
        client.stats()


def test_file_without_a_certificate_is_told(token: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOREBAY_CA", str(token))

    with (
        forebay.Client("127.0.0.1:1", timeout_s=5) as client,
        pytest.raises(forebay.DaemonUnavailableError, match="holds no certificate"),
    ):
        client.stats()


def test_key_of_another_certificate_is_refused(
    start_daemon: StartDaemon, authority: Authority, tmp_path: Path
) -> None:
    _, key = issue(authority)
    certificate, _ = issue(make_authority(tmp_path / "other"))

    with pytest.raises(DaemonFailedError, match="are no certificate and its key"):
        start_daemon(address=free_address(), tls_cert=str(certificate), tls_key=str(key))


def test_a_daemon_without_tls_is_told(start_daemon: StartDaemon, token: Path) -> None:
    address = free_address()
    start_daemon(address=address, env={"FOREBAY_TOKEN_FILE": ""})

    with (
        forebay.Client(address) as client,
        pytest.raises(forebay.DaemonUnavailableError, match="does not speak TLS: unset FOREBAY_CA"),
    ):
        client.stats()


def test_a_certificate_that_is_replaced_is_used(
    start_daemon: StartDaemon, authority: Authority, token: Path
) -> None:
    address = start(start_daemon, authority, token, begins=-2 * _HOUR, ends=-_HOUR)
    with forebay.Client(address) as client, pytest.raises(forebay.DaemonUnavailableError):
        client.stats()

    issue(authority)

    with forebay.Client(address) as client:
        client.stats()


@pytest.mark.parametrize("variable", ["FOREBAY_CA", "FOREBAY_TOKEN_FILE"])
def test_files_that_are_not_there_are_named(
    token: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "/none/here")

    with (
        forebay.Client("127.0.0.1:1", timeout_s=5) as client,
        pytest.raises(forebay.DaemonUnavailableError, match=f"{variable}: /none/here: No such"),
    ):
        client.stats()


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"tls_cert": "/none"}, "tls_cert and tls_key belong together"),
        ({"token_file": "/none"}, "over TLS only"),
        ({"tls_cert": "/none", "tls_key": "/none"}, "/none: No such file"),
    ],
)
def test_wrong_settings_are_refused(
    start_daemon: StartDaemon, settings: dict[str, str], text: str
) -> None:
    with pytest.raises(DaemonFailedError, match=text):
        start_daemon(address=free_address(), **settings)  # type: ignore[arg-type]


def test_beyond_this_machine_a_token_is_needed(start_daemon: StartDaemon) -> None:
    with pytest.raises(DaemonFailedError, match="needs tls_cert, tls_key and token_file"):
        start_daemon(address="0.0.0.0:12345")  # which is refused
