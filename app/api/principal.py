"""``/v1/principal``: who the caller is to the bridge, and what it may do."""

from __future__ import annotations

from datetime import UTC, datetime

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from app.api.access import principal_of
from app.problems import ProblemType, documented
from app.security.grants import Grant
from app.security.principal import Source


class GrantAnswer(BaseModel):
    """Topics that the caller may publish to, or follow."""

    filter: str = Field(description="The topic filter.", examples=["plant/7/#"])
    qos: int = Field(description="The highest QoS.", examples=[1])
    retain: bool = Field(description="Whether messages may be retained; of no meaning for following.")


class PrincipalAnswer(BaseModel):
    """Who the caller is, and what it may do."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "subject": "panel-3",
                    "source": "api_key",
                    "scopes": ["status:read"],
                    "expires_at": None,
                    "publish": [{"filter": "lamps/7/set", "qos": 1, "retain": False}],
                    "subscribe": [{"filter": "plant/7/#", "qos": 1, "retain": True}],
                }
            ]
        }
    )

    subject: str = Field(description="Its name.", examples=["panel-3"])
    source: Source = Field(description="How it showed who it is; `none` where nobody has to.")
    scopes: list[str] = Field(description="What it may do beyond topics.", examples=[["status:read"]])
    expires_at: datetime | None = Field(description="When that ends; null where it does not by itself.")
    publish: list[GrantAnswer] = Field(description="The topics that it may publish to.")
    subscribe: list[GrantAnswer] = Field(description="The filters that it may follow, or parts of them.")


router = APIRouter(tags=["security"])


@router.get(
    "/v1/principal",
    operation_id="get_principal",
    summary="Who am I, and what may I do?",
    responses=documented(ProblemType.UNKNOWN_PARAMETER),
)
async def get_principal(request: Request, response: Response) -> PrincipalAnswer:
    """What the bridge makes of the request's API key or token; the grants are those with `{sub}` in place."""
    response.headers["Cache-Control"] = "no-store"
    principal = principal_of(request.scope)
    expires_at = principal.expires_at
    return PrincipalAnswer(
        subject=principal.subject,
        source=principal.source,
        scopes=sorted(principal.scopes),
        expires_at=None if expires_at is None else datetime.fromtimestamp(expires_at, UTC),
        publish=[_answer(each) for each in principal.grants.publish],
        subscribe=[_answer(each) for each in principal.grants.subscribe],
    )


def _answer(grant: Grant) -> GrantAnswer:
    return GrantAnswer(filter=grant.topic_filter, qos=grant.max_qos, retain=grant.may_retain)
