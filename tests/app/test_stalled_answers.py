"""Answers that nobody reads: what waits for such a reader is memory of the bridge's."""

from __future__ import annotations

import socket

from tests.support.bridge import running_bridge, wait_until
from tests.support.mosquitto import Mosquitto
from tests.support.ports import LOOPBACK

LARGE = b"x" * 900_000
WAITING_BYTES = 1_000_000


def test_an_answer_that_nobody_reads_is_given_up(mosquitto: Mosquitto) -> None:
    """With its connection, also where a stream was asked for behind it."""
    with running_bridge(mosquitto.url, stream_send_timeout_seconds=0.5) as bridge:
        hub = bridge.app.state.hub
        for number in range(12):
            assert bridge.client.put(f"/v1/topics/stalled/{number}", content=LARGE).is_success
        request = b"GET /v1/topics/stalled/%23 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
        stream = b"GET /v1/subscribe?topic=stalled/x HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
        with socket.socket() as reader:
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            reader.connect((LOOPBACK, bridge.port))
            reader.sendall(request + stream)
            wait_until(lambda: max(bridge.unsent_bytes) > WAITING_BYTES and hub.listeners == 1)
            wait_until(lambda: max(bridge.unsent_bytes, default=0) < WAITING_BYTES and hub.listeners == 0)
        for number in range(12):
            assert bridge.client.delete(f"/v1/topics/stalled/{number}").is_success
