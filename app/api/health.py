"""``/livez`` and ``/readyz``: whether the process serves, and whether the broker answers it."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from app.broker.link import BrokerLink
from app.credentials.in_use import CredentialInUse
from app.hub.hub import Hub
from app.problems import ProblemError, ProblemType, documented


class Alive(BaseModel):
    """The process serves requests."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"status": "alive", "key_memory": "5f0c9a1be27d4c63"}]}
    )

    status: Literal["alive"] = Field("alive", description="Always this.")
    key_memory: str = Field(
        description="Names the memory in which `Idempotency-Key`s are kept. Under another name than before, "
        "keys of before are forgotten: the bridge was restarted.",
        examples=["5f0c9a1be27d4c63"],
    )


class Ready(BaseModel):
    """The broker answered lately."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"status": "ready", "warnings": []}]})

    status: Literal["ready"] = Field("ready", description="Always this; what is not ready answers 503.")
    warnings: list[str] = Field(
        description="What will keep it from being so, as a certificate that expires soon.", examples=[[]]
    )


def create_router(link: BrokerLink, hub: Hub, key_memory: str, in_use: CredentialInUse) -> APIRouter:
    """The two calls, for one broker link, its hub, the name of the memory of idempotency keys, and what the
    bridge connects with.
    """
    router = APIRouter(tags=["health"])

    @router.get(
        "/livez",
        operation_id="get_livez",
        summary="Is the process alive?",
        responses=documented(ProblemType.UNKNOWN_PARAMETER),
    )
    async def get_livez(response: Response) -> Alive:
        """200 as long as the process serves, whatever the broker does: a restart would not help that."""
        response.headers["Cache-Control"] = "no-store"
        return Alive(key_memory=key_memory)

    @router.get(
        "/readyz",
        operation_id="get_readyz",
        summary="Does the broker answer?",
        responses=documented(ProblemType.UNKNOWN_PARAMETER, ProblemType.NOT_READY),
    )
    async def get_readyz(response: Response) -> Ready:
        """200 where a round trip to the broker was seen lately; 503 also while the bridge stops."""
        reason = "the bridge stops" if hub.is_draining else link.why_not_ready()
        if reason is not None:
            raise ProblemError(ProblemType.NOT_READY, reason)
        response.headers["Cache-Control"] = "no-store"
        return Ready(warnings=in_use.warnings)

    return router
