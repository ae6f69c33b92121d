"""Messages on their way to the broker: a bounded waiting room, and those in flight.

Rules:

1. Order is kept: a message goes straight out only when nobody waits before it.
2. At most ``window`` QoS 1 and 2 messages are in flight (MQTT 5 §4.9); a slot is free again when the broker's
   answer is in, not when the caller stopped waiting for it.
3. What was never sent fails as NotConnectedError or QueueFullError; what was sent and not answered fails as
   OutcomeUnknownError. The two are never mixed.
4. When a connection ends, QoS 0 messages that were not handed to the socket and QoS 1 messages that were not
   acknowledged go to the front of the waiting room and are sent again. A QoS 2 message cannot be sent again
   without its session, and fails at once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

from tidegate.connection import BrokerLimits, Connection
from tidegate.errors import (
    MQTTConnectionError,
    MQTTError,
    NotConnectedError,
    OutcomeUnknownError,
    QueueFullError,
    UnsupportedError,
    refusal,
)
from tidegate.message import NO_PROPERTIES, Message

SWEEP_SECONDS: Final = 0.25
_FIXED_OVERHEAD_BYTES: Final = 16
"""Fixed header, topic length, packet identifier and property length of a PUBLISH, at their longest (§3.3)."""


class Flight:
    """One message and the caller that waits for what becomes of it."""

    __slots__ = ("deadline", "future", "message", "outcome", "was_sent")

    def __init__(self, message: Message, future: asyncio.Future[int], deadline: float) -> None:
        self.message = message
        self.future = future
        self.deadline = deadline
        self.was_sent = False
        self.outcome: asyncio.Future[int] | None = None


class Outbox:
    """Hands messages to the connection of the moment and settles each with the broker's reason code."""

    def __init__(self, *, max_in_flight: int, max_waiting: int, publish_timeout_seconds: float) -> None:
        self._max_in_flight = max_in_flight
        self._max_waiting = max_waiting
        self._timeout_seconds = publish_timeout_seconds
        self._waiting: deque[Flight] = deque()
        self._flights: dict[Flight, None] = {}
        self._in_flight = 0
        self._window = max_in_flight
        self._connection: Connection | None = None
        self._limits = BrokerLimits()
        self._error: MQTTError | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        self._idle: asyncio.Future[None] | None = None
        self.last_acknowledged_at: float = 0.0

    @property
    def in_flight(self) -> int:
        """QoS 1 and 2 messages sent and not answered yet."""
        return self._in_flight

    @property
    def waiting(self) -> int:
        """Messages that wait for a connection or for a free slot."""
        return len(self._waiting)

    async def publish(self, message: Message, timeout_seconds: float | None = None) -> int:
        """Send a message, or let it wait for its turn, and return the broker's reason code.

        Raises:
            RefusedError: the broker answered with a reason code of 0x80 or more.
            UnsupportedError: the broker said in CONNACK that it cannot take this message.
            NotConnectedError: the time was up and nothing was sent.
            QueueFullError: the waiting room is full, or the time was up in it; nothing was sent.
            OutcomeUnknownError: it was sent, and no answer came in time.
        """
        reason_code = await self.submit(message, timeout_seconds)
        if reason_code >= 0x80:
            raise refusal("publish", reason_code, topic=message.topic, qos=message.qos)
        return reason_code

    def submit(self, message: Message, timeout_seconds: float | None = None) -> asyncio.Future[int]:
        """Send a message, or let it wait for its turn; no task is made.

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
        flight = Flight(message, loop.create_future(), loop.time() + timeout)
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
        else:
            self._send(flight)
        return flight.future

    def on_published(self, flight: Flight, reason_code: int) -> None:
        """The connection tells what became of a message."""
        del self._flights[flight]
        if flight.message.qos:
            self._in_flight -= 1
            if self._loop is not None:
                self.last_acknowledged_at = self._loop.time()
        if not flight.future.done():
            flight.future.set_result(reason_code)
        elif flight.outcome is not None and not flight.outcome.done():
            flight.outcome.set_result(reason_code)
        if self._waiting:
            self._send_waiting()
        elif self._idle is not None and not self._flights:
            self._settle_idle()

    def connection_made(self, connection: Connection) -> None:
        """Begin to send over a new connection."""
        self._connection = connection
        self._limits = connection.limits
        self._window = min(self._max_in_flight, connection.limits.receive_maximum)
        self._error = None
        self._send_waiting()

    def connection_lost(self, error: MQTTConnectionError) -> None:
        """Take back what the broker did not answer (rule 4)."""
        self._connection = None
        self._error = error
        flights = list(self._flights)
        self._flights.clear()
        self._in_flight = 0
        again = [flight for flight in flights if flight.message.qos < 2 and not flight.future.done()]
        self._waiting.extendleft(reversed(again))
        for flight in flights:
            if flight.message.qos == 2 and not flight.future.done():
                flight.future.set_exception(self._outcome_unknown(flight, str(error)))
            elif flight.outcome is not None and not flight.outcome.done():
                flight.outcome.set_exception(error)
                flight.outcome.exception()  # nobody need wait for it

    async def flushed(self, timeout_seconds: float) -> bool:
        """Wait until nothing waits and nothing is in flight; False if the time was up first."""
        if not self._flights and not self._waiting:
            return True
        self._idle = asyncio.get_running_loop().create_future()
        done, _ = await asyncio.wait([self._idle], timeout=timeout_seconds)
        self._idle = None
        return bool(done)

    def close(self) -> None:
        """Fail whatever is left."""
        self.connection_lost(NotConnectedError("the session was closed"))
        while self._waiting:
            self._fail(self._waiting.popleft())
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        if self._idle is not None:
            self._settle_idle()

    def _send(self, flight: Flight) -> None:
        message = flight.message
        assert self._connection is not None
        try:
            self._refuse_beyond_limits(message)
            self._connection.publish(message, flight)
        except MQTTError as error:
            settled = error if not flight.was_sent else self._outcome_unknown(flight, str(error))
            flight.future.set_exception(settled)
            return
        except Exception as error:  # noqa: BLE001 - one message must not end everybody's connection
            flight.future.set_exception(
                UnsupportedError(f"the message cannot be written as MQTT: {error}", topic=message.topic)
            )
            return
        flight.was_sent = True
        self._flights[flight] = None
        if message.qos:
            self._in_flight += 1

    def _send_waiting(self) -> None:
        waiting = self._waiting
        while waiting and self._connection is not None:
            flight = waiting[0]
            if flight.future.done():
                waiting.popleft()
                continue
            if flight.message.qos and self._in_flight >= self._window:
                return
            waiting.popleft()
            self._send(flight)
        if self._idle is not None and not self._flights and not waiting:
            self._settle_idle()

    def _refuse_beyond_limits(self, message: Message) -> None:
        limits = self._limits
        if message.qos > limits.maximum_qos:
            raise UnsupportedError(
                f"the broker takes at most QoS {limits.maximum_qos}", topic=message.topic, qos=message.qos
            )
        if message.retain and not limits.retain_available:
            raise UnsupportedError("the broker takes no retained messages", topic=message.topic)
        if limits.protocol_version < 5 and message.properties != NO_PROPERTIES:
            raise UnsupportedError(
                "the session speaks MQTT 3.1.1, which has no properties", topic=message.topic
            )
        if limits.maximum_packet_size is not None:
            size = _FIXED_OVERHEAD_BYTES + len(message.topic.encode()) + len(message.payload)
            if size > limits.maximum_packet_size:
                raise UnsupportedError(
                    f"the message makes a packet of about {size} bytes; the broker takes at most "
                    f"{limits.maximum_packet_size}",
                    topic=message.topic,
                    reason_code=0x95,
                )

    def _sweep(self) -> None:
        """Fail what has waited too long; runs only while there is something to watch."""
        assert self._loop is not None
        self._sweeper = None
        now = self._loop.time()
        late = [flight for flight in self._waiting if flight.deadline <= now or flight.future.done()]
        for flight in late:
            self._waiting.remove(flight)
            self._fail(flight)
        for flight in self._flights:
            if flight.deadline <= now and not flight.future.done():
                unknown = self._outcome_unknown(flight, "the broker did not acknowledge it in time")
                unknown.outcome = flight.outcome = self._loop.create_future()
                flight.future.set_exception(unknown)
        if self._flights or self._waiting:
            self._sweeper = self._loop.call_later(SWEEP_SECONDS, self._sweep)

    def _fail(self, flight: Flight) -> None:
        if flight.future.done():
            return
        message = flight.message
        error: MQTTError
        if flight.was_sent and message.qos:
            error = self._outcome_unknown(flight, "the connection ended before it was acknowledged")
        elif self._connection is None:
            reason = f" ({self._error})" if self._error is not None else ""
            error = NotConnectedError(
                f"there is no connection to the broker{reason}; nothing was sent",
                topic=message.topic,
                qos=message.qos,
            )
        else:
            error = QueueFullError(
                "the broker acknowledges too slowly and the message's turn did not come; nothing was sent",
                topic=message.topic,
                qos=message.qos,
            )
        flight.future.set_exception(error)

    def _outcome_unknown(self, flight: Flight, reason: str) -> OutcomeUnknownError:
        return OutcomeUnknownError(
            f"the message was sent, but {reason}: it may have arrived, or not",
            topic=flight.message.topic,
            qos=flight.message.qos,
        )

    def _settle_idle(self) -> None:
        if self._idle is not None and not self._idle.done():
            self._idle.set_result(None)
