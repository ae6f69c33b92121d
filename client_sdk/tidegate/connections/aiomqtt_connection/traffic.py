"""Reading and writing packets on the socket of aiomqtt's client: one system call for all that there is.

paho asks the socket three times for each packet that it reads, and once for each that it writes. Here one
turn of the event loop reads what has come (``read_ahead``) and writes what was collected.
"""

from __future__ import annotations

import socket
import threading
import time
from abc import abstractmethod
from typing import Any, Final

import paho.mqtt.client as paho
from paho.mqtt.enums import MQTTErrorCode

from tidegate.connection import ConnectOptions, ProtocolVersion
from tidegate.connections.aiomqtt_connection.opening import Opening
from tidegate.connections.read_ahead import ReadAhead, acknowledge_at_once

WRITE_BYTES: Final = 65_536
"""About as much goes into one write."""

PUBLISH: Final = 0x30
DISCONNECT: Final = 0xE0
"""Packet types, as they stand in a fixed header (MQTT 5 §2.1.2)."""


class Traffic(Opening):
    """The part of a connection that reads and writes."""

    def __init__(self, options: ConnectOptions, version: ProtocolVersion) -> None:
        super().__init__(options, version)
        self._loop_thread = threading.get_ident()
        self._awaits_writable = False
        self._handed_over = 0
        """QoS 0 messages that are with the socket, and whose senders were not told yet."""
        self._read_ahead = ReadAhead(self._client._sock_recv)
        self._client._sock_recv = self._read_ahead.receive  # type: ignore[method-assign,assignment]
        self._client._packet_write = self._write_packets  # type: ignore[method-assign]

    @abstractmethod
    def _tell_handed_over(self) -> None:
        """Tell the senders of messages that are with the socket."""

    def _on_socket_open(self, client: paho.Client, userdata: Any, sock: Any) -> None:
        if self._is_abandoned:
            sock.close()
            raise OSError("the connection attempt was given up")
        # Small packets that wait for an acknowledgement of the one before cost 40 ms each.
        plain = getattr(sock, "_socket", sock)  # paho's WebSocket has it inside
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super()._on_socket_open(client, userdata, sock)
        # in place of aiomqtt's reader, which is on its way to the loop already
        self._loop.call_soon_threadsafe(self._begin_to_read, client, sock, plain)

    def _begin_to_read(self, client: paho.Client, sock: Any, plain: Any) -> None:
        """Unless the connection is closed already, as by a broker that refuses a certificate."""
        number = sock.fileno() if client.socket() is not None else -1
        if number >= 0:
            self._loop.add_reader(number, self._read, client, plain)

    def _read(self, client: paho.Client, plain: socket.socket) -> None:
        """Handle all packets that are there, and no more than a chunk of them."""
        sock = client.socket()
        try:
            client.loop_read()
            while client.socket() is sock is not None and (self._read_ahead.has_more or _pending(sock)):
                client.loop_read()
        except Exception as error:  # noqa: BLE001 - whatever paho raises ends the connection
            self._break(error)
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
            self._break(error)
        if self._handed_over:
            self._tell_handed_over()
        sock = client.socket()
        if sock is not None and client.want_write() and not self._awaits_writable:
            self._awaits_writable = True
            self._loop.add_writer(sock.fileno(), self._write)

    def _write_packets(self) -> MQTTErrorCode:
        """In place of paho's, which makes a system call for each packet: one for all that wait."""
        client = self._client
        waiting = client._out_packet
        while waiting:
            if waiting[0]["command"] & 0xF0 == DISCONNECT:
                return paho.Client._packet_write(client)
            parts: list[bytes | bytearray] = []
            size = 0
            for packet in waiting:
                if packet["command"] & 0xF0 == DISCONNECT or size >= WRITE_BYTES:
                    break
                parts.append(packet["packet"][packet["pos"] :] if packet["pos"] else packet["packet"])
                size += packet["to_process"]
            try:
                sent = client._sock_send(parts[0] if len(parts) == 1 else b"".join(parts))
            except BlockingIOError:
                return paho.MQTT_ERR_AGAIN
            except OSError:
                return paho.MQTT_ERR_CONN_LOST
            if not sent:
                break
            self._note_sent(sent)
        client._last_msg_out = time.monotonic()
        return paho.MQTT_ERR_SUCCESS

    def _note_sent(self, count: int) -> None:
        """So many bytes are with the socket."""
        waiting = self._client._out_packet
        while count:
            packet = waiting[0]
            step = min(count, packet["to_process"])
            count -= step
            packet["pos"] += step
            packet["to_process"] -= step
            if not packet["to_process"]:
                waiting.popleft()
                if packet["command"] & 0xF0 == PUBLISH and not packet["qos"]:
                    self._handed_over += 1

    def _break(self, error: Exception) -> None:
        if not self._disconnected.done():
            self._disconnected.set_exception(error)


def _pending(sock: Any) -> bool:
    """Whether TLS has bytes ready that no poller tells of."""
    pending = getattr(sock, "pending", None)  # TLS has it, and paho's WebSocket
    return pending is not None and pending() > 0
