"""The JSON that the publishing calls take and give; the same models stand in the OpenAPI document."""

from __future__ import annotations

import base64
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    WithJsonSchema,
)

from app.api.input.query import MAX_SECONDS, TOPIC_PATTERN, TopicName
from app.problems import Problem
from tidegate.message import NO_PROPERTIES, Properties
from tidegate.strings import MAX_STRING_BYTES, why_not_a_string


def _string(text: str) -> str:
    reason = why_not_a_string(text)
    if reason is not None:
        raise ValueError(reason)
    return text


def _base64(text: Any) -> bytes:
    try:
        octets = base64.b64decode(text, validate=True)
    except (TypeError, ValueError) as error:
        raise ValueError(f"it is not base64: {error}") from None
    if len(octets) > MAX_STRING_BYTES:
        raise ValueError(f"{len(octets)} bytes are too many: MQTT carries at most {MAX_STRING_BYTES}")
    return octets


MQTTBytes = Annotated[
    bytes, BeforeValidator(_base64), WithJsonSchema({"type": "string", "contentEncoding": "base64"})
]
MQTTString = Annotated[str, AfterValidator(_string)]
Base64 = Annotated[str, Field(json_schema_extra={"contentEncoding": "base64"})]
UserProperty = Annotated[
    tuple[MQTTString, MQTTString],
    WithJsonSchema({"type": "array", "items": {"type": "string"}, "minItems": 2, "maxItems": 2}),
]
"""A name and its value."""

StrictQoS = Annotated[int, Field(strict=True, ge=0, le=2)]

_STRICT: Final = ConfigDict(extra="forbid", strict=True)


class MessageProperties(BaseModel):
    """MQTT 5 properties of a message (MQTT 5 §3.3.2.3); refused where the broker connection is MQTT 3.1.1."""

    model_config = _STRICT

    content_type: MQTTString | None = Field(
        None, description="What the payload is, as a rule a MIME type.", examples=["application/json"]
    )
    message_expiry: Annotated[int, Field(strict=True, ge=0, le=MAX_SECONDS)] | None = Field(
        None, description="Seconds after which the broker forgets the message.", examples=[3600]
    )
    response_topic: TopicName | None = Field(
        None, description="Where an answer is expected.", examples=["replies/7"]
    )
    correlation_data: MQTTBytes | None = Field(
        None, description="Bytes that tie an answer to its request, in base64.", examples=["cmVxLTc="]
    )
    payload_format: Annotated[int, Field(strict=True, ge=0, le=1)] | None = Field(
        None, description="1 says that the payload is UTF-8 text, 0 that it is any bytes.", examples=[1]
    )
    user_properties: list[UserProperty] = Field(
        default_factory=list,
        description="Pairs of a name and a value; names may repeat, and the order is kept.",
        examples=[[["unit", "celsius"]]],
    )

    def carried(self) -> Properties:
        """The same as the SDK has it."""
        properties = Properties(
            payload_format=self.payload_format,
            message_expiry=self.message_expiry,
            content_type=self.content_type,
            response_topic=self.response_topic,
            correlation_data=self.correlation_data,
            user_properties=tuple(self.user_properties),
        )
        return NO_PROPERTIES if properties == NO_PROPERTIES else properties


class PublishRequest(BaseModel):
    """One message to publish."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={
            "examples": [
                {"topic": "sensors/7/temperature", "payload": {"celsius": 21.5}},
                {"topic": "lamp/state", "payload": "on", "encoding": "text", "qos": 2, "retain": True},
            ]
        },
    )

    topic: str = Field(
        description="The topic name (MQTT 5 §4.7).",
        examples=["sensors/7/temperature"],
        json_schema_extra={"minLength": 1, "pattern": TOPIC_PATTERN},
    )
    payload: Any = Field(
        description="With `json`: any JSON, published as it is written here, every digit and space of it. "
        "With `text`: a string, published as UTF-8. With `base64`: a string, published decoded."
    )
    encoding: Literal["json", "text", "base64"] = Field("json", description="What `payload` is.")
    qos: StrictQoS = Field(1, description="Quality of service (MQTT 5 §4.3).")
    retain: StrictBool = Field(False, description="Keep the message as the topic's value.")
    properties: MessageProperties | None = None


class PublishAnswer(BaseModel):
    """What became of a message. Acknowledged by the broker is not the same as stored by it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "topic": "sensors/7/temperature",
                    "qos": 1,
                    "retain": False,
                    "reason_code": 0,
                    "reason": "Success",
                }
            ]
        }
    )

    topic: str = Field(description="The topic that it was published to.")
    qos: Literal[0, 1, 2] = Field(description="The quality of service that it was sent with.")
    retain: bool = Field(description="Whether the broker was asked to keep it.")
    reason_code: int = Field(
        description="The broker's MQTT 5 reason code: 0, or 16 where nobody subscribes, which is a success "
        "too. Always 0 with QoS 0 or MQTT 3.1.1, which have no such code."
    )
    reason: str = Field(description="That reason code's name.")


class ReceivedProperties(BaseModel):
    """MQTT 5 properties of a message from the broker (MQTT 5 §3.3.2.3), those that it has."""

    payload_format: int | None = Field(None, description="1: the payload is UTF-8 text; 0: any bytes.")
    message_expiry: int | None = Field(
        None, description="Seconds after which the broker forgets the message.", examples=[3600]
    )
    content_type: str | None = Field(
        None, description="What the payload is, as a rule a MIME type.", examples=["application/json"]
    )
    response_topic: str | None = Field(
        None, description="Where an answer is expected.", examples=["replies/7"]
    )
    correlation_data: Base64 | None = Field(
        None, description="Bytes that tie an answer to its request, in base64.", examples=["cmVxLTc="]
    )
    user_properties: list[UserProperty] | None = Field(
        None,
        description="Pairs of a name and a value; names may repeat, and the order is kept.",
        examples=[[["unit", "celsius"]]],
    )


class PayloadFault(BaseModel):
    """Why a payload does not match the JSON Schema of its topic."""

    pointer: str = Field(
        description="Where, as a JSON pointer into the payload (RFC 6901); empty for the whole.",
        examples=["/celsius"],
    )
    reason: str = Field(description="Why, in words.", examples=['"hot" is not of type "number"'])


class BatchResult(BaseModel):
    """What became of one message of a batch: the broker's reason code, or a problem."""

    index: int = Field(description="The message's place in the batch, from 0; empty lines do not count.")
    qos: Literal[0, 1, 2] | None = Field(None, description="The quality of service that it was sent with.")
    reason_code: int | None = Field(
        None, description="The broker's MQTT 5 reason code, as the answer to a single message has it."
    )
    reason: str | None = Field(None, description="That reason code's name.")
    problem: Problem | None = Field(
        None, description="What the message would have been answered with by itself; only where it failed."
    )


class BatchAnswer(BaseModel):
    """What became of the messages of a batch."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "accepted": 1,
                    "failed": 1,
                    "results": [
                        {"index": 0, "qos": 1, "reason_code": 0, "reason": "Success"},
                        {
                            "index": 1,
                            "problem": {
                                "type": "urn:tidegate:problem:invalid-body",
                                "title": "Invalid body",
                                "status": 422,
                                "detail": "there is no member 'qso'",
                                "field": "/qso",
                                "hint": "did you mean 'qos'?",
                            },
                        },
                    ],
                }
            ]
        }
    )

    accepted: int = Field(
        description="Messages that the broker took (QoS 1 and 2), or that were handed over (QoS 0)."
    )
    failed: int = Field(description="All others.")
    left_out: int | None = Field(
        None,
        description="Messages that are counted and not listed, where there are more than a million, or "
        "where failures fill more than 8 MiB.",
    )
    abridged: int | None = Field(
        None, description="Problems whose detail was left out, where a megabyte did not hold them."
    )
    results_kept: Literal[False] | None = Field(
        None,
        description="`false`: the answer to a repetition with an `Idempotency-Key`, and the first answer's "
        "results were too many to keep; `results` is empty.",
    )
    results: list[BatchResult] = Field(description="In the order of the messages.")


class RetainedMessage(BaseModel):
    """One retained message in a list, as a stream's event has it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "topic": "sensors/7/temperature",
                    "payload": {"celsius": 21.5},
                    "encoding": "json",
                    "qos": 0,
                    "retain": True,
                    "time": "2026-01-31T12:00:00.000Z",
                    "properties": {"content_type": "application/json"},
                }
            ]
        }
    )

    topic: str = Field(description="The topic name.")
    payload: Any = Field(description="JSON where the payload is JSON, else a string.")
    encoding: Literal["json", "text", "base64"] = Field(description="What `payload` is.")
    qos: Literal[0, 1, 2] = Field(description="The quality of service that it arrived with.")
    retain: bool = Field(description="True: it is the kept message.")
    time: str = Field(description="When it arrived at the bridge (RFC 3339, UTC).")
    properties: ReceivedProperties = Field(description="Its MQTT 5 properties, those that it has.")
    valid: bool = Field(True, description="False where it does not match its JSON Schema; else left out.")
    fault: PayloadFault | None = Field(None, description="Why it does not; else left out.")
