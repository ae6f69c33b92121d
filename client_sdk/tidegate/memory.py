"""A broker in memory, for tests: the matching, retaining and queueing of a real one, and no network.

    broker = MemoryBroker()
    session = Session(ConnectOptions(), connect=broker.connect)

It behaves as Mosquitto does where the standard leaves a choice: one copy for each matching subscription on
MQTT 5, one copy in all on 3.1.1, 0x10 for a publish that nobody subscribed to, and a connection closed on a
topic that MQTT forbids. Addresses, TLS and keep alive play no part.
"""

from __future__ import annotations

import asyncio
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final, Literal

from tidegate.connection import (
    BrokerLimits,
    ConnectionEvents,
    ConnectOptions,
    ProtocolVersion,
    Subscription,
)
from tidegate.errors import ConnectRefusedError, MQTTConnectionError, MQTTTimeoutError, TopicError
from tidegate.memory_routes import Routes
from tidegate.memory_session import MemoryConnection, MemorySession
from tidegate.message import Message
from tidegate.reason_codes import (
    NO_MATCHING_SUBSCRIBERS,
    NO_SUBSCRIPTION_EXISTED,
    NOT_AUTHORIZED,
    SUCCESS,
    UNSPECIFIED_ERROR,
    UNSUPPORTED_PROTOCOL_VERSION,
    describe,
    is_refusal,
)
from tidegate.topics import validate_filter, validate_topic

Action = Literal["connect", "publish", "subscribe"]

Authorize = Callable[[Action, str, ConnectOptions], int]
"""Asked for each CONNECT (with an empty topic), publish and topic filter; 0x80 and above refuses (§2.4)."""

SESSION_TAKEN_OVER: Final = 0x8E
SERVER_SHUTTING_DOWN: Final = 0x8B
MALFORMED_PACKET: Final = 0x81
RETAIN_NOT_SUPPORTED: Final = 0x9A
QOS_NOT_SUPPORTED: Final = 0x9B


def _allow(action: Action, topic: str, options: ConnectOptions) -> int:  # noqa: ARG001
    return SUCCESS


class MemoryBroker:
    """An MQTT broker whose ``connect`` is a ``tidegate.connection.Connect``; several threads may use it.

    Args:
        passwords: user names and their passwords; without them anybody may connect.
        authorize: decides over each connect, publish and subscription.
        limits: what CONNACK says; ``maximum_qos`` and ``retain_available`` are enforced.
        protocol_versions: those that are spoken.

    Attributes:
        published: every message taken, in order, Wills too.
    """

    def __init__(
        self,
        *,
        passwords: Mapping[str, str] | None = None,
        authorize: Authorize = _allow,
        limits: BrokerLimits | None = None,
        protocol_versions: Sequence[ProtocolVersion] = (4, 5),
    ) -> None:
        self.published: list[Message] = []
        self.lock = threading.RLock()
        self._passwords = None if passwords is None else dict(passwords)
        self._authorize = authorize
        self._limits = limits or BrokerLimits()
        self._versions = tuple(protocol_versions)
        self._routes = Routes()
        self._is_running = True
        self._is_frozen = False
        self._waiting: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()

    @property
    def is_frozen(self) -> bool:
        """Whether nothing is answered."""
        return self._is_frozen

    @property
    def client_ids(self) -> list[str]:
        """The client identifiers that are connected."""
        with self.lock:
            return [session.client_id for session in self._routes.sessions.values() if session.connection]

    @property
    def retained(self) -> dict[str, Message]:
        """The retained messages by topic."""
        with self.lock:
            return dict(self._routes.retained)

    def subscriptions_of(self, client_id: str) -> list[Subscription]:
        """The subscriptions of one client, in the order in which they were made."""
        with self.lock:
            session = self._routes.sessions.get(client_id)
            return [] if session is None else list(session.subscriptions.values())

    # Faults.

    def stop(self, *, forget: bool = False) -> None:
        """Lose every connection and refuse new ones; what is retained and kept stays, unless ``forget``."""
        with self.lock:
            self._is_running = False
            for session in tuple(self._routes.sessions.values()):
                self._detach(session, _lost(SERVER_SHUTTING_DOWN))
            if forget:
                self._routes.retained.clear()
                for session in tuple(self._routes.sessions.values()):
                    self._routes.end(session)
            self._wake()

    def start(self) -> None:
        """Take connections again after ``stop``."""
        with self.lock:
            self._is_running = True

    def freeze(self) -> None:
        """Answer nothing any more, and keep connections open, as a hung broker or a dead path does."""
        with self.lock:
            self._is_frozen = True

    def thaw(self) -> None:
        """Answer again, beginning with what was sent meanwhile."""
        with self.lock:
            self._is_frozen = False
            for session in self._routes.sessions.values():
                if session.connection is not None:
                    session.connection.go_on()
            self._wake()

    def lose(self, client_id: str) -> None:
        """Cut one client's connection without a word; its Will is published."""
        with self.lock:
            session = self._routes.sessions.get(client_id)
            if session is not None:
                self._cut(session, MQTTConnectionError("the connection ended: it was cut"))

    # Connecting.

    async def connect(self, options: ConnectOptions, events: ConnectionEvents) -> MemoryConnection:
        """Open a connection (``tidegate.connection.Connect``).

        Raises:
            ConnectRefusedError: password, ``authorize`` or protocol version.
            MQTTTimeoutError: the broker stayed frozen for ``connect_timeout_seconds``.
            MQTTConnectionError: the broker is stopped.
        """
        try:
            async with asyncio.timeout(options.connect_timeout_seconds):
                await self._answering()
        except TimeoutError:
            raise MQTTTimeoutError(
                f"the broker in memory did not answer CONNECT within {options.connect_timeout_seconds:g} s"
            ) from None
        with self.lock:
            if not self._is_running:
                raise MQTTConnectionError("the broker in memory is stopped")
            connection = self._accept(options, events)
        connection.resume()
        return connection

    async def _answering(self) -> None:
        await asyncio.sleep(0)
        thawed = asyncio.Event()
        waiting = (asyncio.get_running_loop(), thawed)
        with self.lock:
            if not self._is_frozen or not self._is_running:
                return
            self._waiting.add(waiting)
        try:
            await thawed.wait()
        finally:
            self._waiting.discard(waiting)

    def _wake(self) -> None:
        for loop, thawed in tuple(self._waiting):
            if not loop.is_closed():
                loop.call_soon_threadsafe(thawed.set)

    def _accept(self, options: ConnectOptions, events: ConnectionEvents) -> MemoryConnection:
        version = options.protocol_version or max(self._versions)
        self._check_connect(options, version)
        client_id = options.client_id or f"memory-{secrets.token_hex(6)}"
        self._routes.end_expired()
        earlier = self._routes.sessions.get(client_id)
        if earlier is not None:
            self._cut(earlier, _lost(SESSION_TAKEN_OVER))
        session, is_present = self._routes.begin(client_id, version, options)
        limits = replace(
            self._limits,
            protocol_version=version,
            session_present=is_present,
            client_id=client_id,
            subscription_identifiers_available=version >= 5
            and self._limits.subscription_identifiers_available,
            keepalive_seconds=options.keepalive_seconds,
        )
        connection = MemoryConnection(self, session, options, events, limits)
        session.attach(connection)
        return connection

    def _check_connect(self, options: ConnectOptions, version: ProtocolVersion) -> None:
        reason_code = self._authorize("connect", "", options)
        if version not in self._versions:
            reason_code = UNSUPPORTED_PROTOCOL_VERSION
        elif self._passwords is not None and (
            options.username is None or self._passwords.get(options.username) != options.password
        ):
            reason_code = NOT_AUTHORIZED
        if is_refusal(reason_code):
            reason = f"the broker refused the connection: {describe(reason_code)} (0x{reason_code:02X})"
            raise ConnectRefusedError(reason, reason_code=reason_code)

    # What a connection asks for; the lock is held.

    def take_publish(self, connection: MemoryConnection, message: Message) -> int:
        """Take a PUBLISH and return its reason code (MQTT 5 §3.4.2.1)."""
        try:
            validate_topic(message.topic)
        except TopicError:
            self._cut(connection.session, _lost(MALFORMED_PACKET))
            return MALFORMED_PACKET
        reason_code = self._authorize("publish", message.topic, connection.options)
        if message.qos > self._limits.maximum_qos:
            reason_code = QOS_NOT_SUPPORTED
        elif message.retain and not self._limits.retain_available:
            reason_code = RETAIN_NOT_SUPPORTED
        if not is_refusal(reason_code):
            has_matched = self._publish(message, connection.session)
            # with QoS 2 Mosquitto answers before it knows
            reason_code = SUCCESS if has_matched or message.qos == 2 else NO_MATCHING_SUBSCRIBERS
        return reason_code if connection.limits.protocol_version >= 5 else SUCCESS

    def take_subscribe(self, connection: MemoryConnection, wanted: Sequence[Subscription]) -> list[int]:
        """Take a SUBSCRIBE and return a reason code for each filter (MQTT 5 §3.9.3)."""
        session = connection.session
        try:
            for subscription in wanted:
                validate_filter(subscription.filter)
        except TopicError:
            self._cut(session, _lost(MALFORMED_PACKET))
            return []
        is_five = connection.limits.protocol_version >= 5
        has_identifiers = connection.limits.subscription_identifiers_available
        codes: list[int] = []
        for subscription in wanted:
            code = self._authorize("subscribe", subscription.filter, connection.options)
            if is_refusal(code):
                codes.append(code if is_five else UNSPECIFIED_ERROR)
                continue
            qos = min(subscription.qos, self._limits.maximum_qos)
            made = Subscription(subscription.filter, qos)
            if is_five:
                made = replace(
                    subscription, qos=qos, identifier=wanted[0].identifier if has_identifiers else None
                )
            self._routes.subscribe(session, made)
            codes.append(qos)
        return codes

    def take_unsubscribe(self, connection: MemoryConnection, filters: Sequence[str]) -> list[int]:
        """Take an UNSUBSCRIBE and return a reason code for each filter (MQTT 5 §3.11.3)."""
        existed = [self._routes.unsubscribe(connection.session, topic_filter) for topic_filter in filters]
        if connection.limits.protocol_version < 5:
            return [SUCCESS] * len(existed)
        return [SUCCESS if each else NO_SUBSCRIPTION_EXISTED for each in existed]

    def take_disconnect(self, connection: MemoryConnection, *, ends_session: bool) -> None:
        """Take a DISCONNECT: no Will, and the session ends unless it is to be kept (MQTT 5 §3.14)."""
        if ends_session and connection.session.protocol_version >= 5:
            connection.session.expiry_seconds = 0
        self._detach(connection.session, None)

    def _publish(self, message: Message, sender: MemorySession) -> bool:
        taken = replace(message, received_at=time.time())
        self.published.append(taken)
        return self._routes.publish(taken, sender)

    # How connections and sessions end.

    def _cut(self, session: MemorySession, error: MQTTConnectionError) -> None:
        """End a connection abnormally, which publishes its Will (MQTT 5 §3.1.2.5)."""
        connection = session.connection
        if connection is None:
            return
        self._detach(session, error)
        will = connection.options.will
        if will is not None and not is_refusal(
            self._authorize("publish", will.message.topic, connection.options)
        ):
            self._publish(will.message, session)

    def _detach(self, session: MemorySession, error: MQTTConnectionError | None) -> None:
        connection = session.connection
        if connection is None:
            return
        session.detach()
        if error is not None:
            connection.lose(error)
        if session.expiry_seconds == 0:
            self._routes.end(session)


def _lost(reason_code: int) -> MQTTConnectionError:
    reason = f"the connection to the broker in memory ended: {describe(reason_code)}"
    return MQTTConnectionError(reason, reason_code=reason_code)
