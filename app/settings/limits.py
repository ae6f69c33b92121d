"""What connections, heads of requests, WebSockets and callers are bounded by."""

from __future__ import annotations

from typing import Annotated

from limits import parse_many
from pydantic import AfterValidator, Field
from pydantic_settings import BaseSettings


def check_rate(value: str) -> str:
    """Check that it is one rate in the notation of the package ``limits``."""
    if not value:
        return value
    try:
        rates = parse_many(value)
    except ValueError:
        rates = []
    if len(rates) != 1 or not rates[0].amount:
        raise ValueError(
            f"{value!r} is no rate; write a number above 0 and a time, as in 100/second or 1000 per 5 minutes"
        )
    return value


Rate = Annotated[str, AfterValidator(check_rate)]


class LimitSettings(BaseSettings):
    """The settings that keep one caller from taking what is there for all."""

    max_connections: int = Field(
        20_000,
        ge=1,
        description="Connections that may be open at once; one more is answered with 503 and closed. "
        "`/livez` and `/readyz` are answered all the same.",
        examples=[1000],
    )
    header_timeout_seconds: float = Field(
        10.0,
        gt=0,
        le=3600,
        description="How long the head of a request may take to arrive, from the connection or from its "
        "first byte on.",
        examples=[5],
    )
    max_header_bytes: int = Field(
        65_536,
        ge=1024,
        le=16_777_216,
        description="The header fields of a request, all together; larger ones are answered with 431.",
        examples=[16_384],
    )
    max_target_bytes: int = Field(
        65_535,
        ge=256,
        le=65_535,  # what httptools can take apart
        description="The target of a request, path and query; a longer one is answered with 414. A topic "
        "that has no room in it goes into the body of `POST /v1/publish`.",
        examples=[8192],
    )
    websocket_max_message_bytes: int | None = Field(
        None,
        ge=1,
        le=268_435_455,
        description="The largest frame that `/v1/ws` takes, in one piece or in fragments; a larger one "
        "closes the WebSocket with 1009. Left out, it is `TIDEGATE_MAX_BODY_BYTES`.",
        examples=[65_536],
    )
    websocket_idle_seconds: float = Field(
        600.0,
        gt=0,
        le=86_400,
        description="How long a WebSocket may be open with no subscription and no frame from its client; it "
        "then closes with the reason `idle_timeout`.",
        examples=[60],
    )
    rate_limit_requests: Rate = Field(
        "",
        description="Requests, and frames on WebSockets, that one caller may make "
        "([limits.md](limits.md)). Left out, there is no bound, here and below.",
        examples=["200/second"],
    )
    rate_limit_requests_total: Rate = Field(
        "", description="The same of all callers together.", examples=["5000/second"]
    )
    rate_limit_publishes: Rate = Field(
        "",
        description="Messages that one caller may publish; each of a batch counts.",
        examples=["100/second"],
    )
    rate_limit_publishes_total: Rate = Field(
        "", description="The same of all callers together.", examples=["2000/second"]
    )
    rate_limit_streams: Rate = Field(
        "",
        description="Streams, WebSockets and subscriptions on them that one caller may open.",
        examples=["30/minute"],
    )
    rate_limit_streams_total: Rate = Field(
        "", description="The same of all callers together.", examples=["100/second"]
    )
    rate_limit_failed_attempts: Rate = Field(
        "600/minute",
        description="Requests from one address that do not show who makes them, or fail to. Beyond it, a key "
        "or token from there that is not known yet is not looked at.",
        examples=["30/minute"],
    )
