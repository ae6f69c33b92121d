"""Streams over a real server and a real broker."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import httpx
import pytest

from app.hub.position import parse_position
from tests.support.bridge import Bridge, running_bridge, wait_until
from tests.support.mosquitto import Mosquitto
from tests.support.raw_stream import RawStream
from tests.support.sse import following


@pytest.fixture(scope="module")
def bridge(mosquitto: Mosquitto) -> Iterator[Bridge]:
    """One bridge for the tests that only use it."""
    with running_bridge(mosquitto.url) as running:
        yield running


def publish(bridge: Bridge, topic: str, payload: str, *, retain: bool = False, qos: int = 1) -> None:
    """Publish by HTTP, and insist that it was taken."""
    answer = bridge.client.post(
        "/v1/publish", json={"topic": topic, "payload": payload, "retain": retain, "qos": qos}
    )
    assert answer.is_success, answer.text


def test_a_stream_has_the_headers_that_proxies_need(bridge: Bridge) -> None:
    """No cache, no buffering, the type that EventSource asks for, and something at once."""
    with following(bridge, "streams/headers") as stream:
        assert stream.headers["content-type"].partition(";")[0] == "text/event-stream"
        assert stream.headers["cache-control"] == "no-store"
        assert stream.headers["x-accel-buffering"] == "no"
        stream.wait_for_text("retry: 2000")


def test_a_message_is_an_event_with_an_id_and_one_json_object(bridge: Bridge) -> None:
    """The event has the default name, a rising id, and the whole envelope."""
    with following(bridge, "streams/envelope") as stream:
        publish(bridge, "streams/envelope", "one")
        publish(bridge, "streams/envelope", "two", qos=0)
        stream.wait_for_messages(2)
        first, second = stream.events
        assert first.name == second.name == "message"
        epoch = bridge.app.state.hub.epoch
        here, then = parse_position(first.id, epoch), parse_position(second.id, epoch)
        assert here is not None
        assert then is not None
        assert then.sequence == here.sequence + 1
        body = dict(first.data)
        assert body.pop("time").endswith("Z")
        assert body == {
            "topic": "streams/envelope",
            "payload": "one",
            "encoding": "json",
            "qos": 1,
            "retain": False,
            "properties": {},
        }
        assert second.data["qos"] == 0


def test_where_a_stream_begins_tells_nothing_of_others(bridge: Bridge) -> None:
    """Neither how many messages there were of all, nor whether one came since the last time."""
    ids = []
    with RawStream(bridge.port, "streams/quiet"):
        for _ in range(3):
            with RawStream(bridge.port, "streams/quiet") as stream:
                ids.append(stream.headers["last-event-id"].removesuffix("-r"))
    positions = {parse_position(each, bridge.app.state.hub.epoch) for each in ids}
    assert 3 == len(set(ids))
    assert None not in positions
    assert 1 == len({each.sequence for each in positions if each is not None})


def test_overlapping_filters_give_a_message_once(bridge: Bridge) -> None:
    """One stream with three filters that match, and another with one, see each message once."""
    with (
        following(bridge, "streams/once/+", "streams/once/a", "streams/once/#") as many,
        following(bridge, "streams/once/a") as one,
    ):
        publish(bridge, "streams/once/a", "1")
        publish(bridge, "streams/once/b", "2")
        publish(bridge, "streams/once/a", "3")
        a1, b2, a3 = (
            ("streams/once/a", "1", False),
            ("streams/once/b", "2", False),
            ("streams/once/a", "3", False),
        )
        assert many.wait_for_messages(3) == [a1, b2, a3]
        assert one.wait_for_messages(2) == [a1, a3]


def test_a_late_joiner_gets_the_retained_message_and_nobody_else_does_again(bridge: Bridge) -> None:
    """Two streams on one filter: each begins with the value, once."""
    publish(bridge, "streams/retained", "kept", retain=True)
    with following(bridge, "streams/retained") as early:
        assert early.wait_for_messages(1) == [("streams/retained", "kept", True)]
        with (
            following(bridge, "streams/retained") as late,
            following(bridge, "streams/retained", retained="false") as unwilling,
        ):
            assert late.wait_for_messages(1) == [("streams/retained", "kept", True)]
            publish(bridge, "streams/retained", "live")
            live = ("streams/retained", "live", False)
            assert late.wait_for_messages(2)[1:] == [live]
            assert early.wait_for_messages(2)[1:] == [live]
            assert unwilling.wait_for_messages(1) == [live]


def test_reading_a_retained_message_disturbs_no_stream(bridge: Bridge) -> None:
    """GET shares the subscription of a stream on the same topic, and leaves it as it was."""
    publish(bridge, "streams/read", "kept", retain=True)
    with following(bridge, "streams/read") as stream:
        stream.wait_for_messages(1)
        for _ in range(3):
            assert bridge.client.get("/v1/topics/streams/read").text == '"kept"'
        publish(bridge, "streams/read", "live")
        assert stream.wait_for_messages(2) == [
            ("streams/read", "kept", True),
            ("streams/read", "live", False),
        ]


def test_hostile_topics_and_payloads_stay_inside_the_json(bridge: Bridge) -> None:
    """Line breaks in a payload and markup in a topic never become lines of the stream."""
    with following(bridge, "streams/hostile/#") as stream:
        publish(bridge, "streams/hostile/event: close", "a\r\nevent: close\ndata: {}\n\n")
        topic, payload, _ = stream.wait_for_messages(1)[0]
        assert (topic, payload) == ("streams/hostile/event: close", "a\r\nevent: close\ndata: {}\n\n")
        assert [each.name for each in stream.events] == ["message"]


def test_a_quiet_stream_has_a_heartbeat(mosquitto: Mosquitto) -> None:
    """A comment line comes whenever nothing else does."""
    with running_bridge(mosquitto.url, heartbeat_seconds=0.1) as bridge, following(bridge, "quiet") as stream:
        stream.wait_for_text(": heartbeat")


def test_a_filter_that_ends_in_an_empty_level_gets_a_remark(bridge: Bridge) -> None:
    """``topic=a/#`` arrives as ``a/``: legal, and most likely not meant."""
    with following(bridge, "streams/cut/") as stream:
        stream.wait_for_text("write %23")


@pytest.mark.parametrize(
    ("query", "status", "field"),
    [
        ("", 400, "topic"),
        ("topic=", 400, "topic"),
        ("topic=a/%23/b", 400, "topic"),
        ("topic=a%2Bb", 400, "topic"),
        ("topic=a/+/b", 400, "topic"),
        ("topic=%24share/g", 400, "topic"),
        ("topic=a%00", 400, "topic"),
        ("topic=%ff", 400, "topic"),
        ("topic=a&qos=3", 400, "qos"),
        ("topic=a&qos=1&qos=1", 400, "qos"),
        ("topic=a&retained=yes", 400, "retained"),
        ("topics=a", 400, "topics"),
        ("&".join(f"topic={number}" for number in range(1001)), 400, "topic"),
    ],
)
def test_what_can_be_refused_is_refused_before_the_stream(
    bridge: Bridge, query: str, status: int, field: str
) -> None:
    """A problem document that names the parameter; the next stream works."""
    answer = bridge.client.get(f"/v1/subscribe?{query}")
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["field"] == field
    with following(bridge, "streams/next") as stream:
        publish(bridge, "streams/next", "fine")
        assert stream.wait_for_messages(1) == [("streams/next", "fine", False)]


def test_the_wildcard_hint_tells_how_to_write_it(bridge: Bridge) -> None:
    """A bare ``+`` is a space in a query; nothing is guessed."""
    assert "%2B" in bridge.client.get("/v1/subscribe?topic=a/+/b").json()["hint"]


def test_the_hint_about_an_empty_filter_tells_how_to_write_the_other_wildcard(bridge: Bridge) -> None:
    """A bare ``#`` ends the URL, and the value is empty; a body has no such trap."""
    answer = bridge.client.get("/v1/subscribe?topic=")
    assert (400, "if it should be '#', write %23") == (answer.status_code, answer.json()["hint"])
    assert "hint" not in bridge.client.post("/v1/subscribe", json={"topics": [""]}).json()


def test_methods_and_forms_that_a_stream_has_not(bridge: Bridge) -> None:
    """405 with Allow, 406 where Accept excludes every form."""
    answer = bridge.client.put("/v1/subscribe?topic=a")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, POST")
    assert "/v1/subscribe takes no PUT, only GET, POST" == answer.json()["detail"]
    answer = bridge.client.get("/v1/subscribe?topic=a", headers={"Accept": "image/png"})
    assert answer.status_code == 406


def test_the_refusal_of_every_form_tells_the_header_to_send(bridge: Bridge) -> None:
    """``curl --json`` accepts JSON alone, unless it is given another Accept."""
    answer = bridge.client.post(
        "/v1/subscribe", json={"topics": ["a"]}, headers={"Accept": "application/json"}
    )
    expected = "accept text/event-stream or application/x-ndjson, as in --header 'Accept: text/event-stream'"
    assert (406, expected) == (answer.status_code, answer.json()["hint"])


@pytest.mark.parametrize(("filters", "words"), [(["a"], "1 filter"), (["a", "b"], "2 filters")])
def test_the_log_tells_of_a_stream_s_end(
    bridge: Bridge, filters: list[str], words: str, caplog: pytest.LogCaptureFixture
) -> None:
    """How many filters it had, in good English."""
    caplog.set_level(logging.INFO, "tidegate.streams")
    with following(bridge, *filters):
        pass
    wait_until(lambda: f"a stream of {words} ended after " in caplog.text)


def test_the_number_of_streams_is_bounded(mosquitto: Mosquitto) -> None:
    """One more than allowed is refused with the bound's name; a place given back can be taken."""
    with running_bridge(mosquitto.url, max_streams=1) as bridge:
        with following(bridge, "a"):
            answer = bridge.client.get("/v1/subscribe?topic=a")
            assert answer.status_code == 503
            assert answer.json()["type"].endswith(":too-many-streams")
        wait_until(lambda: bridge.app.state.hub.listeners == 0)
        with following(bridge, "a") as stream:
            stream.wait_for_text("retry")


def test_a_filter_is_given_back_when_its_last_stream_ends(mosquitto: Mosquitto) -> None:
    """After the reader left, nothing is subscribed to any more."""
    with running_bridge(mosquitto.url) as bridge:
        with following(bridge, "a/#", "b"):
            assert set(bridge.app.state.hub.filters) == {"a/#", "b"}
        wait_until(lambda: bridge.app.state.hub.filters == ())


def test_streams_are_told_that_the_broker_was_away() -> None:
    """Down, up and a gap, on the same stream; then messages flow again."""
    with Mosquitto() as broker, running_bridge(broker.url) as bridge, following(bridge, "a") as stream:
        publish(bridge, "a", "before")
        stream.wait_for_messages(1)
        broker.restart()
        wait_until(lambda: bool(stream.named("gap")))
        assert [each["state"] for each in stream.named("broker")] == ["down", "up"]
        assert stream.named("gap") == [{"reason": "broker_connection"}]
        publish(bridge, "a", "after")
        assert stream.wait_for_messages(2)[1] == ("a", "after", False)


def test_a_stream_while_the_broker_is_away_is_an_error_with_a_time_to_try_again() -> None:
    """503 with Retry-After, not an empty stream."""
    with Mosquitto() as broker:
        broker.stop()
        with running_bridge(broker.url, wait_until_ready=False, publish_timeout_seconds=0.3) as bridge:
            answer = bridge.client.get("/v1/subscribe?topic=a")
            assert answer.status_code == 503
            assert answer.json()["type"].endswith(":broker-unavailable")
            assert int(answer.headers["retry-after"]) > 0


def test_a_stopping_bridge_says_goodbye(mosquitto: Mosquitto) -> None:
    """The last event names the reason and says that coming back is fine."""
    with running_bridge(mosquitto.url) as bridge, following(bridge, "a") as stream:
        stream.wait_for_text("retry")
        bridge.stop()
        stream.wait_for_end()
        assert stream.events[-1].name == "close"
        assert stream.events[-1].data == {"reason": "shutdown", "may_reconnect": True}


def test_a_thousand_messages_arrive_in_order(bridge: Bridge) -> None:
    """In the order in which the broker took them, none missing and none twice."""
    with following(bridge, "streams/many") as stream:
        with httpx.Client(base_url=bridge.url, trust_env=False) as client:
            for number in range(1000):
                assert client.post("/v1/topics/streams/many", content=str(number)).is_success
        assert [payload for _, payload, _ in stream.wait_for_messages(1000)] == list(range(1000))
