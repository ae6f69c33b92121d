"""What the SDK's classes need of a way to the broker.

Rules for an implementation:

1. Nothing connects before the first call; each call connects by itself.
2. A connection that is lost is made again, for ever, with jittered backoff; subscriptions come back with it.
3. ``receive`` is called on the event loop, in the order of arrival, and must not block.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Sequence
from typing import Protocol, runtime_checkable

from tidegate.message import Message
from tidegate.session import StateChange

Receive = Callable[[Message], None]


class Transport(Protocol):
    """A way to publish and to be told of messages."""

    @property
    def broker(self) -> Hashable:
        """What tells one broker, or one bridge, from another, as far as it is known: its address."""

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

    async def unsubscribe(self, receive: Receive) -> None:
        """End what ``subscribe`` was called for with ``receive``; nothing happens where there is nothing."""

    async def close(self) -> None:
        """Flush what is in flight, end the subscriptions, and disconnect; a second call does nothing."""


@runtime_checkable
class SessionTransport(Transport, Protocol):
    """A way that has a session of its own with the broker, and so knows more."""

    async def publish(self, message: Message, *, timeout_seconds: float | None = None) -> int:
        """``Transport.publish``, within a time of its own."""

    def submit(self, message: Message) -> asyncio.Future[int]:
        """Publish without waiting; the reason code may be a refusing one."""

    def takes_unwaited(self, message: Message) -> bool:
        """Whether the connection of the moment surely takes a QoS 0 message; asked from any thread."""

    def has_properties(self) -> bool:
        """Whether messages can carry MQTT 5 properties, as far as it is known."""

    def watch(self, tell: Callable[[StateChange], None]) -> None:
        """Tell of each change of the session's state."""


@runtime_checkable
class RequestTransport(Transport, Protocol):
    """A way on which somebody else waits for replies."""

    async def request(
        self, message: Message, *, timeout_seconds: float, response_topic: str | None = None
    ) -> Message:
        """Publish a request, and return the reply; raises MQTTTimeoutError where there is none."""
