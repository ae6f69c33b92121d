"""How streams end: each with its reason, told as the last event, and the body closed properly."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import httpx
import pytest

from app.hub.listener import CloseReason
from tests.support.bridge import Bridge, running_bridge, wait_until
from tests.support.mosquitto import Mosquitto
from tests.support.raw_stream import RawStream

NDJSON = "application/x-ndjson"


@pytest.fixture(scope="module")
def bridge(mosquitto: Mosquitto) -> Iterator[Bridge]:
    """One bridge for the tests that only use it."""
    with running_bridge(mosquitto.url) as running:
        yield running


def publish(bridge: Bridge, topic: str, payload: object, *, retain: bool = False) -> None:
    """Publish by HTTP, and insist that the broker took it."""
    answer = bridge.client.post(
        "/v1/publish", json={"topic": topic, "payload": payload, "retain": retain, "qos": 1}
    )
    assert answer.is_success, answer.text


def told_at_the_end(stream: RawStream) -> object:
    """Read to the end, and give what the last event said."""
    stream.read_to_end()
    assert stream.has_ended
    assert stream.events[-1].name == "close"
    assert len(stream.named("close")) == 1
    return stream.events[-1].json


def test_a_limit_ends_the_stream_after_so_many_messages(bridge: Bridge) -> None:
    """Exactly so many, retained ones counted, control events not; and there is no reason to come back."""
    publish(bridge, "ends/limit", 0, retain=True)
    with RawStream(bridge.port, "ends/limit", limit=3, last_event_id="x") as stream:
        stream.read_messages(1)
        for number in range(1, 6):
            publish(bridge, "ends/limit", number)
        assert told_at_the_end(stream) == {"reason": "limit", "may_reconnect": False}
        assert stream.payloads == [0, 1, 2]
        assert [each.name for each in stream.events] == ["gap", *["message"] * 3, "close"]


def test_a_limit_of_one_waits_for_one_message(bridge: Bridge) -> None:
    """A program that wants the next message needs no stream of its own to handle."""
    with RawStream(bridge.port, "ends/next", limit=1, accept=NDJSON, format="raw") as stream:
        publish(bridge, "ends/next", {"a": 1})
        stream.read_to_end()
    assert (stream.has_ended, bytes(stream.text)) == (True, b'{"a":1}\n')


def test_a_limit_ends_a_replay_that_is_longer(bridge: Bridge) -> None:
    """However much was missed, the rest comes with the next request."""
    with RawStream(bridge.port, "ends/replay") as first:
        position = first.headers["last-event-id"]
    wait_until(lambda: bridge.app.state.hub.listeners == 0)
    with httpx.Client(base_url=bridge.url, trust_env=False) as client:
        for number in range(600):
            assert client.post("/v1/topics/ends/replay", content=str(number)).is_success
    with RawStream(bridge.port, "ends/replay", limit=10, last_event_id=position) as stream:
        assert told_at_the_end(stream) == {"reason": "limit", "may_reconnect": False}
        assert stream.payloads == list(range(10))
    with RawStream(bridge.port, "ends/replay", limit=590, last_event_id=stream.messages[-1].id) as rest:
        told_at_the_end(rest)
        assert rest.payloads == list(range(10, 600))


def test_a_stream_without_messages_ends_after_the_idle_time(mosquitto: Mosquitto) -> None:
    """Heartbeats are no messages, and do not keep it open."""
    with running_bridge(mosquitto.url, heartbeat_seconds=0.1) as bridge:
        with RawStream(bridge.port, "ends/idle", idle_timeout=0.5) as stream:
            assert told_at_the_end(stream) == {"reason": "idle_timeout", "may_reconnect": False}
            assert b": heartbeat" in stream.text
        wait_until(lambda: bridge.app.state.hub.listeners == 0)
        assert bridge.app.state.hub.ended == {CloseReason.IDLE_TIMEOUT: 1}


def test_a_lifetime_ends_every_stream(mosquitto: Mosquitto) -> None:
    """Its client comes back, and misses nothing."""
    with running_bridge(mosquitto.url, stream_lifetime_seconds=0.3) as bridge:
        with RawStream(bridge.port, "ends/lifetime", accept="text/event-stream") as stream:
            assert told_at_the_end(stream) == {"reason": "lifetime", "may_reconnect": True}
        publish(bridge, "ends/lifetime", "missed")
        with RawStream(bridge.port, "ends/lifetime", last_event_id=stream.last_event_id) as back:
            assert back.read_messages(1) == ["missed"]
        wait_until(lambda: bridge.app.state.hub.listeners == 0)
        assert bridge.app.state.hub.ended[CloseReason.LIFETIME] == 1


def test_a_busy_stream_ends_with_its_lifetime_too(mosquitto: Mosquitto) -> None:
    """What was delivered before the end comes before the word that it is over."""
    with (
        running_bridge(mosquitto.url, stream_lifetime_seconds=1) as bridge,
        RawStream(bridge.port, "ends/busy", retained="false") as stream,
    ):
        is_over = threading.Event()

        def run() -> None:
            with httpx.Client(base_url=bridge.url, trust_env=False) as client:
                number = 0
                while not is_over.is_set():
                    assert client.post("/v1/topics/ends/busy", content=str(number)).is_success
                    number += 1

        publisher = threading.Thread(target=run)
        publisher.start()
        try:
            assert told_at_the_end(stream) == {"reason": "lifetime", "may_reconnect": True}
        finally:
            is_over.set()
            publisher.join()
        assert stream.payloads == list(range(len(stream.payloads)))


@pytest.mark.parametrize("accept", ["text/event-stream", NDJSON])
def test_a_filter_that_the_broker_takes_back_ends_its_streams(accept: str) -> None:
    """A broker whose rules changed refuses on the next connection; other streams go on."""
    with Mosquitto(denied="nobody/#") as broker, running_bridge(broker.url) as bridge:
        with (
            RawStream(bridge.port, "secret/a", accept=accept) as refused,
            RawStream(bridge.port, "open") as other,
        ):
            broker.stop()
            rules = broker.directory / "rules.json"
            rules.write_text(rules.read_text().replace("nobody/#", "secret/#"))
            broker.start()
            refused.read_to_end()
            assert refused.has_ended
            told = refused.lines[-1] if accept == NDJSON else refused.events[-1].json
            assert (told["reason"], told["may_reconnect"]) == ("refused", False)
            wait_until(lambda: bridge.app.state.hub.filters == ("open",))
            publish(bridge, "open", 1)
            assert other.read_messages(1) == [1]
        answer = bridge.client.get("/v1/subscribe?topic=secret/a")
        assert answer.status_code == 403
        assert answer.headers["content-type"] == "application/problem+json"


def test_a_reader_that_left_is_noticed(bridge: Bridge) -> None:
    """Politely or not, its place is free at once, and counted as left."""
    hub = bridge.app.state.hub
    before = hub.ended[CloseReason.CLIENT_LEFT]
    first, second = RawStream(bridge.port, "ends/left"), RawStream(bridge.port, "ends/left")
    assert hub.listeners == 2
    with first:
        pass
    second.cut()
    wait_until(lambda: hub.listeners == 0)
    assert hub.ended[CloseReason.CLIENT_LEFT] == before + 2


def test_a_refused_subscription_is_no_stream_that_ended(mosquitto: Mosquitto) -> None:
    """What never began is not counted among the ends."""
    with Mosquitto(denied="secret/#") as broker, running_bridge(broker.url) as bridge:
        assert bridge.client.get("/v1/subscribe?topic=secret/a").status_code == 403
        assert bridge.app.state.hub.ended == {}


def test_streams_end_with_the_bridge_whatever_their_form(mosquitto: Mosquitto) -> None:
    """Each is told that it may come back, as far as its form has words, and each body is closed."""
    with running_bridge(mosquitto.url) as bridge:
        streams = [
            RawStream(bridge.port, "ends/stop", accept=accept, format=form)
            for accept in ("text/event-stream", NDJSON)
            for form in ("envelope", "raw")
        ]
        bridge.stop()
        for each in streams:
            with each:
                each.read_to_end()
    assert [each.has_ended for each in streams] == [True] * 4
    for each in streams[:2]:
        assert each.named("close") == [{"reason": "shutdown", "may_reconnect": True}]
    assert streams[2].lines == [{"event": "close", "reason": "shutdown", "may_reconnect": True}]
    assert bytes(streams[3].text) == b""
