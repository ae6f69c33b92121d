"""Publishing: an asynchronous class, and the same with calls that block."""

from __future__ import annotations

import asyncio
import functools
import weakref
from collections.abc import AsyncIterable, Awaitable, Iterable
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self, Unpack

from tidegate.background import engine
from tidegate.client import AsyncClient
from tidegate.configuration import Where
from tidegate.errors import MQTTError, refusal
from tidegate.hooks import Hooked
from tidegate.lane import Lane
from tidegate.many import (
    MAX_IN_FLIGHT,
    Item,
    Outcome,
    publish_awaited,
    publish_blocking,
)
from tidegate.message import NO_PROPERTIES, Message, Properties
from tidegate.outgoing import make_message, make_reply, read_item, require_askable, require_positive
from tidegate.reason_codes import describe
from tidegate.replies import Replies
from tidegate.transports.direct import DirectTransport
from tidegate.transports.transport import RequestTransport


@dataclass(frozen=True, slots=True)
class PublishResult:
    """What became of a message.

    Attributes:
        topic: where it was published.
        qos: the quality of service it was sent with.
        retain: whether the broker was asked to keep it.
        reason_code: the broker's reason code, below 0x80 (MQTT 5 §3.4.2.1); 0 at QoS 0 and on MQTT 3.1.1.
        reason: the reason code's name.
    """

    topic: str
    qos: int
    retain: bool
    reason_code: int
    reason: str


_last: PublishResult = PublishResult("", 0, False, 0, describe(0))


def _result_of(topic: str, qos: int, retain: bool, reason_code: int) -> PublishResult:
    """What became of a message; the result before it where it is the same, since looking is cheaper.

    No more are kept: to find one among those of many topics costs twice what it takes to make one.
    """
    global _last  # noqa: PLW0603 - any thread may put its own there
    last = _last
    if last.topic == topic and last.qos is qos and last.retain is retain and last.reason_code == reason_code:
        return last
    _last = made = PublishResult(topic, qos, retain, reason_code, describe(reason_code))
    return made


class AsyncPublisher(AsyncClient):
    """Publishes messages; connects with the first one, and again whenever the connection is lost."""

    _replies: Replies | None = None

    async def publish(
        self,
        topic: str,
        payload: Any,
        qos: int = 1,
        retain: bool = False,
        *,
        properties: Properties = NO_PROPERTIES,
    ) -> PublishResult:
        """Publish one message and wait for what becomes of it.

        Args:
            topic: a topic name (MQTT 5 §4.7).
            payload: any value that the formatter writes; ``bytes`` go out as they are.
            qos: 0 (handed to the socket), 1 or 2 (acknowledged by the broker). The default is 1, as in the
                HTTP API, so that a return means that the broker has the message.
            retain: keep it as the topic's value (§3.3.1.3).
            properties: MQTT 5 properties.

        Raises:
            TopicError: the topic name is not allowed.
            PayloadError: the formatter cannot write the payload.
            RefusedError: the broker refused it; NotAuthorizedError where its access rules do.
            NotConnectedError: there was no connection in time, and nothing was sent.
            OutcomeUnknownError: it was sent, and not acknowledged in time.
        """
        message = self._possible(make_message(self.formatter, topic, payload, qos, retain, properties))
        return self._result(message, await self._send(message))

    async def publish_message(self, message: Message) -> PublishResult:
        """Publish a message whose payload is bytes already; raises what ``publish`` raises."""
        message = self._possible(message)
        return self._result(message, await self._send(message))

    def _possible(self, message: Message) -> Message:
        return replace(message, qos=self.possible_qos(2)) if message.qos == 2 else message

    def _send(self, message: Message) -> Awaitable[int]:
        transport = self._open()
        if isinstance(transport, DirectTransport):  # without the coroutines between
            return transport.submit(message)
        if self._session_transport is not None:
            return transport.publish(message)
        return self._told(transport.publish(message))

    def _result(self, message: Message, reason_code: int) -> PublishResult:
        if reason_code >= 0x80:
            raise refusal("publish", reason_code, topic=message.topic, qos=message.qos)
        if self._hooks is not None and self._hooks.tells_publish:
            self._hooks.published()
        return _result_of(message.topic, message.qos, message.retain, reason_code)

    def submit(self, message: Message) -> asyncio.Future[int]:
        """Begin to publish, on this client's loop, for a caller elsewhere.

        Returns:
            A future with the reason code, also a refusing one, or with the error that ``publish`` raises.
        """
        transport = self._open()
        if self._session_transport is not None:
            future = self._session_transport.submit(message)
        else:
            future = asyncio.ensure_future(self._told(transport.publish(message)))
        if self._hooks is not None and self._hooks.tells_publish:
            future.add_done_callback(self._tell_published)
        return future

    async def request(
        self,
        topic: str,
        payload: Any,
        timeout: float = 10.0,
        qos: int = 1,
        *,
        properties: Properties = NO_PROPERTIES,
        response_topic: str | None = None,
    ) -> Message:
        """Publish a request and return the reply to it (MQTT 5 §4.10).

        Args:
            topic: a topic name that the device follows.
            payload: any value that the formatter writes; read the reply's by ``text``, ``json()`` or
                ``payload``.
            timeout: seconds within which everything has to happen.
            qos: quality of service of the request.
            properties: further MQTT 5 properties; the response topic and the correlation data are made here.
            response_topic: the topic that the device answers on by itself, for one that speaks MQTT 3.1.1.
                Requests of this process with the same one take turns at a broker; at a bridge all do.

        Raises:
            MQTTTimeoutError: the request was acknowledged, or at QoS 0 sent, and no reply came in time.
            OutcomeUnknownError: neither an acknowledgement nor a reply came.
            QueueFullError: others had the response topic all the time; nothing was sent.
            UnsupportedError: the connection speaks MQTT 3.1.1, and no response topic is named.
            MQTTError: what ``publish`` and ``subscribe`` raise.
        """
        message = make_message(self.formatter, topic, payload, self.possible_qos(qos), False, properties)
        require_askable(message, timeout, response_topic)
        transport = self._open()
        if isinstance(transport, RequestTransport):
            return await self._told(
                transport.request(message, timeout_seconds=timeout, response_topic=response_topic)
            )
        if self._replies is None:
            assert self._session_transport is not None
            self._replies = Replies(self._session_transport)
            self._at_disconnect.append(self._replies.end)
        return await self._replies.ask(message, timeout, response_topic)

    async def reply(
        self,
        request: Message,
        payload: Any,
        qos: int = 1,
        *,
        properties: Properties = NO_PROPERTIES,
    ) -> PublishResult:
        """Publish the reply to a request: to its response topic, with its correlation data.

        Args:
            request: the message, whole; a handler annotated with ``Message`` gets it so.
            payload: any value that the formatter writes.
            qos: quality of service of the reply.
            properties: further MQTT 5 properties.

        Raises:
            ConfigurationError: the message names no topic to reply on.
            MQTTError: what ``publish`` raises.
        """
        return await self.publish_message(
            make_reply(self.formatter, request, payload, self.possible_qos(qos), properties)
        )

    async def publish_many(
        self,
        messages: Iterable[Item] | AsyncIterable[Item],
        qos: int = 1,
        retain: bool = False,
        *,
        max_in_flight: int = MAX_IN_FLIGHT,
    ) -> list[PublishResult | MQTTError]:
        """Publish many messages, several at a time, in order; a message that fails costs itself alone.

        Args:
            messages: each ``(topic, payload)``, ``(topic, payload, options)`` with ``qos``, ``retain`` and
                ``properties``, or a ``Message``. A generator serves too: no more is taken from it than
                is under way.
            qos: quality of service where a message does not say.
            retain: whether to keep messages that do not say.
            max_in_flight: how many may be under way.

        Returns:
            What became of each, in order: a result, or the error that ``publish`` would raise.
        """
        require_positive(max_in_flight)
        read = functools.partial(read_item, self.formatter, qos, retain, self.possible_qos)
        return _told(await publish_awaited(messages, read, self.submit, max_in_flight))

    def takes_unwaited(self, message: Message) -> bool:
        """Whether a QoS 0 message is surely sent without anybody waiting for it; asked from any thread."""
        transport = self._session_transport
        return transport is not None and not self.is_on_aws_iot and transport.takes_unwaited(message)

    def _tell_published(self, future: asyncio.Future[int]) -> None:
        if (
            self._hooks is not None
            and not future.cancelled()
            and future.exception() is None
            and future.result() < 0x80
        ):
            self._hooks.published()


class Publisher(Hooked):
    """``AsyncPublisher`` with calls that block; the arguments are the same.

    The connection lives in a thread of the SDK's, so calls may come from any thread, also from inside a
    running event loop, which then waits. A QoS 0 message that a live connection takes is handed over without
    waiting for the socket; it keeps its place in the order, and what still goes wrong with it is logged.
    """

    def __init__(self, url: str | None = None, **where: Unpack[Where]) -> None:
        self._asynchronous = AsyncPublisher(url, **where)
        self._asynchronous.lend_hooks(self)
        self._lane = Lane(self._asynchronous)
        # one that goes out of use without disconnect leaves no connection behind
        weakref.finalize(self, engine.submit_call, self._asynchronous.disconnect).atexit = False

    def connect(self) -> None:
        """``AsyncPublisher.connect``, waiting."""
        engine.run(self._asynchronous.connect())

    def disconnect(self) -> None:
        """``AsyncPublisher.disconnect``, waiting."""
        engine.run(self._asynchronous.disconnect())

    def publish(
        self,
        topic: str,
        payload: Any,
        qos: int = 1,
        retain: bool = False,
        *,
        properties: Properties = NO_PROPERTIES,
    ) -> PublishResult:
        """``AsyncPublisher.publish``, waiting."""
        return self.publish_message(
            make_message(self._asynchronous.formatter, topic, payload, qos, retain, properties)
        )

    def request(
        self,
        topic: str,
        payload: Any,
        timeout: float = 10.0,
        qos: int = 1,
        *,
        properties: Properties = NO_PROPERTIES,
        response_topic: str | None = None,
    ) -> Message:
        """``AsyncPublisher.request``, waiting."""
        return engine.run(
            self._asynchronous.request(
                topic, payload, timeout, qos, properties=properties, response_topic=response_topic
            )
        )

    def reply(
        self,
        request: Message,
        payload: Any,
        qos: int = 1,
        *,
        properties: Properties = NO_PROPERTIES,
    ) -> PublishResult:
        """``AsyncPublisher.reply``, waiting."""
        return self.publish_message(
            make_reply(self._asynchronous.formatter, request, payload, qos, properties)
        )

    def publish_many(
        self,
        messages: Iterable[Item],
        qos: int = 1,
        retain: bool = False,
        *,
        max_in_flight: int = MAX_IN_FLIGHT,
    ) -> list[PublishResult | MQTTError]:
        """``AsyncPublisher.publish_many``, waiting; the messages are taken in the caller's thread."""
        require_positive(max_in_flight)
        client = self._asynchronous
        read = functools.partial(read_item, client.formatter, qos, retain, client.possible_qos)
        return _told(publish_blocking(messages, read, self._lane.begin, max_in_flight))

    def publish_message(self, message: Message) -> PublishResult:
        """``AsyncPublisher.publish_message``, waiting."""
        if message.qos == 2:
            message = replace(message, qos=self._asynchronous.possible_qos(2))
        reason_code = self._lane.publish(message)
        return _result_of(message.topic, message.qos, message.retain, reason_code)

    def __enter__(self) -> Self:
        try:
            self.connect()
        except BaseException:
            self.disconnect()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.disconnect()


def _told(outcomes: list[Outcome]) -> list[PublishResult | MQTTError]:
    """Outcomes as callers get them."""
    return [
        each
        if isinstance(each, MQTTError)
        else _result_of(each[0].topic, each[0].qos, each[0].retain, each[1])
        for each in outcomes
    ]
