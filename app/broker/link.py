"""The bridge's one session with the broker.

The link owns the session. What it receives goes to whoever is attached, which is the hub; what the hub holds,
it subscribes to; what the HTTP side publishes, it sends.

    link = BrokerLink(settings, options)
    hub = Hub(link)
    link.attach(hub)
    await link.start()
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from app.settings import Settings
from tidegate.connection import (
    BrokerLimits,
    Connect,
    Connection,
    ConnectionEvents,
    ConnectOptions,
    Subscription,
)
from tidegate.connections import aiomqtt_connection
from tidegate.errors import MQTTError
from tidegate.message import Message
from tidegate.session import Session, SessionState, StateChange


class Receiver(Protocol):
    """Who is told what comes from the broker."""

    def deliver(self, message: Message) -> None:
        """A message arrived."""

    def broker_down(self, reason: str) -> None:
        """The connection ended."""

    def broker_returns(self, *, session_present: bool) -> None:
        """There is a connection again, and nothing was subscribed to again yet."""

    def broker_up(self, *, session_present: bool, refused: tuple[tuple[str, int], ...] = ()) -> None:
        """The connection is back; ``refused`` names filters held before that the broker refuses now."""


class BrokerLink:
    """The session and its life.

    Args:
        settings: where the broker is, and the bounds on what waits for it.
        options: how to connect, made from the settings.
        connect: what opens connections; the default client where it is left out.

    Attributes:
        connections: how many were made since the start.
        failures: how many attempts to make one failed.
    """

    def __init__(
        self, settings: Settings, options: ConnectOptions, *, connect: Connect | None = None
    ) -> None:
        self._receiver: Receiver | None = None
        self._connect: Connect = aiomqtt_connection.connect if connect is None else connect
        self.session = Session(
            options,
            on_message=self._deliver,
            on_state=self._on_state,
            connect=self._open,
            max_in_flight=settings.max_in_flight,
            max_waiting=settings.max_waiting,
            publish_timeout_seconds=settings.publish_timeout_seconds,
        )
        self._was_connected = False
        self.connections = 0
        self.failures = 0

    def attach(self, receiver: Receiver) -> None:
        """Name who is told; once, before ``start``."""
        self._receiver = receiver

    @property
    def has_identifiers(self) -> bool:
        """Whether copies carry subscription identifiers."""
        limits = self.session.limits
        return limits is not None and limits.subscription_identifiers_available

    @property
    def limits(self) -> BrokerLimits | None:
        """What the broker said in CONNACK; None without a connection."""
        return self.session.limits

    async def start(self) -> None:
        """Begin to connect; returns at once, also where the broker is away."""
        await self.session.start()

    async def close(self) -> None:
        """Finish what is in flight and say goodbye to the broker."""
        await self.session.close()

    def publish(self, message: Message) -> Coroutine[Any, Any, int]:
        """Publish, and return the broker's reason code; raises what ``Session.publish`` raises."""
        return self.session.publish(message)

    def submit(
        self,
        message: Message,
        *,
        timeout_seconds: float | None = None,
        on_sent: Callable[[], None] | None = None,
    ) -> asyncio.Future[int]:
        """Publish without waiting; ``Session.submit``."""
        return self.session.submit(message, timeout_seconds=timeout_seconds, on_sent=on_sent)

    async def subscribe(
        self, topic_filter: str, qos: int, identifier: int, *, retained: bool, retained_again: bool
    ) -> int:
        """SUBSCRIBE for the hub; ``app.hub.filters.Upstream``."""
        subscription = Subscription(
            topic_filter,
            qos=qos,
            identifier=identifier,
            retain_handling=0 if retained else 2,
            retain_handling_again=0 if retained_again else 2,
        )
        codes = await self.session.subscribe([subscription])
        return codes[0]

    async def unsubscribe(self, topic_filter: str) -> None:
        """UNSUBSCRIBE for the hub; ``app.hub.filters.Upstream``."""
        await self.session.unsubscribe([topic_filter])

    def why_not_ready(self) -> str | None:
        """None where a round trip to the broker was seen lately; else the reason, for ``/readyz``."""
        session = self.session
        age = session.last_round_trip_seconds_ago
        if age is None:
            error = session.last_error
            return f"not connected to the broker: {error}" if error else "not connected to the broker yet"
        if age > 2 * session.probe_interval_seconds:
            return f"the broker has not answered for {age:.0f} s"
        return None

    async def _open(self, options: ConnectOptions, events: ConnectionEvents) -> Connection:
        """Open a connection, and tell what it is before anything comes that is subscribed to again.

        A connection that ends before all is subscribed to again is no change of the session's state.
        """
        receiver = self._receiver if self._was_connected else None
        if receiver is not None:
            receiver.broker_down(f"it was lost again: {self.session.last_error}")
        try:
            connection = await self._connect(options, events)
        except MQTTError:
            self.failures += 1
            raise
        self.connections += 1
        if receiver is not None:
            receiver.broker_returns(session_present=connection.limits.session_present)
        return connection

    def _deliver(self, message: Message) -> None:
        if self._receiver is not None:
            self._receiver.deliver(message)

    def _on_state(self, change: StateChange) -> None:
        receiver = self._receiver
        if receiver is None:
            return
        if change.state is SessionState.DISCONNECTED and self._was_connected:
            receiver.broker_down(str(change.error))
        elif change.state is SessionState.CONNECTED:
            if self._was_connected:
                receiver.broker_up(session_present=change.session_present, refused=change.refused)
            self._was_connected = True
