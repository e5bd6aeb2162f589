"""How a daemon on another host is trusted, and how it knows its clients.

``FOREBAY_CA`` names the certificates by which the daemon's is checked (none: those of the system);
``FOREBAY_TOKEN_FILE`` a file with the token that it asks for. With either, an address ``host:port``
is spoken to by TLS.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import grpc

from forebay._errors import AccessDeniedError, DaemonUnavailableError, ForebayError

if TYPE_CHECKING:
    from collections.abc import Callable

CA_VARIABLE, TOKEN_VARIABLE = "FOREBAY_CA", "FOREBAY_TOKEN_FILE"  # their names
_NOT_TRUSTED = "CERTIFICATE_VERIFY_FAILED"
_OTHER_HOST = "Hostname Verification Check failed"
_NO_TLS = ("WRONG_VERSION_NUMBER", "wrong version number")


def credentials() -> grpc.ChannelCredentials | None:
    """Return what the environment asks for, None for a connection without TLS.

    Raises DaemonUnavailableError for files that cannot be read.
    """
    ca, token = os.environ.get(CA_VARIABLE), os.environ.get(TOKEN_VARIABLE)
    if not ca and not token:
        return None
    roots = _read(ca, CA_VARIABLE) if ca else None
    if roots is not None and b"-----BEGIN CERTIFICATE-----" not in roots:
        raise DaemonUnavailableError(f"{CA_VARIABLE}: {ca} holds no certificate (PEM)")
    secure = grpc.ssl_channel_credentials(root_certificates=roots)
    if not token:
        return secure
    _read(token, TOKEN_VARIABLE)  # now, while there is somebody to tell

    def tell(
        _: grpc.AuthMetadataContext, callback: Callable[[object, Exception | None], None]
    ) -> None:
        try:  # again for each call: tokens are replaced
            text = _read(token, TOKEN_VARIABLE).decode().strip()
        except ForebayError as error:
            callback((), error)
        else:
            callback((("authorization", f"Bearer {text}"),), None)

    return grpc.composite_channel_credentials(
        secure,
        grpc.metadata_call_credentials(tell),  # type: ignore[arg-type]  # a function does
    )


def hint(address: str) -> str:
    """Return what else may be wrong where a port hangs up."""
    if address.startswith("unix:") or os.environ.get(CA_VARIABLE):
        return ""
    return f"; if it wants TLS, set {CA_VARIABLE} to the file of its CA"


def refusal(error: grpc.RpcError, address: str) -> ForebayError | None:
    """Return what a failed call means if it is no use to try again, None otherwise."""
    details = str(error.details())
    if error.code() is grpc.StatusCode.UNAUTHENTICATED:
        return AccessDeniedError(
            f"{address}: {details}: set {TOKEN_VARIABLE} to the daemon's token"
        )
    if _NOT_TRUSTED in details:
        reason = details.partition(_NOT_TRUSTED)[2].strip(": ").partition(";")[0]
        return DaemonUnavailableError(
            f"the certificate of {address} is not trusted ({reason}): set {CA_VARIABLE} to the "
            "file of the CA that signed it, and see that it is valid now and names this host"
        )
    if _OTHER_HOST in details:
        return DaemonUnavailableError(
            f"the certificate of {address} does not name this host: connect by a name or address "
            "that it has, or have one issued that names it"
        )
    if any(text in details for text in _NO_TLS):
        return DaemonUnavailableError(
            f"the daemon at {address} does not speak TLS: unset {CA_VARIABLE} and "
            f"{TOKEN_VARIABLE}, or start it with --tls-cert and --tls-key"
        )
    return None


def _read(path: str, variable: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise DaemonUnavailableError(f"{variable}: {path}: {error.strerror}") from error
