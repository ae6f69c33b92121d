"""Publishing: an asynchronous class, and the same with calls that block."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Iterable
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self, Unpack

from tidegate.background import engine
from tidegate.client import AsyncClient
from tidegate.configuration import Where
from tidegate.errors import ConfigurationError, refusal
from tidegate.formatters import Formatter, to_payload
from tidegate.hooks import Hooked
from tidegate.lane import Lane
from tidegate.message import NO_PROPERTIES, Message, Properties
from tidegate.reason_codes import describe
from tidegate.strings import validate_properties
from tidegate.topics import validate_topic
from tidegate.transports.direct import DirectTransport


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


class AsyncPublisher(AsyncClient):
    """Publishes messages; connects with the first one, and again whenever the connection is lost."""

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
        return await self.publish_message(
            make_message(self.formatter, topic, payload, qos, retain, properties)
        )

    async def publish_message(self, message: Message) -> PublishResult:
        """Publish a message whose payload is bytes already; raises what ``publish`` raises."""
        if message.qos == 2:
            message = replace(message, qos=self.possible_qos(2))
        transport = self._open()
        if isinstance(transport, DirectTransport):  # without the coroutines between
            reason_code = await transport.submit(message)
            if reason_code >= 0x80:
                raise refusal("publish", reason_code, topic=message.topic, qos=message.qos)
        elif self._session_transport is not None:
            reason_code = await transport.publish(message)
        else:
            reason_code = await self._told(transport.publish(message))
        if self._hooks is not None and self._hooks.tells_publish:
            self._hooks.published()
        return PublishResult(message.topic, message.qos, message.retain, reason_code, describe(reason_code))

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

    def publish_message(self, message: Message) -> PublishResult:
        """``AsyncPublisher.publish_message``, waiting."""
        if message.qos == 2:
            message = replace(message, qos=self._asynchronous.possible_qos(2))
        reason_code = self._lane.publish(message)
        return PublishResult(message.topic, message.qos, message.retain, reason_code, describe(reason_code))

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


def make_message(
    formatter: Formatter,
    topic: str,
    payload: Any,
    qos: int,
    retain: bool,
    properties: Properties = NO_PROPERTIES,
) -> Message:
    """One message, checked and written.

    Raises:
        TopicError: the topic name is not allowed.
        ConfigurationError: the QoS is not 0, 1 or 2, or MQTT cannot carry a property.
        PayloadError: the formatter cannot write the payload.
    """
    validate_topic(topic)
    require_qos(qos)
    if properties is not NO_PROPERTIES:
        validate_properties(properties)
    return Message(topic, to_payload(formatter, payload), qos, retain, properties)


def require_qos(qos: int) -> None:
    """Raises ConfigurationError for anything that is not the number 0, 1 or 2 (MQTT 5 §4.3)."""
    if qos not in (0, 1, 2) or isinstance(qos, bool):
        raise ConfigurationError(f"qos={qos!r} is not a quality of service; it is 0, 1 or 2")


def topic_list(topics: str | Iterable[str]) -> list[str]:
    """One topic or several, as a list without repetitions."""
    return list(dict.fromkeys([topics] if isinstance(topics, str) else topics))
