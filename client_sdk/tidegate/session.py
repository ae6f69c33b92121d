"""The session with a broker: one connection at a time, kept up, with a bounded number of messages in flight.

    session = Session(options, on_message=…, on_state=…)      nothing runs yet
    await session.start()                                      connects in the background, returns at once
    await session.connected(timeout_seconds=5)                 waits until there is a connection
    await session.publish(message)                             returns the broker's reason code
    await session.subscribe([Subscription("a/#", qos=1)])      returns a reason code a filter
    await session.close()                                      flushes, disconnects, ends

One task (``_run``) owns the connection: it connects, subscribes again to what was accepted before, proves the
connection with a round trip when nothing else did, and starts over when it is lost. Nobody else connects.
``tidegate.swapping_session`` has a session whose connection can be exchanged, and uses what is here for that.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final

from tidegate.connection import (
    BrokerLimits,
    Connect,
    Connection,
    ConnectOptions,
    Subscription,
)
from tidegate.errors import MQTTConnectionError, MQTTError, MQTTTimeoutError, NotConnectedError
from tidegate.handover import close_quickly
from tidegate.held_filters import HeldFilters, subscribe, unsubscribe
from tidegate.limits import check_filter
from tidegate.line import Line
from tidegate.message import Message
from tidegate.outbox import Outbox
from tidegate.reason_codes import describe
from tidegate.session_opening import SessionOpening
from tidegate.session_state import SessionState, StateChange
from tidegate.turnstile import Turnstile

__all__ = ["Session", "SessionState", "StateChange"]

logger = logging.getLogger("tidegate")

STEADY_SECONDS: Final = 5.0
"""A connection that lasted this long resets the backoff."""

CLOSE_SECONDS: Final = 5.0


def _ignore(_: object) -> None:
    return None


class Session:
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
        self._opening = SessionOpening(options, connect)
        self._options = self._opening.options
        self._deliver = on_message
        self._tell_state = on_state
        self._reconnect_min_seconds = reconnect_min_seconds
        self._reconnect_max_seconds = reconnect_max_seconds
        self._timeout_seconds = publish_timeout_seconds
        self._outbox = Outbox(
            max_in_flight=max_in_flight,
            max_waiting=max_waiting,
            publish_timeout_seconds=publish_timeout_seconds,
            keeps_session=self._opening.keeps_session,
        )
        self._filters = HeldFilters()
        self._state = SessionState.IDLE
        self._error: MQTTError | None = None
        self._connection: Connection | None = None
        self._limits = BrokerLimits()
        self._line: Line | None = None
        self._replaced: asyncio.Future[None] | None = None
        self._changes = Turnstile()
        self._change = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._last_answer_at = 0.0

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
    def address(self) -> str:
        """Host and port of the broker."""
        return f"{self._options.host}:{self._options.port}"

    @property
    def in_flight(self) -> int:
        """QoS 1 and 2 messages sent and not answered."""
        return self._outbox.in_flight

    @property
    def waiting(self) -> int:
        """Messages that wait for a connection or a slot."""
        return self._outbox.waiting

    @property
    def probe_interval_seconds(self) -> float:
        """How long the broker may be silent before a round trip is made to prove the connection."""
        return max(self._options.keepalive_seconds / 3, 0.5)

    @property
    def last_round_trip_seconds_ago(self) -> float | None:
        """The age of the last proven round trip to the broker; None without a connection."""
        if self._connection is None:
            return None
        return asyncio.get_running_loop().time() - self._answered_at

    async def start(self) -> None:
        """Begin to connect in the background; returns at once, also where the broker is away."""
        if self._task is None:
            self._set(StateChange(SessionState.CONNECTING))
            self._task = asyncio.create_task(self._run(), name=f"tidegate session {self.address}")

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
        self._answered()
        return codes

    async def ping(self, *, timeout_seconds: float | None = None) -> None:
        """Make one round trip to the broker; raises NotConnectedError or MQTTTimeoutError."""

        async def ping(connection: Connection) -> list[int]:
            await connection.ping()
            return []

        await self._insist(ping, self._timeout_seconds if timeout_seconds is None else timeout_seconds)

    async def _stop_running(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

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

    # What the connection tells.

    def on_message(self, message: Message) -> None:
        """A message arrived; a fault of the receiver must not end the connection."""
        if self._state is SessionState.CLOSED:
            return
        try:
            self._deliver(message)
        except Exception:
            logger.exception("the receiver of messages failed on one from %r", message.topic)

    def _new_line(self) -> Line:
        return Line(self.on_message, self._outbox.on_published, self._outbox.on_resumed)

    # The one task.

    async def _run(self, opened: tuple[Line, Connection] | None = None) -> None:
        """Keep a connection up, beginning with one that is open already, where there is one."""
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            try:
                self._line, connection = opened or await self._open()
            except MQTTError as error:
                # An attempt that got as far as CONNACK may have resumed what was in flight.
                self._outbox.connection_lost(error, hung_up=True)
                self._disconnected(error)
            else:
                opened = None
                began_at = loop.time()
                reason = await self._serve_safely(connection)
                if loop.time() - began_at >= STEADY_SECONDS:
                    failures = 0
                self._connection = None
                lost = self._line.lost
                hung_up = lost.done()
                self._outbox.connection_lost(lost.result() if hung_up else reason, hung_up=hung_up)
                self._disconnected(reason)
            ceiling = min(self._reconnect_max_seconds, self._reconnect_min_seconds * 2.0 ** min(failures, 16))
            failures += 1
            await asyncio.sleep(random.uniform(ceiling / 2, ceiling))  # noqa: S311 - jitter, not a secret

    async def _open(self) -> tuple[Line, Connection]:
        line = self._new_line()
        return line, await self._opening.open(line)

    async def _serve_safely(self, connection: Connection) -> MQTTConnectionError:
        """Whatever goes wrong, the connection is closed and another one is made."""
        try:
            return await self._serve(connection)
        except asyncio.CancelledError:
            if self._connection is None:  # else whoever cancels has it
                await close_quickly(connection)
            raise
        except Exception as error:
            logger.exception("the session with %s failed", self.address)
            await close_quickly(self._connection or connection)
            return MQTTConnectionError(f"the session failed: {error!r}")

    async def _serve(self, connection: Connection) -> MQTTConnectionError:
        """Use a connection until it is lost, and say why it was."""
        self._answered()
        self._limits = limits = self._opening.limits_of(connection)
        try:
            refused = await self._filters.restore(
                connection,
                limits,
                is_kept=limits.session_present and self._opening.keeps_session,
                timeout_seconds=self._timeout_seconds,
            )
        except (TimeoutError, MQTTConnectionError) as error:
            await close_quickly(connection)
            return MQTTConnectionError(
                f"subscribing again failed: {str(error) or 'the broker did not answer'}"
            )
        for topic_filter, code in refused:
            logger.error("%s no longer grants %s: %s", self.address, topic_filter, describe(code))
        self._connection = connection
        self._error = None
        version = {5: "MQTT 5", 4: "MQTT 3.1.1"}[limits.protocol_version]
        logger.info("connected to %s with %s as %s", self.address, version, limits.client_id)
        self._set(
            StateChange(
                SessionState.CONNECTED, session_present=limits.session_present, refused=tuple(refused)
            )
        )
        self._outbox.connection_made(connection, limits)
        while True:
            reason = await self._watch()
            if reason is not None:
                return reason

    async def _watch(self) -> MQTTConnectionError | None:
        """Prove the connection with a round trip whenever nothing else has; None when it was exchanged."""
        connection, line = self._connection, self._line
        assert connection is not None
        assert line is not None
        loop = asyncio.get_running_loop()
        interval = self.probe_interval_seconds
        self._replaced = replaced = loop.create_future()
        lost = line.lost
        while True:
            await asyncio.wait([lost, replaced], timeout=interval, return_when=asyncio.FIRST_COMPLETED)
            if replaced.done():
                return None
            if lost.done():
                return lost.result()
            if loop.time() - self._answered_at < interval:
                continue
            try:
                async with asyncio.timeout(2 * interval):
                    await connection.ping()
                self._answered()
            except TimeoutError:
                if replaced.done():
                    return None
                await close_quickly(connection)
                return MQTTConnectionError(f"{self.address} did not answer for {3 * interval:g} s")
            except MQTTConnectionError as error:
                if replaced.done():
                    return None
                return lost.result() if lost.done() else error

    # Small parts.

    @property
    def _answered_at(self) -> float:
        return max(self._last_answer_at, self._outbox.last_acknowledged_at)

    def _answered(self) -> None:
        self._last_answer_at = asyncio.get_running_loop().time()

    def _disconnected(self, error: MQTTError) -> None:
        self._error = error
        if self._state is not SessionState.DISCONNECTED:
            logger.warning("not connected to %s: %s; trying again until it answers", self.address, error)
            self._set(StateChange(SessionState.DISCONNECTED, error))

    def _set(self, change: StateChange) -> None:
        self._state = change.state
        self._change.set()
        self._change = asyncio.Event()
        try:
            self._tell_state(change)
        except Exception:
            logger.exception("the receiver of state changes failed on %s", change.state)

    async def _live(self, timeout_seconds: float | None) -> Connection:
        try:
            async with asyncio.timeout(timeout_seconds):
                while self._connection is None:
                    if self._state is SessionState.CLOSED:
                        raise NotConnectedError("the session is closed")
                    await self._change.wait()
                return self._connection
        except TimeoutError:
            if self._error is not None:
                raise self._error from None
            raise NotConnectedError(f"no connection to {self.address} yet") from None

    async def _insist(
        self, call: Callable[[Connection], Coroutine[Any, Any, list[int]]], timeout_seconds: float
    ) -> list[int]:
        """Make a call that may be repeated, over as many connections as the time allows."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_seconds
        while True:
            try:
                connection = await self._live(deadline - loop.time())
            except MQTTError as error:
                raise NotConnectedError(f"there is no connection to the broker: {error}") from None
            try:
                async with asyncio.timeout_at(deadline):
                    answer = await call(connection)
            except TimeoutError:
                raise MQTTTimeoutError(f"the broker did not answer within {timeout_seconds:g} s") from None
            except MQTTConnectionError:
                if self._connection is connection:
                    await asyncio.sleep(0)
                continue
            self._answered()
            return answer
