"""Requests: a message that asks, and the replies to it (MQTT 5 §4.10).

Rules:

1. A request is published through the gate, and its wait begins before: a reply may overtake the broker's
   acknowledgement.
2. The time-out counts from the request's arrival and bounds everything: the subscription, the turn at a fixed
   reply topic, the publish and the wait.
3. What was not sent fails as a publish that was not sent does; what was sent and not acknowledged is *outcome
   unknown*. Only what the broker took can be *no reply*.
4. However it ends, the request is forgotten at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from app.hub.event import Event
from app.hub.hub import Hub
from app.problems import ProblemError, ProblemType, problem_of
from app.publishing.gate import Gate
from app.publishing.replies import End, Inbox, OwnInbox, Pending, ReplyCounts
from app.publishing.reply_topics import FixedInbox
from app.publishing.trace_context import with_trace
from app.security.principal import Principal
from app.settings import Settings
from tidegate.errors import MQTTTimeoutError, OutcomeUnknownError, RefusedError, refusal
from tidegate.message import NO_PROPERTIES, Message
from tidegate.reason_codes import NO_MATCHING_SUBSCRIBERS


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked.

    Attributes:
        principal: who asks.
        message: the request, without response topic and correlation data.
        timeout_seconds: how long the caller waits, from the arrival of its request on.
        deadline: when that is over, in seconds on the loop's clock.
        replies: how many are wanted.
        response_topic: where the device answers, if it does so on a topic of its own.
        trace: the headers that become properties where the connection can carry them.
    """

    principal: Principal
    message: Message
    timeout_seconds: float
    deadline: float
    replies: int = 1
    response_topic: str | None = None
    trace: Sequence[tuple[bytes, bytes]] = ()


class Requests:
    """All requests of one bridge.

    Args:
        gate: the way to the broker.
        hub: through which replies come.
        settings: the bounds.

    Attributes:
        counts: what became of requests and replies.
    """

    def __init__(self, gate: Gate, hub: Hub, settings: Settings) -> None:
        self._gate = gate
        self._hub = hub
        self._settings = settings
        self._own: OwnInbox | None = None
        self._fixed: dict[str, FixedInbox] = {}
        self._has_properties = True
        self.counts = ReplyCounts()

    async def ask(self, question: Question) -> list[Event]:
        """Publish a request, and return the replies to it: at least one, and no more than are wanted.

        Raises:
            ProblemError: nothing was sent: TOO_MANY_WAITING, REPLY_TOPIC_BUSY, SHUTTING_DOWN,
                BROKER_UNAVAILABLE, UNSUPPORTED; or it was sent: NO_REPLY, OUTCOME_UNKNOWN.
            MQTTError: what ``Gate.publish`` raises, or the subscription for the replies was refused.
        """
        if self.counts.waiting >= self._settings.max_waiting_requests:
            raise ProblemError(
                ProblemType.TOO_MANY_WAITING,
                f"{self.counts.waiting} requests wait for replies, as many as TIDEGATE_MAX_WAITING_REQUESTS "
                "allows; nothing was sent",
            )
        self.counts.waiting += 1
        try:
            return await self._ask(question)
        finally:
            self.counts.waiting -= 1

    async def _ask(self, question: Question) -> list[Event]:
        pending = Pending(question.replies)
        async with self._ready(question, pending) as response_topic:
            message = self._addressed(question, pending, response_topic)
            reason_code = await self._exchange(message, question, pending)
            if pending.replies:
                self.counts.answered += 1
                return pending.replies
            raise self._no_reply(question, pending, reason_code)

    @contextlib.asynccontextmanager
    async def _ready(self, question: Question, pending: Pending) -> AsyncIterator[str]:
        """Have a subscription for the replies, and where it is a fixed topic, have it alone."""
        async with contextlib.AsyncExitStack() as stack:
            inbox: Inbox
            try:
                async with asyncio.timeout_at(question.deadline):
                    if question.response_topic is None:
                        self._require_properties()
                        inbox = own = self._own_inbox()
                        response_topic = own.topic_of(pending)
                        await inbox.open(self._hub)
                        self._require_properties()
                    else:
                        inbox = fixed = self._fixed_inbox(question.response_topic)
                        response_topic = question.response_topic
                        await stack.enter_async_context(fixed.turn(pending))
                        await inbox.open(self._hub)
            except TimeoutError:
                raise self._not_sent(question) from None
            except RefusedError as error:
                problem = problem_of(error)
                problem.nothing_sent = True
                raise problem from None
            except MQTTTimeoutError as error:
                raise ProblemError(
                    ProblemType.BROKER_UNAVAILABLE,
                    f"the subscription for the reply was not acknowledged: {error}; nothing was sent",
                ) from None
            inbox.pending[pending.token] = pending
            stack.callback(inbox.pending.pop, pending.token)
            yield response_topic

    async def _exchange(self, message: Message, question: Question, pending: Pending) -> int | None:
        """Publish and wait until there are replies enough, or the wait ends otherwise.

        Returns:
            The broker's reason code; None where the replies were quicker, or the bridge stops.
        """
        loop = asyncio.get_running_loop()
        publishing = self._gate.submit(
            question.principal,
            message,
            timeout_seconds=max(question.deadline - loop.time(), 0.0),
            on_sent=pending.sent,
        )
        try:
            either: set[asyncio.Future[Any]] = {publishing, pending.ended}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not publishing.done():
                return None
            reason_code = self._outcome(publishing, message, pending)
            if not pending.ended.done():
                await asyncio.wait({pending.ended}, timeout=max(question.deadline - loop.time(), 0.0))
            return reason_code
        finally:
            # A message that is with the socket stays sent; one that waits for its turn is not sent any more.
            publishing.cancel()

    def _outcome(self, publishing: asyncio.Future[int], message: Message, pending: Pending) -> int | None:
        """The reason code of a publish that ended, below 0x80; None where a reply tells that it arrived."""
        error = publishing.exception()
        if pending.replies:
            return None
        if error is not None:
            pending.is_sent = isinstance(error, OutcomeUnknownError)
            raise error
        reason_code = publishing.result()
        if reason_code >= 0x80:
            pending.is_sent = False
            raise refusal("publish", reason_code, topic=message.topic, qos=message.qos)
        return reason_code

    # The message.

    def _addressed(self, question: Question, pending: Pending, response_topic: str) -> Message:
        """The request with all that a reply needs; a request that nobody waits for any more expires."""
        message = question.message
        properties = message.properties
        if not self._speaks_5():
            is_asked_for = replace(properties, content_type=None) != NO_PROPERTIES
            return message if is_asked_for else replace(message, properties=NO_PROPERTIES)
        properties = with_trace(properties, question.trace)
        expiry = properties.message_expiry
        return replace(
            message,
            properties=replace(
                properties,
                response_topic=response_topic,
                correlation_data=pending.correlation_data,
                message_expiry=math.ceil(question.timeout_seconds) if expiry is None else expiry,
            ),
        )

    def _speaks_5(self) -> bool:
        """Whether the connection has properties; without one, whether the last had."""
        limits = self._gate.limits
        if limits is not None:
            self._has_properties = limits.protocol_version >= 5
        return self._has_properties

    def _require_properties(self) -> None:
        if not self._speaks_5():
            raise ProblemError(
                ProblemType.UNSUPPORTED,
                "the connection to the broker speaks MQTT 3.1.1, in which a request cannot tell where its "
                "reply is expected; nothing was sent",
                field="response_topic",
                hint="name the topic that the device answers on: ?response_topic=devices/7/reply",
            )

    # Where replies come.

    def _own_inbox(self) -> OwnInbox:
        own = self._own
        if own is None or own.close_reason is not None:
            if own is not None:
                self._hub.leave(own)
            own = self._own = OwnInbox(self._settings.reply_topic_prefix, self.counts)
        return own

    def _fixed_inbox(self, topic: str) -> FixedInbox:
        found = self._fixed.get(topic)
        if found is None or found.close_reason is not None:
            if found is not None:
                self._hub.leave(found)
            found = self._fixed[topic] = FixedInbox(
                topic,
                self.counts,
                max_line=self._settings.max_requests_per_reply_topic,
                settle_seconds=self._settings.reply_topic_settle_seconds,
                on_unused=self._release,
            )
        return found

    def _release(self, inbox: FixedInbox) -> None:
        if self._fixed.get(inbox.topic) is inbox:
            del self._fixed[inbox.topic]
        self._hub.leave(inbox)

    # What a caller is told.

    def _not_sent(self, question: Question) -> ProblemError:
        seconds = f"{question.timeout_seconds:g} s"
        if question.response_topic is not None and self._fixed[question.response_topic].is_open:
            return ProblemError(
                ProblemType.REPLY_TOPIC_BUSY,
                f"other requests had {question.response_topic!r} for {seconds}; nothing was sent",
                field="response_topic",
            )
        return ProblemError(
            ProblemType.BROKER_UNAVAILABLE,
            f"the broker did not take the subscription for the reply within {seconds}; nothing was sent",
        )

    def _no_reply(self, question: Question, pending: Pending, reason_code: int | None) -> ProblemError:
        end = pending.ended.result() if pending.ended.done() else None
        if end is End.SHUTDOWN:
            why = "the bridge stops before a reply came"
        elif end is End.REFUSED:
            why = "the broker does not grant the subscription for the reply any more"
        else:
            self.counts.timed_out += 1
            why = f"no reply came within {question.timeout_seconds:g} s"
            if pending.was_cut_off:
                why += "; the connection to the broker was lost meanwhile, and a reply may be lost with it"
        if reason_code is None:
            return ProblemError(
                ProblemType.OUTCOME_UNKNOWN,
                f"{why}, and before the broker acknowledged the request: it may have arrived, or not",
            )
        nobody = reason_code == NO_MATCHING_SUBSCRIBERS
        sent = (
            "the broker acknowledged the request" if question.message.qos else "the request was sent (QoS 0)"
        )
        return ProblemError(
            ProblemType.NO_REPLY,
            f"{sent}; {why}",
            hint="the broker says that nobody subscribes to the topic; not every broker does say so"
            if nobody
            else None,
            reason_code=reason_code if nobody else None,
        )
