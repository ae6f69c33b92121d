"""Sending messages over aiomqtt's client, and telling what the broker said of each."""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from collections.abc import Iterator
from typing import Any, Final

import paho.mqtt.client as paho
from paho.mqtt.enums import MessageState, MQTTErrorCode
from paho.mqtt.exception import MQTTException

from tidegate.connection import BrokerLimits, ConnectionEvents, ConnectOptions, ProtocolVersion
from tidegate.connections.aiomqtt_connection.opening import Opening
from tidegate.connections.exchanges import Exchange, Exchanges
from tidegate.errors import NotConnectedError, UnsupportedError
from tidegate.message import NO_PROPERTIES, Message
from tidegate.publish_packet import packed_properties

PACKET_IDENTIFIER_NOT_FOUND: Final = 0x92
PACKET_IDENTIFIERS: Final = 65_535


class Publishing(Opening):
    """The part of a connection that publishes."""

    def __init__(self, options: ConnectOptions, events: ConnectionEvents, version: ProtocolVersion) -> None:
        super().__init__(options, version)
        self.limits = BrokerLimits(protocol_version=version)
        self._events = events
        self._is_closing = False
        self._unsent: deque[tuple[paho.MQTTMessageInfo, Any]] = deque()
        self._exchanges = Exchanges()
        self._unacknowledged = self._exchanges.tokens
        self._flushed: asyncio.Future[None] | None = None
        # paho completes an exchange that a PUBREC refused, and builds five objects for every acknowledgement
        self._client.on_publish = None
        self._client._handle_pubackcomp = self._on_acknowledgement  # type: ignore[method-assign,assignment]
        self._client._handle_pubrec = self._on_pubrec  # type: ignore[method-assign]

    def publish(self, message: Message, token: Any) -> None:  # type: ignore[override]
        """Send PUBLISH; see ``Connection.publish``."""
        if self._exchanges.held and (held := self._exchanges.held.pop(token, None)) is not None:
            self._unacknowledged[held.packet_id] = token
            self._continue(held)
            return
        for _ in range(PACKET_IDENTIFIERS):
            try:
                carried: Any = None
                if message.properties is not NO_PROPERTIES and self._version >= 5:
                    carried = _Packed(packed_properties(message.properties))
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

    # Exchanges of earlier connections.

    def _resume(self, *, is_kept: bool) -> None:
        """Go on with what earlier connections of the session left, or forget it as the broker has."""
        memory = self._options.memory
        left: list[Exchange] = [] if memory is None or memory.sent is None else memory.sent
        if not is_kept:
            self._client._in_messages.clear()
        elif left:
            tokens = [exchange.token for exchange in left if exchange.token is not None]
            for exchange in self._exchanges.resume(left, self._events.on_resumed(self.limits, tokens)):
                self._continue(exchange)
            for exchange in (*self._exchanges.reserved, *self._exchanges.held.values()):
                exchange.packet.state = MessageState.MQTT_MS_INVALID  # paho sends it no more
                self._client._out_messages[exchange.packet_id] = exchange.packet

    def _continue(self, exchange: Exchange) -> None:
        """PUBREL where the broker has confirmed the message, else the same PUBLISH again (MQTT 5 §4.4)."""
        client, packet = self._client, exchange.packet
        client._out_messages[exchange.packet_id] = packet
        if exchange.is_confirmed:
            packet.state = MessageState.MQTT_MS_WAIT_FOR_PUBCOMP
            client._send_pubrel(exchange.packet_id)
            return
        packet.dup = True
        packet.state = (
            MessageState.MQTT_MS_WAIT_FOR_PUBACK if packet.qos == 1 else MessageState.MQTT_MS_WAIT_FOR_PUBREC
        )
        client._send_publish(
            exchange.packet_id,
            packet.topic.encode(),
            packet.payload,
            packet.qos,
            packet.retain,
            packet.dup,
            properties=packet.properties,
        )

    def _left_in_flight(self) -> Iterator[Exchange]:
        for packet_id, token in self._unacknowledged.items():
            packet = self._client._out_messages[packet_id]
            is_confirmed = packet.state == MessageState.MQTT_MS_WAIT_FOR_PUBCOMP
            yield Exchange(packet_id, packet, token, packet.qos, is_confirmed)

    # What the broker answers.

    def _on_acknowledgement(self, kind: str) -> MQTTErrorCode:
        """PUBACK or PUBCOMP: the end of an exchange (MQTT 5 §3.4, §3.7)."""
        mid, reason_code = self._read_acknowledgement()
        if reason_code == PACKET_IDENTIFIER_NOT_FOUND and kind == "PUBCOMP":
            reason_code = 0  # it was released over an earlier connection, and its PUBCOMP lost (§4.3.3)
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
        if token is not None:
            self._events.on_published(token, reason_code)
            self._settle_flushed()

    def _settle_flushed(self) -> None:
        flushed = self._flushed
        if flushed is not None and not (self._unsent or self._unacknowledged or flushed.done()):
            flushed.set_result(None)

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


class _Packed:
    """Properties that are bytes already; paho asks a PUBLISH's for nothing but ``pack``."""

    __slots__ = ("_packed",)

    def __init__(self, packed: bytes) -> None:
        self._packed = packed

    def pack(self) -> bytes:
        return self._packed
