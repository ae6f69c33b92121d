"""The one way out: whatever must hold of a message to publish is checked here, whichever call it came by.

Rules:

1. Every call of the API that publishes goes through ``Gate``; nothing else of the service does.
2. Whether the principal may comes first, so that nobody learns what is checked of topics of others. It has to
   be good still: a body, a batch and a WebSocket take longer than a token may last.
3. How often comes next; what the broker has no room for is not counted.
4. A check looks at one message and returns, or raises ``ProblemError``; it neither waits nor changes it.
5. A message that a check refuses is never sent.
6. ``publish`` counts what became of the message. Who calls ``submit`` counts it, since it knows when to ask.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from time import perf_counter

from app.broker.link import BrokerLink
from app.problems import ProblemError, ProblemType
from app.publishing.counts import PublishCounts
from app.security.authorization import Authorization
from app.security.principal import Principal
from app.security.rates import Rate
from tidegate.connection import BrokerLimits
from tidegate.errors import MQTTError, QueueFullError
from tidegate.message import Message

Check = Callable[[Message], None]


class Gate:
    """Checks messages and hands them to the broker.

    Args:
        link: the broker.
        authorization: decides whether a principal may.
        checks: what each message has to pass besides, in order.
        rate: how often a principal may; None where that is not bounded.

    Attributes:
        counts: what became of messages.
    """

    def __init__(
        self,
        link: BrokerLink,
        authorization: Authorization,
        checks: Sequence[Check] = (),
        rate: Rate | None = None,
    ) -> None:
        self._link = link
        self._authorization = authorization
        self._checks = tuple(checks)
        self._rate = rate
        self._has_stopped = False
        self.counts = PublishCounts()

    @property
    def limits(self) -> BrokerLimits | None:
        """What the broker said in CONNACK; None without a connection."""
        return self._link.limits

    @property
    def waiting(self) -> int:
        """Messages of all callers that wait for a connection or a free slot."""
        return self._link.session.waiting

    @property
    def seconds_since_round_trip(self) -> float | None:
        """How long ago the broker answered; None without a connection."""
        return self._link.session.last_round_trip_seconds_ago

    def stop(self) -> None:
        """The bridge ends in a moment: whoever waits is answered now, and nothing more is taken."""
        self._has_stopped = True
        self._link.session.expire()

    async def publish(self, principal: Principal, message: Message, *, field: str = "topic") -> int:
        """Publish, and return the broker's reason code, below 0x80.

        Args:
            principal: who publishes.
            message: the message.
            field: where its topic came from, for a problem.

        Raises:
            ProblemError: the principal is good no more (UNAUTHENTICATED), may not (NOT_GRANTED,
                RESERVED_TOPIC), or not so often (TOO_MANY_REQUESTS), a check refuses the message, or the
                bridge stops (SHUTTING_DOWN).
            MQTTError: what ``Session.publish`` raises.
        """
        qos = message.qos
        began_at = perf_counter()
        try:
            self._check(principal, message, field)
            reason_code = await self._link.publish(message)
        except (ProblemError, MQTTError) as error:
            self.counts.fail(qos, error)
            raise
        self.counts.accept_single(qos, reason_code, perf_counter() - began_at)
        return reason_code

    def submit(
        self,
        principal: Principal,
        message: Message,
        *,
        field: str = "topic",
        timeout_seconds: float | None = None,
        on_sent: Callable[[], None] | None = None,
    ) -> asyncio.Future[int]:
        """Publish without waiting: the future has the reason code, also a refusing one, or the error.

        Args:
            principal: who publishes.
            message: the message.
            field: where its topic came from, for a problem.
            timeout_seconds: bound on the wait for its turn and for the acknowledgement together; that of the
                settings where it is left out.
            on_sent: called when the message is handed to the connection, maybe before this returns.

        Raises:
            ProblemError: the principal may not, or not so often, a check refuses the message, or the bridge
                stops.
            QueueFullError: the waiting room is full, and nothing was sent.
        """
        self._check(principal, message, field)
        try:
            return self._link.submit(message, timeout_seconds=timeout_seconds, on_sent=on_sent)
        except QueueFullError:
            if self._rate is not None:  # a batch tries again, with the same message
                self._rate.give_back(principal.bounded_as)
            raise

    def _check(self, principal: Principal, message: Message, field: str) -> None:
        if self._has_stopped:
            raise ProblemError(ProblemType.SHUTTING_DOWN, "the bridge stops; nothing was sent")
        self._authorization.require_current(principal)
        self._authorization.require_publish(principal, message, field=field)
        if self._rate is not None:
            self._rate.take(principal.bounded_as, principal)
        for check in self._checks:
            check(message)
