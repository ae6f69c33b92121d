"""The schemas of the AsyncAPI document: models of what is sent and told, control events in each shape.

They keep to what draft 7 of JSON Schema, which AsyncAPI leans on, and 2020-12 have in common.
"""

from __future__ import annotations

from typing import Any, Final

from pydantic import BaseModel, TypeAdapter

from app.api.stream import told
from app.api.stream.cloud_event_forms import CONTROL_TYPE
from app.api.stream.frames import PingFrame, PublishFrameModel, SubscribeFrame, UnsubscribeFrame
from app.hub.control import CONTROL_FACTS, BrokerFacts, CloseFacts, GapFacts
from app.hub.listener import CloseReason

REF: Final = "#/components/schemas/"

_MODELS: Final[tuple[type[BaseModel], ...]] = (
    SubscribeFrame,
    UnsubscribeFrame,
    PublishFrameModel,
    PingFrame,
    told.StreamMessage,
    told.MessageLine,
    told.MessageFrame,
    told.StreamCloudEvent,
    told.CloudEventLine,
    told.SubscribedFrame,
    told.UnsubscribedFrame,
    told.PublishedFrame,
    told.PongFrame,
    told.RefusedFrame,
)

Schema = dict[str, Any]


def schemas() -> dict[str, Schema]:
    """Every schema by its name, which is its model's; those of control events end in what carries them."""
    adapters: list[tuple[str, Any, TypeAdapter[Any]]] = [
        (each.__name__, "validation", TypeAdapter(each)) for each in (*_MODELS, *CONTROL_FACTS)
    ]
    _, made = TypeAdapter.json_schemas(adapters, ref_template=REF + "{model}")
    found: dict[str, Schema] = made["$defs"]
    found[CloseFacts.__name__]["properties"]["reason"]["enum"] = [
        each.reason for each in CloseReason if each is not CloseReason.CLIENT_LEFT
    ]
    event_id = found["MessageLine"]["properties"]["id"]
    subscription = found["MessageFrame"]["properties"]["subscription"]
    for facts in CONTROL_FACTS:
        schema = found[facts.__name__]
        word = facts.name.capitalize()
        place = {"id": event_id} if facts is GapFacts else {}
        named = {"const": facts.name, "description": "What happened."}
        found[f"{word}Line"] = _with(schema, f"{word}Line", {"event": named}, place)
        # of the broker, and of its own end, a WebSocket is told once for all its subscriptions
        whose = {} if facts is BrokerFacts else {"subscription": subscription}
        always, sometimes = ({}, whose) if facts is CloseFacts else (whose, {})
        found[f"{word}Frame"] = _with(schema, f"{word}Frame", {"op": named, **always}, {**sometimes, **place})
        found[f"{word}CloudEvent"] = _control_cloud_event(
            schema, found["StreamCloudEvent"], facts.__name__, CONTROL_TYPE + facts.name, place
        )
    return found


def _with(schema: Schema, title: str, always: Schema, sometimes: Schema) -> Schema:
    """A schema with more members in front, of which some are always there."""
    return {
        **schema,
        "title": title,
        "properties": {**always, **sometimes, **schema["properties"]},
        "required": [*always, *schema.get("required", ())],
    }


def _control_cloud_event(facts: Schema, event: Schema, name: str, kind: str, place: Schema) -> Schema:
    """A control event as a line of CloudEvents."""
    members = event["properties"]
    taken = ("specversion", "id", "source", "time", "datacontenttype")
    position = {"tidegateid": place["id"]} if place else {}
    return {
        "title": name.replace("Facts", "CloudEvent"),
        "type": "object",
        "description": facts["description"],
        "properties": {
            **{each: members[each] for each in taken},
            "type": {"const": kind, "description": "What happened."},
            "data": {"$ref": REF + name},
            **position,
        },
        "required": [*taken, "type", "data"],
        "additionalProperties": True,
    }
