"""One connection over aiomqtt's client."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections import deque
from collections.abc import Sequence
from typing import Any, Final

import aiomqtt
import paho.mqtt.client as paho
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties as PahoProperties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from tidegate.connection import ConnectionEvents, ConnectOptions, ProtocolVersion, Subscription
from tidegate.connections import properties
from tidegate.connections.aiomqtt_connection.opening import make_properties
from tidegate.connections.aiomqtt_connection.publishing import Publishing
from tidegate.connections.versions import open_newest
from tidegate.errors import MQTTConnectionError, NotConnectedError
from tidegate.message import NO_PROPERTIES, Message
from tidegate.reason_codes import describe

CLOSE_SECONDS: Final = 5.0
"""How long ``close`` waits for the broker to answer what it was sent."""

_NO_IDENTIFIERS: Final[tuple[int, ...]] = ()
_EMPTY_ATTRIBUTES: Final = len(vars(make_properties(PacketTypes.PUBLISH)))
"""paho keeps a property as an attribute; this many are there before the first."""


async def connect(options: ConnectOptions, events: ConnectionEvents) -> AiomqttConnection:
    """Open a connection, with MQTT 5 first and 3.1.1 where the broker has no 5
    (``tidegate.connection.Connect``).

    Raises:
        ConnectRefusedError, TLSError, MQTTTimeoutError, MQTTConnectionError: as the protocol says.
    """
    return await open_newest(options, functools.partial(_connect, options, events))


async def _connect(
    options: ConnectOptions, events: ConnectionEvents, version: ProtocolVersion
) -> AiomqttConnection:
    connection = AiomqttConnection(options, events, version)
    try:
        await connection.open()
    except BaseException:
        connection.abandon()
        raise
    return connection


class AiomqttConnection(Publishing):
    """One connection; made by ``connect``. Implements ``tidegate.connection.Connection``."""

    def __init__(self, options: ConnectOptions, events: ConnectionEvents, version: ProtocolVersion) -> None:
        super().__init__(options, events, version)
        self._farewell: int | None = None
        self._has_session = False
        self._pings: deque[asyncio.Future[None] | None] = deque()
        self._replies: dict[int, asyncio.Future[list[int]]] = {}
        self._client._send_pingreq = self._ping_of_paho  # type: ignore[method-assign]
        self._client._handle_pingresp = self._on_pingresp  # type: ignore[method-assign]
        if options.memory is not None and options.memory.received is not None:
            self._client._in_messages = options.memory.received
            self._client._last_mid = options.memory.last_packet_id

    async def open(self) -> None:
        """Connect, and wait for CONNACK; raises MQTTConnectionError."""
        await super().open()
        self._disconnected.add_done_callback(self._on_end)

    def abandon(self) -> None:
        """Close the socket without a word, also one that is still being opened in a thread."""
        self._is_abandoned = True
        self._is_closing = True
        self._client._sock_close()
        memory = self._options.memory
        if memory is not None and self._has_session:
            self._has_session = False
            memory.received = self._client._in_messages
            memory.sent = self._exchanges.leave(self._left_in_flight())
            memory.last_packet_id = self._client._last_mid
        if self._misc_task is not None:
            self._misc_task.cancel()
        self._fail_replies(NotConnectedError("the connection was closed"))

    async def subscribe(self, subscriptions: Sequence[Subscription]) -> list[int]:  # type: ignore[override]
        """Send SUBSCRIBE; see ``Connection.subscribe``."""
        carried = None
        if self._version >= 5:
            identifier = subscriptions[0].identifier
            if identifier is not None and self.limits.subscription_identifiers_available:
                carried = make_properties(PacketTypes.SUBSCRIBE)
                carried.SubscriptionIdentifier = identifier
            topics: list[Any] = [
                (
                    each.filter,
                    SubscribeOptions(
                        qos=each.qos,
                        noLocal=each.no_local,
                        retainAsPublished=each.retain_as_published,
                        retainHandling=each.retain_handling,
                    ),
                )
                for each in subscriptions
            ]
        else:
            topics = [(each.filter, each.qos) for each in subscriptions]
        result, mid = self._client.subscribe(topics, properties=carried)
        return await self._reply(result, mid)

    async def unsubscribe(self, filters: Sequence[str]) -> list[int]:  # type: ignore[override]
        """Send UNSUBSCRIBE; see ``Connection.unsubscribe``."""
        result, mid = self._client.unsubscribe(list(filters))
        return await self._reply(result, mid) or [0] * len(filters)

    async def ping(self) -> None:
        """Send PINGREQ and wait for its PINGRESP, which come in the same order (MQTT 5 §3.12)."""
        if self._is_closing:
            raise NotConnectedError("the connection is gone; nothing was sent")
        answer: asyncio.Future[None] = self._loop.create_future()
        self._pings.append(answer)
        paho.Client._send_pingreq(self._client)
        await answer

    async def close(self, *, ends_session: bool = False) -> None:
        """Wait for what is unanswered, send DISCONNECT and close; see ``Connection.close``.

        A socket closed with answers unread makes the kernel reset the connection, and the broker then drops
        what it has not read.
        """
        if self._is_closing:
            return
        try:
            if self._unsent or self._unacknowledged:
                self._flushed = self._loop.create_future()
                await asyncio.wait([self._flushed], timeout=CLOSE_SECONDS)
            await self._disconnect(ends_session=ends_session)
        finally:
            self.abandon()

    async def _disconnect(self, *, ends_session: bool) -> None:
        if self._is_closing:
            return
        self._is_closing = True
        if ends_session and self._version >= 5:
            carried: Any = make_properties(PacketTypes.DISCONNECT)
            carried.SessionExpiryInterval = 0
            self._client.disconnect = functools.partial(  # type: ignore[method-assign]
                self._client.disconnect, properties=carried
            )
        with contextlib.suppress(aiomqtt.MqttError):
            await self.__aexit__(None, None, None)

    # What paho calls.

    def _on_connect(
        self,
        client: paho.Client,
        userdata: Any,
        flags: paho.ConnectFlags,
        reason_code: ReasonCode,
        found: PahoProperties | None = None,
    ) -> None:
        self.limits = properties.read_limits(
            self._version,
            {} if found is None else vars(found),
            session_present=flags.session_present,
            client_id=self.identifier,
            keepalive_seconds=self._options.keepalive_seconds,
        )
        if reason_code.value == 0:
            self._has_session = True
            self._resume(is_kept=flags.session_present)
        super()._on_connect(client, userdata, flags, reason_code, found)

    def _on_disconnect(
        self,
        client: paho.Client,
        userdata: Any,
        flags: paho.DisconnectFlags,
        reason_code: ReasonCode,
        found: PahoProperties | None = None,
    ) -> None:
        if flags.is_disconnect_packet_from_server:
            self._farewell = reason_code.value
        if not self._connected.done():
            self._is_closed_early = True
            self._connected.set_exception(aiomqtt.MqttError("closed before CONNACK"))
        super()._on_disconnect(client, userdata, flags, reason_code, found)

    def _ping_of_paho(self) -> MQTTErrorCode:
        self._pings.append(None)
        return paho.Client._send_pingreq(self._client)

    def _on_pingresp(self) -> MQTTErrorCode:
        answer = self._pings.popleft() if self._pings else None
        if answer is not None and not answer.done():
            answer.set_result(None)
        return paho.Client._handle_pingresp(self._client)

    def _on_message(self, client: paho.Client, userdata: Any, message: paho.MQTTMessage) -> None:
        carried, identifiers = NO_PROPERTIES, _NO_IDENTIFIERS
        found = vars(message.properties) if message.properties is not None else {}
        if len(found) > _EMPTY_ATTRIBUTES:
            carried, identifiers = properties.read(found)
        self._events.on_message(
            Message(
                message.topic,
                bytes(message.payload),
                message.qos,
                bool(message.retain),
                carried,
                bool(message.dup),
                identifiers,
                time.time(),
            )
        )

    def _on_subscribe(
        self,
        client: paho.Client,
        userdata: Any,
        mid: int,
        reason_codes: list[ReasonCode],
        found: PahoProperties | None = None,
    ) -> None:
        reply = self._replies.pop(mid, None)
        if reply is not None and not reply.done():
            reply.set_result([code.value for code in reason_codes])

    _on_unsubscribe = _on_subscribe  # type: ignore[assignment]

    # The end.

    def _on_end(self, ended: asyncio.Future[None]) -> None:
        error = ended.exception() if not ended.cancelled() else None
        if self._is_closing:
            return
        self._is_closing = True
        code = self._farewell
        reason = "the broker closed it" if code is None else f"the broker said: {describe(code)}"
        if error is not None and not isinstance(error, aiomqtt.MqttCodeError):
            reason = str(error)
        lost = MQTTConnectionError(
            f"the connection to {self._hostname}:{self._port} ended: {reason}", reason_code=code
        )
        self._fail_replies(lost)
        self.abandon()
        if self._flushed is not None and not self._flushed.done():
            self._flushed.set_result(None)
        self._events.on_lost(lost)

    def _fail_replies(self, error: MQTTConnectionError) -> None:
        replies, self._replies = self._replies, {}
        pings, self._pings = self._pings, deque()
        for waiting in (*replies.values(), *pings):
            if waiting is not None and not waiting.done():
                waiting.set_exception(error)

    async def _reply(self, result: int, mid: int | None) -> list[int]:
        if result != paho.MQTT_ERR_SUCCESS or mid is None or self._is_closing:
            raise NotConnectedError("the connection is gone; nothing was sent")
        reply: asyncio.Future[list[int]] = self._loop.create_future()
        self._replies[mid] = reply
        return await reply
