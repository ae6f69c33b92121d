"""What the SDK's classes need of a way to the broker.

Rules for an implementation:

1. Nothing connects before the first call; each call connects by itself.
2. A connection that is lost is made again, for ever, with jittered backoff; subscriptions come back with it.
3. ``receive`` is called on the event loop, in the order of arrival, and must not block.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from tidegate.message import Message

Receive = Callable[[Message], None]


class Transport(Protocol):
    """A way to publish and to be told of messages."""

    async def connect(self) -> None:
        """Make the connection, or prove it; raises MQTTError where that fails."""

    async def publish(self, message: Message) -> int:
        """Publish, and return the reason code, below 0x80; raises MQTTError."""

    async def subscribe(self, filters: Sequence[tuple[str, int]], receive: Receive) -> None:
        """Follow topic filters, each with the highest QoS wanted.

        ``receive`` gets a message once, however many of these filters match.

        Raises:
            RefusedError: the broker refuses one of them; then none is held.
            MQTTError: there is no connection.
        """

    async def close(self) -> None:
        """Flush what is in flight, end the subscriptions, and disconnect; a second call does nothing."""
