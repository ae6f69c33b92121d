"""What streams are bounded by, and what is kept for those that come back."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings


class StreamSettings(BaseSettings):
    """The settings of streams, of the journal, and of reading retained messages."""

    heartbeat_seconds: float = Field(
        15.0,
        gt=0,
        le=3600,
        description="Silence after which a stream sends a comment, so that no proxy closes it.",
        examples=[5],
    )
    listener_max_messages: int = Field(
        1000, ge=1, description="Messages that wait for one slow reader of a stream.", examples=[100]
    )
    listener_max_bytes: int = Field(
        8 * 1_048_576, ge=1, description="The bytes of those messages, all together.", examples=[1_048_576]
    )
    streams_max_bytes: int = Field(
        256 * 1_048_576,
        ge=1,
        description="The bytes that wait for the readers of all streams together; a message that many wait "
        "for is counted once. Beyond it, the streams that hold most end with the reason `server_limit`.",
        examples=[67_108_864],
    )
    stream_send_timeout_seconds: float = Field(
        30.0,
        gt=0,
        le=3600,
        description="How long a reader may read nothing before its stream ends.",
        examples=[10],
    )
    stream_lifetime_seconds: float | None = Field(
        None,
        gt=0,
        description="How long a stream may last; it then ends with the reason `lifetime`, and its client "
        "comes back, to another replica maybe. Left out, there is no bound.",
        examples=[3600],
    )
    max_filters_per_stream: int = Field(
        1000, ge=1, description="Topic filters that one stream may name.", examples=[10]
    )
    max_streams: int = Field(10_000, ge=1, description="Streams that may be open at once.", examples=[500])
    max_streams_per_principal: int = Field(
        1000,
        ge=1,
        description="Streams and WebSockets that one principal may have open at once; of no meaning without "
        "authentication.",
        examples=[20],
    )
    journal_max_messages: int = Field(
        100_000,
        ge=0,
        description="Messages kept for clients that come back with their last event id; 0 keeps none.",
        examples=[10_000],
    )
    journal_max_bytes: int = Field(
        64 * 1_048_576, ge=0, description="About the memory that those may take.", examples=[268_435_456]
    )
    journal_max_age_seconds: float = Field(
        300.0, gt=0, le=86_400, description="How long they are kept.", examples=[60]
    )
    journal_grace_seconds: float = Field(
        60.0,
        ge=0,
        le=86_400,
        description="How long a filter is followed on after its last stream ended, so that a client that "
        "comes back has missed nothing; 0 drops it at once.",
        examples=[10],
    )
    retained_timeout_seconds: float = Field(
        5.0, gt=0, le=3600, description="How long reading retained messages may take.", examples=[2]
    )
    max_retained_messages: int = Field(
        10_000, ge=1, description="Retained messages that one answer may hold.", examples=[500]
    )
