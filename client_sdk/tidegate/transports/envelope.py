"""The events of a bridge's stream: reading them back into messages, and writing messages so."""

from __future__ import annotations

import base64
import json
import re
from datetime import UTC, datetime
from typing import Any, Final

from tidegate.message import NO_PROPERTIES, Message, Properties

_decode: Final = json.JSONDecoder().raw_decode
_marks: Final = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}]').finditer
"""What nests in JSON, and the strings in which it does not."""

_skip_space: Final = re.compile(r"[ \t\r\n]*").match


def read_envelope(text: str) -> Message:
    """The message that an event stands for; a JSON payload keeps every digit and space that it came with.

    Args:
        text: one JSON object with ``topic``, ``payload``, ``encoding``, ``qos``, ``retain``, ``time`` and
            ``properties``, and ``dup`` on a copy that the broker may have sent before.

    Raises:
        ValueError: it is not such an object.
        KeyError: a member is missing.
    """
    members = _split_members(text)
    body = {name: value for name, (value, _) in members.items()}
    encoding = body["encoding"]
    payload, raw = members["payload"]
    if encoding == "json":
        octets = raw.encode("utf-8")
    elif encoding == "text":
        octets = payload.encode("utf-8")
    elif encoding == "base64":
        octets = base64.b64decode(payload, validate=True)
    else:
        raise ValueError(f"the encoding {encoding!r} is unknown")
    return Message(
        body["topic"],
        octets,
        body["qos"],
        body["retain"],
        _properties(body.get("properties") or {}),
        duplicate=body.get("dup") is True,
        received_at=datetime.fromisoformat(body["time"]).timestamp(),
    )


def write_envelope(message: Message) -> str:
    """The event for a message, on one line; ``read_envelope`` gives the message back."""
    payload, encoding = _payload(message.payload)
    facts = {
        "topic": message.topic,
        "encoding": encoding,
        "qos": message.qos,
        "retain": message.retain,
        "time": datetime.fromtimestamp(message.received_at, UTC).isoformat(timespec="milliseconds"),
        "properties": written_properties(message.properties),
    }
    members = {name: json.dumps(value, ensure_ascii=False) for name, value in facts.items()}
    if message.duplicate:
        members["retain"] += ', "dup": true'
    order = ("topic", "payload", "encoding", "qos", "retain", "time", "properties")
    members["payload"] = payload
    return "{" + ", ".join(f'"{name}": {members[name]}' for name in order) + "}"


def _payload(octets: bytes) -> tuple[str, str]:
    """The payload as it stands in the event, and its encoding."""
    try:
        text = octets.decode("utf-8")
    except UnicodeDecodeError:
        return json.dumps(base64.b64encode(octets).decode("ascii")), "base64"
    try:
        json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return json.dumps(text, ensure_ascii=False), "text"
    return text.replace("\r", " ").replace("\n", " "), "json"  # there they are nothing but space


def _refuse_constant(name: str) -> None:
    """NaN and Infinity are Python's, not JSON's."""
    raise ValueError(name)


def written_properties(properties: Properties) -> dict[str, Any]:
    """The properties as the bridge's JSON has them; those that are not there are left out."""
    correlation_data = properties.correlation_data
    found: dict[str, Any] = {
        "payload_format": properties.payload_format,
        "message_expiry": properties.message_expiry,
        "content_type": properties.content_type,
        "response_topic": properties.response_topic,
        "correlation_data": None if correlation_data is None else base64.b64encode(correlation_data).decode(),
        "user_properties": list(properties.user_properties) or None,
    }
    return {name: value for name, value in found.items() if value is not None}


def _split_members(text: str) -> dict[str, tuple[Any, str]]:
    """The members of one JSON object, each with its value as it is written."""
    members: dict[str, tuple[Any, str]] = {}
    at = _after(text, 0, "{")
    while text[at : at + 1] != "}":
        if members:
            at = _after(text, at, ",")
        name, at = _decode(text, at)
        start = _after(text, at, ":")
        value: Any
        try:
            value, end = _decode(text, start)
        except RecursionError:  # deeper than the stack of the moment: only its text is needed
            value, end = None, _end_of_nested(text, start)
        members[str(name)] = (value, text[start:end])
        at = _end_of_space(text, end)
    return members


def _end_of_nested(text: str, start: int) -> int:
    """Where an array or object ends, however deep it is."""
    depth = 0
    for mark in _marks(text, start):
        if mark[0] in "[{":
            depth += 1
        elif mark[0] in "]}":
            depth -= 1
            if not depth:
                return mark.end()
    raise ValueError("the event ends within its payload")


def _after(text: str, at: int, mark: str) -> int:
    at = _end_of_space(text, at)
    if text[at : at + 1] != mark:
        raise ValueError(f"there is no {mark!r} at character {at + 1} of the event")
    return _end_of_space(text, at + 1)


def _end_of_space(text: str, at: int) -> int:
    found = _skip_space(text, at)
    return found.end() if found else at


def _properties(found: dict[str, Any]) -> Properties:
    if not found:
        return NO_PROPERTIES
    correlation_data = found.get("correlation_data")
    return Properties(
        payload_format=found.get("payload_format"),
        message_expiry=found.get("message_expiry"),
        content_type=found.get("content_type"),
        response_topic=found.get("response_topic"),
        correlation_data=None if correlation_data is None else base64.b64decode(correlation_data),
        user_properties=tuple((name, value) for name, value in found.get("user_properties", ())),
    )
