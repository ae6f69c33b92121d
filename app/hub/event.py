"""What a listener is handed: a message or a control event, encoded once for all who get it.

The envelope of a message is one JSON object. A payload that is valid JSON stands in it as it came, byte for
byte but for line breaks between tokens, so that numbers keep every digit; other UTF-8 is a string, and the
rest is base64. The SSE event name stays ``message`` and the topic stays inside the JSON: a topic is somebody
else's input, and never becomes a field of the stream (WHATWG HTML §9.2.6).
"""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from tidegate.message import NO_PROPERTIES, Message, Properties

_LINE_BREAKS: Final = bytes.maketrans(b"\r\n", b"  ")


def envelope(message: Message, *, qos: int | None = None) -> bytes:
    """One message as one JSON object on one line.

    Args:
        message: a message as it came from the broker.
        qos: the QoS to tell, where the listener asked for less than the shared subscription has.
    """
    payload, encoding = _payload(message.payload)
    return b'{"topic":%b,"payload":%b,"encoding":"%b","qos":%d,"retain":%b,"time":"%b","properties":%b}' % (
        orjson.dumps(message.topic),
        payload,
        encoding,
        message.qos if qos is None else qos,
        b"true" if message.retain else b"false",
        _time(message.received_at),
        _properties(message.properties),
    )


class Event:
    """One event of a stream.

    Attributes:
        id: the event's id, unique and rising within one run of the bridge; empty for control events.
        size: its share of a listener's buffer, in bytes.
    """

    __slots__ = ("_encoded", "_message", "id", "size")

    def __init__(self, message: Message, event_id: str) -> None:
        self.id = event_id
        self.size = len(message.payload) + len(message.topic) + 200
        self._message = message
        self._encoded: list[bytes | None] = [None, None, None]

    @property
    def message(self) -> Message:
        """The message itself."""
        return self._message

    def sse(self, qos: int) -> bytes:
        """The event as Server-Sent Events bytes, for a listener that asked for this QoS at most."""
        told = min(qos, self._message.qos)
        encoded = self._encoded[told]
        if encoded is None:
            encoded = b"id: %b\ndata: %b\n\n" % (self.id.encode(), envelope(self._message, qos=told))
            self._encoded[told] = encoded
        return encoded


class ControlEvent:
    """Something about the stream itself: ``broker``, ``gap`` or ``close``."""

    __slots__ = ("_encoded", "name", "size")

    def __init__(self, name: str, facts: dict[str, Any]) -> None:
        self.name = name
        self._encoded = b"event: %b\ndata: %b\n\n" % (name.encode(), orjson.dumps(facts))
        self.size = len(self._encoded)

    def sse(self, qos: int) -> bytes:
        """The event as Server-Sent Events bytes; the same for every QoS."""
        del qos
        return self._encoded


def _payload(payload: bytes) -> tuple[bytes, bytes]:
    try:
        orjson.loads(payload)
    except ValueError:
        pass
    else:
        return payload.translate(_LINE_BREAKS).strip(), b"json"
    try:
        return orjson.dumps(payload.decode("utf-8")), b"text"
    except UnicodeDecodeError:
        return b'"%b"' % base64.b64encode(payload), b"base64"


def _time(seconds: float) -> bytes:
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec="milliseconds").removesuffix("+00:00").encode() + b"Z"


def _properties(properties: Properties) -> bytes:
    if properties is NO_PROPERTIES:
        return b"{}"
    found: dict[str, Any] = {
        "payload_format": properties.payload_format,
        "message_expiry": properties.message_expiry,
        "content_type": properties.content_type,
        "response_topic": properties.response_topic,
    }
    if properties.correlation_data is not None:
        found["correlation_data"] = base64.b64encode(properties.correlation_data).decode()
    if properties.user_properties:
        found["user_properties"] = properties.user_properties
    return orjson.dumps({name: value for name, value in found.items() if value is not None})
