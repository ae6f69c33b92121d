"""The AsyncAPI 3 document: each event of a stream, and each frame of the WebSocket in both directions.

It says what OpenAPI cannot. How a stream is asked for, and refused, stands in the OpenAPI document.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from fastapi import FastAPI

from app.api import subscribe, websocket
from app.api.input.stream_options import SubscribeQuery
from app.api.operations.parts import query_parameters
from app.api.stream.cloud_event_forms import CONTROL_TYPE
from app.api.stream.forms import EVENT_STREAM, NDJSON
from app.api.stream.socket import GOING_AWAY, NOT_AUTHENTICATED
from app.api.stream.told import EXAMPLE_ID
from app.connections.websocket import POLICY
from app.contracts.asyncapi_schemas import REF, schemas
from app.hub.control import CONTROL_FACTS
from app.settings import Settings

TOO_BIG: Final = 1009
"""The status of a close because of a message that is too large (RFC 6455 §7.4.1); the server gives it."""

CLOSE_CODES: Final = {
    1000: "The client closed it.",
    GOING_AWAY: "The bridge ends it; the reason is that of the frame `close` before it.",
    POLICY: "A message came in too many fragments, or was not complete in time.",
    TOO_BIG: "A message was larger than `TIDEGATE_WEBSOCKET_MAX_MESSAGE_BYTES`.",
    NOT_AUTHENTICATED: "What it was opened with has expired (`token_expired`) or was revoked "
    "(`token_revoked`).",
}
"""With which statuses a WebSocket ends (RFC 6455 §7.4)."""

EVENTS, LINES, SOCKET = "eventStream", "lines", "webSocket"
"""The channels."""

_CONTROLS: Final[dict[str, dict[str, Any]]] = {
    "broker": {"state": "up", "session_present": False},
    "gap": {"reason": "unknown_id", "last_event_id": EXAMPLE_ID},
    "lag": {"dropped": 12},
    "close": {"reason": "shutdown", "may_reconnect": True},
}
"""An example of each control event."""

_ASKED: Final = (
    ("subscribe", "SubscribeFrame", "SubscribedFrame"),
    ("unsubscribe", "UnsubscribeFrame", "UnsubscribedFrame"),
    ("publish", "PublishFrameModel", "PublishedFrame"),
    ("ping", "PingFrame", "PongFrame"),
)
"""What a client asks for over a WebSocket: the op, its frame, and the answer where it is carried out."""

Document = dict[str, Any]


def document(app: FastAPI) -> Document:
    """The whole document; title, version and the ways to show who one is are those of OpenAPI."""
    described = app.openapi()
    made = schemas()
    messages = {EVENTS: _events(made), LINES: _lines(made), SOCKET: _frames(made)}
    host = "{host}:{port}".format(**{name: Settings.model_fields[name].default for name in ("host", "port")})
    schemes = described["components"]["securitySchemes"]
    server = {
        "host": host,
        "description": "Where `tidegate serve` listens, unless it is told otherwise.",
        "security": [{"$ref": f"#/components/securitySchemes/{name}"} for name in schemes],
    }
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": described["info"]["title"],
            "version": described["info"]["version"],
            "description": "The streams and the WebSocket. How they are asked for and refused is in the "
            "OpenAPI document, `/openapi.json`. New members may come at any time; a client passes "
            "over what it does not know.",
            "license": described["info"]["license"],
        },
        "defaultContentType": "application/json",
        "servers": {
            "http": {**server, "protocol": "http"},
            "websocket": {**server, "protocol": "ws"},
        },
        "channels": _channels(messages),
        "operations": _operations(messages),
        "components": {
            "messages": {
                f"{channel}.{name}": each for channel in messages for name, each in messages[channel].items()
            },
            "schemas": made,
            "securitySchemes": {name: _scheme(each) for name, each in schemes.items()},
        },
    }


def _events(made: Document) -> Document:
    """Server-Sent Events (WHATWG HTML §9.2); their fields ``id`` and ``event`` are headers here."""
    place = {"id": {"type": "string", "description": "What to come back with.", "examples": [EXAMPLE_ID]}}
    fields = {"type": "object", "properties": place, "required": ["id"]}
    shown = {"headers": {"id": EXAMPLE_ID}}
    text = {"type": "string", "description": "The payload; in base64 where it is no text."}
    found = {
        "message": _message("A message.", REF + "StreamMessage", example_of(made, "StreamMessage"), **shown),
        "payload": _message("A message, with `format=raw`.", text, "21.5", **shown),
        "cloudEvent": _message(
            "A message, with `format=cloudevents`.",
            REF + "StreamCloudEvent",
            example_of(made, "StreamCloudEvent"),
            **shown,
        ),
    }
    for each in found.values():
        each["headers"] = fields
    for facts in CONTROL_FACTS:
        name = facts.name
        event = {"const": name, "description": "The field `event`; of a message there is none."}
        about = made[facts.__name__]["description"]
        message = _message(about, REF + facts.__name__, _CONTROLS[name], headers={"event": name})
        message["headers"] = {
            "type": "object",
            "properties": {"event": event, **(place if name == "gap" else {})},
            "required": ["event"],
        }
        found[name] = message
    return {name: {**each, "contentType": EVENT_STREAM} for name, each in found.items()}


def _lines(made: Document) -> Document:
    """Lines of NDJSON; an empty one is a heartbeat."""
    anything = {"description": "The payload: JSON as it came, text or base64 as a string."}
    event = "CloudEventLine"
    found = {
        "message": _message("A message.", REF + "MessageLine", example_of(made, "MessageLine")),
        "payload": _message("A message, with `format=raw`.", anything, {"celsius": 21.5}),
        "cloudEvent": _message("A message, with `format=cloudevents`.", REF + event, example_of(made, event)),
    }
    for facts in CONTROL_FACTS:
        name = facts.name
        about = made[facts.__name__]["description"]
        example = {"event": name, **_CONTROLS[name]}
        found[name] = _message(about, f"{REF}{name.capitalize()}Line", example)
        cloud_event = {
            **example_of(made, "StreamCloudEvent"),
            "id": "0c1f6a2e9b7d4e58",
            "type": CONTROL_TYPE + name,
            "data": _CONTROLS[name],
        }
        for absent in ("subject", "mqttqos", "mqttretain"):
            del cloud_event[absent]
        found[f"{name}CloudEvent"] = _message(
            f"{about} With `format=cloudevents`.", f"{REF}{name.capitalize()}CloudEvent", cloud_event
        )
    return {name: {**each, "contentType": NDJSON} for name, each in found.items()}


def _frames(made: Document) -> Document:
    """Text frames of the WebSocket, in both directions."""
    models = {"error": "RefusedFrame", "message": "MessageFrame"}
    for op, asked, answered in _ASKED:
        models |= {op: asked, f"{op}Ack": answered}
    found = {
        name: _message(made[model]["description"], REF + model, example_of(made, model))
        for name, model in models.items()
    }
    for facts in CONTROL_FACTS:
        name, schema = facts.name, f"{facts.name.capitalize()}Frame"
        whose = {"subscription": 1} if "subscription" in made[schema]["required"] else {}
        example = {"op": name, **whose, **_CONTROLS[name]}
        found[name] = _message(made[facts.__name__]["description"], REF + schema, example)
    return found


def _message(
    summary: str, schema: str | Document, example: Any, *, headers: Document | None = None
) -> Document:
    """One message with its example.

    Args:
        summary: what it is.
        schema: a reference, or the schema itself.
        example: a payload.
        headers: the headers of the example.
    """
    shown = {"payload": example} if headers is None else {"headers": headers, "payload": example}
    payload = {"$ref": schema} if isinstance(schema, str) else schema
    return {"summary": summary, "payload": payload, "examples": [shown]}


def example_of(made: Document, name: str) -> Any:
    """The first example of a schema; without one, what the examples of its required members give."""
    schema = made[name]
    if "examples" in schema:
        return schema["examples"][0]
    members = {each: schema["properties"][each] for each in schema["required"]}
    return {
        each: found["const"] if "const" in found else found["examples"][0] for each, found in members.items()
    }


def _channels(messages: Document) -> Document:
    references = {
        channel: {name: {"$ref": f"#/components/messages/{channel}.{name}"} for name in found}
        for channel, found in messages.items()
    }
    return {
        EVENTS: {
            "address": subscribe.PATH,
            "title": "Server-Sent Events",
            "description": f"What `GET` and `POST {subscribe.PATH}` answer with, unless `Accept` asks for "
            "lines. Comments are heartbeats. After the event `close` the response ends.",
            "servers": [{"$ref": "#/servers/http"}],
            "messages": references[EVENTS],
        },
        LINES: {
            "address": subscribe.PATH,
            "title": "Lines",
            "description": f"The same with `Accept: {NDJSON}`: one JSON value a line, and an empty line as a "
            "heartbeat. With `format=raw` there are payloads alone, and the response ends where anything "
            "else would have to be told.",
            "servers": [{"$ref": "#/servers/http"}],
            "messages": references[LINES],
        },
        SOCKET: {
            "address": websocket.PATH,
            "title": "WebSocket",
            "description": f"The subprotocol `{websocket.SUBPROTOCOL}` of RFC 6455: one JSON object in a "
            "text frame. A frame that is wrong is answered with `error`, and the WebSocket stays. It ends "
            "with one of the statuses in `x-close-codes`.",
            "servers": [{"$ref": "#/servers/websocket"}],
            "messages": references[SOCKET],
            "bindings": {"ws": {"method": "GET", "headers": _SUBPROTOCOL, "bindingVersion": "0.1.0"}},
            "x-close-codes": {str(code): what for code, what in CLOSE_CODES.items()},
        },
    }


_SUBPROTOCOL: Final = {
    "type": "object",
    "properties": {"Sec-WebSocket-Protocol": {"type": "string", "enum": [websocket.SUBPROTOCOL]}},
}


def _operations(messages: Document) -> Document:
    """What the bridge does: it sends on streams, and receives what a client asks for."""
    query = query_parameters(SubscribeQuery)
    options = {
        "type": "object",
        "properties": {
            each["name"]: {**each["schema"], "description": each["description"]} for each in query
        },
        "required": [each["name"] for each in query if each["required"]],
        "additionalProperties": False,
    }
    http = {"http": {"method": "GET", "query": options, "bindingVersion": "0.3.0"}}
    found: Document = {
        "sendEvents": {
            "action": "send",
            "title": "Follow topics as Server-Sent Events",
            **_on(EVENTS, messages[EVENTS]),
            "bindings": http,
        },
        "sendLines": {
            "action": "send",
            "title": "Follow topics as lines",
            **_on(LINES, messages[LINES]),
            "bindings": http,
        },
    }
    for op, _, _ in _ASKED:
        found[f"receive{op.capitalize()}"] = {
            "action": "receive",
            "title": messages[SOCKET][op]["summary"],
            **_on(SOCKET, [op]),
            "reply": _on(SOCKET, [f"{op}Ack", "error"]),
        }
    controls = [facts.name for facts in CONTROL_FACTS]
    found["sendFrames"] = {
        "action": "send",
        "title": "What happens on the WebSocket and its subscriptions",
        **_on(SOCKET, ["message", *controls]),
    }
    return found


def _on(channel: str, names: Iterable[str]) -> Document:
    return {
        "channel": {"$ref": f"#/channels/{channel}"},
        "messages": [{"$ref": f"#/channels/{channel}/messages/{name}"} for name in names],
    }


def _scheme(described: Document) -> Document:
    """A security scheme, in the words of AsyncAPI."""
    return {**described, "type": "httpApiKey"} if described["type"] == "apiKey" else described
