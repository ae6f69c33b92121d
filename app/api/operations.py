"""The operations of the routes that are read by hand, as the OpenAPI document has them.

Their parameters and bodies come from the models that read them, their errors from the table of problems.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import orjson
from pydantic import BaseModel

from app.api import publish, subscribe, topics, websocket
from app.api.forms import EVENT_STREAM, NDJSON
from app.api.headers import CORRELATION_DATA, USER_PROPERTY
from app.api.models import RetainedMessage
from app.api.query import TOPIC_PATTERN, ClearQuery, PublishQuery, RetainedQuery, TopicQuery
from app.api.stream_options import SubscribeQuery
from app.problems import ProblemType, documented

REF: Final = "#/components/schemas/"
TOPIC_PATH: Final = topics.TopicsRoute.path_format


_QUERY: Final = (
    ProblemType.UNKNOWN_PARAMETER,
    ProblemType.REPEATED_PARAMETER,
    ProblemType.INVALID_PARAMETER,
)
_BROKER: Final = (
    ProblemType.INVALID_TOPIC,
    ProblemType.UNSUPPORTED,
    ProblemType.NOT_AUTHORIZED,
    ProblemType.QUOTA_EXCEEDED,
    ProblemType.INTERNAL_ERROR,
    ProblemType.REFUSED_BY_BROKER,
    ProblemType.BROKER_UNAVAILABLE,
)
_PUBLISH: Final = (
    *_QUERY,
    *_BROKER,
    ProblemType.INVALID_HEADER,
    ProblemType.UNSUPPORTED_HEADER,
    ProblemType.RESERVED_TOPIC,
    ProblemType.QUEUE_FULL,
    ProblemType.OUTCOME_UNKNOWN,
)
_BODY: Final = (
    *_PUBLISH,
    ProblemType.EMPTY_RETAINED,
    ProblemType.BODY_TIMEOUT,
    ProblemType.BODY_TOO_LARGE,
    ProblemType.PACKET_TOO_LARGE,
    ProblemType.INVALID_PAYLOAD,
)
_JSON_BODY: Final = (
    *_BODY,
    ProblemType.MALFORMED_BODY,
    ProblemType.UNSUPPORTED_MEDIA_TYPE,
    ProblemType.INVALID_BODY,
)
_READ: Final = (
    *_QUERY,
    *_BROKER,
    ProblemType.NO_RETAINED_MESSAGE,
    ProblemType.NOT_ACCEPTABLE,
    ProblemType.TOO_MANY_RETAINED,
    ProblemType.BROKER_TIMEOUT,
)

_STREAM: Final = (
    *_QUERY,
    *_BROKER,
    ProblemType.NOT_ACCEPTABLE,
    ProblemType.TOO_MANY_STREAMS,
    ProblemType.SHUTTING_DOWN,
    ProblemType.BROKER_TIMEOUT,
)

_STREAM_BY_BODY: Final = (
    *_STREAM,
    ProblemType.INVALID_HEADER,
    ProblemType.UNSUPPORTED_HEADER,
    ProblemType.BODY_TIMEOUT,
    ProblemType.BODY_TOO_LARGE,
    ProblemType.MALFORMED_BODY,
    ProblemType.UNSUPPORTED_MEDIA_TYPE,
    ProblemType.INVALID_BODY,
)
_ABOUT_STREAMS: Final = (
    "Whatever can be refused is refused before the stream begins. Each message is an event without a name, "
    "its data one JSON object; `broker`, `gap`, `lag` and `close` tell about the stream itself. A client "
    "that comes back with the last id that it saw gets what it missed first, or `gap` where that is not all "
    "there any more."
)

_EXAMPLE_TOPIC: Final = "sensors/7/temperature"
_RETAINED_HEADERS: Final[dict[str, tuple[str, str]]] = {
    "Mqtt-Topic": ("The topic, percent-encoded.", _EXAMPLE_TOPIC),
    "Mqtt-User-Property": ("`name=value`, percent-encoded, once for each user property.", "unit=celsius"),
    "Mqtt-Correlation-Data": ("The correlation data in base64, where there is some.", "cmVxLTc="),
    "Mqtt-Response-Topic": ("Where an answer is expected, percent-encoded.", "replies/7"),
    "Mqtt-Message-Expiry": ("Seconds that are left until the broker forgets the message.", "3600"),
}


def paths() -> dict[str, Any]:
    """Each path with its operations."""
    return {
        TOPIC_PATH: _topic_operations("", _topic_in_path),
        topics.PATH: _topic_operations("_by_query", _topic_in_query),
        publish.PATH: {
            "post": {
                "operationId": "publish_message",
                "tags": ["publish"],
                "summary": "Publish one message as JSON",
                "requestBody": {
                    "required": True,
                    "content": {"application/json": {"schema": {"$ref": REF + "PublishRequest"}}},
                },
                "responses": _publish_answers(_JSON_BODY),
            }
        },
        subscribe.PATH: {
            "get": {
                "operationId": "subscribe",
                "tags": ["subscribe"],
                "summary": "Follow topics as a stream of events",
                "description": _ABOUT_STREAMS,
                "parameters": [*_query(SubscribeQuery), _last_event_id()],
                "responses": {"200": _stream_answer(), **_problems(_STREAM)},
            },
            "post": {
                "operationId": "subscribe_by_body",
                "tags": ["subscribe"],
                "summary": "Follow more topics than a URL can hold",
                "description": _ABOUT_STREAMS,
                "parameters": [_last_event_id()],
                "requestBody": {
                    "required": True,
                    "content": {"application/json": {"schema": {"$ref": REF + "SubscribeRequest"}}},
                },
                "responses": {"200": _stream_answer(), **_problems(_STREAM_BY_BODY)},
            },
        },
        websocket.PATH: {
            "get": {
                "operationId": "open_websocket",
                "tags": ["subscribe"],
                "summary": "Subscribe and publish over one WebSocket",
                "description": "RFC 6455, with the subprotocol `tidegate.v1`: one JSON object a frame.",
                "responses": {
                    "101": {"description": "The WebSocket is open."},
                    **_problems(
                        (
                            *_QUERY,
                            ProblemType.INVALID_HEADER,
                            ProblemType.FORBIDDEN,
                            ProblemType.UPGRADE_REQUIRED,
                            ProblemType.TOO_MANY_STREAMS,
                            ProblemType.SHUTTING_DOWN,
                        )
                    ),
                },
            }
        },
    }


def _topic_operations(suffix: str, topic: Callable[[dict[str, Any]], dict[str, Any]]) -> dict[str, Any]:
    """The four calls, with the topic in the path or in the query.

    Args:
        suffix: put behind each operation's id.
        topic: makes the parameter from the schema of what it may be.
    """
    body = {
        "description": "The payload, published as it is.",
        "content": {
            "*/*": {
                "schema": {"type": "string", "format": "binary"},
                "examples": {"text": {"value": "21.5"}, "json": {"value": '{"celsius": 21.5}'}},
            }
        },
    }
    name = topic({"type": "string", "minLength": 1, "pattern": TOPIC_PATTERN})
    name_or_filter = topic({"type": "string", "minLength": 1})
    return {
        "post": {
            "operationId": "publish_topic" + suffix,
            "tags": ["publish"],
            "summary": "Publish the body to a topic",
            "description": "A Content-Type other than the form type, which `curl -d` sends unasked, becomes "
            "the MQTT 5 content type.",
            "parameters": [name, *_query(PublishQuery), *_message_headers()],
            "requestBody": body,
            "responses": _publish_answers(_BODY),
        },
        "put": {
            "operationId": "publish_retained" + suffix,
            "tags": ["publish"],
            "summary": "Publish the body and keep it as the topic's value",
            "parameters": [name, *_query(RetainedQuery), *_message_headers()],
            "requestBody": {**body, "required": True},
            "responses": _publish_answers(_BODY),
        },
        "get": {
            "operationId": "get_retained" + suffix,
            "tags": ["retained"],
            "summary": "Read what is kept for a topic, or for all that a filter matches",
            "description": "A topic answers the payload itself; a filter with wildcards answers a list.",
            "parameters": [name_or_filter],
            "responses": {"200": _retained_answer(), **_problems(_READ)},
        },
        "delete": {
            "operationId": "clear_retained" + suffix,
            "tags": ["retained"],
            "summary": "Clear what is kept for a topic",
            "description": "Publishes an empty retained message; a success also where nothing is kept.",
            "parameters": [name, *_query(ClearQuery)],
            "responses": _publish_answers(_PUBLISH),
        },
    }


def _topic_in_path(schema: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": "topic",
        "in": "path",
        "required": True,
        "description": "The topic, percent-decoded once; it may hold slashes, and `%2F` is one too. Only "
        "`GET` takes wildcards: write `+` as it is and `#` as `%23`.",
        "schema": schema,
        "example": _EXAMPLE_TOPIC,
    }


def _topic_in_query(schema: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": "topic",
        "in": "query",
        "required": True,
        "description": TopicQuery.model_fields["topic"].description,
        "schema": schema,
        "example": "/leading/slash",
    }


def _last_event_id() -> dict[str, Any]:
    return {
        "name": "Last-Event-ID",
        "in": "header",
        "description": "What a browser sends when it comes back: the id of the last event that it saw.",
        "schema": {"type": "string"},
        "example": "5f2c9a01-17",
    }


def _stream_answer() -> dict[str, Any]:
    example = _example(RetainedMessage)
    event = orjson.dumps(example).decode()
    return {
        "description": "Events, for as long as the client stays.",
        "headers": {
            "Last-Event-ID": {
                "description": "Where the stream begins, for a client that leaves before the first event.",
                "schema": {"type": "string"},
                "example": "5f2c9a01-17",
            }
        },
        "content": {
            EVENT_STREAM: {
                "schema": {"type": "string", "description": "Server-Sent Events."},
                "example": f"retry: 2000\n\nid: 5f2c9a01-18\ndata: {event}\n\n",
            },
            NDJSON: {
                "schema": {
                    "type": "string",
                    "description": "One object a line: a message with its `id` in front, or a control event "
                    "with the member `event`. An empty line is a heartbeat.",
                },
                "example": orjson.dumps({"id": "5f2c9a01-18", **example}).decode() + "\n",
            },
        },
    }


def _example(model: type[BaseModel]) -> Any:
    return model.model_json_schema()["examples"][0]


def _publish_answers(kinds: tuple[ProblemType, ...]) -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": REF + "PublishAnswer"}}}
    acknowledged = "QoS 1 and 2: the broker completed the exchange, and its reason code was a success."
    handed_over = "QoS 0: the bytes are with the connected socket, and nobody will acknowledge them."
    sent = {"topic": _EXAMPLE_TOPIC, "qos": 0, "retain": False, "reason_code": 0, "reason": "Success"}
    return {
        "200": {"description": acknowledged, "content": content},
        "202": {
            "description": handed_over,
            "content": {"application/json": {"schema": {"$ref": REF + "PublishAnswer"}, "example": sent}},
        },
        **_problems(kinds),
    }


def _retained_answer() -> dict[str, Any]:
    item = {"$ref": REF + "RetainedMessage"}
    example = _example(RetainedMessage)
    return {
        "description": "A topic: the payload, with its content type or application/octet-stream where it has "
        "none. A filter: the messages, ordered by topic.",
        "headers": {
            name: {"description": description, "schema": {"type": "string"}, "example": value}
            for name, (description, value) in _RETAINED_HEADERS.items()
        },
        "content": {
            "*/*": {"schema": {"type": "string", "format": "binary"}, "example": "21.5"},
            topics.JSON: {
                "schema": {
                    "anyOf": [
                        {"type": "array", "items": item, "description": "Of a filter."},
                        {"description": "Of a topic whose payload says that it is JSON: the payload."},
                    ]
                },
                "example": [example],
            },
            topics.NDJSON: {
                "schema": {"type": "string", "description": "One such object a line."},
                "example": orjson.dumps(example).decode() + "\n",
            },
        },
    }


def _query(model: type[BaseModel]) -> list[dict[str, Any]]:
    """The parameters that a query model reads; the topic that the path may have instead is not among them."""
    schema = model.model_json_schema()
    parameters = []
    for name, found in schema["properties"].items():
        if issubclass(model, TopicQuery) and name == "topic":
            continue
        described = dict(found)
        for variant in described.pop("anyOf", ()):
            if variant.get("type") != "null":
                described.update(variant)
        if described.get("default", ...) is None:
            del described["default"]
        described.pop("title", None)
        parameter = {
            "name": name,
            "in": "query",
            "required": name in schema.get("required", ()),
            "description": described.pop("description"),
        }
        examples = described.pop("examples", None)
        if examples:
            parameter["example"] = examples[0]
        parameters.append({**parameter, "schema": described})
    return parameters


def _message_headers() -> list[dict[str, Any]]:
    return [
        {
            "name": USER_PROPERTY,
            "in": "header",
            "description": "`name=value`, percent-encoded; may be there several times, and the order is kept "
            "(MQTT 5 §3.3.2.3.7). Refused where the broker connection is MQTT 3.1.1.",
            "schema": {"type": "string", "pattern": "^[^=]*=.*$"},
            "example": "unit=celsius",
        },
        {
            "name": CORRELATION_DATA,
            "in": "header",
            "description": "Base64 (MQTT 5 §3.3.2.3.6). Refused where the broker connection is MQTT 3.1.1.",
            "schema": {"type": "string", "contentEncoding": "base64"},
            "example": "cmVxLTc=",
        },
    ]


def _problems(kinds: tuple[ProblemType, ...]) -> dict[str, Any]:
    return {str(status): each for status, each in documented(*dict.fromkeys(kinds)).items()}
