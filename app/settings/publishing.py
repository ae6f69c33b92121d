"""What publishing is bounded by, and what is checked and kept of it."""

from __future__ import annotations

import re
from typing import Annotated, Final, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, FilePath, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings

from tidegate.topics import validate_topic
from tidegate.url import without_password

_is_uri_reference: Final = re.compile(r"[!#-;=?-\[\]_a-z~]+").fullmatch
"""Whether a text has the characters of one alone (RFC 3986 §2)."""


def _plain_topic(value: str) -> str:
    validate_topic(value)
    if value.startswith("$"):
        raise ValueError("a topic that begins with $ belongs to the broker")
    return value


class PublishingSettings(BaseSettings):
    """The settings of publishing, of requests, and of what messages have to be."""

    max_body_bytes: int = Field(
        1_048_576,
        ge=1,
        le=268_435_455,
        description="The largest request body; a larger one is answered with 413.",
        examples=[131_072],
    )
    body_timeout_seconds: float = Field(
        30.0, gt=0, le=3600, description="How long a request body may take to arrive.", examples=[10]
    )
    publish_timeout_seconds: float = Field(
        10.0,
        gt=0,
        le=3600,
        description="How long a publish may wait for the broker and its acknowledgement together.",
        examples=[5],
    )
    max_in_flight: int = Field(
        1000,
        ge=1,
        le=65_535,
        description="Messages of QoS 1 and 2 that are sent and not acknowledged. The broker's Receive "
        "Maximum (MQTT 5 §3.2.2.3.3) bounds it too.",
        examples=[100],
    )
    max_waiting: int = Field(
        10_000,
        ge=1,
        description="Messages that wait for the broker; one more is answered with 503.",
        examples=[1000],
    )
    idempotency_window_seconds: float = Field(
        3600.0,
        gt=0,
        le=604_800,
        description="How long the answer to a request with an `Idempotency-Key` is kept for the same request "
        "made again.",
        examples=[86_400],
    )
    idempotency_max_keys: int = Field(
        50_000,
        ge=1,
        description="Idempotency keys kept in memory; the oldest whose request has ended goes first. With "
        "`TIDEGATE_REDIS_URL` they are kept there, within its own bounds.",
        examples=[500_000],
    )
    idempotency_max_bytes: int = Field(
        64 * 1_048_576,
        ge=65_536,
        description="About the memory that those may take, with their answers.",
        examples=[268_435_456],
    )
    redis_url: SecretStr = Field(
        SecretStr(""),
        description="Redis or Valkey, shared by all replicas that serve one audience: `redis://` or "
        "`rediss://` (TLS), with `user:password@` where it asks for one. Idempotency keys are kept there. "
        "Left out, each replica keeps its own in memory.",
        examples=["rediss://tidegate:…@redis.example:6379/0"],
    )
    schemas_file: FilePath | None = Field(
        None,
        description="Which JSON Schemas payloads have to match, by topic filter, as YAML or JSON "
        "([schemas.md](schemas.md)). Left out, no payload is looked at.",
        examples=["/etc/tidegate/schemas.yaml"],
    )
    cloudevents_source: str = Field(
        "/mqtt",
        min_length=1,
        description="The `source` of CloudEvents that are made of other messages, a URI or a part of one "
        "([cloudevents.md](cloudevents.md)).",
        examples=["https://plant.example/mqtt"],
    )
    reply_topic_prefix: Annotated[str, AfterValidator(_plain_topic)] = Field(
        "tidegate/replies",
        max_length=1000,
        description="What the topics begin with on which replies to requests come. Behind it stand an "
        "identifier of this run of the bridge and one of the request, so that bridges may share it.",
        examples=["plant-7/replies"],
    )
    request_timeout_seconds: float = Field(
        10.0,
        gt=0,
        le=86_400,
        description="How long a request waits for its reply where it does not say so.",
        examples=[5],
    )
    max_request_timeout_seconds: float = Field(
        120.0, gt=0, le=86_400, description="How long a request may ask to wait.", examples=[30]
    )
    max_waiting_requests: int = Field(
        10_000,
        ge=1,
        description="Requests that wait for replies; one more is answered with 503.",
        examples=[1000],
    )
    max_replies: int = Field(
        1000, ge=2, description="Replies that one request may ask to gather.", examples=[100]
    )
    max_requests_per_reply_topic: int = Field(
        100,
        ge=0,
        description="Requests that wait for their turn at one fixed reply topic; one more is answered with "
        "503.",
        examples=[10],
    )
    reply_topic_settle_seconds: float = Field(
        5.0,
        ge=0,
        le=3600,
        description="How long a fixed reply topic is left alone after a request that got no reply, so that a "
        "late one is not taken for the answer to the next request.",
        examples=[30],
    )

    @field_validator("redis_url")
    @classmethod
    def _check_redis_url(cls, url: SecretStr) -> SecretStr:
        if url.get_secret_value() and not _is_redis_url(url.get_secret_value()):
            raise ValueError(
                "this is no URL of a Redis or Valkey server; write it as in redis://redis.example:6379/0"
            )
        return url

    @field_validator("cloudevents_source")
    @classmethod
    def _check_source(cls, source: str) -> str:
        if not _is_uri_reference(source):
            shown = without_password(source)
            raise ValueError(f"{shown!r} is no URI, nor a part of one; percent-encode what is not ASCII")
        if urlsplit(source).password is not None:
            raise ValueError("every reader of a stream is shown the source: write it without a password")
        return source

    @model_validator(mode="after")
    def _check_time_outs(self) -> Self:
        if self.request_timeout_seconds > self.max_request_timeout_seconds:
            raise ValueError(
                "TIDEGATE_REQUEST_TIMEOUT_SECONDS is longer than TIDEGATE_MAX_REQUEST_TIMEOUT_SECONDS"
            )
        return self


def _is_redis_url(url: str) -> bool:
    from redis.asyncio import Redis  # noqa: PLC0415 - not every bridge needs it

    try:
        parts = urlsplit(url)
        pool = Redis.from_url(url).connection_pool
        pool.connection_class(**pool.connection_kwargs)
    except (TypeError, ValueError):  # which may name a part of the URL
        return False
    return parts.scheme in {"redis", "rediss"} and bool(parts.hostname)
