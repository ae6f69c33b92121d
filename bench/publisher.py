"""``python -m bench.publisher URL RATE START BEGIN END``: one process that publishes at a fixed pace.

``mqtt://`` publishes with QoS 0 over one connection, ``http://`` posts to the URL over one connection, a few
requests ahead of their answers, so that a busy server never waits for the publisher. The three times are
nanoseconds of CLOCK_MONOTONIC. A publisher that is held up makes up for it, so that the pace holds on
average; what it really sent, it prints as one line of JSON.
"""

from __future__ import annotations

import http.client
import json
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import BinaryIO, Final
from urllib.parse import urlsplit

from bench.packets import CONNACK, TOPIC, connect, payload, publish

PATIENCE_SECONDS: Final = 10.0
UNANSWERED: Final = 4
"""HTTP requests that are sent before the answer to the first is waited for."""


def main() -> int:
    """Publish from START to END, and tell how much of it fell into BEGIN to END."""
    rate, start, begin, end = map(int, sys.argv[2:])
    with _sender(sys.argv[1]) as send:
        sent, inside = _pace(send, rate, start, begin, end)
    print(json.dumps({"sent": sent, "inside": inside}))
    return 0


def _pace(send: Callable[[bytes], None], rate: int, start: int, begin: int, end: int) -> tuple[int, int]:
    """Gives how many messages were sent, and how many of them between begin and end."""
    start = max(start, time.monotonic_ns())
    sent = inside = 0
    while True:
        due = start + sent * 1_000_000_000 // rate
        now = time.monotonic_ns()
        if max(now, due) >= end:
            break
        if due > now:
            time.sleep((due - now) / 1e9)
            now = time.monotonic_ns()
        try:
            send(payload(now, sent))
        except TimeoutError:
            break
        sent += 1
        inside += begin <= now < end
    return sent, inside


def _sender(url: str) -> AbstractContextManager[Callable[[bytes], None]]:
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    if parts.scheme == "mqtt":
        return _mqtt_sender(parts.hostname, parts.port)
    return _http_sender(parts.hostname, parts.port, parts.path)


@contextmanager
def _mqtt_sender(host: str, port: int) -> Iterator[Callable[[bytes], None]]:
    connection = socket.create_connection((host, port), PATIENCE_SECONDS)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.sendall(connect("bench-publisher"))
    if connection.recv(len(CONNACK), socket.MSG_WAITALL) != CONNACK:
        raise RuntimeError("the broker refused the publisher")

    def send(body: bytes) -> None:
        connection.sendall(publish(TOPIC, body))

    yield send


@contextmanager
def _http_sender(host: str, port: int, path: str) -> Iterator[Callable[[bytes], None]]:
    connection = socket.create_connection((host, port), PATIENCE_SECONDS)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    answers = connection.makefile("rb")
    waiting = 0

    def send(body: bytes) -> None:
        nonlocal waiting
        head = f"POST {path} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\n"
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        waiting += 1
        if waiting > UNANSWERED:
            _receive_answer(answers)
            waiting -= 1

    yield send
    for _ in range(waiting):
        _receive_answer(answers)


def _receive_answer(answers: BinaryIO) -> None:
    status = answers.readline()
    if not status.startswith(b"HTTP/1.1 20"):
        raise RuntimeError(f"the server refused a message: {status!r}")
    answers.read(int(http.client.parse_headers(answers)["Content-Length"]))


if __name__ == "__main__":
    sys.exit(main())
