"""What a message looks like to the benchmark's clients: a payload that tells when it was sent, and the few
packets of MQTT 3.1.1 that carry it, plain or in WebSocket frames.
"""

from __future__ import annotations

import re
from typing import Final

TOPIC: Final = "bench/fanout"
PAYLOAD_BYTES: Final = 100

MARK: Final = b"^"
"""Stands once in each message and nowhere else: not in an envelope, and not as a length in a frame's head."""

STAMP: Final = re.compile(rb"\^(\d{20})(\d{10})")
"""The time of sending, in nanoseconds of CLOCK_MONOTONIC, and the message's number."""

STAMP_BYTES: Final = 31

CONNACK: Final = b"\x20\x02\x00\x00"
SUBACK: Final = b"\x90\x03\x00\x01\x00"


def payload(sent_nanoseconds: int, number: int) -> bytes:
    """A JSON object of ``PAYLOAD_BYTES`` bytes."""
    head = b'{"at":"%b%020d%010d","pad":"' % (MARK, sent_nanoseconds, number)
    return head + b"." * (PAYLOAD_BYTES - len(head) - 2) + b'"}'


def connect(client_id: str) -> bytes:
    """CONNECT with a clean session and no keep alive (MQTT 3.1.1 §3.1)."""
    return _packet(0x10, b"\x00\x04MQTT\x04\x02\x00\x00" + _text(client_id))


def subscribe(topic_filter: str) -> bytes:
    """SUBSCRIBE to one filter with QoS 0 and packet identifier 1 (MQTT 3.1.1 §3.8)."""
    return _packet(0x82, b"\x00\x01" + _text(topic_filter) + b"\x00")


def publish(topic: str, body: bytes) -> bytes:
    """PUBLISH with QoS 0 (MQTT 3.1.1 §3.3)."""
    return _packet(0x30, _text(topic) + body)


def client_frame(packet: bytes) -> bytes:
    """One short binary frame from a client (RFC 6455 §5.2), masked with zeros: the packet stays as it is."""
    return b"\x82" + bytes([0x80 | len(packet)]) + b"\x00\x00\x00\x00" + packet


def _text(value: str) -> bytes:
    encoded = value.encode()
    return len(encoded).to_bytes(2, "big") + encoded


def _packet(first: int, rest: bytes) -> bytes:
    """A packet that is short enough for one octet of Remaining Length."""
    if len(rest) > 127:
        raise ValueError(f"a packet of {len(rest)} bytes needs a longer head")
    return bytes([first, len(rest)]) + rest
