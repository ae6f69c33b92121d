"""Requests over a session: a message that asks, and the reply to it (MQTT 5 §4.10).

Rules:

1. A client has response topics under a prefix of its own, one for each request, and one subscription to all
   of them, made with the first. The last level is a token that nobody can guess, which is the correlation
   data too; where a reply has correlation data, that has to agree.
2. The subscription is there before the request is sent, since a reply may overtake the acknowledgement.
3. A retained message is no reply: it was there before.
4. On a response topic that is named, the requests of all clients of the process take turns
   (``tidegate.reply_turns``). After one without a reply the topic is left alone for a while, or until the
   late reply has come.
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
from tidegate.reply_turns import take_turn
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

    def take(self, message: Message) -> None:
        """A message came on a topic of this request's own; the first one that may be the reply counts."""
        correlation_data = message.properties.correlation_data
        is_reply = not message.retain and correlation_data in (None, self.token.encode("ascii"))
        if is_reply and not self.reply.done():
            self.reply.set_result(message)

    def take_named(self, message: Message) -> None:
        """A message came on a named topic; what comes before the request is sent is no reply."""
        if self.is_sent:
            self.take(message)


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
        longest = timeout_seconds + self._settle_seconds
        try:
            async with asyncio.timeout_at(deadline):
                turn = await take_turn(self._transport.broker, response_topic, longest)
        except TimeoutError:
            raise QueueFullError(
                f"other requests had {response_topic!r} for {timeout_seconds:g} s; nothing was sent",
                topic=message.topic,
            ) from None
        pending = _Pending()
        receive = self._on_loop(pending.take_named)
        try:
            await self._within(deadline, self._transport.subscribe([(response_topic, QOS)], receive))
            request = self._addressed(message, pending, timeout_seconds, response_topic)
            return await self._exchange(request, pending, timeout_seconds, deadline)
        finally:
            task = asyncio.create_task(self._finish(pending, receive))
            self._finishing.add(task)
            task.add_done_callback(self._finishing.discard)
            task.add_done_callback(lambda _: turn.end())

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

    async def _finish(self, pending: _Pending, receive: Receive) -> None:
        """Follow a named topic until no late reply can be taken for the next request's."""
        if pending.is_sent and not pending.reply.done():
            await asyncio.wait([pending.reply], timeout=self._settle_seconds)
        with contextlib.suppress(MQTTError):  # the broker forgets it with the connection
            await self._transport.unsubscribe(receive)

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
