"""Following topics, as a stream or over a WebSocket."""

from __future__ import annotations

from typing import Any, Final

import orjson

from app.api import subscribe, websocket
from app.api.input.stream_options import SubscribeQuery
from app.api.input.ticket import TICKET
from app.api.models import RetainedMessage
from app.api.operations.parts import (
    BROKER_PROBLEMS,
    QUERY_PROBLEMS,
    REF,
    example_of,
    problems,
    query_parameters,
)
from app.api.stream.forms import EVENT_STREAM, NDJSON
from app.problems import ProblemType

_STREAM: Final = (
    *QUERY_PROBLEMS,
    *BROKER_PROBLEMS,
    ProblemType.NOT_ACCEPTABLE,
    ProblemType.TOO_MANY_REQUESTS,
    ProblemType.TOO_MANY_STREAMS,
    ProblemType.SHUTTING_DOWN,
    ProblemType.BROKER_TIMEOUT,
    ProblemType.TICKETS_UNAVAILABLE,
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


def paths() -> dict[str, Any]:
    """Each path with its operations."""
    return {
        subscribe.PATH: {
            "get": {
                "operationId": "subscribe",
                "tags": ["subscribe"],
                "summary": "Follow topics as a stream of events",
                "description": _ABOUT_STREAMS,
                "parameters": [*query_parameters(SubscribeQuery), _ticket(), _last_event_id()],
                "responses": {"200": _stream_answer(), **problems(_STREAM)},
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
                "responses": {"200": _stream_answer(), **problems(_STREAM_BY_BODY)},
            },
        },
        websocket.PATH: {
            "get": {
                "operationId": "open_websocket",
                "tags": ["subscribe"],
                "summary": "Subscribe and publish over one WebSocket",
                "description": "RFC 6455, with the subprotocol `tidegate.v1`: one JSON object a frame.",
                "parameters": [_ticket()],
                "responses": {
                    "101": {"description": "The WebSocket is open."},
                    **problems(
                        (
                            *QUERY_PROBLEMS,
                            ProblemType.INVALID_HEADER,
                            ProblemType.UPGRADE_REQUIRED,
                            ProblemType.TOO_MANY_REQUESTS,
                            ProblemType.TOO_MANY_STREAMS,
                            ProblemType.SHUTTING_DOWN,
                            ProblemType.TICKETS_UNAVAILABLE,
                        )
                    ),
                },
            }
        },
    }


def _ticket() -> dict[str, Any]:
    return {
        "name": TICKET,
        "in": "query",
        "required": False,
        "description": "A ticket of `POST /v1/tickets`, for a browser, which can set no header here. It "
        "decides alone who makes the request, and is used up by it.",
        "schema": {"type": "string"},
    }


def _last_event_id() -> dict[str, Any]:
    return {
        "name": "Last-Event-ID",
        "in": "header",
        "description": "What a browser sends when it comes back: the id of the last event that it saw.",
        "schema": {"type": "string"},
        "example": "q2Vb7Jm.Xw0eT4_dHfR8Lg-9b2e41c7",
    }


def _stream_answer() -> dict[str, Any]:
    example = example_of(RetainedMessage)
    event = orjson.dumps(example).decode()
    return {
        "description": "Events, for as long as the client stays.",
        "headers": {
            "Last-Event-ID": {
                "description": "Where the stream begins, for a client that leaves before the first event.",
                "schema": {"type": "string"},
                "example": "q2Vb7Jm.Xw0eT4_dHfR8Lg-9b2e41c7",
            }
        },
        "content": {
            EVENT_STREAM: {
                "schema": {"type": "string", "description": "Server-Sent Events."},
                "example": f"retry: 2000\n\nid: Zk81uPoC3sYn.5aWtE6bMQ-9b2e41c7\ndata: {event}\n\n",
            },
            NDJSON: {
                "schema": {
                    "type": "string",
                    "description": "One object a line: a message with its `id` in front, or a control event "
                    "with the member `event`; or a CloudEvent. An empty line is a heartbeat.",
                },
                "example": orjson.dumps({"id": "Zk81uPoC3sYn.5aWtE6bMQ-9b2e41c7", **example}).decode() + "\n",
            },
        },
    }
