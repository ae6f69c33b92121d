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
import contextlib
import logging
import secrets
from collections.abc import Callable, Coroutine
from dataclasses import replace
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
from tidegate.errors import ConnectRefusedError, MQTTError
from tidegate.line import Line
from tidegate.message import Message
from tidegate.session import SessionState, StateChange
from tidegate.swapping_session import SwappingSession

logger = logging.getLogger("tidegate.broker")


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
        self.session = SwappingSession(
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

    def use(self, options: ConnectOptions) -> None:
        """Connect with these, in place of those given at first; before ``start``."""
        self.session.use(options)

    async def start(self) -> None:
        """Begin to connect; returns at once, also where the broker is away."""
        await self.session.start()

    async def close(self) -> None:
        """Finish what is in flight and say goodbye to the broker."""
        await self.session.close()

    async def swap(self, options: ConnectOptions) -> None:
        """Go on with the broker in another way, such as with another certificate; decision 9.

        Without a client identifier of its own the bridge is connected twice for a moment, and nothing is
        missed, doubled or told. With one it goes over to a temporary identifier and back. Where the broker
        refuses that, where it is AWS IoT, whose policies name identifiers, where it keeps the session, and
        where there is no connection, the connection is left before the next is made, and streams are told.

        Args:
            options: how to connect from now on; the client identifier as it is set.

        Raises:
            MQTTError: it does not work with these; the bridge goes on as before.
        """
        session = self.session
        if session.state is not SessionState.CONNECTED:
            await session.take_over(options)
        elif not options.client_id:
            await session.hand_over(options)
        elif options.session_expiry_seconds or session.profile == "aws-iot":
            await self._try_out(options)
            await session.take_over(options)
        else:
            try:
                await session.hand_over(_under_another_name(options))
            except ConnectRefusedError as error:
                logger.warning("the broker takes no second client identifier (%s)", error)
                await session.take_over(options)
            else:
                await self._back_to_its_name(options)

    async def _back_to_its_name(self, options: ConnectOptions) -> None:
        try:
            await self.session.hand_over(options)
        except MQTTError as error:
            logger.warning(
                "the bridge keeps a temporary client identifier in place of %s until it is swapped again: %s",
                options.client_id,
                error,
            )

    async def _try_out(self, options: ConnectOptions) -> None:
        """Connect beside the session in use; that the other name is refused tells nothing."""
        nobody = Line(lambda _: None, lambda _, __: None, lambda _, __: ())
        once = replace(_under_another_name(options), session_expiry_seconds=0, clean_start=True)
        with contextlib.suppress(ConnectRefusedError):
            connection = await self._connect(once, nobody)
            await connection.close()

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

        A connection that ends before all is subscribed to again is no change of the session's state. One that
        is made beside another one tells nothing.
        """
        is_again = self._was_connected and self.session.state is not SessionState.CONNECTED
        receiver = self._receiver if is_again else None
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


def _under_another_name(options: ConnectOptions) -> ConnectOptions:
    return replace(options, client_id=f"{options.client_id}-{secrets.token_hex(3)}")
