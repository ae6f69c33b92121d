"""MQTT packets as they stand in a stream of bytes (MQTT 5 §2.1)."""

from __future__ import annotations

from enum import IntEnum


class PacketType(IntEnum):
    """The kinds of packets that the tests tell apart."""

    CONNECT = 1
    CONNACK = 2
    PUBLISH = 3
    PUBACK = 4
    PUBREC = 5
    PUBREL = 6
    PUBCOMP = 7
    SUBSCRIBE = 8
    SUBACK = 9
    UNSUBSCRIBE = 10
    UNSUBACK = 11
    PINGREQ = 12
    PINGRESP = 13
    DISCONNECT = 14


def split_packet(stream: bytes) -> tuple[bytes, bytes, bytes] | None:
    """The head and the rest of the first packet in a stream, and what follows it; None if it is not whole."""
    length = shift = 0
    for at, octet in enumerate(stream[1:5], start=2):
        length |= (octet & 0x7F) << shift
        shift += 7
        if not octet & 0x80:
            end = at + length
            return None if len(stream) < end else (stream[:at], stream[at:end], stream[end:])
    return None


def packet_length(value: int) -> bytes:
    """A Variable Byte Integer (MQTT 5 §1.5.5)."""
    octets = bytearray()
    while value > 0x7F:
        octets.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*octets, value])
