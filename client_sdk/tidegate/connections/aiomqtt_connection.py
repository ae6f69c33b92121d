"""A connection carried by aiomqtt, and by the paho client inside it.

This is the only module that knows either. aiomqtt opens the socket, ties paho to the event loop and says
DISCONNECT. What its public face hides is taken one step below it, from the callbacks that it gives to paho:

- the reason code of a PUBACK or PUBCOMP, which aiomqtt drops, and that of a PUBREC, which paho ignores;
- what CONNACK said about the broker's limits;
- each received message, without the queue and the task a message that ``messages`` costs;
- the end of a connection before CONNACK, which aiomqtt waits out.

docs/decisions/0002 gives the measurements. The version of aiomqtt is bounded for this reason.
"""

from __future__ import annotations

import asyncio
import functools
import math
import socket
import ssl
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import aiomqtt
import paho.mqtt.client as paho
from aiomqtt.exceptions import MqttConnectError
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.exception import MQTTException
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties as PahoProperties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from tidegate.connection import (
    BrokerLimits,
    ConnectionEvents,
    ConnectOptions,
    ProtocolVersion,
    Subscription,
)
from tidegate.connections import failures, properties
from tidegate.connections.read_ahead import ReadAhead, acknowledge_at_once
from tidegate.errors import (
    ConnectRefusedError,
    MQTTConnectionError,
    MQTTTimeoutError,
    NotConnectedError,
    UnsupportedError,
)
from tidegate.message import NO_PROPERTIES, Message, Properties
from tidegate.reason_codes import UNSUPPORTED_PROTOCOL_VERSION, describe

CLOSE_SECONDS = 5.0
"""How long ``close`` waits for the broker to answer what it was sent."""

_NO_IDENTIFIERS: tuple[int, ...] = ()
_make_properties: Callable[[int], Any] = PahoProperties
_EMPTY_ATTRIBUTES = len(vars(_make_properties(PacketTypes.PUBLISH)))
"""paho keeps a property as an attribute; this many are there before the first."""


async def connect(options: ConnectOptions, events: ConnectionEvents) -> AiomqttConnection:
    """Open a connection, with MQTT 5 first and 3.1.1 where the broker has no 5
    (``tidegate.connection.Connect``).

    Raises:
        ConnectRefusedError, TLSError, MQTTTimeoutError, MQTTConnectionError: as the protocol says.
    """
    try:
        async with asyncio.timeout(options.connect_timeout_seconds):
            if options.protocol_version is not None:
                return await _connect(options, events, options.protocol_version)
            try:
                return await _connect(options, events, 5)
            except ConnectRefusedError as error:
                if error.reason_code != UNSUPPORTED_PROTOCOL_VERSION:
                    raise
                return await _connect(options, events, 4)
            except failures.ClosedBeforeConnackError as error:
                try:
                    return await _connect(options, events, 4)
                except failures.ClosedBeforeConnackError:
                    raise failures.closed_early(error, encrypted=options.tls is not None) from None
    except TimeoutError:
        address, seconds = f"{options.host}:{options.port}", options.connect_timeout_seconds
        raise MQTTTimeoutError(f"{address} did not answer CONNECT within {seconds:g} s") from None


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


class AiomqttConnection(aiomqtt.Client):
    """One connection; made by ``connect``. Implements ``tidegate.connection.Connection``."""

    def __init__(self, options: ConnectOptions, events: ConnectionEvents, version: ProtocolVersion) -> None:
        will = None
        if options.will is not None:
            message = options.will.message
            will = aiomqtt.Will(message.topic, message.payload, message.qos, message.retain)
        super().__init__(
            options.host,
            options.port,
            username=options.username,
            password=options.password,
            identifier=options.client_id,
            protocol=aiomqtt.ProtocolVersion(version),
            clean_session=options.clean_start if version < 5 else None,
            clean_start=options.clean_start if version >= 5 else paho.MQTT_CLEAN_START_FIRST_ONLY,
            properties=_connect_properties(options) if version >= 5 else None,
            transport=options.transport,
            websocket_path=options.path if options.transport == "websockets" else None,
            tls_context=options.tls,
            keepalive=options.keepalive_seconds,
            timeout=math.inf,
            max_inflight_messages=0,
            will=will,
        )
        self.limits = BrokerLimits(protocol_version=version)
        self._options = options
        self._events = events
        self._version = version
        self._loop_thread = threading.get_ident()
        self._failure: BaseException | None = None
        self._farewell: str | None = None
        self._is_in_handshake = False
        self._is_closed_early = False
        self._is_abandoned = False
        self._is_open = False
        self._is_closing = False
        self._awaits_writable = False
        self._unsent: deque[tuple[paho.MQTTMessageInfo, Any]] = deque()
        self._unacknowledged: dict[int, Any] = {}
        self._pings: deque[asyncio.Future[None] | None] = deque()
        self._flushed: asyncio.Future[None] | None = None
        self._replies: dict[int, asyncio.Future[list[int]]] = {}
        self._client.disable_logger()
        self._client.connect_timeout = options.connect_timeout_seconds
        self._client.on_log = self._on_log
        # paho completes an exchange that a PUBREC refused, and builds five objects for every acknowledgement
        self._client.on_publish = None
        self._client._handle_pubackcomp = self._on_acknowledgement  # type: ignore[method-assign,assignment]
        self._client._handle_pubrec = self._on_pubrec  # type: ignore[method-assign]
        self._client._send_pingreq = self._ping_of_paho  # type: ignore[method-assign]
        self._client._handle_pingresp = self._on_pingresp  # type: ignore[method-assign]
        self._read_ahead = ReadAhead(self._client._sock_recv)
        self._client._sock_recv = self._read_ahead.receive  # type: ignore[method-assign,assignment]
        self._client._ssl_wrap_socket = self._wrap_socket  # type: ignore[method-assign,assignment]
        if options.memory is not None and options.memory.received is not None:
            self._client._in_messages = options.memory.received
            self._client._last_mid = options.memory.last_packet_id

    async def open(self) -> None:
        """Connect, and wait for CONNACK."""
        address = f"{self._options.host}:{self._options.port}"
        try:
            await self.__aenter__()
        except aiomqtt.MqttError as error:
            raise self._failed(error, address) from error
        finally:
            self._client.on_log = None
        if self._client.socket() is None:
            raise MQTTConnectionError(f"{address} closed the connection right after CONNACK")
        self._is_open = True
        self._disconnected.add_done_callback(self._on_end)

    def abandon(self) -> None:
        """Close the socket without a word, also one that is still being opened in a thread."""
        self._is_abandoned = True
        self._is_closing = True
        self._client._sock_close()
        memory = self._options.memory
        if memory is not None and self._is_open:
            memory.received = self._client._in_messages
            memory.last_packet_id = self._client._last_mid
        if self._misc_task is not None:
            self._misc_task.cancel()
        self._fail_replies(NotConnectedError("the connection was closed"))

    def publish(self, message: Message, token: Any) -> None:  # type: ignore[override]
        """Send PUBLISH; see ``Connection.publish``."""
        for _ in range(16):
            try:
                carried: Any = None
                if message.properties is not NO_PROPERTIES and self._version >= 5:
                    carried = _pack(message.properties)
                info = self._client.publish(
                    message.topic, message.payload, message.qos, message.retain, carried
                )
            except (ValueError, TypeError, struct.error, MQTTException) as error:
                raise UnsupportedError(
                    f"the message cannot be written as MQTT: {error}", topic=message.topic, qos=message.qos
                ) from None
            if info.rc == paho.MQTT_ERR_SUCCESS:
                if message.qos:
                    self._unacknowledged[info.mid] = token
                else:
                    self._unsent.append((info, token))
                return
            if info.rc != paho.MQTT_ERR_QUEUE_SIZE:
                break
            # the packet identifier is still taken by a message that the broker never answered: try the next
        raise NotConnectedError("the connection is gone; nothing was sent", topic=message.topic)

    async def subscribe(self, subscriptions: Sequence[Subscription]) -> list[int]:  # type: ignore[override]
        """Send SUBSCRIBE; see ``Connection.subscribe``."""
        carried = None
        if self._version >= 5:
            identifier = subscriptions[0].identifier
            if identifier is not None and self.limits.subscription_identifiers_available:
                carried = _make_properties(PacketTypes.SUBSCRIBE)
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
        if self._unsent or self._unacknowledged:
            self._flushed = self._loop.create_future()
            await asyncio.wait([self._flushed], timeout=CLOSE_SECONDS)
        await self._disconnect(ends_session=ends_session)

    async def _disconnect(self, *, ends_session: bool) -> None:
        if self._is_closing:
            return
        self._is_closing = True
        if ends_session and self._version >= 5:
            carried: Any = _make_properties(PacketTypes.DISCONNECT)
            carried.SessionExpiryInterval = 0
            self._client.disconnect = functools.partial(  # type: ignore[method-assign]
                self._client.disconnect, properties=carried
            )
        try:
            await self.__aexit__(None, None, None)
        except aiomqtt.MqttError:
            pass
        finally:
            self.abandon()

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
        if not flags.session_present:
            self._client._in_messages.clear()  # the broker has forgotten them too
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
            self._farewell = describe(reason_code.value)
        if not self._connected.done():
            self._is_closed_early = True
            self._connected.set_exception(aiomqtt.MqttError("closed before CONNACK"))
        super()._on_disconnect(client, userdata, flags, reason_code, found)

    def _on_acknowledgement(self, kind: str) -> MQTTErrorCode:
        """PUBACK or PUBCOMP: the end of an exchange (MQTT 5 §3.4, §3.7)."""
        mid, reason_code = self._read_acknowledgement()
        self._settle(mid, reason_code)
        return paho.MQTT_ERR_SUCCESS

    def _on_pubrec(self) -> MQTTErrorCode:
        """PUBREC: the end where it refuses, else the first half (MQTT 5 §3.5)."""
        mid, reason_code = self._read_acknowledgement()
        if reason_code < 0x80:
            return paho.Client._handle_pubrec(self._client)
        self._settle(mid, reason_code)
        return paho.MQTT_ERR_SUCCESS

    def _read_acknowledgement(self) -> tuple[int, int]:
        packet = self._client._in_packet["packet"]
        return int.from_bytes(packet[:2], "big"), packet[2] if len(packet) > 2 else 0

    def _settle(self, mid: int, reason_code: int) -> None:
        self._client._out_messages.pop(mid, None)
        token = self._unacknowledged.pop(mid, None)
        if token is not None and not self._is_closing:
            self._events.on_published(token, reason_code)
            self._settle_flushed()

    def _settle_flushed(self) -> None:
        flushed = self._flushed
        if flushed is not None and not (self._unsent or self._unacknowledged or flushed.done()):
            flushed.set_result(None)

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

    def _on_log(self, client: paho.Client, userdata: Any, level: int, text: str) -> None:
        """Kept during the handshake only: paho tells the cause of a failed read nowhere else."""
        if level == paho.MQTT_LOG_ERR and self._failure is None:
            self._failure = OSError(text.partition(": ")[2] or text)

    # Writing: one turn of the loop sends what it collected, without asking the poller first.

    def _on_socket_open(self, client: paho.Client, userdata: Any, sock: Any) -> None:
        if self._is_abandoned:
            sock.close()
            raise OSError("the connection attempt was given up")
        # Small packets that wait for an acknowledgement of the one before cost 40 ms each.
        plain = getattr(sock, "_socket", sock)  # paho's WebSocket has it inside
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super()._on_socket_open(client, userdata, sock)
        # in place of aiomqtt's reader, which is on its way to the loop already
        self._loop.call_soon_threadsafe(self._loop.add_reader, sock.fileno(), self._read, client, plain)

    def _read(self, client: paho.Client, plain: socket.socket) -> None:
        """Handle all packets that are there, and no more than a chunk of them."""
        sock = client.socket()
        try:
            client.loop_read()
            while client.socket() is sock is not None and (self._read_ahead.has_more or _pending(sock)):
                client.loop_read()
        except Exception as error:  # noqa: BLE001 - whatever paho raises ends the connection
            if not self._disconnected.done():
                self._disconnected.set_exception(error)
            return
        if client.socket() is sock is not None:
            acknowledge_at_once(plain)

    def _on_socket_register_write(self, client: paho.Client, userdata: Any, sock: Any) -> None:
        if threading.get_ident() == self._loop_thread:
            self._loop.call_soon(self._write)
        else:
            self._loop.call_soon_threadsafe(self._write)

    def _on_socket_unregister_write(self, client: paho.Client, userdata: Any, sock: Any) -> None:
        if self._awaits_writable:
            self._awaits_writable = False
            self._loop.remove_writer(sock.fileno())

    def _write(self) -> None:
        client = self._client
        try:
            client.loop_write()
        except Exception as error:  # noqa: BLE001 - whatever paho raises ends the connection
            if not self._disconnected.done():
                self._disconnected.set_exception(error)
        unsent = self._unsent
        while unsent and unsent[0][0]._published:
            token = unsent.popleft()[1]
            if not self._is_closing:
                self._events.on_published(token, 0)
                self._settle_flushed()
        sock = client.socket()
        if sock is not None and client.want_write() and not self._awaits_writable:
            self._awaits_writable = True
            self._loop.add_writer(sock.fileno(), self._write)

    # The end.

    def _on_end(self, ended: asyncio.Future[None]) -> None:
        error = ended.exception() if not ended.cancelled() else None
        if self._is_closing:
            return
        self._is_closing = True
        reason = f"the broker said: {self._farewell}" if self._farewell else "the broker closed it"
        if error is not None and not isinstance(error, aiomqtt.MqttCodeError):
            reason = str(error)
        lost = MQTTConnectionError(f"the connection to {self._hostname}:{self._port} ended: {reason}")
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

    def _client_connect(self) -> None:
        try:
            super()._client_connect()
        except OSError as error:
            self._failure = error
            raise

    def _wrap_socket(self, plain: socket.socket) -> ssl.SSLSocket:
        """The TLS handshake, in the connecting thread; where paho's fails it leaves an open socket."""
        assert self._options.tls is not None
        self._is_in_handshake = True
        try:
            wrapped = self._options.tls.wrap_socket(
                plain, server_hostname=self._options.host, do_handshake_on_connect=False
            )
        except BaseException:
            plain.close()
            raise
        try:
            wrapped.settimeout(self._options.connect_timeout_seconds)
            wrapped.do_handshake()
        except BaseException:
            wrapped.close()
            raise
        self._is_in_handshake = False
        return wrapped

    def _failed(self, error: aiomqtt.MqttError, address: str) -> MQTTConnectionError:
        if isinstance(error, MqttConnectError):
            return failures.refused(address, error.rc.value if isinstance(error.rc, ReasonCode) else 0x80)
        if self._failure is not None:
            return failures.unreachable(address, self._failure, in_handshake=self._is_in_handshake)
        if self._is_closed_early:
            return failures.ClosedBeforeConnackError(f"{address} closed the connection without answering")
        return MQTTConnectionError(f"{address} cannot be reached: {error}")


def _pending(sock: Any) -> bool:
    """Whether TLS has bytes ready that no poller tells of."""
    pending = getattr(sock, "pending", None)  # TLS has it, and paho's WebSocket
    return pending is not None and pending() > 0


class _Packed:
    """Properties that are bytes already; paho asks a PUBLISH's for nothing but ``pack``."""

    __slots__ = ("_packed",)

    def __init__(self, packed: bytes) -> None:
        self._packed = packed

    def pack(self) -> bytes:
        return self._packed


@functools.lru_cache(maxsize=512)
def _pack(carried: Properties) -> _Packed:
    """The properties of a PUBLISH; most messages of a program carry the same few."""
    target = _make_properties(PacketTypes.PUBLISH)
    properties.fill(target, carried)
    return _Packed(target.pack())


def _connect_properties(options: ConnectOptions) -> PahoProperties:
    """The properties of CONNECT (MQTT 5 §3.1.2.11)."""
    carried: PahoProperties = _make_properties(PacketTypes.CONNECT)
    if options.session_expiry_seconds:
        carried.SessionExpiryInterval = options.session_expiry_seconds
    return carried
