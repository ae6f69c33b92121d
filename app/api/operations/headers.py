"""The headers in which a message's properties travel, in both directions."""

from __future__ import annotations

from typing import Any, Final

from app.api.input.cloud_event import EVENT_HEADERS
from app.api.input.headers import (
    CORRELATION_DATA,
    FAULT,
    MESSAGE_EXPIRY,
    PAYLOAD_FORMAT,
    RESPONSE_TOPIC,
    USER_PROPERTY,
)
from app.api.operations.parts import EXAMPLE_TOPIC

_TRACEPARENT: Final = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
MESSAGE_HEADERS: Final[dict[str, tuple[str, str]]] = {
    "Mqtt-Topic": ("The topic, percent-encoded.", EXAMPLE_TOPIC),
    "Mqtt-User-Property": ("`name=value`, percent-encoded, once for each user property.", "unit=celsius"),
    "Mqtt-Correlation-Data": ("The correlation data in base64, where there is some.", "cmVxLTc="),
    "Mqtt-Response-Topic": ("Where an answer is expected, percent-encoded.", "replies/7"),
    "Mqtt-Message-Expiry": ("Seconds that are left until the broker forgets the message.", "3600"),
    "Mqtt-Payload-Format": ("1 where the payload is said to be UTF-8 text, 0 where any bytes.", "1"),
    FAULT: (
        "Why the payload does not match its JSON Schema: a JSON pointer and a reason, percent-encoded.",
        '/celsius:%20"hot"%20is%20not%20of%20type%20"number"',
    ),
    "ce-id": ("Of a CloudEvent in binary mode, as each of its attributes, percent-encoded.", "A-1"),
    "traceparent": ("The trace that the message's user properties tell of.", _TRACEPARENT),
    "tracestate": ("What belongs to it.", "vendor=1"),
}
"""What belongs to a message, as headers of the answer: a description and an example each."""


def request_headers() -> list[dict[str, Any]]:
    """The parameters that a request takes as headers: its correlation data is the bridge's."""
    return [
        {**each, "example": _REQUEST_EXAMPLES.get(each["name"], each["example"])}
        for each in message_headers()
        if each["name"] != CORRELATION_DATA
    ]


def message_headers() -> list[dict[str, Any]]:
    """The parameters that a publish takes as headers."""
    return [*_PROPERTY_HEADERS, *_event_headers(), *TRACE_HEADERS]


def _header(name: str, description: str, schema: dict[str, Any], example: str) -> dict[str, Any]:
    return {
        "name": name,
        "in": "header",
        "description": description,
        "schema": {"type": "string", **schema},
        "example": example,
    }


USER_PROPERTY_PATTERN: Final = (
    r"^([^=%\u0000-\u001f\u007f]|%[0-9A-Fa-f]{2})*=([^%\u0000-\u001f\u007f]|%[0-9A-Fa-f]{2})*$"
)
"""What stands for a user property, as far as an expression tells (ECMA-262)."""
_REFUSED: Final = "Refused where the broker connection is MQTT 3.1.1."
_PROPERTY_HEADERS: Final = (
    _header(
        USER_PROPERTY,
        "`name=value`, percent-encoded; may be there several times, and the order is kept (MQTT 5 "
        f"§3.3.2.3.7). {_REFUSED}",
        {"pattern": USER_PROPERTY_PATTERN},
        "unit=celsius",
    ),
    _header(
        CORRELATION_DATA,
        f"Base64 (MQTT 5 §3.3.2.3.6). {_REFUSED}",
        {"contentEncoding": "base64"},
        "cmVxLTc=",
    ),
    _header(MESSAGE_EXPIRY, "The same as `expiry`.", {"pattern": "^[0-9]{1,10}$"}, "3600"),
    _header(RESPONSE_TOPIC, "The same as `response_topic`, percent-encoded.", {"minLength": 1}, "replies/7"),
    _header(PAYLOAD_FORMAT, "The same as `payload_format`.", {"enum": ["0", "1"]}, "1"),
)
_REQUEST_EXAMPLES: Final = {MESSAGE_EXPIRY: "5", RESPONSE_TOPIC: "devices/7/reply"}
"""Those of the query, which have to agree."""
TRACE_HEADERS: Final = (
    _header(
        "traceparent",
        "W3C Trace Context; becomes a user property of the same name. One that is not valid is left out.",
        {},
        _TRACEPARENT,
    ),
    _header("tracestate", "W3C Trace Context; goes along with `traceparent`.", {}, "vendor=1"),
)
"""What every call that publishes one message takes."""
_EVENT_EXAMPLES: Final = {
    "ce-specversion": "1.0",
    "ce-id": "A-1",
    "ce-source": "/sensors/7",
    "ce-type": "com.example.measured",
    "ce-subject": "temperature",
    "ce-time": "2026-01-31T12:00:00Z",
    "ce-dataschema": "https://example.com/temperature.json",
}


def _event_headers() -> list[dict[str, Any]]:
    about = (
        "An attribute of a CloudEvent in binary mode, percent-encoded (CloudEvents HTTP binding §3.1.3). "
        f"With any `ce-…` header the four first are required; extensions have headers too. {_REFUSED}"
    )
    return [_header(name, about, {}, _EVENT_EXAMPLES[name]) for name in EVENT_HEADERS]
