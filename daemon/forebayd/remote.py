"""What stands before clients of other hosts: a certificate, and a token that they must know."""

from __future__ import annotations

import hmac
import logging
import ssl
from typing import TYPE_CHECKING, Any

import grpc

from forebayd.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

log = logging.getLogger(__name__)

_SCHEME = "Bearer "
_Stamp = tuple[int, ...]


class _Watched:
    """Files that are read again when they change: tokens and certificates are replaced."""

    def __init__(self, *paths: Path) -> None:
        self._paths = paths
        self._stamp: _Stamp = ()
        self.contents: list[bytes] = []

    def refresh(self) -> bool:
        """Read the files if they have changed; tells whether they had. Raises OSError."""
        stamp = tuple(path.stat().st_mtime_ns for path in self._paths)
        if stamp == self._stamp:
            return False
        self.contents = [path.read_bytes() for path in self._paths]
        self._stamp = stamp
        return True


class TokenCheck(grpc.aio.ServerInterceptor):
    """Lets only calls through that bring the token of a file."""

    def __init__(self, path: Path) -> None:
        """Raises ConfigError if there is no token."""
        self._file = _Watched(path)
        try:
            self._file.refresh()
        except OSError as error:
            raise ConfigError(f"token_file: {path}: {error.strerror}") from error
        if not self._token():
            raise ConfigError(f"token_file: {path} is empty: write a token into it")

    def _token(self) -> bytes:
        return self._file.contents[0].strip()

    def _is_known(self, told: str) -> bool:
        try:
            self._file.refresh()
        except OSError as error:
            log.error("the token is as it was", extra={"reason": str(error)})
        token = self._token()
        is_bearer = told.startswith(_SCHEME)
        # In constant time, so that nobody learns it by its first letters.
        given = told.removeprefix(_SCHEME).strip().encode()
        return hmac.compare_digest(given, token) and is_bearer and bool(token)

    async def intercept_service(
        self,
        continuation: Callable[
            [grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]
        ],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        details = handler_call_details
        handler = await continuation(details)
        told = dict(details.invocation_metadata).get("authorization", "")
        if handler is None or self._is_known(str(told)):
            return handler
        return _refusing(handler, "the token is wrong" if told else "there is no token")


def _refusing(handler: Any, text: str) -> grpc.RpcMethodHandler[Any, Any]:
    async def refuse(_: object, context: Any) -> None:
        await context.abort(grpc.StatusCode.UNAUTHENTICATED, text)

    async def refuse_stream(_: object, context: Any) -> Any:
        await context.abort(grpc.StatusCode.UNAUTHENTICATED, text)
        yield

    behaviour = refuse_stream if handler.response_streaming else refuse
    kinds: dict[tuple[bool, bool], Callable[..., grpc.RpcMethodHandler[Any, Any]]] = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }
    make = kinds[handler.request_streaming, handler.response_streaming]
    return make(behaviour, handler.request_deserializer, handler.response_serializer)


def server_credentials(cert: Path, key: Path) -> grpc.ServerCredentials:
    """Return credentials that follow their files. Raises ConfigError."""
    files = _Watched(key, cert)
    try:
        files.refresh()
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key)
    except ssl.SSLError as error:
        raise ConfigError(
            f"tls_cert {cert} and tls_key {key} are no certificate and its key, both PEM and the "
            f"key without a passphrase ({error.reason or error})"
        ) from error
    except OSError as error:
        raise ConfigError(f"tls_cert, tls_key: {error.filename}: {error.strerror}") from error

    def configuration() -> grpc.ServerCertificateConfiguration:
        private_key, chain = files.contents
        return grpc.ssl_server_certificate_configuration([(private_key, chain)])

    def changed() -> grpc.ServerCertificateConfiguration | None:
        try:
            return configuration() if files.refresh() else None
        except OSError as error:
            log.error("the certificate is as it was", extra={"reason": str(error)})
            return None

    return grpc.dynamic_ssl_server_credentials(
        configuration(),
        changed,  # type: ignore[arg-type]  # None is "as it was", which the stubs do not know
        False,
    )
