"""Messages on their way to the broker: a bounded waiting room, and those in flight.

Rules:

1. Order is kept: a message goes straight out only when nobody waits before it. Suspects
   (``tidegate.suspects``) lose their place.
2. At most ``window`` QoS 1 and 2 messages are in flight (MQTT 5 §4.9); a slot is free again when the broker's
   answer is in, not when the caller stopped waiting for it.
3. What was never sent fails as NotConnectedError or QueueFullError; what was sent and not answered fails as
   OutcomeUnknownError. The two are never mixed.
4. When a connection ends, a message that nobody waits for any more is not sent again; the others go back to
   ``tidegate.waiting_room``. Those of QoS 0 that were not handed to the socket go to its front.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from tidegate.connection import BrokerLimits, Carry, Connection
from tidegate.errors import MQTTError, NotConnectedError, QueueFullError, UnsupportedError, refusal
from tidegate.flight import Flight
from tidegate.late_outcomes import LateOutcomes
from tidegate.limits import check_publish, may_refuse_publish
from tidegate.message import Message
from tidegate.suspects import blame
from tidegate.waiting_room import WaitingRoom

SWEEP_SECONDS: Final = 0.25


class Outbox:
    """Hands messages to the connection of the moment and settles each with the broker's reason code.

    Args:
        max_in_flight: QoS 1 and 2 messages sent and not answered; the broker's Receive Maximum bounds it too.
        max_waiting: messages that may wait for a connection or a slot.
        publish_timeout_seconds: bound on the wait for a turn and for the acknowledgement together.
        keeps_session: whether exchanges outlive their connection.
    """

    def __init__(
        self,
        *,
        max_in_flight: int,
        max_waiting: int,
        publish_timeout_seconds: float,
        keeps_session: bool = False,
    ) -> None:
        self._max_in_flight = max_in_flight
        self._max_waiting = max_waiting
        self._timeout_seconds = publish_timeout_seconds
        self._keeps_session = keeps_session
        self._room = WaitingRoom()
        self._waiting = self._room.turns
        self._suspects = self._room.suspects
        self._flights: dict[Flight, None] = {}
        self._late = LateOutcomes()
        self._in_flight = 0
        self._window = max_in_flight
        self._connection: Connection | None = None
        self._standby: Connection | None = None
        self._is_held = False
        self._limits = BrokerLimits()
        self._must_check = False
        self._error: MQTTError | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        self._idle: asyncio.Future[None] | None = None
        self.last_acknowledged_at: float = 0.0

    @property
    def in_flight(self) -> int:
        """QoS 1 and 2 messages sent and not answered yet, those carried to the next connection too."""
        return self._in_flight + len(self._room.carried)

    @property
    def waiting(self) -> int:
        """Messages that wait for a connection or for a free slot."""
        return len(self._waiting) + self._suspects.waiting

    async def publish(self, message: Message, timeout_seconds: float | None = None) -> int:
        """Send a message, or let it wait for its turn, and return the broker's reason code.

        Raises:
            RefusedError: the broker answered with a reason code of 0x80 or more.
            UnsupportedError: the broker said in CONNACK that it cannot take this message.
            NotConnectedError: the time was up and nothing was sent.
            QueueFullError: the waiting room is full, or the time was up in it; nothing was sent.
            OutcomeUnknownError: it was sent, and no answer came in time; its ``outcome`` may tell later.
        """
        reason_code = await self.submit(message, timeout_seconds)
        if reason_code >= 0x80:
            raise refusal("publish", reason_code, topic=message.topic, qos=message.qos)
        return reason_code

    def submit(
        self,
        message: Message,
        timeout_seconds: float | None = None,
        on_sent: Callable[[], None] | None = None,
    ) -> asyncio.Future[int]:
        """Send a message, or let it wait for its turn; no task is made.

        Args:
            message: the message.
            timeout_seconds: bound on the wait for a turn and for the acknowledgement together.
            on_sent: called when the message is handed to a connection, maybe before this returns, and again
                where it is sent again; it must not raise.

        Returns:
            A future with the broker's reason code, also a refusing one, or with the error that ``publish``
            would raise. Cancelling it gives up on the answer, not on a message that is sent already.

        Raises:
            QueueFullError: the waiting room is full; nothing was sent.
        """
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
        timeout = self._timeout_seconds if timeout_seconds is None else timeout_seconds
        flight = Flight(message, loop.create_future(), loop.time() + timeout, on_sent)
        if self._sweeper is None:
            self._sweeper = loop.call_later(SWEEP_SECONDS, self._sweep)
        if (
            self._connection is None
            or self._waiting
            or (self._in_flight >= self._window if message.qos else len(self._flights) >= self._max_waiting)
        ):
            if len(self._waiting) >= self._max_waiting:
                raise QueueFullError(
                    f"{len(self._waiting)} messages wait for the broker already; nothing was sent",
                    topic=message.topic,
                    qos=message.qos,
                )
            self._waiting.append(flight)
        elif not self._send(flight) and not flight.future.done():
            self._waiting.append(flight)
        return flight.future

    def on_published(self, flight: Flight, reason_code: int) -> None:
        """The connection tells what became of a message."""
        try:
            del self._flights[flight]
        except KeyError:
            return  # the session is being closed, and its caller was told so
        if flight.message.qos:
            self._in_flight -= 1
            if self._loop is not None:
                self.last_acknowledged_at = self._loop.time()
        if not flight.future.done():
            flight.future.set_result(reason_code)
        else:
            self._late.answered(flight, reason_code)
        if self._suspects and self._suspects[0] is flight:
            self._suspects.let_go()
        if self._waiting or self._suspects:
            self._send_waiting()
        elif self._idle is not None and not self._flights:
            self._settle_idle()

    def on_resumed(self, limits: BrokerLimits, flights: Sequence[Flight]) -> list[Carry]:
        """The broker kept the session: which exchanges go on, and which wait for their turn."""
        window = min(self._max_in_flight, limits.receive_maximum)
        answers = self._room.resume(flights, window - self._in_flight)
        for flight, answer in zip(flights, answers, strict=True):
            if answer is Carry.CONTINUE:
                self._flights[flight] = None
                self._in_flight += 1
        return answers

    def connection_made(self, connection: Connection, limits: BrokerLimits) -> None:
        """Begin to send over a new connection.

        Args:
            connection: where to send.
            limits: what may be sent there.
        """
        if self._is_held:
            self._standby = connection
        else:
            self._connection = connection
        self._limits = limits
        self._must_check = may_refuse_publish(limits)
        self._window = min(self._max_in_flight, limits.receive_maximum)
        self._error = None
        self._room.forget("the broker did not keep the session in which it was sent")
        self._send_waiting()

    def connection_lost(self, error: MQTTError, *, hung_up: bool = False) -> None:
        """Take back what the broker did not answer.

        Args:
            error: why there is no connection.
            hung_up: whether the other side ended it.
        """
        self._connection = self._standby = None
        self._error = error
        flights = []
        for flight in self._flights:
            if flight.future.done():
                self._late.never(flight, error)
            else:
                flights.append(flight)
        self._flights.clear()
        self._in_flight = 0
        if hung_up:
            blame(flights, error)
        self._suspects.connection_lost()
        left = [flight for flight in flights if not flight.future.done()]
        if self._keeps_session:
            left = self._room.carry(left)
        self._room.come_back(left, str(error))

    def hold(self) -> None:
        """Send nothing, whatever connections there are, until ``release``; what was sent is answered."""
        self._is_held = True
        self._connection, self._standby = None, self._connection

    def release(self) -> None:
        """Send what ``hold`` kept back."""
        self._is_held = False
        self._connection, self._standby = self._standby, None
        self._send_waiting()

    def pause(self) -> list[asyncio.Future[int]]:
        """Hand nothing more to the present connection; its answers still count.

        Returns:
            What is in flight on it: each is done when it is answered, or its time is up.
        """
        self._connection = self._standby = None
        return [flight.future for flight in self._flights if not flight.future.done()]

    def connection_replaced(self, connection: Connection, limits: BrokerLimits, error: MQTTError) -> None:
        """Go on over another connection after a pause; what the earlier one did not answer is taken back."""
        self.connection_lost(error)
        self.connection_made(connection, limits)

    async def flushed(self, timeout_seconds: float) -> bool:
        """Wait until nothing waits and nothing is in flight; False if the time was up first."""
        if self._is_idle():
            return True
        self._idle = asyncio.get_running_loop().create_future()
        done, _ = await asyncio.wait([self._idle], timeout=timeout_seconds)
        self._idle = None
        return bool(done)

    def expire(self) -> None:
        """Let everybody's time be up: what waits fails as never sent, what was sent as an unknown outcome."""
        for flight in (*self._room.all(), *self._flights):
            flight.deadline = 0.0
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweep()

    def close(self) -> None:
        """Fail whatever is left."""
        self._keeps_session = False
        self.connection_lost(NotConnectedError("the session was closed"))
        self._room.forget("the session was closed")
        for flight in self._room.take_all():
            self._fail(flight)
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        if self._idle is not None:
            self._settle_idle()

    # Sending.

    def _send(self, flight: Flight) -> bool:
        """Hand a message to the connection; False where it failed at once, or the connection is gone.

        A connection that is gone says so in a moment: until then the message keeps its place.
        """
        message = flight.message
        assert self._connection is not None
        try:
            if self._must_check:
                check_publish(message, self._limits)
            self._connection.publish(message, flight)
        except NotConnectedError:
            self._connection = None
            return False
        except MQTTError as error:
            flight.fail(error if not flight.was_sent else flight.outcome_unknown(str(error)))
            return False
        except Exception as error:  # noqa: BLE001 - one message must not end everybody's connection
            flight.fail(
                UnsupportedError(f"the message cannot be written as MQTT: {error}", topic=message.topic)
            )
            return False
        flight.was_sent = True
        if flight.on_sent is not None:
            flight.on_sent()
        self._flights[flight] = None
        if message.qos:
            self._in_flight += 1
        return True

    def _send_waiting(self) -> None:
        if self._suspects:
            self._send_suspect()
        waiting = self._waiting
        while waiting and self._connection is not None:
            flight = waiting[0]
            if flight.future.done():
                waiting.popleft()
                continue
            if flight.message.qos and self._in_flight >= self._window:
                return
            waiting.popleft()
            if not self._send(flight) and not flight.future.done():
                waiting.appendleft(flight)
        if self._idle is not None and self._is_idle():
            self._settle_idle()

    def _send_suspect(self) -> None:
        """Send the next suspect, if none is in flight."""
        while self._suspects and not self._suspects.is_one_out and self._connection is not None:
            flight = self._suspects[0]
            if flight.message.qos and self._in_flight >= self._window:
                return
            if not flight.future.done() and self._send(flight):
                self._suspects.is_one_out = True
            elif flight.future.done():
                self._suspects.popleft()

    # Giving up.

    def _sweep(self) -> None:
        """Fail what has waited too long; runs only while there is something to watch."""
        assert self._loop is not None
        self._sweeper = None
        now = self._loop.time()
        if self._suspects.is_one_out and self._suspects[0].deadline <= now:
            self._suspects.let_go()
        for flight in self._room.take_overdue(now, self._flights):
            self._fail(flight)
        for flight in self._flights:
            if flight.deadline <= now and not flight.future.done():
                self._late.give_up(flight)
        if self._suspects:
            self._send_waiting()
        if not self._is_idle():
            self._sweeper = self._loop.call_later(SWEEP_SECONDS, self._sweep)

    def _fail(self, flight: Flight) -> None:
        if flight.was_sent and flight.message.qos:
            flight.fail(flight.outcome_unknown("the connection ended before it was acknowledged"))
        else:
            is_connected = self._connection is not None or self._standby is not None
            flight.fail(flight.never_sent(self._error, is_connected=is_connected))

    def _is_idle(self) -> bool:
        return not self._flights and self._room.is_empty

    def _settle_idle(self) -> None:
        if self._idle is not None and not self._idle.done():
            self._idle.set_result(None)
