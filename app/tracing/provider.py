"""The tracer provider that the environment describes, as OpenTelemetry names its variables.

OpenTelemetry reads most of them itself: the sampler, the limits, the batches, and everything of OTLP.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import Final

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter

from app.tracing.choice import EXPORTER
from tidegate.errors import ConfigurationError

SERVICE: Final = "tidegate"
HTTP: Final = "http/protobuf"
_PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")


def provider_of(environment: Mapping[str, str]) -> TracerProvider:
    """The provider.

    Raises:
        ConfigurationError: there is no such exporter, or it does not speak that protocol.
    """
    attributes = {SERVICE_VERSION: version("tidegate-bridge")}
    if not environment.get("OTEL_SERVICE_NAME") and (
        f"{SERVICE_NAME}=" not in environment.get("OTEL_RESOURCE_ATTRIBUTES", "")
    ):
        attributes[SERVICE_NAME] = SERVICE
    provider = TracerProvider(resource=Resource.create(attributes), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(_exporter(environment)))
    return provider


def _exporter(environment: Mapping[str, str]) -> SpanExporter:
    name = environment.get(EXPORTER, "").strip().lower() or "otlp"
    if name == "console":
        return ConsoleSpanExporter()
    if name != "otlp":
        raise ConfigurationError(f"{EXPORTER}={name!r} is not one of otlp, console, none")
    protocol = next((environment[each] for each in _PROTOCOLS if environment.get(each)), HTTP)
    if protocol != HTTP:
        raise ConfigurationError(f"traces are exported by OTLP over {HTTP}; {protocol!r} is not supported")
    return OTLPSpanExporter()
