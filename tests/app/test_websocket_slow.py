"""Clients of ``/v1/ws`` that do not read, or not at once: what it costs, and that nobody else notices."""

from __future__ import annotations

import gc
import itertools
import json
import logging
from collections.abc import Iterator

import httpx
import pytest

from tests.support.bridge import Bridge, running_bridge, wait_until
from tests.support.mosquitto import Mosquitto
from tests.support.websocket import SocketClient

COUNT = 100
PADDING = "x" * 32_000
"""Together they are more than the kernel's buffers of one connection hold."""

MAX_MESSAGES = 10
RECEIVE_BUFFER_BYTES = 4096
QUIET_SECONDS = 0.5


@pytest.fixture
def no_errors(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Nobody logs anything at the level of errors, not even of a task that nobody waited for."""
    yield
    gc.collect()
    found = [each.getMessage() for each in caplog.get_records("call") if each.levelno >= logging.ERROR]
    assert [] == found


def publish(bridge: Bridge, topic: str, count: int = COUNT) -> None:
    """Publish large messages that are numbered from 0, to two topics in turn; the broker took all."""
    with httpx.Client(base_url=bridge.url, trust_env=False, timeout=30) as client:
        for number in range(count):
            body = f'{{"number":{number},"padding":"{PADDING}"}}'
            assert client.post(f"/v1/topics/{topic}/{number % 2}?qos=1", content=body).is_success


def numbers(client: SocketClient, subscription: int | str) -> list[int]:
    """The numbers of a subscription's messages so far."""
    return [each["number"] for each in client.payloads(subscription)]


def endless(topic: str) -> Iterator[str]:
    """Frames that publish: small ones first, whose answers fill what a client does not read; then large."""
    for number in itertools.count():
        padding = "" if number < 4000 else PADDING
        frame = {"op": "publish", "id": f"{number:064}", "topic": topic, "payload": padding, "qos": 0}
        yield json.dumps(frame)
        assert number < 8000, "the bridge reads on and on"


def test_each_subscription_has_a_policy_of_its_own(mosquitto: Mosquitto, no_errors: None) -> None:
    """Of those on one socket whose client stopped reading; the socket stays open, and works afterwards."""
    with running_bridge(mosquitto.url, listener_max_messages=MAX_MESSAGES) as bridge:
        hub = bridge.app.state.hub
        with (
            SocketClient(bridge.port, receive_buffer_bytes=RECEIVE_BUFFER_BYTES) as client,
            SocketClient(bridge.port) as witness,
        ):
            seen = witness.subscribe("ws-slow/#", policy="drop")
            resume, latest, drop = (
                client.subscribe("ws-slow/#", policy=each) for each in ("resume", "latest", "drop")
            )
            client.subscribe("ws-slow-other", id="quiet")
            for number in range(COUNT):
                body = f'{{"number":{number},"padding":"{PADDING}"}}'
                assert bridge.client.post(f"/v1/topics/ws-slow/{number % 2}?qos=1", content=body).is_success
                witness.read_messages(seen, number + 1)
            assert max(len(each.buffer) for each in hub._listeners) <= MAX_MESSAGES
            assert [] == witness.named("lag")
            client.read_until(lambda: bool(client.named("close")))
            client.publish("ws-slow-other", "still here", encoding="text")
            assert ["still here"] == client.read_messages("quiet", 1)
            too_slow = {"subscription": resume, "reason": "too_slow", "may_reconnect": True}
            assert [too_slow] == client.named("close")
            found = numbers(client, resume)
            assert 0 < len(found) < COUNT
            assert list(range(len(found))) == found
            client.read_until(lambda: {98, 99} <= set(numbers(client, latest)) & set(numbers(client, drop)))
            lost = dict.fromkeys((latest, drop), 0)
            for each in client.named("lag"):
                lost[each["subscription"]] += each.get("dropped", 0) + each.get("conflated", 0)
            assert lost[latest] == COUNT - len(numbers(client, latest)) > 0
            assert lost[drop] == COUNT - len(numbers(client, drop)) > 0
            last_event_id = client.messages(resume)[-1]["id"]
            assert (
                "ack"
                == client.ask("subscribe", topics=["ws-slow/#"], id=resume, last_event_id=last_event_id)["op"]
            )
            client.read_messages(resume, COUNT)
            assert list(range(COUNT)) == numbers(client, resume)
            assert [] == client.named("gap")


def test_nothing_more_is_read_from_a_client_that_reads_no_answers(
    mosquitto: Mosquitto, no_errors: None
) -> None:
    """Its own sends block in the end; others go on; and when it reads again it gets every answer, once."""
    with (
        running_bridge(mosquitto.url) as bridge,
        SocketClient(bridge.port) as other,
        SocketClient(bridge.port, receive_buffer_bytes=RECEIVE_BUFFER_BYTES) as client,
    ):
        subscription = other.subscribe("ws-slow-flood/other")
        sent = client.send_until_full(endless("ws-slow-flood"), quiet_seconds=QUIET_SECONDS)
        for number in range(100):
            other.publish("ws-slow-flood/other", number)
        assert list(range(100)) == other.read_messages(subscription, 100)
        client.read_until(lambda: len(client.frames) >= sent)
        assert [f"{number:064}" for number in range(sent)] == [each["id"] for each in client.named("ack")]


@pytest.mark.parametrize("ending", ["cut", "time-out"])
def test_a_client_that_floods_and_does_not_read_is_given_up(
    mosquitto: Mosquitto, no_errors: None, ending: str
) -> None:
    """When its connection ends, and when it has taken nothing for too long: it leaves the hub."""
    with (
        running_bridge(mosquitto.url, stream_send_timeout_seconds=30 if ending == "cut" else 1) as bridge,
        SocketClient(bridge.port, receive_buffer_bytes=RECEIVE_BUFFER_BYTES) as client,
    ):
        client.send_until_full(endless("ws-slow-given-up"), quiet_seconds=QUIET_SECONDS)
        if ending == "cut":
            assert 1 == bridge.app.state.hub.listeners
            client.cut()
        wait_until(lambda: bridge.app.state.hub.listeners == 0)


def test_a_client_that_stops_reading_messages_is_given_up(mosquitto: Mosquitto, no_errors: None) -> None:
    """After the send time-out its connection is reset, and all its subscriptions leave."""
    with (
        running_bridge(mosquitto.url, stream_send_timeout_seconds=0.5) as bridge,
        SocketClient(bridge.port, receive_buffer_bytes=RECEIVE_BUFFER_BYTES) as client,
    ):
        client.subscribe("ws-slow-reader/#", policy="drop")
        client.subscribe("ws-slow-reader/#", policy="resume")
        publish(bridge, "ws-slow-reader")
        wait_until(lambda: bridge.app.state.hub.listeners == 0)
        assert client.read_to_end() is None


def test_a_client_that_answers_no_ping_is_given_up(mosquitto: Mosquitto, no_errors: None) -> None:
    """Also where the last message that it was sent is in its way, and nothing more is written."""
    with (
        running_bridge(mosquitto.url, heartbeat_seconds=0.1, stream_send_timeout_seconds=0.2) as bridge,
        SocketClient(bridge.port, receive_buffer_bytes=RECEIVE_BUFFER_BYTES) as stuck,
        SocketClient(bridge.port) as silent,
    ):
        stuck.subscribe("ws-slow-ping")
        silent.subscribe("ws-slow-quiet")
        body = b"1" * 900_000
        assert bridge.client.post("/v1/topics/ws-slow-ping?qos=1", content=body).is_success
        wait_until(lambda: bridge.app.state.hub.listeners == 0)


def test_a_client_that_answers_pings_stays(mosquitto: Mosquitto) -> None:
    """Longer than the time-out, with nothing else to say; one beside it that answers none is given up."""
    with (
        running_bridge(mosquitto.url, heartbeat_seconds=0.1, stream_send_timeout_seconds=0.3) as bridge,
        SocketClient(bridge.port) as client,
        SocketClient(bridge.port) as silent,
    ):
        subscription = client.subscribe("ws-slow-stays")
        silent.subscribe("ws-slow-stays")
        client.read_until(lambda: client.pings >= 5 and bridge.app.state.hub.listeners == 2)
        client.publish("ws-slow-stays", 1)
        assert [1] == client.read_messages(subscription, 1)
