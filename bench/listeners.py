"""``python -m bench.listeners URL COUNT``: one process that holds many listeners and costs little.

Rules:

1. ``http://`` follows the URL as Server-Sent Events; ``mqtt://`` subscribes with MQTT, ``ws://`` with MQTT in
   WebSocket frames.
2. Messages are not parsed but counted, by a mark that each holds once. Every sixteenth listener is sampled:
   of it, all times of sending are read, the order is checked, and so is that the mark stands once a message.
3. Between two sweeps the process rests for some milliseconds, so that it takes what has come in larger
   pieces and leaves the core to others. A latency is too long by up to that.

It prints ``{"ready": true}`` once all listen. Then each line ``{"begin": ns, "end": ns, "rest_ms": n}`` on
its input (of CLOCK_MONOTONIC) has it listen until then, and until nothing more comes; it answers with a line
of ``Seen``.
"""

from __future__ import annotations

import json
import os
import select
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Final
from urllib.parse import SplitResult, urlsplit

from bench.packets import CONNACK, MARK, STAMP, STAMP_BYTES, SUBACK, TOPIC, client_frame, connect, subscribe

SAMPLE_EVERY: Final = 16
QUIET_SECONDS: Final = 0.5
DRAIN_SECONDS: Final = 3.0
READ_BYTES: Final = 131_072
CONNECT_SECONDS: Final = 20.0
JOIN_AT_ONCE: Final = 250


@dataclass(slots=True)
class Seen:
    """What the listeners saw.

    Attributes:
        inside: messages received from begin to end.
        total: messages received, before, in and after that time.
        closed: listeners whose connection the server ended.
        disorder: messages that a sampled listener got twice, or after a later one.
        p50_ms: the median time from sending to receiving; of the sampled listeners; None where nothing came.
        p99_ms: the time that one in a hundred took longer than.
        cpu_share: the share of one core that this process used from begin to end.
    """

    inside: int = 0
    total: int = 0
    closed: int = 0
    disorder: int = 0
    p50_ms: float | None = None
    p99_ms: float | None = None
    cpu_share: float = 0.0


@dataclass(slots=True)
class Sample:
    """One listener of which every message is read; latencies in nanoseconds, of those from begin to end."""

    begin: int
    end: int
    tail: bytes = b""
    number: int = -1
    disorder: int = 0
    latencies: list[int] = field(default_factory=list)

    def take(self, piece: bytes) -> None:
        """Read the times in what was received last."""
        now = time.monotonic_ns()
        piece = self.tail + piece
        found = STAMP.findall(piece)
        # What may be the first part of a stamp waits for the rest of it.
        begun = piece.find(MARK, max(0, len(piece) - STAMP_BYTES + 1))
        self.tail = b"" if begun < 0 else piece[begun:]
        if piece.count(MARK) - (begun >= 0) != len(found):
            raise RuntimeError(f"{MARK!r} stands in a message where no time follows")
        for sent, number in found:
            self.disorder += int(number) <= self.number
            self.number = int(number)
            if self.begin <= now < self.end:
                self.latencies.append(now - int(sent))


class Listeners:
    """Connections that all follow one URL, in one epoll set."""

    def __init__(self, url: str, count: int) -> None:
        parts = urlsplit(url)
        greet = {"http": _greet_sse, "mqtt": _greet_mqtt, "ws": _greet_websocket}[parts.scheme]
        self._buffer = bytearray(READ_BYTES)
        self._epoll = select.epoll()
        self._sockets: dict[int, socket.socket] = {}
        self._sampled: set[int] = set()
        for first in range(0, count, JOIN_AT_ONCE):
            connections = [_connect(parts) for _ in range(first, min(first + JOIN_AT_ONCE, count))]
            # Step by step, all together: Mosquitto may take a tenth of a second for an answer.
            greetings = [greet(each, parts, first + index) for index, each in enumerate(connections)]
            for _ in zip(*greetings, strict=True):
                pass
            for connection in connections:
                self._add(connection)

    def _add(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        if len(self._sockets) % SAMPLE_EVERY == 0:
            self._sampled.add(connection.fileno())
        self._sockets[connection.fileno()] = connection
        self._epoll.register(connection.fileno(), select.EPOLLIN)

    def follow(self, begin: int, end: int, rest_seconds: float) -> Seen:
        """Listen until the end, and until nothing more comes; bounded in time."""
        seen = Seen()
        samples = {descriptor: Sample(begin, end) for descriptor in self._sampled}
        last = 0
        cpu_begin = cpu_end = None
        while True:
            now = time.monotonic_ns()
            if cpu_begin is None and now >= begin:
                cpu_begin = time.process_time_ns()
            if cpu_end is None and now >= end:
                cpu_end = time.process_time_ns()
            if now >= end + QUIET_SECONDS * 1e9 and (
                now - last > QUIET_SECONDS * 1e9 or now - end > DRAIN_SECONDS * 1e9
            ):
                break
            count = self._sweep(samples, seen)
            if count:
                last = now
                seen.total += count
                if begin <= now < end:
                    seen.inside += count
            time.sleep(rest_seconds)
        assert cpu_begin is not None
        assert cpu_end is not None
        seen.cpu_share = (cpu_end - cpu_begin) / (end - begin)
        seen.disorder = sum(sample.disorder for sample in samples.values())
        latencies = sorted(each for sample in samples.values() for each in sample.latencies)
        if latencies:
            seen.p50_ms = latencies[len(latencies) // 2] / 1e6
            seen.p99_ms = latencies[len(latencies) * 99 // 100] / 1e6
        return seen

    def _sweep(self, samples: dict[int, Sample], seen: Seen) -> int:
        """Read once from each connection that has something; gives the messages in it."""
        count = 0
        for descriptor, _ in self._epoll.poll(0.02):
            try:
                size = self._sockets[descriptor].recv_into(self._buffer)
            except ConnectionError:
                size = 0
            if not size:
                seen.closed += 1
                self._epoll.unregister(descriptor)
                self._sockets.pop(descriptor).close()
                self._sampled.discard(descriptor)
                continue
            count += self._buffer.count(MARK, 0, size)
            sample = samples.get(descriptor)
            if sample is not None:
                sample.take(bytes(self._buffer[:size]))
        return count


def _greet_sse(connection: socket.socket, parts: SplitResult, index: int) -> Iterator[None]:
    """Step by step to a connection on which events come."""
    del index
    connection.sendall(
        f"GET {parts.path}?{parts.query} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
        "Accept: text/event-stream\r\n\r\n".encode()
    )
    yield
    _receive_head(connection, b"HTTP/1.1 200 ")


def _greet_websocket(connection: socket.socket, parts: SplitResult, index: int) -> Iterator[None]:
    """Step by step to a connection on which PUBLISH packets come."""
    connection.sendall(
        f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
        "Sec-WebSocket-Protocol: mqtt\r\n\r\n".encode()
    )
    yield
    _receive_head(connection, b"HTTP/1.1 101 ")
    yield from _subscribe(connection, index, client_frame, 2)


def _greet_mqtt(connection: socket.socket, parts: SplitResult, index: int) -> Iterator[None]:
    """Step by step to a connection on which PUBLISH packets come, without frames."""
    del parts
    yield from _subscribe(connection, index, bytes, 0)


def _subscribe(
    connection: socket.socket, index: int, wrap: Callable[[bytes], bytes], head: int
) -> Iterator[None]:
    """CONNECT and SUBSCRIBE, each wrapped; ``head`` bytes stand in front of what is answered."""
    connection.sendall(wrap(connect(f"bench-listener-{os.getpid()}-{index}")))
    yield
    _receive_packet(connection, CONNACK, head)
    connection.sendall(wrap(subscribe(TOPIC)))
    yield
    _receive_packet(connection, SUBACK, head)


def _connect(parts: SplitResult) -> socket.socket:
    assert parts.hostname is not None
    assert parts.port is not None
    connection = socket.create_connection((parts.hostname, parts.port), CONNECT_SECONDS)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def _receive_head(connection: socket.socket, start: bytes) -> None:
    """The head of an answer; what follows it already is no message yet, and is dropped."""
    head = b""
    while b"\r\n\r\n" not in head:
        piece = connection.recv(4096)
        if not piece:
            break
        head += piece
    if not head.startswith(start):
        raise RuntimeError(f"a listener was refused: {head.decode(errors='replace')}")


def _receive_packet(connection: socket.socket, packet: bytes, head: int) -> None:
    found = connection.recv(head + len(packet), socket.MSG_WAITALL)
    if found[head:] != packet:
        raise RuntimeError(f"the broker answered {found.hex()} to a listener")


def main() -> int:
    """Listen, and follow each plan that comes in."""
    listeners = Listeners(sys.argv[1], int(sys.argv[2]))
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        plan = json.loads(line)
        seen = listeners.follow(plan["begin"], plan["end"], plan["rest_ms"] / 1000)
        print(json.dumps(asdict(seen)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
