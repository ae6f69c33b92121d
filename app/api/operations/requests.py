"""Requests that devices reply to."""

from __future__ import annotations

from typing import Any, Final

import orjson

from app.api import requests
from app.api.input.headers import REPLIES_AWAITED, REPLIES_RECEIVED
from app.api.input.query import TOPIC_PATTERN, TopicQuery
from app.api.input.request_options import RequestQuery
from app.api.models import RetainedMessage
from app.api.operations.headers import MESSAGE_HEADERS, request_headers
from app.api.operations.parts import (
    BROKER_PROBLEMS,
    QUERY_PROBLEMS,
    REF,
    example_of,
    problems,
    query_parameters,
)
from app.api.operations.publishing import IDEMPOTENCY_PROBLEMS, idempotency_key, replayed
from app.api.output.messages import JSON, NDJSON
from app.problems import ProblemType

_PROBLEMS: Final = (
    *QUERY_PROBLEMS,
    *BROKER_PROBLEMS,
    *IDEMPOTENCY_PROBLEMS,
    ProblemType.INVALID_HEADER,
    ProblemType.RESERVED_TOPIC,
    ProblemType.NOT_ACCEPTABLE,
    ProblemType.BODY_TIMEOUT,
    ProblemType.BODY_TOO_LARGE,
    ProblemType.PACKET_TOO_LARGE,
    ProblemType.INVALID_PAYLOAD,
    ProblemType.SCHEMA_MISMATCH,
    ProblemType.INVALID_CLOUD_EVENT,
    ProblemType.MALFORMED_BODY,
    ProblemType.UNSUPPORTED_MEDIA_TYPE,
    ProblemType.QUEUE_FULL,
    ProblemType.TOO_MANY_WAITING,
    ProblemType.REPLY_TOPIC_BUSY,
    ProblemType.SHUTTING_DOWN,
    ProblemType.NO_REPLY,
    ProblemType.OUTCOME_UNKNOWN,
)
_HEADERS: Final[dict[str, tuple[str, str]]] = {
    **MESSAGE_HEADERS,
    REPLIES_AWAITED: ("With `replies`: how many were asked for.", "3"),
    REPLIES_RECEIVED: ("With `replies`: how many came, and are in the list.", "3"),
}


def paths() -> dict[str, Any]:
    """Each path with its operation."""
    schema = {"type": "string", "minLength": 1, "pattern": TOPIC_PATTERN}
    in_path = {
        "name": "topic",
        "in": "path",
        "required": True,
        "description": "The topic that the device listens to, percent-decoded once; it may hold slashes, and "
        "`%2F` is one too.",
        "schema": schema,
        "example": "devices/7/commands",
    }
    in_query = {
        **in_path,
        "in": "query",
        "description": TopicQuery.model_fields["topic"].description,
        "example": "/devices/7/commands",
    }
    return {
        requests.RequestsRoute.path_format: {"post": _operation("request_topic", in_path)},
        requests.PATH: {"post": _operation("request_topic_by_query", in_query)},
    }


def _operation(name: str, topic: dict[str, Any]) -> dict[str, Any]:
    return {
        "operationId": name,
        "tags": ["request"],
        "summary": "Ask a device, and answer with its reply",
        "description": "Publishes the body with a response topic and correlation data, and waits for the "
        "reply. After 504 `no-reply` the request was sent, and may have been carried out.",
        "parameters": [topic, *query_parameters(RequestQuery), *request_headers(), idempotency_key()],
        "requestBody": {
            "description": "The payload of the request, published as it is.",
            "content": {
                "*/*": {
                    "schema": {"type": "string", "format": "binary"},
                    "examples": {"text": {"value": "status"}, "json": {"value": '{"command": "status"}'}},
                }
            },
        },
        "responses": {"200": _answer(), **problems(_PROBLEMS)},
    }


def _answer() -> dict[str, Any]:
    item = {"$ref": REF + "RetainedMessage"}
    example = {**example_of(RetainedMessage), "topic": "devices/7/reply", "retain": False}
    return {
        "description": "The reply: its payload, with its content type or application/octet-stream where it "
        "has none. With `replies`: a list, in the order in which they came.",
        "headers": replayed()
        | {
            name: {"description": description, "schema": {"type": "string"}, "example": value}
            for name, (description, value) in _HEADERS.items()
        },
        "content": {
            "*/*": {"schema": {"type": "string", "format": "binary"}, "example": "21.5"},
            JSON: {
                "schema": {
                    "anyOf": [
                        {"type": "array", "items": item, "description": "With `replies`."},
                        {"description": "A reply that says that it is JSON: its payload."},
                    ]
                },
                "example": [example],
            },
            NDJSON: {
                "schema": {"type": "string", "description": "With `replies`: one such object a line."},
                "example": orjson.dumps(example).decode() + "\n",
            },
        },
    }
