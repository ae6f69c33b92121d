"""Whether traces are asked for, by the variables that OpenTelemetry defines."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from app.tracing.spans import Tracing

DISABLED: Final = "OTEL_SDK_DISABLED"
EXPORTER: Final = "OTEL_TRACES_EXPORTER"
ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")

MISSING: Final = (
    "traces are asked for by OTEL_… variables, and OpenTelemetry is not installed: "
    "pip install 'tidegate-bridge[otel]', build the image with EXTRAS=otel, or set OTEL_SDK_DISABLED=true"
)


def is_wanted(environment: Mapping[str, str]) -> bool:
    """Whether traces are to be exported: an exporter or an endpoint is named, and nothing says otherwise.

    OpenTelemetry would send them to a collector on this machine by default. A bridge that has none would only
    log that it is not there.
    """
    if environment.get(DISABLED, "").strip().lower() == "true":
        return False
    exporter = environment.get(EXPORTER, "").strip()
    if exporter:
        return exporter.lower() != "none"
    return any(environment.get(name) for name in ENDPOINTS)


def is_installed() -> bool:
    """Whether the extra is there; nothing of it is loaded."""
    try:
        return importlib.util.find_spec("opentelemetry.sdk") is not None
    except ModuleNotFoundError:
        return False


def load_tracing(environment: Mapping[str, str]) -> Tracing | None:
    """What traces with the exporter of the environment; None where it is not asked for, or cannot be.

    Raises:
        ConfigurationError: the environment names an exporter that there is none of.
    """
    if not (is_wanted(environment) and is_installed()):
        return None
    from app.tracing.provider import provider_of  # noqa: PLC0415 - loaded where it is used
    from app.tracing.spans import Tracing  # noqa: PLC0415

    return Tracing(provider_of(environment))
