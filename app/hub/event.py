"""What a listener is handed: a message or a control event.

The envelope of a message is one JSON object. A payload that is valid JSON stands in it as it came, byte for
byte but for line breaks between tokens, so that numbers keep every digit; other UTF-8 is a string, and the
rest is base64.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from app.hub.position import Epoch
from tidegate.message import NO_PROPERTIES, Message, Properties

_LINE_BREAKS: Final = bytes.maketrans(b"\r\n", b"  ")


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with the payload of a message, by the rules of whoever judges it.

    Attributes:
        pointer: where, as a JSON pointer into the payload (RFC 6901); empty for the whole.
        reason: why, in words.
        is_dropped: the message goes no further; else it goes on with a flag.
    """

    pointer: str
    reason: str
    is_dropped: bool = False


def envelope(message: Message, *, qos: int | None = None, fault: Fault | None = None) -> bytes:
    """One message as one JSON object on one line.

    Args:
        message: a message as it came from the broker.
        qos: the QoS to tell, where the listener asked for less than the shared subscription has.
        fault: what is wrong with the payload, if something is.
    """
    payload, encoding = encode_payload(message.payload)
    return b'{"topic":%b,"payload":%b,"encoding":"%b","qos":%d,"retain":%b,"time":"%b","properties":%b%b}' % (
        orjson.dumps(message.topic),
        payload,
        encoding,
        message.qos if qos is None else qos,
        _retain(message),
        time_text(message.received_at),
        _properties(message.properties),
        b"" if fault is None else _flag(fault),
    )


class Event:
    """A message in the hub's order.

    Attributes:
        message: the message.
        epoch: the run of the bridge, which makes the id.
        sequence: the event's number, rising within one run of the bridge.
        size: its share of a listener's buffer, in bytes.
        fault: what is wrong with its payload, if something is.
    """

    __slots__ = ("epoch", "fault", "message", "sequence", "size")

    def __init__(self, message: Message, epoch: Epoch, sequence: int, fault: Fault | None = None) -> None:
        self.message = message
        self.epoch = epoch
        self.sequence = sequence
        self.fault = fault
        self.size = len(message.payload) + len(message.topic) + 200


class ControlEvent:
    """Something about the stream itself: ``broker``, ``gap``, ``lag`` or ``close``.

    Attributes:
        name: which.
        facts: what it says.
        sequence: where a client stands that has seen it; 0 where it changes nothing about that.
        size: its share of a listener's buffer, in bytes.
    """

    __slots__ = ("facts", "name", "sequence", "size")

    def __init__(self, name: str, facts: dict[str, Any], *, sequence: int = 0) -> None:
        self.name = name
        self.facts = facts
        self.sequence = sequence
        self.size = 200


def encode_payload(payload: bytes) -> tuple[bytes, bytes]:
    """A payload as JSON on one line, and the name of its encoding: ``json``, ``text`` or ``base64``."""
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


def time_text(seconds: float) -> bytes:
    """A moment, from Unix time in seconds, in UTC with milliseconds (RFC 3339)."""
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec="milliseconds").removesuffix("+00:00").encode() + b"Z"


def _retain(message: Message) -> bytes:
    flag = b"true" if message.retain else b"false"
    return flag + b',"dup":true' if message.duplicate else flag


def _flag(fault: Fault) -> bytes:
    found = {"pointer": fault.pointer, "reason": fault.reason}
    return b',"valid":false,"fault":%b' % orjson.dumps(found)


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
