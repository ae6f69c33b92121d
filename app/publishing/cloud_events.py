"""CloudEvents 1.0 over MQTT: which messages are one, and how any message is told as one.

Rules:

1. Binary mode is user properties with the names of attributes, and the content type (MQTT binding §3.1). A
   message that has all required attributes is an event; one that lacks any is none.
2. Structured mode is one JSON object (MQTT binding §3.2). The content type says so; where there is none, as
   in MQTT 3.1.1, an object with all required attributes is an event.
3. An event comes out as that event: a structured one as it was written, every digit of it. Any other message
   is told as an event of the type ``io.tidegate.message``.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import orjson

from app.hub.event import Fault, encode_payload, time_text
from app.publishing.trace_context import trace_of
from tidegate.message import Message

STRUCTURED: Final = "application/cloudevents+json"
BATCH: Final = "application/cloudevents-batch+json"
SPECVERSION: Final = "1.0"
REQUIRED: Final = ("specversion", "id", "source", "type")
MESSAGE_TYPE: Final = "io.tidegate.message"
FAULT_ATTRIBUTE: Final = "tidegatefault"

_DATA: Final = ("data", "data_base64")
_NEVER_EMPTY: Final = (*REQUIRED, "subject", "time", "dataschema", "datacontenttype")
_LINE_BREAKS: Final = bytes.maketrans(b"\r\n", b"  ")
_is_name: Final = re.compile(r"[a-z0-9]+", re.ASCII).fullmatch
_is_media_type: Final = re.compile(r"[^\s/;]+/[^\s/;]+\s*(;.*)?", re.ASCII).fullmatch
_declares_json: Final = re.compile(r"[^/]+/(?:[^;]*\+)?json\s*(?:;|$)", re.IGNORECASE).match
_charset: Final = re.compile(r";\s*charset\s*=\s*\"?([^\s\";]+)", re.IGNORECASE).search
_is_timestamp: Final = re.compile(
    r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII
).fullmatch


class CloudEventError(ValueError):
    """Something that says that it is a CloudEvent, and is none.

    Attributes:
        attribute: which attribute is at fault; empty for the whole.
    """

    def __init__(self, attribute: str, reason: str) -> None:
        super().__init__(f"{attribute or 'the event'}: {reason}")
        self.attribute = attribute


def media_type(content_type: str) -> str:
    """A content type without its parameters, in lower case."""
    return content_type.partition(";")[0].strip().lower()


def check_attributes(attributes: Mapping[str, Any]) -> None:
    """Check the attributes of an event (CloudEvents §3).

    Raises:
        CloudEventError: a required one is missing, or one has a name or a value that it cannot have.
    """
    for name in REQUIRED:
        if attributes.get(name) is None:
            raise CloudEventError(name, "this required attribute is missing")
    for name, value in attributes.items():
        if not _is_name(name) or name in _DATA:
            raise CloudEventError(name, "an attribute's name has lower-case letters a to z and digits alone")
        if name in _NEVER_EMPTY and not isinstance(value, str):
            raise CloudEventError(name, "it is a string")
        if not isinstance(value, str | int):
            raise CloudEventError(name, "an attribute is a string, a whole number, true or false")
        if name in _NEVER_EMPTY and not value:
            raise CloudEventError(name, "it is empty")
    if attributes["specversion"] != SPECVERSION:
        raise CloudEventError(
            "specversion", f"it is {attributes['specversion']!r}, and has to be '{SPECVERSION}'"
        )
    if "time" in attributes and not _is_moment(attributes["time"]):
        raise CloudEventError("time", "it is no time as in 2026-01-31T12:00:00Z (RFC 3339)")


def check_structured(content: Any) -> None:
    """Check an event in structured mode, read from JSON (JSON format §3).

    Raises:
        CloudEventError: it is no object, or no event.
    """
    if not isinstance(content, dict):
        raise CloudEventError("", "it is a JSON object")
    check_attributes(
        {name: value for name, value in content.items() if value is not None and name not in _DATA}
    )
    data = content.get("data_base64")
    if data is None:
        return
    if "data" in content:
        raise CloudEventError("data_base64", "it stands beside 'data', and an event has one of them")
    try:
        base64.b64decode(data, validate=True)
    except (TypeError, ValueError):
        raise CloudEventError("data_base64", "it is not base64") from None


def binary_attributes(message: Message) -> dict[str, str] | None:
    """The attributes of an event in binary mode, without ``datacontenttype``; None where it is none."""
    properties = message.properties
    if not properties.user_properties:
        return None
    content_type = properties.content_type
    if content_type is not None and media_type(content_type).startswith("application/cloudevents"):
        return None
    found: dict[str, str] = {}
    for name, value in properties.user_properties:
        if value and _is_name(name) and name not in _DATA:
            found.setdefault(name, value)
    if found.get("specversion") != SPECVERSION or any(name not in found for name in REQUIRED):
        return None
    found.pop("datacontenttype", None)
    return found


def cloud_event(
    message: Message, event_id: str, source: str, *, qos: int, fault: Fault | None = None
) -> bytes:
    """A received message as one event in structured mode, on one line.

    Args:
        message: the message.
        event_id: the id, where the message is no event itself.
        source: the source, likewise.
        qos: the quality of service to tell, likewise.
        fault: what is wrong with the payload, if something is; it becomes the attribute ``tidegatefault``.
    """
    text = _structured(message)
    if text is None:
        attributes: dict[str, str | int] | None = None
        binary = binary_attributes(message)
        attributes = _wrapping(message, event_id, source, qos) if binary is None else {**binary}
        text = _with_data(attributes, message.payload, message.properties.content_type)
    if fault is not None:
        text = with_attribute(text, FAULT_ATTRIBUTE, f"{fault.pointer}: {fault.reason}")
    return text


def with_attribute(event: bytes, name: str, value: str) -> bytes:
    """An event with one more attribute, at the end: of two with a name, a reader takes the last."""
    return b"%b,%b:%b}" % (event[:-1], orjson.dumps(name), orjson.dumps(value))


def _is_moment(text: str) -> bool:
    if not _is_timestamp(text):
        return False
    try:
        datetime.fromisoformat(text[:19])
    except ValueError:
        return text[17:19] == "60"  # a leap second
    return True


def _structured(message: Message) -> bytes | None:
    """The text of an event in structured mode; None where the message is none."""
    content_type = message.properties.content_type
    payload = message.payload
    if content_type is not None and media_type(content_type) != STRUCTURED:
        return None
    if content_type is None and b'"specversion"' not in payload:
        return None
    try:
        check_structured(orjson.loads(payload))
    except ValueError:
        return None
    return payload.translate(_LINE_BREAKS).strip()


def _wrapping(message: Message, event_id: str, source: str, qos: int) -> dict[str, str | int]:
    return {
        "specversion": SPECVERSION,
        "id": event_id,
        "source": source,
        "type": MESSAGE_TYPE,
        "subject": message.topic,
        "time": time_text(message.received_at).decode(),
        "mqttqos": qos,
        "mqttretain": message.retain,
        **dict(trace_of(message.properties)),
    }


def _with_data(attributes: dict[str, str | int], payload: bytes, content_type: str | None) -> bytes:
    """The attributes and the data as one object (JSON format §3.1.1)."""
    if content_type is not None and not _is_media_type(content_type):
        content_type = None
    encoded, encoding = encode_payload(payload)
    name = b"data"
    if content_type is None:
        content_type = _GUESSES[encoding]
        if encoding == b"base64":
            name = b"data_base64"
    elif _declares_json(content_type):
        if encoding != b"json":
            name, encoded = b"data_base64", _base64(payload)
    elif encoding == b"base64" or not _is_utf8(content_type):
        name, encoded = b"data_base64", _base64(payload)
    elif encoding == b"json":
        encoded = orjson.dumps(payload.decode())
    if not payload:
        return orjson.dumps(attributes)
    members = orjson.dumps({**attributes, "datacontenttype": content_type})
    return b'%b,"%b":%b}' % (members[:-1], name, encoded)


_GUESSES: Final = {b"json": "application/json", b"text": "text/plain", b"base64": "application/octet-stream"}
"""What a payload is that does not say it."""


def _is_utf8(content_type: str) -> bool:
    found = _charset(content_type)
    return found is None or found[1].lower() in ("utf-8", "us-ascii")


def _base64(payload: bytes) -> bytes:
    return b'"%b"' % base64.b64encode(payload)
