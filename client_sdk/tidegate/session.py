"""The session with a broker: one connection at a time, kept up, with a bounded number of messages in flight.

    session = Session(options, on_message=…, on_state=…)      nothing runs yet
    await session.start()                                      connects in the background, returns at once
    await session.connected(timeout_seconds=5)                 waits until there is a connection
    await session.publish(message)                             returns the broker's reason code
    await session.subscribe([Subscription("a/#", qos=1)])      returns a reason code a filter
    await session.close()                                      flushes, disconnects, ends

Here is what a session is asked for; ``tidegate.kept_connection`` connects, and connects again.
``tidegate.swapping_session`` has a session whose connection can be exchanged, and uses what is here for that.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final

from tidegate.connection import (
    BrokerLimits,
    Connect,
    Connection,
    ConnectOptions,
    Subscription,
)
from tidegate.errors import MQTTConnectionError, MQTTError, MQTTTimeoutError
from tidegate.handover import close_quickly
from tidegate.held_filters import subscribe, unsubscribe
from tidegate.kept_connection import KeptConnection
from tidegate.limits import check_filter
from tidegate.message import Message
from tidegate.outbox import Outbox
from tidegate.session_opening import SessionOpening
from tidegate.session_state import SessionState, StateChange
from tidegate.turnstile import Turnstile

__all__ = ["Session", "SessionState", "StateChange"]

CLOSE_SECONDS: Final = 5.0


def _ignore(_: object) -> None:
    return None


class Session(KeptConnection):
    """A session that reconnects for ever, with jittered backoff.

    Args:
        options: where and how to connect.
        on_message: called for each message, in order, on the event loop; it must not block.
        on_state: called on each change of state, not on each attempt.
        connect: what opens connections; aiomqtt where it is left out.
        max_in_flight: QoS 1 and 2 messages sent and not answered; the broker's Receive Maximum bounds it too.
        max_waiting: messages that may wait for a connection or a slot; one more raises QueueFullError.
        publish_timeout_seconds: bound on the wait for a turn and for the acknowledgement together.
        reconnect_min_seconds: the first delay's upper bound; it doubles with each failure.
        reconnect_max_seconds: the upper bound that it does not pass.

    Raises:
        ConfigurationError: the client identifier, or the broker profile, cannot be used.
    """

    def __init__(
        self,
        options: ConnectOptions,
        *,
        on_message: Callable[[Message], None] = _ignore,
        on_state: Callable[[StateChange], None] = _ignore,
        connect: Connect | None = None,
        max_in_flight: int = 1000,
        max_waiting: int = 10_000,
        publish_timeout_seconds: float = 10.0,
        reconnect_min_seconds: float = 0.2,
        reconnect_max_seconds: float = 30.0,
    ) -> None:
        opening = SessionOpening(options, connect)
        outbox = Outbox(
            max_in_flight=max_in_flight,
            max_waiting=max_waiting,
            publish_timeout_seconds=publish_timeout_seconds,
            keeps_session=opening.keeps_session,
        )
        super().__init__(
            opening,
            outbox,
            on_message=on_message,
            on_state=on_state,
            timeout_seconds=publish_timeout_seconds,
            reconnect_min_seconds=reconnect_min_seconds,
            reconnect_max_seconds=reconnect_max_seconds,
        )
        self._changes = Turnstile()

    @property
    def state(self) -> SessionState:
        """The state of the moment."""
        return self._state

    @property
    def limits(self) -> BrokerLimits | None:
        """What the broker said in CONNACK, within its profile's limits; None without a connection."""
        return None if self._connection is None else self._limits

    @property
    def profile(self) -> str:
        """The kind of broker, as far as it is known (``tidegate.profiles``)."""
        return self._opening.profile if self._connection is None else self._limits.profile

    @property
    def last_error(self) -> MQTTError | None:
        """Why there is no connection, or None."""
        return self._error

    @property
    def in_flight(self) -> int:
        """QoS 1 and 2 messages sent and not answered."""
        return self._outbox.in_flight

    @property
    def waiting(self) -> int:
        """Messages that wait for a connection or a slot."""
        return self._outbox.waiting

    @property
    def last_round_trip_seconds_ago(self) -> float | None:
        """The age of the last proven round trip to the broker; None without a connection."""
        if self._connection is None:
            return None
        return asyncio.get_running_loop().time() - self._keep_alive.answered_at

    async def start(self) -> None:
        """Begin to connect in the background; returns at once, also where the broker is away."""
        if self._task is None:
            self._set(StateChange(SessionState.CONNECTING))
            self._begin_running()

    async def connected(self, timeout_seconds: float | None = None) -> BrokerLimits:
        """Wait until there is a connection.

        Raises:
            MQTTError: the time was up; the error is the last one that kept the connection from being made.
            NotConnectedError: the session was closed, or the time was up before anything was known.
        """
        await self._live(timeout_seconds)
        return self._limits

    async def attempted(self, timeout_seconds: float | None = None) -> BrokerLimits:
        """Wait for the connection, or for the first failure to make it.

        Raises:
            MQTTError: why there is no connection; the session goes on trying.
        """
        if self._state in (SessionState.IDLE, SessionState.CONNECTING):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_seconds):
                    while self._state in (SessionState.IDLE, SessionState.CONNECTING):
                        await self._change.wait()
        return await self.connected(0)

    def publish(self, message: Message, *, timeout_seconds: float | None = None) -> Coroutine[Any, Any, int]:
        """Publish a message and return the broker's reason code; raises what ``Outbox.publish`` raises."""
        return self._outbox.publish(message, timeout_seconds)

    def submit(
        self,
        message: Message,
        *,
        timeout_seconds: float | None = None,
        on_sent: Callable[[], None] | None = None,
    ) -> asyncio.Future[int]:
        """Publish without waiting, for many messages at once; ``Outbox.submit``."""
        return self._outbox.submit(message, timeout_seconds, on_sent)

    async def subscribe(
        self, subscriptions: Sequence[Subscription], *, timeout_seconds: float | None = None
    ) -> list[int]:
        """Subscribe, and subscribe again after each reconnect to what the broker accepted.

        Returns:
            A reason code for each filter, in order: 0 to 2 the granted QoS, 0x80 and above refused.

        Raises:
            UnsupportedError: a filter is beyond a limit of the broker's; nothing was sent.
            NotConnectedError: there was no connection in the time given.
            MQTTTimeoutError: the broker did not answer in the time given.
        """

        async def ask(connection: Connection) -> list[int]:
            for each in subscriptions:
                check_filter(each.filter, self._limits)
            return await subscribe(connection, self._limits, subscriptions)

        timeout = self._timeout_seconds if timeout_seconds is None else timeout_seconds
        async with self._changes.passed():
            codes = await self._insist(ask, timeout)
            for subscription, code in zip(subscriptions, codes, strict=True):
                if code < 0x80:
                    self._filters.granted(subscription)
        return codes

    async def unsubscribe(self, filters: Sequence[str], *, timeout_seconds: float | None = None) -> list[int]:
        """Unsubscribe; without a connection it is enough not to subscribe again."""
        if not filters:
            return []
        async with self._changes.passed():
            return await self._unsubscribe(filters, timeout_seconds)

    async def _unsubscribe(self, filters: Sequence[str], timeout_seconds: float | None) -> list[int]:
        for each in filters:
            self._filters.drop(each)
        connection = self._connection
        if connection is None:
            self._filters.leave_behind(filters)
            return [0] * len(filters)
        timeout = self._timeout_seconds if timeout_seconds is None else timeout_seconds
        try:
            async with asyncio.timeout(timeout):
                codes = await unsubscribe(connection, self._limits, filters)
        except MQTTConnectionError:
            self._filters.leave_behind(filters)
            return [0] * len(filters)
        except TimeoutError:
            raise MQTTTimeoutError(f"the broker did not answer UNSUBSCRIBE within {timeout:g} s") from None
        self._keep_alive.answered()
        return codes

    async def ping(self, *, timeout_seconds: float | None = None) -> None:
        """Make one round trip to the broker; raises NotConnectedError or MQTTTimeoutError."""

        async def ping(connection: Connection) -> list[int]:
            await connection.ping()
            return []

        await self._insist(ping, self._timeout_seconds if timeout_seconds is None else timeout_seconds)

    def hold(self) -> None:
        """Publish nothing until ``release``; ``Outbox.hold``."""
        self._outbox.hold()

    def release(self) -> None:
        """Publish what waits; ``Outbox.release``."""
        self._outbox.release()

    def expire(self) -> None:
        """Wait no longer for what is to be published, before ``close``; ``Outbox.expire``."""
        self._outbox.expire()

    async def close(self, *, flush_seconds: float = CLOSE_SECONDS) -> None:
        """Wait for what is in flight, disconnect, and end; what is left then fails.

        Args:
            flush_seconds: how long to wait for acknowledgements.
        """
        if self._state is SessionState.CLOSED:
            return
        if self._connection is not None:
            await self._outbox.flushed(flush_seconds)
        await self._stop_running()
        connection, self._connection = self._connection, None
        self._outbox.close()
        if connection is not None:
            await close_quickly(connection, CLOSE_SECONDS, ends_session=self._options.clean_start)
        self._set(StateChange(SessionState.CLOSED))
