"""The management port's application: health and metrics, and nothing that reads or writes a message."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from fastapi import APIRouter, Depends, FastAPI
from fastapi.telemetry import TelemetryConfig

from app.api.input.strict_query import StrictQuery
from app.api.output import exceptions

NO_TELEMETRY: Final[TelemetryConfig] = {
    "tracing": False,
    "metrics": False,
    "logs": False,
    "operation_spans": False,
    "auto_configure": False,
}
"""What the framework traces by itself has path and query in it: topics, tickets. Ours: ``app.tracing``."""


def create_management(routers: Sequence[APIRouter]) -> FastAPI:
    """Make the application.

    Args:
        routers: the calls that it has.
    """
    app = FastAPI(openapi_url=None, redirect_slashes=False, telemetry=NO_TELEMETRY)
    app.router.dependencies.append(Depends(StrictQuery(app.openapi)))
    for router in routers:
        app.include_router(router)
    exceptions.install(app, lambda: app.openapi()["paths"])
    return app
