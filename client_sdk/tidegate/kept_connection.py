"""One connection at a time, kept up for a session.

One task (``_run``) owns the connection: it connects, subscribes again to what was accepted before, watches it
(``tidegate.keep_alive``), and starts over when it is lost. Nobody else connects.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Coroutine
from typing import Any, Final

from tidegate.connection import BrokerLimits, Connection
from tidegate.errors import MQTTConnectionError, MQTTError, MQTTTimeoutError, NotConnectedError
from tidegate.handover import close_quickly
from tidegate.held_filters import HeldFilters
from tidegate.keep_alive import KeepAlive
from tidegate.line import Line
from tidegate.message import Message
from tidegate.outbox import Outbox
from tidegate.reason_codes import describe
from tidegate.session_opening import SessionOpening
from tidegate.session_state import SessionState, StateChange

logger = logging.getLogger("tidegate")

STEADY_SECONDS: Final = 5.0
"""A connection that lasted this long resets the backoff."""


class KeptConnection:
    """What ``Session`` has of a connection.

    Args:
        opening: opens the connections.
        outbox: the messages on their way; told of each connection that is made or lost.
        on_message: called for each message, in order, on the event loop; it must not block.
        on_state: called on each change of state, not on each attempt.
        timeout_seconds: bound on the broker's answer to what is subscribed to again.
        reconnect_min_seconds: the first delay's upper bound; it doubles with each failure.
        reconnect_max_seconds: the upper bound that it does not pass.
    """

    def __init__(
        self,
        opening: SessionOpening,
        outbox: Outbox,
        *,
        on_message: Callable[[Message], None],
        on_state: Callable[[StateChange], None],
        timeout_seconds: float,
        reconnect_min_seconds: float,
        reconnect_max_seconds: float,
    ) -> None:
        self._opening = opening
        self._options = opening.options
        self._outbox = outbox
        self._deliver = on_message
        self._tell_state = on_state
        self._timeout_seconds = timeout_seconds
        self._reconnect_min_seconds = reconnect_min_seconds
        self._reconnect_max_seconds = reconnect_max_seconds
        self._filters = HeldFilters()
        self._keep_alive = KeepAlive(outbox)
        self._state = SessionState.IDLE
        self._change = asyncio.Event()
        self._error: MQTTError | None = None
        self._connection: Connection | None = None
        self._limits = BrokerLimits()
        self._line: Line | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def address(self) -> str:
        """Host and port of the broker."""
        return f"{self._options.host}:{self._options.port}"

    @property
    def probe_interval_seconds(self) -> float:
        """How long the broker may be silent before a round trip is made to prove the connection."""
        return max(self._options.keepalive_seconds / 3, 0.5)

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

    def _begin_running(self, opened: tuple[Line, Connection] | None = None) -> None:
        self._task = asyncio.create_task(self._run(opened), name=f"tidegate session {self.address}")

    async def _stop_running(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

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
        self._keep_alive.answered()
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
            watched, line = self._connection, self._line
            assert watched is not None
            assert line is not None
            reason = await self._keep_alive.watch(
                watched, line, interval_seconds=self.probe_interval_seconds, address=self.address
            )
            if reason is not None:
                return reason

    # Small parts.

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
            self._keep_alive.answered()
            return answer
