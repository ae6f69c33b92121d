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
from tidegate.connections.aiomqtt_connection.traffic import PUBLISH, Traffic
from tidegate.connections.exchanges import Exchange, Exchanges
from tidegate.errors import NotConnectedError, UnsupportedError
from tidegate.message import NO_PROPERTIES, Message
from tidegate.publish_packet import packed_properties

PACKET_IDENTIFIER_NOT_FOUND: Final = 0x92
PACKET_IDENTIFIERS: Final = 65_535

_NONE: Final = b"\0"
"""No properties: their length, which is 0 (MQTT 5 §2.2.2)."""


class Publishing(Traffic):
    """The part of a connection that publishes."""

    def __init__(self, options: ConnectOptions, events: ConnectionEvents, version: ProtocolVersion) -> None:
        super().__init__(options, version)
        self.limits = BrokerLimits(protocol_version=version)
        self._events = events
        self._is_closing = False
        self._unsent: deque[Any] = deque()
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
        try:
            carried = b""
            if self._version >= 5:
                carried = (
                    _NONE if message.properties is NO_PROPERTIES else packed_properties(message.properties)
                )
            if message.qos == 0 or (message.qos == 1 and self._options.memory is None):
                self._publish_packed(message, carried, token)
            else:
                self._publish_by_paho(message, _Packed(carried) if carried else None, token)
        except (ValueError, TypeError, struct.error, MQTTException) as error:
            raise UnsupportedError(
                f"the message cannot be written as MQTT: {error}", topic=message.topic, qos=message.qos
            ) from None

    def _publish_packed(self, message: Message, carried: bytes, token: Any) -> None:
        """QoS 0, and QoS 1 of a session that ends with its connection: nothing of it is kept.

        paho takes two locks for each message, and makes a condition (MQTT 5 §3.3 is all there is to it).
        """
        client = self._client
        if client._sock is None:
            raise NotConnectedError("the connection is gone; nothing was sent", topic=message.topic)
        topic, payload = message.topic.encode(), message.payload
        client._raise_for_invalid_topic(topic)
        packet = bytearray((PUBLISH | message.qos << 1 | message.retain,))
        size = 2 + len(topic) + (2 if message.qos else 0) + len(carried) + len(payload)
        client._pack_remaining_length(packet, size)
        mid = 0
        if message.qos:
            self._pass_taken_packet_ids()
            mid = client._mid_generate()
        identifier = mid.to_bytes(2, "big") if mid else b""
        packet += b"".join((len(topic).to_bytes(2, "big"), topic, identifier, carried, payload))
        if mid:
            self._unacknowledged[mid] = token
        else:
            self._unsent.append(token)
        client._packet_queue(PUBLISH, packet, mid, message.qos)

    def _publish_by_paho(self, message: Message, carried: Any, token: Any) -> None:
        """QoS 2, and what a kept session may have to send again: paho keeps the packet."""
        for _ in range(PACKET_IDENTIFIERS):
            self._pass_taken_packet_ids()
            info = self._client.publish(message.topic, message.payload, message.qos, message.retain, carried)
            if info.rc == paho.MQTT_ERR_SUCCESS:
                self._unacknowledged[info.mid] = token
                return
            if info.rc != paho.MQTT_ERR_QUEUE_SIZE:
                break
            # the packet identifier is still taken by a message that the broker never answered: try the next
        raise NotConnectedError("the connection is gone; nothing was sent", topic=message.topic)

    def _pass_taken_packet_ids(self) -> None:
        """Make the next packet identifier one that no unanswered message has (MQTT 5 §2.2.1)."""
        client = self._client
        while client._last_mid % PACKET_IDENTIFIERS + 1 in self._unacknowledged:
            client._mid_generate()

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

    def _tell_handed_over(self) -> None:
        while self._handed_over:
            self._handed_over -= 1
            token = self._unsent.popleft()
            if not self._is_closing:
                self._events.on_published(token, 0)
                self._settle_flushed()


class _Packed:
    """Properties that are bytes already; paho asks a PUBLISH's for nothing but ``pack``."""

    __slots__ = ("_packed",)

    def __init__(self, packed: bytes) -> None:
        self._packed = packed

    def pack(self) -> bytes:
        return self._packed
