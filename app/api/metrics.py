"""``/metrics``: what Prometheus scrapes."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Header, Response

from app.metrics.exposition import Exposition
from app.problems import ProblemType, documented

TEXT: Final = "text/plain"
OPEN_METRICS: Final = "application/openmetrics-text"
_EXAMPLE: Final = (
    "# HELP tidegate_filters Topic filters held at the broker.\n"
    "# TYPE tidegate_filters gauge\ntidegate_filters 3.0\n"
)


def create_router(exposition: Exposition) -> APIRouter:
    """The call, for the metrics of one bridge."""
    router = APIRouter(tags=["health"])

    @router.get(
        "/metrics",
        operation_id="get_metrics",
        summary="What does Prometheus read?",
        response_class=Response,
        responses={
            200: {
                "description": "The metrics; docs/operating.md says what each one means.",
                "content": {
                    TEXT: {"schema": {"type": "string"}, "example": _EXAMPLE},
                    OPEN_METRICS: {"schema": {"type": "string"}, "example": f"{_EXAMPLE}# EOF\n"},
                },
            },
            **documented(ProblemType.UNKNOWN_PARAMETER),
        },
    )
    async def get_metrics(accept: Annotated[str, Header(include_in_schema=False)] = "") -> Response:
        """Counts and states, never a topic; in OpenMetrics where `Accept` asks for it. With
        `TIDEGATE_MANAGEMENT_PORT` set they are at that port, and not here.
        """
        body, content_type = await exposition.render(accept)
        return Response(body, headers={"Content-Type": content_type, "Cache-Control": "no-store"})

    return router
