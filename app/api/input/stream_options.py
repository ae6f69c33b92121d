"""What may be said about a stream: in a query, in a body, or in a frame of a WebSocket.

The same pydantic models stand in the OpenAPI document.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, StrictStr

from app.api.input.query import Flag, QoS
from app.api.models import StrictQoS
from app.hub.buffers import Policy

MAX_INTERVAL_SECONDS: Final = 3600.0
MIN_INTERVAL_SECONDS: Final = 0.01
MAX_LIMIT: Final = 2**53 - 1

PolicyName = Literal["resume", "latest", "drop"]
FormatName = Literal["envelope", "raw", "cloudevents"]

_ABOUT: Final = {
    "topics": "Topic filters (MQTT 5 §4.7). A message is in the stream once however many of them match.",
    "qos": "The highest quality of service wanted (MQTT 5 §3.8.3.1).",
    "retained": "Begin with the retained messages that match.",
    "format": "`envelope`: topic, payload, properties and all, as one JSON object. `raw`: the payload alone. "
    "`cloudevents`: a CloudEvent in structured mode; so it is where `Accept` names "
    "`application/cloudevents+json`, too.",
    "policy": "What happens when the reader does not keep up. `resume`: the stream ends with the reason "
    "`too_slow`, and the client comes back with its last event id. `latest`: only the newest message of each "
    "topic is kept for it. `drop`: the oldest are dropped. `lag` events tell of the last two.",
    "interval": "Seconds. No message more often than this, and of each topic the newest alone.",
    "limit": "End after this many messages.",
    "idle_timeout": "Seconds without a message after which the stream ends.",
    "last_event_id": "The last event seen: the stream begins with what was missed. For a client that cannot "
    "set the header `Last-Event-ID`.",
}


def number_in(text: Any) -> float:
    """A number of seconds in a query; raises ValueError."""
    if not (isinstance(text, str) and text.isascii() and text.replace(".", "", 1).isdigit()):
        raise ValueError("it is a number of seconds, such as 0.5")
    return float(text)


def count_in(text: Any) -> int:
    """A whole number in a query; raises ValueError."""
    if not (isinstance(text, str) and text.isascii() and text.isdigit() and len(text) < 17):
        raise ValueError("it is a whole number")
    return int(text)


IntervalSeconds = Annotated[float, Field(ge=MIN_INTERVAL_SECONDS, le=MAX_INTERVAL_SECONDS)]
Count = Annotated[int, Field(ge=1, le=MAX_LIMIT)]


def some_topics(topics: Any) -> Any:
    """A list of filters that is not empty; raises ValueError."""
    if topics == []:
        raise ValueError("it names at least one topic filter")
    if type(topics) is str:
        raise ValueError('it is a list of topic filters, such as ["sensors/#"]')
    return topics


class SubscriptionOptions(BaseModel):
    """What may be said about one subscription, as JSON."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    topics: Annotated[tuple[StrictStr, ...], BeforeValidator(some_topics)] = Field(
        min_length=1, description=_ABOUT["topics"], examples=[["sensors/+/temperature", "alerts/#"]]
    )
    qos: StrictQoS = Field(1, description=_ABOUT["qos"])
    retained: StrictBool = Field(True, description=_ABOUT["retained"])
    policy: PolicyName = Field("resume", description=_ABOUT["policy"])
    interval: Annotated[IntervalSeconds, Field(strict=True)] | None = Field(
        None, description=_ABOUT["interval"], examples=[0.5]
    )
    limit: Annotated[Count, Field(strict=True)] | None = Field(
        None, description=_ABOUT["limit"], examples=[10]
    )
    last_event_id: StrictStr = Field("", max_length=200, description=_ABOUT["last_event_id"])

    @property
    def overflow(self) -> Policy:
        """The policy, as the hub knows it."""
        return Policy(self.policy)


class SubscribeRequest(SubscriptionOptions):
    """What may be said about a stream, as JSON: for more filters than a URL can hold."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"topics": ["sensors/+/temperature", "alerts/#"], "qos": 1}]}
    )

    format: FormatName = Field("envelope", description=_ABOUT["format"])
    idle_timeout: Annotated[IntervalSeconds, Field(strict=True)] | None = Field(
        None, description=_ABOUT["idle_timeout"], examples=[30]
    )


class SubscribeQuery(BaseModel):
    """What may be said about a stream, as a query."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    topic: tuple[str, ...] = Field(
        description="A topic filter (MQTT 5 §4.7). May be repeated: one stream follows many filters, and "
        "gets a message once however many of them match. Write `%2B` for `+` and `%23` for `#`.",
        examples=[["sensors/+/temperature", "alerts/#"]],
    )
    qos: QoS = Field(1, description=_ABOUT["qos"], examples=[1])
    retained: Flag = Field(True, description=_ABOUT["retained"], examples=[True])
    format: FormatName = Field("envelope", description=_ABOUT["format"])
    policy: PolicyName = Field("resume", description=_ABOUT["policy"])
    interval: Annotated[IntervalSeconds, BeforeValidator(number_in)] | None = Field(
        None, description=_ABOUT["interval"], examples=[0.5]
    )
    limit: Annotated[Count, BeforeValidator(count_in)] | None = Field(
        None, description=_ABOUT["limit"], examples=[10]
    )
    idle_timeout: Annotated[IntervalSeconds, BeforeValidator(number_in)] | None = Field(
        None, description=_ABOUT["idle_timeout"], examples=[30]
    )
    last_event_id: str | None = Field(None, description=_ABOUT["last_event_id"])
    lastEventId: str | None = Field(  # noqa: N815 - the name that EventSource polyfills use
        None, description="The same, under the name that EventSource polyfills use."
    )

    def as_request(self) -> SubscribeRequest:
        """The same, as if it had come in a body."""
        return SubscribeRequest.model_construct(
            topics=self.topic,
            last_event_id=self.last_event_id or self.lastEventId or "",
            **self.model_dump(exclude={"topic", "last_event_id", "lastEventId"}),
        )
