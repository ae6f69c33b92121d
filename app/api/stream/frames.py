"""The frames of ``tidegate.v1``: one JSON object each, in both directions.

What a client sends has an ``op`` and an ``id`` of its choice, which the answer brings back. What the bridge
sends on its own is ``message``, or a control event under its own name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal, NamedTuple

import orjson
from msgspec import Raw
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    TypeAdapter,
    ValidationError,
    WithJsonSchema,
)

from app.api.input.publish_request import Request, RequestReader
from app.api.input.stream_options import SubscriptionOptions
from app.api.models import PublishRequest
from app.api.output.refusals import invalid_body, malformed_body
from app.api.stream.forms import LinesForm
from app.hub.event import ControlEvent, Event
from app.hub.position import Epoch, standing
from app.problems import ProblemError, ProblemType, did_you_mean
from tidegate.message import Message
from tidegate.reason_codes import describe

MAX_ID: Final = 2**53 - 1
"""The largest whole number that every reader of JSON has (RFC 8259 §6)."""

MAX_ID_CHARACTERS: Final = 64


def _frame_id(value: object) -> object:
    if isinstance(value, str) and len(value) <= MAX_ID_CHARACTERS:
        return value
    if type(value) is int and abs(value) <= MAX_ID:
        return value
    raise ValueError(
        f"it is a whole number, at most {MAX_ID}, or a string of at most {MAX_ID_CHARACTERS} characters"
    )


Id = int | str
FrameId = Annotated[
    int | str,
    PlainValidator(_frame_id),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": -MAX_ID, "maximum": MAX_ID},
                {"type": "string", "maxLength": MAX_ID_CHARACTERS},
            ]
        }
    ),
]
_OP: Any = Field(description="What is to be done.")
_OWN_ID: Any = Field(description="Of the client's choice; the answer brings it back.", examples=[1])


class SubscribeFrame(SubscriptionOptions):
    """Follow topics; the subscription is known by the frame's id."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"op": "subscribe", "id": 1, "topics": ["sensors/#"], "qos": 1}]}
    )

    op: Literal["subscribe"] = _OP
    id: FrameId = _OWN_ID


class UnsubscribeFrame(BaseModel):
    """End a subscription."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        json_schema_extra={"examples": [{"op": "unsubscribe", "id": 3, "subscription": 1}]},
    )

    op: Literal["unsubscribe"] = _OP
    id: FrameId = _OWN_ID
    subscription: FrameId = Field(description="The id of the frame that subscribed.", examples=[1])


class PublishFrame(NamedTuple):
    """Publish a message; the answer comes when the broker has taken it."""

    id: Id
    message: Message


class PublishFrameModel(PublishRequest):
    """Publish a message; the answer comes when the broker has taken it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"op": "publish", "id": 2, "topic": "lamp/set", "payload": "on", "encoding": "text"},
            ]
        }
    )

    op: Literal["publish"] = _OP
    id: FrameId = _OWN_ID


class _PublishMembers(Request, kw_only=True):
    op: Raw
    id: Raw

    def count(self) -> int:
        return super().count() + 2


class PingFrame(BaseModel):
    """Ask for an answer."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, json_schema_extra={"examples": [{"op": "ping", "id": 4}]}
    )

    op: Literal["ping"] = _OP
    id: FrameId = _OWN_ID


Frame = SubscribeFrame | UnsubscribeFrame | PublishFrame | PingFrame

_MODELS: Final[dict[str, tuple[type[BaseModel], TypeAdapter[Any]]]] = {
    "subscribe": (SubscribeFrame, TypeAdapter(SubscribeFrame)),
    "unsubscribe": (UnsubscribeFrame, TypeAdapter(UnsubscribeFrame)),
    "publish": (PublishFrameModel, TypeAdapter(PublishFrameModel)),
    "ping": (PingFrame, TypeAdapter(PingFrame)),
}
_id: Final[TypeAdapter[int | str]] = TypeAdapter(FrameId)
_read_publish: Final = RequestReader(_PublishMembers, PublishFrameModel).read
_lines: Final = LinesForm()


def read_frame(text: bytes) -> tuple[Frame | ProblemError, Id | None]:
    """Read what a client sent.

    Returns:
        The frame, or what is wrong with it; and its id, as far as it has one.
    """
    try:
        found = orjson.loads(text)
    except ValueError as error:
        return malformed_body(str(error), what="the frame"), None
    if not isinstance(found, dict):
        return ProblemError(ProblemType.INVALID_BODY, "a frame is a JSON object", field=""), None
    try:
        known_id = _id.validate_python(found.get("id"))
    except ValidationError:
        known_id = None
    op = found.get("op")
    if not isinstance(op, str) or op not in _MODELS:
        problem = ProblemError(
            ProblemType.INVALID_BODY,
            "a frame says in 'op' what is to be done" if op is None else f"there is no op {op!r}",
            field="/op",
            hint=did_you_mean(str(op), _MODELS) if op is not None else f"known are {', '.join(_MODELS)}",
        )
        return problem, known_id
    if op == "publish" and known_id is not None:
        try:
            return PublishFrame(known_id, _read_publish(text)), known_id
        except ProblemError as problem:
            return problem, known_id
    model, adapter = _MODELS[op]
    try:
        frame: Frame = adapter.validate_json(text)
    except ValidationError as error:
        return invalid_body(error, model), known_id
    return frame, known_id


def acknowledgement(frame_id: Id, **facts: Any) -> str:
    """The answer to a frame whose operation was carried out."""
    return orjson.dumps({"op": "ack", "id": frame_id, **facts}).decode()


def acknowledged_publish(frame_id: Id, message: Message, reason_code: int) -> str:
    """The answer to a publish that the broker has taken."""
    return acknowledgement(
        frame_id,
        topic=message.topic,
        qos=message.qos,
        retain=message.retain,
        reason_code=reason_code,
        reason=describe(reason_code),
    )


def refusal_frame(frame_id: Id | None, problem: ProblemError) -> str:
    """The answer to a frame whose operation was not carried out."""
    return orjson.dumps({"op": "error", "id": frame_id, "problem": orjson.loads(problem.body())}).decode()


def event_frames(
    subscription: bytes,
    events: Sequence[Event | ControlEvent],
    qos: int,
    epoch: Epoch,
    *,
    marked: bool,
    filters: str = "",
) -> list[str]:
    """What happened on a subscription, a frame each.

    Args:
        subscription: the subscription's id, as JSON.
        events: what happened.
        qos: the QoS asked for.
        epoch: the run of the bridge.
        marked: the ids tell that retained messages are still on their way.
        filters: the digest of the subscription's filters, for ids.
    """
    frames: list[str] = []
    for event in events:
        if isinstance(event, Event):
            line = _lines.encode([event], qos, epoch, marked=marked, filters=filters)
            frames.append((b'{"op":"message","subscription":%b,%b' % (subscription, line[1:-1])).decode())
        else:
            facts = dict(event.facts)
            if event.sequence:
                facts["id"] = str(standing(epoch, event.sequence, filters, marked))
            frames.append(
                orjson.dumps({"op": event.name, "subscription": orjson.loads(subscription), **facts}).decode()
            )
    return frames


def socket_frame(event: ControlEvent) -> str:
    """What happened to the socket as a whole."""
    return orjson.dumps({"op": event.name, **event.facts}).decode()
