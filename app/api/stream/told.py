"""What a stream and a WebSocket tell, as models: the AsyncAPI document is made from them.

Messages leave as bytes that are put together by hand (``app.hub.event``, ``forms``, ``frames``), since there
may be a million a minute; tests hold every event and every frame against these models. What control events
say stands in ``app.hub.control``, and what clients send in ``frames``.
"""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.api.models import PublishAnswer, RetainedMessage
from app.api.stream.frames import FrameId
from app.problems import Problem

EXAMPLE_ID: Final = "Zk81uPoC3sYn.5aWtE6bMQ-9b2e41c7"
_EVENT_ID: Any = Field(
    description="Where the client stands that has seen it: what to come back with. Opaque.",
    examples=[EXAMPLE_ID],
)
_ANSWERED: Any = Field(description="The id of the frame that is answered.", examples=[1])
_SUBSCRIPTION: Any = Field(description="The id of the frame that subscribed.", examples=[1])
_ACK: Any = Field(description="The operation was carried out.")

_MESSAGE: dict[str, Any] = {
    "topic": "sensors/7/temperature",
    "payload": {"celsius": 21.5},
    "encoding": "json",
    "qos": 1,
    "retain": False,
    "time": "2026-01-31T12:00:00.000Z",
    "properties": {"content_type": "application/json"},
}


class StreamMessage(RetainedMessage):
    """A message from the broker."""

    model_config = ConfigDict(json_schema_extra={"examples": [_MESSAGE]})

    qos: Literal[0, 1, 2] = Field(
        description="The quality of service that it was published with, and at most the one asked for."
    )
    retain: bool = Field(description="True for a message that the broker had kept, false for a live one.")
    dup: Literal[True] | None = Field(
        None,
        description="True in a copy that may have been sent before (MQTT 5 §3.3.1.1); else left out.",
    )


class MessageLine(StreamMessage):
    """A message from the broker, with its id."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"id": EXAMPLE_ID, **_MESSAGE}]})

    id: str = _EVENT_ID


class MessageFrame(MessageLine):
    """A message from the broker, for one subscription."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"op": "message", "subscription": 1, "id": EXAMPLE_ID, **_MESSAGE}]}
    )

    op: Literal["message"] = Field(description="What the frame is.")
    subscription: FrameId = _SUBSCRIPTION


_CLOUD_EVENT: dict[str, Any] = {
    "specversion": "1.0",
    "id": "5f2c9a01-18",
    "source": "/mqtt",
    "type": "io.tidegate.message",
    "subject": "sensors/7/temperature",
    "time": "2026-01-31T12:00:00.000Z",
    "mqttqos": 1,
    "mqttretain": False,
    "datacontenttype": "application/json",
    "data": {"celsius": 21.5},
}


class StreamCloudEvent(BaseModel):
    """A message as a CloudEvent 1.0 in structured mode; it may have more attributes."""

    model_config = ConfigDict(extra="allow", json_schema_extra={"examples": [_CLOUD_EVENT]})

    specversion: Literal["1.0"] = Field(description="The version of CloudEvents.")
    id: str = Field(description="Of the event; with `source` it is unique.")
    source: str = Field(description="`TIDEGATE_CLOUDEVENTS_SOURCE`, unless the message is an event itself.")
    type: str = Field(description="`io.tidegate.message`, unless the message is an event itself.")
    subject: str | None = Field(None, description="The topic, unless the message is an event itself.")
    time: str | None = Field(None, description="When it happened (RFC 3339).")
    datacontenttype: str | None = Field(None, description="What `data` is, as a MIME type.")
    data: Any = Field(None, description="The payload: JSON, or a string.")
    data_base64: str | None = Field(
        None, description="A payload that is neither.", json_schema_extra={"contentEncoding": "base64"}
    )
    mqttqos: Literal[0, 1, 2] | None = Field(None, description="As `qos` of a message.")
    mqttretain: bool | None = Field(None, description="As `retain` of a message.")
    tidegatefault: str | None = Field(
        None, description="Where and why the payload does not match its JSON Schema; else left out."
    )


class CloudEventLine(StreamCloudEvent):
    """A message as a CloudEvent, with its place in the stream."""

    model_config = ConfigDict(json_schema_extra={"examples": [{**_CLOUD_EVENT, "tidegateid": EXAMPLE_ID}]})

    tidegateid: str = _EVENT_ID


class SubscribedFrame(BaseModel):
    """The broker granted the filters; in front of the subscription's first message."""

    op: Literal["ack"] = _ACK
    id: FrameId = _ANSWERED
    subscription: FrameId = Field(description="Names the subscription: the same id.", examples=[1])
    event_id: str = Field(
        description="Where the subscription begins: what to come back with, before its first message.",
        examples=["q2Vb7Jm.Xw0eT4_dHfR8Lg-9b2e41c7-r"],
    )


class UnsubscribedFrame(BaseModel):
    """The subscription is over."""

    op: Literal["ack"] = _ACK
    id: FrameId = _ANSWERED
    subscription: FrameId = Field(description="The subscription.", examples=[1])


class PublishedFrame(PublishAnswer):
    """What became of a message; it means what the answer of `POST /v1/publish` means."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "op": "ack",
                    "id": 2,
                    "topic": "lamp/set",
                    "qos": 1,
                    "retain": False,
                    "reason_code": 0,
                    "reason": "Success",
                }
            ]
        }
    )

    op: Literal["ack"] = _ACK
    id: FrameId = _ANSWERED


class PongFrame(BaseModel):
    """The answer to a ping."""

    op: Literal["ack"] = _ACK
    id: FrameId = _ANSWERED


class RefusedFrame(BaseModel):
    """The operation was not carried out; the WebSocket stays open."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"op": "error", "id": 5, "problem": Problem.model_json_schema()["examples"][0]}]
        }
    )

    op: Literal["error"] = Field(description="What the frame is.")
    id: FrameId | None = Field(
        description="The id of the frame that is answered; null where it had none that can be one.",
        examples=[5],
    )
    problem: Problem = Field(description="What an HTTP call would have been answered with.")
