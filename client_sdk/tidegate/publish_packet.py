"""How a PUBLISH is written where it has properties, and how long it is (MQTT 5 §3.3)."""

from __future__ import annotations

import functools
import struct

from tidegate.message import NO_PROPERTIES, Message, Properties

_PAYLOAD_FORMAT_INDICATOR = 0x01
_MESSAGE_EXPIRY_INTERVAL = 0x02
_CONTENT_TYPE = 0x03
_RESPONSE_TOPIC = 0x08
_CORRELATION_DATA = 0x09
_USER_PROPERTY = 0x26


def publish_size(message: Message, protocol_version: int) -> int:
    """The bytes of the whole packet that a message makes, its fixed header included.

    Args:
        message: the message; what it is sent as, not a delivered copy.
        protocol_version: 4 for MQTT 3.1.1, 5 for MQTT 5.
    """
    size = 2 + len(message.topic.encode()) + len(message.payload)
    if message.qos:
        size += 2
    if protocol_version >= 5:
        size += 1 if message.properties is NO_PROPERTIES else len(packed_properties(message.properties))
    return 1 + _length_of_length(size) + size


@functools.lru_cache(maxsize=512)
def packed_properties(carried: Properties) -> bytes:
    """The properties of a PUBLISH with their length before them (§2.2.2); most messages carry the same few.

    Raises:
        ValueError, TypeError, struct.error: a value that MQTT cannot carry.
    """
    parts: list[bytes] = []
    if carried.payload_format is not None:
        if carried.payload_format not in (0, 1):
            raise ValueError(f"a payload format is 0 or 1, not {carried.payload_format}")
        parts.append(struct.pack("!BB", _PAYLOAD_FORMAT_INDICATOR, carried.payload_format))
    if carried.message_expiry is not None:
        parts.append(struct.pack("!BI", _MESSAGE_EXPIRY_INTERVAL, carried.message_expiry))
    if carried.content_type is not None:
        parts += (bytes([_CONTENT_TYPE]), _text(carried.content_type))
    if carried.response_topic is not None:
        parts += (bytes([_RESPONSE_TOPIC]), _text(carried.response_topic))
    if carried.correlation_data is not None:
        parts += (bytes([_CORRELATION_DATA]), _binary(carried.correlation_data))
    for name, value in carried.user_properties:
        parts += (bytes([_USER_PROPERTY]), _text(name), _text(value))
    packed = b"".join(parts)
    return _length(len(packed)) + packed


def _text(value: str) -> bytes:
    return _binary(value.encode())


def _binary(value: bytes) -> bytes:
    return struct.pack("!H", len(value)) + value


def _length(value: int) -> bytes:
    """A Variable Byte Integer (§1.5.5)."""
    octets = bytearray()
    while value > 0x7F:
        octets.append(value & 0x7F | 0x80)
        value >>= 7
    octets.append(value)
    return bytes(octets)


def _length_of_length(value: int) -> int:
    return 1 if value < 0x80 else 2 if value < 0x4000 else 3 if value < 0x20_0000 else 4
