"""Publishing to topics, and reading what is kept for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import orjson

from app.api import batch, publish, topics
from app.api.input.idempotency_key import IDEMPOTENCY_KEY, IDEMPOTENCY_REPLAYED, KEY_PATTERN
from app.api.input.query import TOPIC_PATTERN, BatchQuery, ClearQuery, PublishQuery, RetainedQuery, TopicQuery
from app.api.models import BatchAnswer, PublishRequest, RetainedMessage
from app.api.operations.headers import MESSAGE_HEADERS, TRACE_HEADERS, message_headers
from app.api.operations.parts import (
    BROKER_PROBLEMS,
    EXAMPLE_TOPIC,
    QUERY_PROBLEMS,
    REF,
    example_of,
    problems,
    query_parameters,
)
from app.api.output.messages import JSON, NDJSON
from app.problems import ProblemType
from app.publishing.cloud_events import BATCH, STRUCTURED

TOPIC_PATH: Final = topics.TopicsRoute.path_format
IDEMPOTENCY_PROBLEMS: Final = (
    ProblemType.INVALID_HEADER,
    ProblemType.CONFLICT,
    ProblemType.IDEMPOTENCY_KEY_REUSED,
    ProblemType.TOO_MANY_REQUESTS,
    ProblemType.IDEMPOTENCY_UNAVAILABLE,
)
"""What may be said of an Idempotency-Key, on any call that honours it."""

_PUBLISH: Final = (
    *QUERY_PROBLEMS,
    *BROKER_PROBLEMS,
    *IDEMPOTENCY_PROBLEMS,
    ProblemType.INVALID_HEADER,
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
    ProblemType.SCHEMA_MISMATCH,
)
_RAW_BODY: Final = (
    *_BODY,
    ProblemType.INVALID_CLOUD_EVENT,
    ProblemType.MALFORMED_BODY,
    ProblemType.UNSUPPORTED_MEDIA_TYPE,
)
_JSON_BODY: Final = (
    *_BODY,
    ProblemType.MALFORMED_BODY,
    ProblemType.UNSUPPORTED_MEDIA_TYPE,
    ProblemType.INVALID_BODY,
)
_READ: Final = (
    *QUERY_PROBLEMS,
    *BROKER_PROBLEMS,
    ProblemType.NO_RETAINED_MESSAGE,
    ProblemType.NOT_ACCEPTABLE,
    ProblemType.TOO_MANY_RETAINED,
    ProblemType.BROKER_TIMEOUT,
)

_EVENT: Final = {
    "specversion": "1.0",
    "id": "5f2c9a01-17",
    "source": "/mqtt",
    "type": "io.tidegate.message",
    "subject": EXAMPLE_TOPIC,
    "time": "2026-01-31T12:00:00.000Z",
    "mqttqos": 0,
    "mqttretain": True,
    "datacontenttype": "application/json",
    "data": {"celsius": 21.5},
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
                "parameters": [*TRACE_HEADERS, idempotency_key()],
                "requestBody": {
                    "required": True,
                    "content": {"application/json": {"schema": {"$ref": REF + "PublishRequest"}}},
                },
                "responses": _publish_answers(_JSON_BODY),
            }
        },
        batch.PATH: {"post": _batch_operation()},
    }


def _batch_operation() -> dict[str, Any]:
    example = example_of(PublishRequest)
    content = {
        batch.JSON: {"schema": {"$ref": REF + "BatchAnswer"}},
        NDJSON: {
            "schema": {"type": "string", "description": "A result a line; the last line has the counts."},
            "example": '{"index":0,"qos":1,"reason_code":0,"reason":"Success"}\n{"accepted":1,"failed":0}\n',
        },
    }
    partly = {batch.JSON: {"schema": {"$ref": REF + "BatchAnswer"}, "example": example_of(BatchAnswer)}}
    return {
        "operationId": "publish_batch",
        "tags": ["publish"],
        "summary": "Publish many messages",
        "description": "An array is read whole before the first message is sent. Lines are published as they "
        "come, in a body of any length. A message that fails does not keep back the others. Where none was "
        "accepted, the answer is the problem of the first, with the members `accepted`, `failed` and "
        "`results` in it. An answer in lines begins with 200 before its end is known: read the last line.",
        "parameters": [*query_parameters(BatchQuery), idempotency_key()],
        "requestBody": {
            "required": True,
            "content": {
                batch.JSON: {
                    "schema": {"type": "array", "minItems": 1, "items": {"$ref": REF + "PublishRequest"}},
                    "example": [example],
                },
                NDJSON: {
                    "schema": {"type": "string", "description": "One such object a line."},
                    "example": orjson.dumps(example).decode() + "\n",
                },
            },
        },
        "responses": {
            "200": {
                "description": "All were accepted. In lines: see the last one.",
                "headers": replayed(),
                "content": content,
            },
            "202": {
                "description": "All were handed over, all of them with QoS 0.",
                "headers": replayed(),
                "content": {batch.JSON: {"schema": {"$ref": REF + "BatchAnswer"}}},
            },
            "207": {
                "description": "Some were accepted, and some failed.",
                "headers": replayed(),
                "content": partly,
            },
            **problems((*_JSON_BODY, ProblemType.NOT_ACCEPTABLE, ProblemType.UNSUPPORTED_HEADER)),
        },
    }


def idempotency_key() -> dict[str, Any]:
    """The header, as every call has it that honours it."""
    return {
        "name": IDEMPOTENCY_KEY,
        "in": "header",
        "description": "Makes the request safe to repeat: the same request with the same key is published "
        "once, and answered as the first was; an answer that is too large to keep is told in brief, or with "
        "`conflict`. 1 to 255 printable ASCII characters, bare or in quotes.",
        "schema": {"type": "string", "pattern": KEY_PATTERN},
        "example": "8e03978e-40d5-43dd-bc93-6894a57f9324",
    }


def replayed() -> dict[str, Any]:
    """The header of an answer that stems from an earlier request."""
    return {
        IDEMPOTENCY_REPLAYED: {
            "description": "`true` where this request published nothing, and the answer is that of an "
            "earlier one with the same key.",
            "schema": {"type": "string", "enum": ["true"]},
        }
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
            "the MQTT 5 content type. With `ce-…` headers the message is a CloudEvent in binary mode, with "
            "`Content-Type: application/cloudevents+json` one in structured mode; either is checked.",
            "parameters": [
                name,
                *query_parameters(PublishQuery),
                *message_headers(),
                idempotency_key(),
            ],
            "requestBody": body,
            "responses": _publish_answers(_RAW_BODY),
        },
        "put": {
            "operationId": "publish_retained" + suffix,
            "tags": ["publish"],
            "summary": "Publish the body and keep it as the topic's value",
            "parameters": [
                name,
                *query_parameters(RetainedQuery),
                *message_headers(),
                idempotency_key(),
            ],
            "requestBody": {**body, "required": True},
            "responses": _publish_answers(_RAW_BODY),
        },
        "get": {
            "operationId": "get_retained" + suffix,
            "tags": ["retained"],
            "summary": "Read what is kept for a topic, or for all that a filter matches",
            "description": "A topic answers the payload itself; a filter with wildcards answers a list.",
            "parameters": [name_or_filter],
            "responses": {"200": _retained_answer(), **problems(_READ)},
        },
        "delete": {
            "operationId": "clear_retained" + suffix,
            "tags": ["retained"],
            "summary": "Clear what is kept for a topic",
            "description": "Publishes an empty retained message; a success also where nothing is kept.",
            "parameters": [name, *query_parameters(ClearQuery), idempotency_key()],
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
        "example": EXAMPLE_TOPIC,
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


def _publish_answers(kinds: tuple[ProblemType, ...]) -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": REF + "PublishAnswer"}}}
    acknowledged = "QoS 1 and 2: the broker completed the exchange, and its reason code was a success."
    handed_over = "QoS 0: the bytes are with the connected socket, and nobody will acknowledge them."
    sent = {"topic": EXAMPLE_TOPIC, "qos": 0, "retain": False, "reason_code": 0, "reason": "Success"}
    return {
        "200": {"description": acknowledged, "headers": replayed(), "content": content},
        "202": {
            "description": handed_over,
            "headers": replayed(),
            "content": {"application/json": {"schema": {"$ref": REF + "PublishAnswer"}, "example": sent}},
        },
        **problems(kinds),
    }


def _retained_answer() -> dict[str, Any]:
    item = {"$ref": REF + "RetainedMessage"}
    example = example_of(RetainedMessage)
    return {
        "description": "A topic: the payload, with its content type or application/octet-stream where it has "
        "none. A filter: the messages, ordered by topic.",
        "headers": {
            name: {"description": description, "schema": {"type": "string"}, "example": value}
            for name, (description, value) in MESSAGE_HEADERS.items()
        },
        "content": {
            "*/*": {"schema": {"type": "string", "format": "binary"}, "example": "21.5"},
            JSON: {
                "schema": {
                    "anyOf": [
                        {"type": "array", "items": item, "description": "Of a filter."},
                        {"description": "Of a topic whose payload says that it is JSON: the payload."},
                    ]
                },
                "example": [example],
            },
            NDJSON: {
                "schema": {"type": "string", "description": "One such object a line."},
                "example": orjson.dumps(example).decode() + "\n",
            },
            STRUCTURED: {
                "schema": {
                    "type": "object",
                    "description": "Of a topic, where Accept names it: a CloudEvent.",
                },
                "example": _EVENT,
            },
            BATCH: {
                "schema": {
                    "type": "array",
                    "items": {"type": "object"},
                    "description": "Of a filter, where Accept prefers it: a CloudEvent each.",
                },
                "example": [_EVENT],
            },
        },
    }
