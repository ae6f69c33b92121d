"""A session whose connection can be exchanged for one that is made in another way, while it is in use.

    session = SwappingSession(options, …)         as a Session
    await session.hand_over(other)                 both connections are there for a while; nobody notices
    await session.take_over(other)                 the one is left before the other is made

One exchange at a time; it leaves the connection that it made to the session's task.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from functools import cached_property
from typing import Final

from tidegate.connection import BrokerLimits, Connection, ConnectOptions
from tidegate.errors import MQTTConnectionError, MQTTError, NotConnectedError
from tidegate.handover import Handover, close_quickly
from tidegate.line import Line
from tidegate.session import CLOSE_SECONDS, Session, SessionState
from tidegate.session_opening import SessionOpening

logger = logging.getLogger("tidegate")

DRAIN_SECONDS: Final = 5.0
"""How long publishes wait for the answers to those before them, when the connection is exchanged."""


class SwappingSession(Session):
    """A ``Session``, made with the same arguments."""

    _leaving: asyncio.Task[None] | None = None

    @cached_property
    def _exchange(self) -> asyncio.Lock:
        """Held by whoever exchanges the connection."""
        return asyncio.Lock()

    def use(self, options: ConnectOptions) -> None:
        """Connect in another way, from the beginning; before ``start``.

        Raises:
            ConfigurationError: the client identifier, or the broker profile, cannot be used.
        """
        self._opening = self._opening.successor(options)
        self._options = self._opening.options

    async def hand_over(self, options: ConnectOptions) -> None:
        """Go on over a connection that is made in another way, without a message missed or doubled.

        The old connection is closed when the new one has taken its place; ``tidegate.handover`` tells how.
        What was published and is not answered is answered over the old one, within ``DRAIN_SECONDS``; beyond
        that it counts as after a lost connection. The client identifier must be another, and the session not
        one that outlives its connections.

        Raises:
            MQTTError: it could not be done, and the session goes on as before.
        """
        async with self._exchange:
            await self._left()
            opening = self._opening.other(options)
            for may_mark in (True, False) if self.profile == "generic" else (False,):
                line = self._new_line()
                connection = await opening.open(line)
                try:
                    await self._hand_over_to(opening, line, connection, may_mark=may_mark)
                except MQTTConnectionError:
                    if not (may_mark and line.lost.done() and self._connection is not None):
                        raise
                else:
                    break

    async def _hand_over_to(
        self, opening: SessionOpening, line: Line, connection: Connection, *, may_mark: bool
    ) -> None:
        limits = opening.limits_of(connection)
        handover: Handover | None = None
        async with self._changes.closed():
            try:
                old, old_line = self._connection, self._line
                if old is not None and old_line is not None:
                    handover = Handover(
                        (old_line, old),
                        (line, connection),
                        limits,
                        self._filters.subscriptions,
                        deliver=self.on_message,
                        timeout_seconds=self._timeout_seconds,
                    )
                    await handover.prepare(may_mark=may_mark)
                if handover is None or self._connection is not old:
                    raise NotConnectedError(  # noqa: TRY301 - what is made has to be undone
                        "the connection to the broker was lost meanwhile"
                    )
            except BaseException:
                await (close_quickly(connection) if handover is None else handover.abandon())
                raise
            handover.commit()
            self._opening, self._options = opening, opening.options
            self._connection, self._line, self._limits = connection, line, limits
            self._keep_alive.answered()
            self._keep_alive.exchanged()
            logger.info("went over to another connection to %s, as %s", self.address, limits.client_id)
        self._leaving = asyncio.create_task(self._leave(handover, connection, limits))
        await asyncio.shield(self._leaving)

    async def _leave(self, handover: Handover, connection: Connection, limits: BrokerLimits) -> None:
        """Let the old connection answer what was published over it, and close it."""
        try:
            await self._drained()
            if self._connection is connection:
                error = MQTTConnectionError("the broker did not answer before the connection was exchanged")
                self._outbox.connection_replaced(connection, limits, error)
            await handover.leave_old()
        finally:
            await handover.close_old()

    async def _left(self) -> None:
        """Wait until the connection of before is closed, should its exchange have been given up early."""
        if self._leaving is not None:
            await asyncio.wait([self._leaving])

    async def _drained(self) -> None:
        """Publish nothing more over the present connection, and wait for its answers, within bounds."""
        in_flight = self._outbox.pause()
        if in_flight:
            await asyncio.wait(in_flight, timeout=DRAIN_SECONDS)

    async def take_over(self, options: ConnectOptions) -> None:
        """Leave the connection, if there is one, and go on over one that is made in another way.

        The client identifier stays. A session that the broker keeps goes on: nothing of QoS 1 and 2 is missed
        or doubled. Else it is as after a lost connection.

        Raises:
            MQTTError: the first attempt failed; the session connects as before.
        """
        async with self._exchange:
            await self._left()
            opening = self._opening.successor(options)
            if self._connection is not None:
                try:
                    await self._drained()
                except asyncio.CancelledError:
                    if self._connection is not None:
                        self._outbox.connection_made(self._connection, self._limits)
                    raise
            opened: tuple[Line, Connection] | None = None
            await self._stop_running()
            try:
                await self._part(MQTTConnectionError("the connection is exchanged"))
                line = self._new_line()
                try:
                    opened = line, await opening.open(line)
                except MQTTError as error:
                    self._outbox.connection_lost(error)
                    raise
                self._opening, self._options = opening, opening.options
            finally:
                if self._state is SessionState.CLOSED:
                    if opened is not None:
                        await close_quickly(opened[1])
                else:
                    self._begin_running(opened)
            await self.connected(self._timeout_seconds)

    async def _part(self, error: MQTTConnectionError) -> None:
        """Close the connection, if there is one, in a way that lets the session go on."""
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                await close_quickly(connection, CLOSE_SECONDS)
            finally:
                self._outbox.connection_lost(error)
                self._disconnected(error)

    async def close(self, *, flush_seconds: float = CLOSE_SECONDS) -> None:
        """Close the session, and what was left and is not closed yet; see ``Session.close``."""
        await super().close(flush_seconds=flush_seconds)
        if self._leaving is not None:
            self._leaving.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._leaving
