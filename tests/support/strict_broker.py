"""A small MQTT server that does what brokers may do and Mosquitto does not: it hangs up on a topic, says any
limit in CONNACK, and leaves packets unanswered. It delivers nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self

from tests.support.packets import PacketType, packet_length, split_packet
from tests.support.ports import LOOPBACK, ReservedPort

RECEIVE_MAXIMUM: Final = 0x21
MAXIMUM_QOS: Final = 0x24
RETAIN_AVAILABLE: Final = 0x25
MAXIMUM_PACKET_SIZE: Final = 0x27
WILDCARD_AVAILABLE: Final = 0x28
IDENTIFIERS_AVAILABLE: Final = 0x29
SHARED_AVAILABLE: Final = 0x2A


@dataclass(frozen=True, slots=True)
class Published:
    """One PUBLISH as it was read.

    Attributes:
        topic: the topic name.
        packet_id: its packet identifier; 0 with QoS 0.
        qos: 0, 1 or 2.
        is_duplicate: the DUP flag.
        size: bytes of the whole packet.
    """

    topic: str
    packet_id: int
    qos: int
    is_duplicate: bool
    size: int


@dataclass(slots=True)
class Subscribed:
    """One SUBSCRIBE as it was read, with MQTT 5.

    Attributes:
        filters: the topic filters, in order.
        qos: the QoS asked for, in order.
        has_identifier: whether it carries a subscription identifier.
    """

    filters: list[str] = field(default_factory=list)
    qos: list[int] = field(default_factory=list)
    has_identifier: bool = False


class StrictBroker:
    """One listener on 127.0.0.1; an async context manager.

    Args:
        forbidden: topics that the connection is closed on.
        reason_code: what DISCONNECT says then, on MQTT 5; None for no DISCONNECT.
        limits: properties of CONNACK on MQTT 5, as bytes.
        keeps_sessions: whether a client that comes back finds its session.

    Attributes:
        published: every PUBLISH that was read, in order.
        subscribed: every SUBSCRIBE that was read, in order.
        connections: how many were accepted.
        most_in_flight: the most QoS 1 and 2 messages that were unanswered at once.
        unanswered: kinds of packets that get no answer.
    """

    def __init__(
        self,
        *,
        forbidden: Sequence[str] = (),
        reason_code: int | None = None,
        limits: bytes = b"",
        keeps_sessions: bool = False,
    ) -> None:
        self.published: list[Published] = []
        self.subscribed: list[Subscribed] = []
        self.connections = 0
        self.most_in_flight = 0
        self.unanswered: set[PacketType] = set()
        self._forbidden = frozenset(forbidden)
        self._reason_code = reason_code
        self._limits = limits
        self._keeps_sessions = keeps_sessions
        self._known: set[bytes] = set()
        self._unreleased: set[int] = set()
        self._reserved = ReservedPort()
        self.port = self._reserved.number
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._postponed: list[tuple[asyncio.StreamWriter, bytes]] = []

    @property
    def open_connections(self) -> int:
        """How many are open now."""
        return len(self._writers)

    @property
    def postponed(self) -> int:
        """How many answers were left out."""
        return len(self._postponed)

    def set_limits(self, limits: bytes) -> None:
        """Say this in CONNACK from now on."""
        self._limits = limits

    def hang_up(self, reason_code: int | None = None) -> None:
        """Close every connection, after a DISCONNECT where there is a reason code (MQTT 5 §3.14)."""
        for writer in tuple(self._writers):
            if reason_code is None:
                writer.transport.abort()
            else:
                writer.write(_disconnect(reason_code))
                writer.close()

    def answer_now(self) -> None:
        """Send the answers that were left out, and leave out none any more."""
        self.unanswered.clear()
        for writer, answer in self._postponed:
            writer.write(answer)
        self._postponed.clear()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, LOOPBACK, self.port)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        self.hang_up()
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._reserved.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        stream = b""
        version = 4
        try:
            while data := await reader.read(65_536):
                stream += data
                in_flight = 0
                while (found := split_packet(stream)) is not None:
                    head, rest, stream = found
                    kind = PacketType(head[0] >> 4)
                    if kind is PacketType.CONNECT:
                        version = rest[6]
                        writer.write(self._connack(rest, version))
                        continue
                    if kind is PacketType.PUBLISH:
                        message = _read_publish(head, rest)
                        self.published.append(message)
                        in_flight += message.qos > 0
                        self.most_in_flight = max(self.most_in_flight, in_flight)
                        if message.topic in self._forbidden:
                            await self._end(writer, version)
                            return
                    self._answer(writer, kind, head, rest, version)
        except asyncio.CancelledError:
            return  # only the end of the test cancels, and asyncio would log it
        except OSError:
            pass
        finally:
            self._tasks.discard(task)
            self._writers.discard(writer)
            writer.close()

    def _connack(self, rest: bytes, version: int) -> bytes:
        is_clean = bool(rest[7] & 0x02)
        at = 10
        if version >= 5:
            at += 1 + rest[at]
        length = int.from_bytes(rest[at : at + 2], "big")
        client_id = rest[at + 2 : at + 2 + length]
        is_present = self._keeps_sessions and not is_clean and client_id in self._known
        self._known.add(client_id)
        body = bytes([is_present, 0])
        if version >= 5:
            body += packet_length(len(self._limits)) + self._limits
        return bytes([PacketType.CONNACK << 4]) + packet_length(len(body)) + body

    def _answer(
        self, writer: asyncio.StreamWriter, kind: PacketType, head: bytes, rest: bytes, version: int
    ) -> None:
        answer = b""
        if kind is PacketType.PUBLISH:
            message = self.published[-1]
            if message.qos == 2:
                self._unreleased.add(message.packet_id)
            answer = _acknowledgement(
                {0: None, 1: PacketType.PUBACK, 2: PacketType.PUBREC}[message.qos], message.packet_id
            )
        elif kind is PacketType.PUBREL:
            packet_id = int.from_bytes(rest[:2], "big")
            if packet_id in self._unreleased or version < 5:
                answer = _acknowledgement(PacketType.PUBCOMP, packet_id)
            else:  # Packet Identifier not found (MQTT 5 §3.7.2.1)
                answer = bytes([PacketType.PUBCOMP << 4, 3]) + rest[:2] + b"\x92"
            self._unreleased.discard(packet_id)
        elif kind is PacketType.PINGREQ:
            answer = bytes([PacketType.PINGRESP << 4, 0])
        elif kind is PacketType.SUBSCRIBE:
            found = _read_subscribe(rest, version)
            self.subscribed.append(found)
            body = rest[:2] + (b"\0" if version >= 5 else b"") + bytes(found.qos)
            answer = bytes([PacketType.SUBACK << 4, len(body)]) + body
        if kind in self.unanswered:
            self._postponed.append((writer, answer))
        else:
            writer.write(answer)

    async def _end(self, writer: asyncio.StreamWriter, version: int) -> None:
        if version >= 5 and self._reason_code is not None:
            writer.write(_disconnect(self._reason_code))
        with contextlib.suppress(OSError):
            await writer.drain()


def _disconnect(reason_code: int) -> bytes:
    return bytes([PacketType.DISCONNECT << 4, 2, reason_code, 0])


def _acknowledgement(kind: PacketType | None, packet_id: int) -> bytes:
    return b"" if kind is None else bytes([kind << 4, 2]) + packet_id.to_bytes(2, "big")


def _read_publish(head: bytes, rest: bytes) -> Published:
    end = 2 + int.from_bytes(rest[:2], "big")
    qos = head[0] >> 1 & 3
    packet_id = int.from_bytes(rest[end : end + 2], "big") if qos else 0
    return Published(rest[2:end].decode(), packet_id, qos, bool(head[0] & 8), len(head) + len(rest))


def _read_subscribe(rest: bytes, version: int) -> Subscribed:
    found = Subscribed()
    at = 2
    if version >= 5:
        found.has_identifier = rest[at] > 0
        at += 1 + rest[at]
    while at < len(rest):
        length = int.from_bytes(rest[at : at + 2], "big")
        found.filters.append(rest[at + 2 : at + 2 + length].decode())
        at += 2 + length
        found.qos.append(rest[at] & 3)
        at += 1
    return found
