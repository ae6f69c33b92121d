"""An application message as MQTT carries it (MQTT 5 §3.3)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Properties:
    """The properties of a PUBLISH packet that belong to the message (MQTT 5 §3.3.2.3).

    Attributes:
        payload_format: 0 for unspecified bytes, 1 for UTF-8 text (§3.3.2.3.2).
        message_expiry: seconds until the broker may forget the message (§3.3.2.3.3).
        content_type: a description of the payload, as a rule a MIME type (§3.3.2.3.9).
        response_topic: where an answer is expected (§3.3.2.3.5).
        correlation_data: bytes that tie an answer to its request (§3.3.2.3.6).
        user_properties: name and value pairs; names repeat and the order counts (§3.3.2.3.7).
    """

    payload_format: int | None = None
    message_expiry: int | None = None
    content_type: str | None = None
    response_topic: str | None = None
    correlation_data: bytes | None = None
    user_properties: tuple[tuple[str, str], ...] = ()


NO_PROPERTIES: Final = Properties()


@dataclass(frozen=True, slots=True)
class Message:
    """One application message, sent or received.

    Attributes:
        topic: the topic name (MQTT 5 §4.7).
        payload: the bytes, untouched.
        qos: 0, 1 or 2 (§4.3).
        retain: on a publish, keep it as the topic's value; on delivery, it *is* the kept value (§3.3.1.3).
        properties: MQTT 5 properties; empty where the session speaks 3.1.1.
        duplicate: the sender may have sent it before (§3.3.1.1).
        subscription_identifiers: those of the subscriptions that this copy is for (§3.3.2.3.8).
        received_at: Unix time in seconds at which it arrived here; 0.0 on a message to send.
    """

    topic: str
    payload: bytes = b""
    qos: int = 0
    retain: bool = False
    properties: Properties = NO_PROPERTIES
    duplicate: bool = False
    subscription_identifiers: tuple[int, ...] = ()
    received_at: float = 0.0

    @property
    def text(self) -> str:
        """The payload as UTF-8 text; raises UnicodeDecodeError where it is not."""
        return self.payload.decode("utf-8")

    def json(self) -> Any:
        """The payload read as JSON; raises ValueError where it is not."""
        return json.loads(self.payload)
