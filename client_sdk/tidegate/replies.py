"""Requests over a session: a message that asks, and the reply to it (MQTT 5 §4.10).

Rules:

1. A client has response topics under a prefix of its own, one for each request, and one subscription to all
   of them, made with the first. The last level is a token that nobody can guess, which is the correlation
   data too; where a reply has correlation data, that has to agree.
2. The subscription is there before the request is sent, since a reply may overtake the acknowledgement.
3. A retained message is no reply: it was there before.
4. On a response topic that is named, requests take turns, since replies of devices that know no correlation
   data cannot be told apart. After one without a reply the topic is left alone for a while, or until the late
   reply has come.
5. The time-out bounds everything: the subscription, the turn, the publish and the wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import secrets
from collections.abc import Awaitable
from dataclasses import replace
from typing import Any, Final

from tidegate.background import running_loop
from tidegate.errors import (
    MQTTError,
    MQTTTimeoutError,
    NotConnectedError,
    QueueFullError,
    UnsupportedError,
)
from tidegate.message import Message
from tidegate.reason_codes import NO_MATCHING_SUBSCRIBERS
from tidegate.transports.transport import Receive, SessionTransport

PREFIX: Final = "tidegate/replies"
QOS: Final = 1
SETTLE_SECONDS: Final = 5.0


class _Pending:
    """One request that waits.

    Attributes:
        token: its name at the broker.
        reply: done when a reply came.
        is_sent: it was handed over to be published.
    """

    def __init__(self) -> None:
        self.token = secrets.token_hex(12)
        self.reply: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self.is_sent = False

    def take(self, message: Message) -> bool:
        """Whether a message is the reply; the first one counts."""
        correlation_data = message.properties.correlation_data
        if message.retain or correlation_data not in (None, self.token.encode("ascii")):
            return False
        if not self.reply.done():
            self.reply.set_result(message)
        return True


class _NamedTopic:
    """A response topic that a device has by itself, and who wants it."""

    def __init__(self) -> None:
        self.turn = asyncio.Lock()
        self.users = 0
        self.pending: _Pending | None = None
        self.is_settled = asyncio.Event()

    def receive(self, message: Message) -> None:
        """A message came; what comes before the request is sent is no reply."""
        if self.pending is not None and self.pending.is_sent and self.pending.take(message):
            self.is_settled.set()


class Replies:
    """The requests of one client; used on one event loop.

    Args:
        transport: the session; what it receives may come on another loop.
        settle_seconds: how long a named topic is left alone after a request without a reply.
    """

    def __init__(self, transport: SessionTransport, *, settle_seconds: float = SETTLE_SECONDS) -> None:
        self._transport = transport
        self._settle_seconds = settle_seconds
        self._loop = asyncio.get_running_loop()
        self._root = f"{PREFIX}/{secrets.token_hex(8)}/"
        self._receive = self._on_loop(self._take)
        self._pending: dict[str, _Pending] = {}
        self._named: dict[str, _NamedTopic] = {}
        self._opening: asyncio.Task[None] | None = None
        self._finishing: set[asyncio.Task[None]] = set()

    async def ask(self, message: Message, timeout_seconds: float, response_topic: str | None) -> Message:
        """Publish a request, and return the reply.

        Raises:
            MQTTTimeoutError: it was sent, and no reply came; OutcomeUnknownError where it was not
                acknowledged either.
            QueueFullError: others had the response topic all the time; nothing was sent.
            UnsupportedError: the connection speaks MQTT 3.1.1, and no response topic is named.
            MQTTError: what subscribing and publishing raise.
        """
        deadline = self._loop.time() + timeout_seconds
        if response_topic is None:
            return await self._ask(message, timeout_seconds, deadline)
        topic = self._named.setdefault(response_topic, _NamedTopic())
        topic.users += 1
        try:
            async with asyncio.timeout_at(deadline):
                await topic.turn.acquire()
        except BaseException as error:
            self._leave(response_topic, topic)
            if isinstance(error, TimeoutError):
                raise QueueFullError(
                    f"other requests had {response_topic!r} for {timeout_seconds:g} s; nothing was sent",
                    topic=message.topic,
                ) from None
            raise
        topic.is_settled.clear()
        topic.pending = pending = _Pending()
        receive = self._on_loop(topic.receive)
        try:
            await self._within(deadline, self._transport.subscribe([(response_topic, QOS)], receive))
            request = self._addressed(message, pending, timeout_seconds, response_topic)
            return await self._exchange(request, pending, timeout_seconds, deadline)
        finally:
            task = asyncio.create_task(self._finish(response_topic, topic, receive))
            self._finishing.add(task)
            task.add_done_callback(self._finishing.discard)

    def end(self) -> None:
        """The client is disconnected."""
        for task in self._finishing:
            task.cancel()
        if self._opening is not None:
            self._opening.cancel()

    async def _ask(self, message: Message, timeout_seconds: float, deadline: float) -> Message:
        await self._open(deadline)
        if not self._transport.has_properties():
            raise UnsupportedError(
                "the connection to the broker speaks MQTT 3.1.1, in which a request cannot tell where its "
                "reply is expected: name the topic that the device answers on with response_topic=; nothing "
                "was sent",
                topic=message.topic,
            )
        pending = _Pending()
        self._pending[pending.token] = pending
        try:
            request = self._addressed(message, pending, timeout_seconds, self._root + pending.token)
            return await self._exchange(request, pending, timeout_seconds, deadline)
        finally:
            del self._pending[pending.token]

    async def _open(self, deadline: float) -> None:
        """Subscribe to the client's own response topics, once; the next request tries again what failed."""
        if self._opening is None or (self._opening.done() and not _succeeded(self._opening)):
            subscribing = self._transport.subscribe([(self._root + "+", QOS)], self._receive)
            self._opening = asyncio.create_task(subscribing, name="tidegate replies")
            self._opening.add_done_callback(_succeeded)  # its error may be nobody's by then
        if not self._opening.done() or not _succeeded(self._opening):
            # Whoever gives up must not take the subscription from the others.
            await self._within(deadline, asyncio.shield(self._opening))

    async def _within(self, deadline: float, subscribing: Awaitable[None]) -> None:
        try:
            async with asyncio.timeout_at(deadline):
                await subscribing
        except TimeoutError:
            raise NotConnectedError(
                "the broker did not take the subscription for the reply in time; nothing was sent"
            ) from None

    async def _exchange(
        self, message: Message, pending: _Pending, timeout_seconds: float, deadline: float
    ) -> Message:
        left = max(deadline - self._loop.time(), 0.0)
        publishing = asyncio.ensure_future(self._transport.publish(message, timeout_seconds=left))
        pending.is_sent = True
        try:
            either: set[asyncio.Future[int] | asyncio.Future[Message]] = {publishing, pending.reply}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not pending.reply.done() and publishing.exception() is None:
                left = max(deadline - self._loop.time(), 0.0)
                await asyncio.wait({pending.reply}, timeout=left)
            if pending.reply.done():
                return pending.reply.result()
            try:
                reason_code = publishing.result()
            except MQTTError as error:
                pending.is_sent = isinstance(error, MQTTTimeoutError)
                raise
            raise _no_reply(message, reason_code, timeout_seconds)
        finally:
            publishing.add_done_callback(_succeeded)  # its error may be nobody's
            publishing.cancel()  # what is with the socket stays sent

    def _addressed(
        self, message: Message, pending: _Pending, timeout_seconds: float, response_topic: str
    ) -> Message:
        """The request with all that a reply needs; one that nobody waits for any more expires."""
        if not self._transport.has_properties():
            return message
        properties = message.properties
        expiry = properties.message_expiry
        return replace(
            message,
            properties=replace(
                properties,
                response_topic=response_topic,
                correlation_data=pending.token.encode("ascii"),
                message_expiry=math.ceil(timeout_seconds) if expiry is None else expiry,
            ),
        )

    def _take(self, message: Message) -> None:
        """A message came on one of the client's own response topics; a late one is dropped."""
        pending = self._pending.get(message.topic.removeprefix(self._root))
        if pending is not None:
            pending.take(message)

    async def _finish(self, name: str, topic: _NamedTopic, receive: Receive) -> None:
        """Hand the turn on, once no late reply can be taken for the next one's."""
        try:
            pending = topic.pending
            if pending is not None and pending.is_sent and not _succeeded(pending.reply):
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._settle_seconds):
                        await topic.is_settled.wait()
            topic.pending = None
            with contextlib.suppress(MQTTError):  # the broker forgets it with the connection
                await self._transport.unsubscribe(receive)
        finally:
            topic.turn.release()
            self._leave(name, topic)

    def _leave(self, name: str, topic: _NamedTopic) -> None:
        topic.users -= 1
        if not topic.users:
            del self._named[name]

    def _on_loop(self, call: Receive) -> Receive:
        """The same on this client's loop, wherever it is called."""

        def receive(message: Message) -> None:
            if running_loop() is self._loop:
                call(message)
            else:
                with contextlib.suppress(RuntimeError):  # the loop is closed
                    self._loop.call_soon_threadsafe(call, message)

        return receive


def _succeeded(future: asyncio.Future[Any]) -> bool:
    return future.done() and not future.cancelled() and future.exception() is None


def _no_reply(message: Message, reason_code: int, timeout_seconds: float) -> MQTTTimeoutError:
    sent = "the broker acknowledged the request" if message.qos else "the request was sent (QoS 0)"
    text = f"{sent}; no reply came within {timeout_seconds:g} s"
    nobody = reason_code == NO_MATCHING_SUBSCRIBERS
    if nobody:
        text += "; the broker says that nobody subscribes to the topic"
    return MQTTTimeoutError(
        text, topic=message.topic, qos=message.qos, reason_code=reason_code if nobody else None
    )
