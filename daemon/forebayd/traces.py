"""OpenTelemetry traces: a span for each fill and each attempt of an upload, and below it one for
each request to the origin.

Configured by OpenTelemetry's own variables (``OTEL_EXPORTER_OTLP_ENDPOINT``, ``OTEL_SERVICE_NAME``,
``OTEL_TRACES_SAMPLER``, …; https://opentelemetry.io/docs/specs/otel/configuration). Without an
endpoint or ``OTEL_TRACES_EXPORTER=otlp`` nothing is imported and a span costs a look at a
variable. Needs the extra ``[traces]``.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import threading
from typing import TYPE_CHECKING, Any

from forebayd.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_EXPORTERS = {
    "grpc": "opentelemetry.exporter.otlp.proto.grpc.trace_exporter",
    "http/protobuf": "opentelemetry.exporter.otlp.proto.http.trace_exporter",
}
_LAST_SPANS_S = 3.0  # a collector that does not answer must not hold up the daemon's end

_tracer: Any = None  # of the process, as OpenTelemetry has it


def span(name: str, **attributes: str | int) -> AbstractContextManager[object]:
    """Be in a span, which what is awaited inside may have spans below; attributes get a prefix."""
    if _tracer is None:
        return contextlib.nullcontext()
    named = {f"forebay.{key}": value for key, value in attributes.items()}
    entered: AbstractContextManager[object] = _tracer.start_as_current_span(name, attributes=named)
    return entered


@contextlib.contextmanager
def exported() -> Iterator[None]:
    """Export spans, if the environment asks for it. Raises ConfigError if they cannot be."""
    global _tracer
    if not _is_wanted():
        yield
        return
    provider = _make_provider()
    _tracer = provider.get_tracer("forebayd")
    try:
        yield
    finally:
        _tracer = None
        last = threading.Thread(target=provider.shutdown, name="forebay-traces", daemon=True)
        last.start()
        last.join(_LAST_SPANS_S)


def _is_wanted() -> bool:
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    default = "otlp" if any(map(os.environ.get, _ENDPOINTS)) else "none"
    return (os.environ.get("OTEL_TRACES_EXPORTER") or default) == "otlp"


def _make_provider() -> Any:
    protocol = next(filter(None, map(os.environ.get, _PROTOCOLS)), "http/protobuf")
    if protocol not in _EXPORTERS:
        raise ConfigError(f"OTEL_EXPORTER_OTLP_PROTOCOL is {protocol!r}: grpc or http/protobuf")
    try:
        from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        exporter = importlib.import_module(_EXPORTERS[protocol])
    except ImportError as error:
        raise ConfigError(
            "traces are asked for by OTEL_* variables, and need the extra [traces]: "
            f"pip install 'forebay[daemon,traces]' ({error})"
        ) from error
    # It tells of every try; that a batch is lost, which it tells too, is enough.
    logging.getLogger("opentelemetry.exporter").setLevel(logging.ERROR)
    resource = Resource({SERVICE_NAME: "forebay"}).merge(OTELResourceDetector().detect())
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter.OTLPSpanExporter()))
    return provider
