"""What an in-memory broker keeps of one client, and the connection that the client holds.

Rules:

1. Nothing happens within a call of the client's: each request is one step of its own on the client's loop,
   and so is each event. Requests and events of one connection keep their order.
2. The broker's lock is held while its state changes, never while the client's events are called, so that
   clients on different loops, in different threads, may share a broker.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol

from tidegate.connection import (
    BrokerLimits,
    Carry,
    ConnectionEvents,
    ConnectOptions,
    ProtocolVersion,
    Subscription,
)
from tidegate.errors import MQTTConnectionError, NotConnectedError
from tidegate.message import NO_PROPERTIES, Message


class Server(Protocol):
    """The part of the broker that a connection calls."""

    @property
    def lock(self) -> threading.RLock:
        """Held by whoever looks at the broker's state or changes it."""

    @property
    def is_frozen(self) -> bool:
        """Whether requests wait."""

    def take_publish(self, connection: MemoryConnection, message: Message) -> int:
        """Take a PUBLISH and return its reason code."""

    def take_subscribe(self, connection: MemoryConnection, wanted: Sequence[Subscription]) -> list[int]:
        """Take a SUBSCRIBE and return its reason codes."""

    def take_unsubscribe(self, connection: MemoryConnection, filters: Sequence[str]) -> list[int]:
        """Take an UNSUBSCRIBE and return its reason codes."""

    def take_disconnect(self, connection: MemoryConnection, *, ends_session: bool) -> None:
        """Take a DISCONNECT."""


@dataclass(slots=True, eq=False)
class MemorySession:
    """One client's state in the broker (MQTT 5 §4.1).

    Attributes:
        client_id: whose it is.
        protocol_version: that of the latest connection.
        expiry_seconds: how long it outlives its connection; None for ever.
        subscriptions: by topic filter.
        queue: copies with QoS 1 and 2 that wait for the client to come back.
        connection: the connection in use, where there is one.
        expires_at: monotonic time in seconds at which it ends, while there is no connection.
    """

    client_id: str
    protocol_version: ProtocolVersion
    expiry_seconds: int | None
    subscriptions: dict[str, Subscription] = field(default_factory=dict)
    queue: deque[Message] = field(default_factory=deque)
    connection: MemoryConnection | None = None
    expires_at: float | None = None

    def deliver(self, message: Message) -> None:
        """Send a copy, or keep it for later where the client is away and the QoS is 1 or 2."""
        if self.connection is not None:
            self.connection.deliver(message)
        elif message.qos:
            self.queue.append(message)

    def attach(self, connection: MemoryConnection) -> None:
        """Begin to use a connection, with the copies that waited for it."""
        self.connection = connection
        self.expires_at = None
        waiting = list(self.queue)
        self.queue.clear()
        for message in waiting:
            if (current := aged(message)) is not None:
                connection.deliver(current)

    def detach(self) -> None:
        """Stop using the connection, and take back the copies that it had not handed over."""
        if self.connection is None:
            return
        self.queue.extend(message for message in self.connection.take_back() if message.qos)
        self.connection = None
        if self.expiry_seconds is not None:
            self.expires_at = time.monotonic() + self.expiry_seconds


def aged(message: Message) -> Message | None:
    """A message with the rest of its expiry interval, or None where that is over (MQTT 5 §3.3.2.3.3)."""
    expiry = message.properties.message_expiry
    if expiry is None:
        return message
    rest = expiry - int(time.time() - message.received_at)
    if rest <= 0:
        return None
    return replace(message, properties=replace(message.properties, message_expiry=rest))


@dataclass(slots=True, eq=False)
class MemoryExchange:
    """A QoS 1 or 2 message that the client has sent and not been answered (MQTT 5 §4.3).

    Attributes:
        message: the message.
        token: whose it is.
        reason_code: what the broker answers; None while it has not taken the message.
    """

    message: Message
    token: Any
    reason_code: int | None = None


class MemoryConnection:
    """One connection to a ``MemoryBroker``; implements ``tidegate.connection.Connection``."""

    def __init__(
        self,
        server: Server,
        session: MemorySession,
        options: ConnectOptions,
        events: ConnectionEvents,
        limits: BrokerLimits,
    ) -> None:
        self.limits = limits
        self.options = options
        self.session = session
        self._server = server
        self._events = events
        self._loop = asyncio.get_running_loop()
        self._requests: deque[Callable[[], None]] = deque()
        self._copies: deque[Message] = deque()
        self._replies: set[asyncio.Future[list[int]]] = set()
        self._sent: dict[Any, MemoryExchange] = {}
        self._held: dict[Any, MemoryExchange] = {}
        self._is_open = True  # as the client sees it
        self._is_lost = False  # as the broker sees it

    def publish(self, message: Message, token: Any) -> None:
        """Send PUBLISH; see ``Connection.publish``."""
        self._check_open()
        if self.limits.protocol_version < 5:
            message = replace(message, properties=NO_PROPERTIES)
        if message.qos == 0:
            self._loop.call_soon(self._tell_published, token, 0)
            self._ask(partial(self._take_unacknowledged, message))
        else:
            held = self._held.pop(token, None)
            self._go_on(MemoryExchange(message, token) if held is None else held)

    def resume(self) -> None:
        """Go on with the exchanges that earlier connections of a kept session left (MQTT 5 §4.4)."""
        memory = self.options.memory
        left: list[MemoryExchange] = [] if memory is None or memory.sent is None else memory.sent
        if not left or not self.limits.session_present:
            return
        carries = self._events.on_resumed(self.limits, [exchange.token for exchange in left])
        for exchange, carry in zip(left, carries, strict=True):
            if carry is Carry.CONTINUE:
                self._go_on(exchange)
            elif carry is Carry.HOLD:
                self._held[exchange.token] = exchange

    async def subscribe(self, subscriptions: Sequence[Subscription]) -> list[int]:
        """Send SUBSCRIBE; see ``Connection.subscribe``."""
        return await self._reply(partial(self._server.take_subscribe, self, tuple(subscriptions)))

    async def unsubscribe(self, filters: Sequence[str]) -> list[int]:
        """Send UNSUBSCRIBE; see ``Connection.unsubscribe``."""
        return await self._reply(partial(self._server.take_unsubscribe, self, tuple(filters)))

    async def ping(self) -> None:
        """Make a round trip; see ``Connection.ping``."""
        await self._reply(list)

    async def close(self, *, ends_session: bool = False) -> None:
        """Let the broker take what was sent, and leave; a frozen broker does so when it thaws."""
        if not self._is_open:
            return
        self._is_open = False
        self._leave()
        self._fail_replies(NotConnectedError("the connection was closed"))
        self._ask(partial(self._server.take_disconnect, self, ends_session=ends_session))
        all_asked = self._loop.create_future()
        self._loop.call_soon(all_asked.set_result, None)  # behind the step of every request
        await all_asked

    # What the broker calls, holding its lock.

    def deliver(self, message: Message) -> None:
        """Send one copy of a message to the client."""
        self._copies.append(message)
        self._post(self._hand_over)

    def take_back(self) -> list[Message]:
        """The copies that were sent and not handed over."""
        copies = list(self._copies)
        self._copies.clear()
        return copies

    def lose(self, error: MQTTConnectionError) -> None:
        """End the connection from the broker's side."""
        self._is_lost = True
        self._requests.clear()
        self._post(self._tell_lost, error)

    def go_on(self) -> None:
        """Look again at the requests that waited while the broker was frozen."""
        for _ in self._requests:
            self._post(self._step)

    # Steps on the client's loop.

    def _ask(self, request: Callable[[], None]) -> None:
        with self._server.lock:
            if not self._is_lost:
                self._requests.append(request)
                self._post(self._step)

    def _step(self) -> None:
        with self._server.lock:
            if self._requests and not self._server.is_frozen:
                self._requests.popleft()()

    def _take_unacknowledged(self, message: Message) -> None:
        self._server.take_publish(self, message)

    def _go_on(self, exchange: MemoryExchange) -> None:
        self._sent[exchange.token] = exchange
        self._ask(partial(self._take_exchange, exchange))

    def _take_exchange(self, exchange: MemoryExchange) -> None:
        """Take its message, unless an earlier connection brought it already, and answer."""
        if exchange.reason_code is None:
            reason_code = self._server.take_publish(self, exchange.message)
            if self._is_lost:  # because of this message
                return
            exchange.reason_code = reason_code
        self._post(self._tell_published, exchange.token, exchange.reason_code)

    def _leave(self) -> None:
        """Leave what was not answered to the next connection of the session."""
        if self.options.memory is not None:
            self.options.memory.sent = [*self._held.values(), *self._sent.values()]

    async def _reply(self, request: Callable[[], list[int]]) -> list[int]:
        self._check_open()
        reply: asyncio.Future[list[int]] = self._loop.create_future()
        self._replies.add(reply)
        self._ask(partial(self._answer, reply, request))
        try:
            return await reply
        finally:
            self._replies.discard(reply)

    def _answer(self, reply: asyncio.Future[list[int]], request: Callable[[], list[int]]) -> None:
        codes = request()
        if not reply.done() and not self._is_lost:
            reply.set_result(codes)

    def _hand_over(self) -> None:
        with self._server.lock:
            if not self._copies or not self._is_open:
                return
            message = self._copies.popleft()
        self._events.on_message(replace(message, received_at=time.time()))

    def _tell_published(self, token: Any, reason_code: int) -> None:
        if self._is_open:
            self._sent.pop(token, None)
            self._events.on_published(token, reason_code)

    def _tell_lost(self, error: MQTTConnectionError) -> None:
        self._fail_replies(error)
        if self._is_open:
            self._is_open = False
            self._leave()
            self._events.on_lost(error)

    def _fail_replies(self, error: MQTTConnectionError) -> None:
        for reply in self._replies:
            if not reply.done():
                reply.set_exception(error)

    def _check_open(self) -> None:
        if not self._is_open:
            raise NotConnectedError("the connection is gone; nothing was sent")

    def _post(self, step: Callable[..., None], *arguments: Any) -> None:
        try:
            here = asyncio.get_running_loop()
        except RuntimeError:
            here = None
        if here is self._loop:
            self._loop.call_soon(step, *arguments)
        elif not self._loop.is_closed():
            self._loop.call_soon_threadsafe(step, *arguments)
