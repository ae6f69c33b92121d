"""The session over MQTT within a WebSocket, against rumqttd (MQTT 5 §6)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from iotcore import Broker

from tests.support.ports import LOOPBACK, ReservedPort
from tidegate.connection import Subscription
from tidegate.message import Message
from tidegate.session import Session
from tidegate.url import parse_url

SECONDS: Final = 20.0
LISTENERS: Final = """\
id = 0
[router]
id = 0
max_connections = 100
max_outgoing_packet_count = 200
max_segment_size = 1048576
max_segment_count = 10
[v4.1]
name = "v4"
listen = "{host}:{tcp}"
next_connection_delay_ms = 1
[v4.1.connections]
connection_timeout_ms = 10000
max_payload_size = 65536
max_inflight_count = 100
dynamic_filters = true
[ws.1]
name = "ws"
listen = "{host}:{websocket}"
next_connection_delay_ms = 1
[ws.1.connections]
connection_timeout_ms = 10000
max_payload_size = 65536
max_inflight_count = 100
dynamic_filters = true
"""


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """A broker that speaks MQTT 3.1.1 within a WebSocket."""
    with ReservedPort() as tcp, ReservedPort() as websocket:
        path = tmp_path / "rumqttd.toml"
        path.write_text(LISTENERS.format(host=LOOPBACK, tcp=tcp.number, websocket=websocket.number))
        with Broker(config_path=str(path)):
            yield f"ws://{LOOPBACK}:{websocket.number}/mqtt?protocol=3.1.1"


async def test_messages_go_both_ways_at_every_qos(url: str) -> None:
    """Publish at QoS 0, 1 and 2, and receive what was published, small and large."""
    arrived = asyncio.Event()
    got: list[bytes] = []

    def receive(message: Message) -> None:
        got.append(message.payload)
        if len(got) == 4:
            arrived.set()

    session = Session(parse_url(url).connect_options, on_message=receive)
    await session.start()
    try:
        assert (await session.connected(SECONDS)).protocol_version == 4
        assert await session.subscribe([Subscription("websocket/#", qos=2)]) == [2]
        payloads = [b"0", b"1", b"2", b"x" * 40_000]
        for qos, payload in zip((0, 1, 2, 1), payloads, strict=True):
            assert await session.publish(Message("websocket/a", payload, qos)) == 0
        await session.ping()
        async with asyncio.timeout(SECONDS):
            await arrived.wait()
    finally:
        await session.close()
    assert sorted(got) == sorted(payloads)
