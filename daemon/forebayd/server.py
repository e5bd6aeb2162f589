"""The process: listeners, health, signals, an orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import resource
import signal
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import uvloop
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from forebay_protos import cache_pb2, cache_pb2_grpc
from forebayd import remote, traces
from forebayd.cache.cache import Cache
from forebayd.commit_socket import CommitSocket
from forebayd.config import DEFAULT_METRICS_LISTEN
from forebayd.errors import ConfigError
from forebayd.notify import Notifier
from forebayd.service import CacheService

if TYPE_CHECKING:
    from forebayd.config import DaemonConfig
    from forebayd.metrics import MetricsServer

log = logging.getLogger(__name__)

_GRACE_S = 5.0  # for calls under way when the daemon is told to stop
_MESSAGE_BYTES = 64 << 20
_OPTIONS = (
    ("grpc.max_receive_message_length", _MESSAGE_BYTES),
    ("grpc.max_send_message_length", _MESSAGE_BYTES),
    ("grpc.so_reuseport", 0),  # a second daemon on the port is an error, not a partner
)


def run(config: DaemonConfig) -> None:
    """Serve until SIGTERM or SIGINT. Raises ConfigError if the daemon cannot start."""
    os.umask(0o007)  # for one group: who may attach may read what is cached
    _, most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most_files, most_files))
    # 100 us of CPU less per filled object than asyncio's own loop (680 -> 580): every object
    # crosses from obstore's threads to the loop several times.
    with traces.exported():
        uvloop.run(_serve(config))


async def _serve(config: DaemonConfig) -> None:
    stopping = asyncio.Event()
    notifier = Notifier(os.environ)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    cache = Cache(config)
    ready = asyncio.Event()
    metrics = None
    if config.metrics_listen != "off":
        from forebayd.metrics import MetricsServer  # with aiohttp: a sixth of the start

        metrics = MetricsServer(cache, ready)
    # A fill makes some hundred short-lived objects; what is imported need not be walked for them.
    gc.freeze()
    gc.set_threshold(20_000, 50, 100)
    try:
        await cache.start()
        servers = _make_servers(config)
        service = CacheService(cache)
        commits = CommitSocket(config.cache_dir, service.commit)
        health_service = health.aio.HealthServicer()
        service_name = cache_pb2.DESCRIPTOR.services_by_name["Cache"].full_name
        for server in servers:
            cache_pb2_grpc.add_CacheServicer_to_server(service, server)
            health_pb2_grpc.add_HealthServicer_to_server(health_service, server)
            reflection.enable_server_reflection(
                (service_name, health.SERVICE_NAME, reflection.SERVICE_NAME), server
            )
        await commits.start()
        if metrics is not None:
            await _start_metrics(metrics, config.metrics_listen)
        for server in servers:
            await server.start()
        for address in config.listen:
            if address.startswith("unix:"):
                os.chmod(address.removeprefix("unix:"), 0o660)  # noqa: PTH101  # no path is walked
        for name in ("", service_name):
            await health_service.set(name, health_pb2.HealthCheckResponse.SERVING)
        ready.set()
        notifier.ready()
        log.info(
            "serving", extra={"listen": list(config.listen), "cache_dir": str(config.cache_dir)}
        )
        await stopping.wait()
        log.info("stopping")
        notifier.stopping()
        ready.clear()
        await health_service.enter_graceful_shutdown()
        await commits.stop()
        await asyncio.gather(*(server.stop(_GRACE_S) for server in servers))
    finally:
        await cache.stop()
        if metrics is not None:
            await metrics.stop()


async def _start_metrics(metrics: MetricsServer, address: str) -> None:
    try:
        await metrics.start(address)
    except ConfigError as error:
        if address != DEFAULT_METRICS_LISTEN:
            raise
        log.warning("no metrics: another daemon may serve there", extra={"reason": str(error)})


def _make_servers(config: DaemonConfig) -> list[grpc.aio.Server]:
    """Return a server of the addresses that need no token, and one of those that do."""
    secure = None
    if config.tls_cert is not None and config.tls_key is not None:
        secure = remote.server_credentials(config.tls_cert, config.tls_key)
    checks = [remote.TokenCheck(config.token_file)] if config.token_file is not None else []
    local = grpc.aio.server(options=_OPTIONS)
    outer = grpc.aio.server(options=_OPTIONS, interceptors=checks)
    for address in config.listen:
        if address.startswith("unix:"):
            _listen(local, address, None)
        else:
            _listen(outer, address, secure)
    return [local, outer]


def _listen(server: grpc.aio.Server, address: str, secure: grpc.ServerCredentials | None) -> None:
    if address.startswith("unix:"):
        path = Path(address.removeprefix("unix:"))
        path.parent.mkdir(parents=True, exist_ok=True)
        owner = path.parent.stat().st_uid
        if owner not in (0, os.geteuid()):
            raise ConfigError(
                f"the socket's folder {path.parent} belongs to uid {owner}, who could put another "
                "socket there: choose another --listen"
            )
        _remove_dead_socket(path)
    try:
        if secure is None:
            server.add_insecure_port(address)
        else:
            server.add_secure_port(address, secure)
    except RuntimeError as error:
        raise ConfigError(f"cannot listen on {address}: {error}") from error


def _remove_dead_socket(path: Path) -> None:
    """Remove a socket that a killed daemon has left; refuse one that somebody answers at."""
    if not path.exists():
        return
    if not path.is_socket():
        raise ConfigError(f"{path} is there and is not a socket: choose another --listen")
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
        else:
            raise ConfigError(
                f"another daemon answers at {path}: stop it or choose another --listen"
            )
