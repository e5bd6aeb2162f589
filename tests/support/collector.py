"""An OpenTelemetry collector on loopback: what arrives by OTLP, over HTTP and over gRPC."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as services
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.proto.trace.v1.trace_pb2 import Span

_WAIT_S = 60.0  # a machine that is busy with other tests


class Collector:
    """A context manager; ``url`` and ``grpc_url`` are endpoints, ``spans`` what has come."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.services: set[str] = set()
        self._changed = threading.Condition()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                collector.take(ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._grpc_server = grpc.server(ThreadPoolExecutor(1))
        add_service = services.add_TraceServiceServicer_to_server
        add_service(_Service(self), self._grpc_server)  # type: ignore[no-untyped-call]
        port = self._grpc_server.add_insecure_port("127.0.0.1:0")
        self.grpc_url = f"http://127.0.0.1:{port}"
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def take(self, request: ExportTraceServiceRequest) -> None:
        with self._changed:
            for resource in request.resource_spans:
                for attribute in resource.resource.attributes:
                    if attribute.key == "service.name":
                        self.services.add(attribute.value.string_value)
                for scope in resource.scope_spans:
                    self.spans += scope.spans
            self._changed.notify_all()

    def wait_for(self, is_there: Callable[[list[Span]], bool]) -> list[Span]:
        """Return the spans once they are there. Raises TimeoutError."""
        deadline = time.monotonic() + _WAIT_S
        with self._changed:
            while not is_there(self.spans):
                if not self._changed.wait(deadline - time.monotonic()):
                    raise TimeoutError([span.name for span in self.spans])
            return list(self.spans)

    def __enter__(self) -> Collector:
        self._thread.start()
        self._grpc_server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self._grpc_server.stop(None).wait()


class _Service(services.TraceServiceServicer):
    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    def Export(
        self, request: ExportTraceServiceRequest, _: grpc.ServicerContext
    ) -> ExportTraceServiceResponse:
        self._collector.take(request)
        return ExportTraceServiceResponse()
