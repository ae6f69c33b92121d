"""Coming back to a stream over real connections, with a real broker."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from tests.support.bridge import Bridge, running_bridge, wait_until
from tests.support.mosquitto import Mosquitto
from tests.support.raw_stream import RawStream
from tests.support.websocket import SocketClient

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


def has_left(bridge: Bridge) -> None:
    """Wait until the bridge knows that nobody is there."""
    wait_until(lambda: bridge.app.state.hub.listeners == 0)


@contextmanager
def publishing(bridge: Bridge, topic: str, count: int) -> Iterator[threading.Thread]:
    """Publish 0, 1, 2 … in the background; all of them are with the broker at the end."""
    failed: list[str] = []

    def run() -> None:
        with httpx.Client(base_url=bridge.url, trust_env=False, timeout=30) as client:
            for number in range(count):
                answer = client.post(f"/v1/topics/{topic}?qos=1", content=str(number))
                if not answer.is_success:
                    failed.append(answer.text)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield thread
    finally:
        thread.join()
    assert failed == []


@pytest.mark.parametrize("way", ["header", "last_event_id", "lastEventId", "body"])
def test_a_client_comes_back_to_what_it_missed(bridge: Bridge, way: str) -> None:
    """By the header that EventSource sends, by either query parameter, or in a body."""
    topic = f"resume/{way}"
    with RawStream(bridge.port, topic) as first:
        publish(bridge, topic, "seen")
        first.read_messages(1)
    has_left(bridge)
    publish(bridge, topic, "missed")
    ways: dict[str, dict[str, Any]] = {
        "header": {"last_event_id": first.last_event_id},
        "body": {"body": {"topics": [topic], "last_event_id": first.last_event_id}},
    }
    options = ways.get(way, {})
    port, filters = bridge.port, [] if way == "body" else [topic]
    if way.startswith("last"):
        answer = httpx.stream(
            "GET",
            f"{bridge.url}/v1/subscribe?topic={topic}&{way}={first.last_event_id}&limit=1",
            trust_env=False,
        )
        with answer as response:
            text = response.read().decode()
        assert '"missed"' in text
        assert "event: gap" not in text
        return
    with RawStream(port, *filters, **options) as back:
        assert back.read_messages(1) == ["missed"]
        publish(bridge, topic, "live")
        assert back.read_messages(2) == ["missed", "live"]
        assert [each.name for each in back.events] == ["message", "message"]
        assert back.messages[0].id != back.messages[1].id != first.last_event_id


def test_the_header_wins_over_the_query(bridge: Bridge) -> None:
    """A browser that connects again repeats the URL of the first time, and knows better by then."""
    with RawStream(bridge.port, "resume/both") as first:
        publish(bridge, "resume/both", "1")
        publish(bridge, "resume/both", "2")
        first.read_messages(2)
    stale, fresh = (each.id for each in first.messages)
    has_left(bridge)
    publish(bridge, "resume/both", "3")
    query = {"topic": "resume/both", "last_event_id": stale, "limit": "1", "format": "raw"}
    text = bridge.client.get("/v1/subscribe", params=query, headers={"Last-Event-ID": fresh}).text
    assert 'data: "3"' in text
    assert 'data: "2"' not in text


@pytest.mark.parametrize("accept", ["text/event-stream", NDJSON])
def test_cut_connections_lose_and_double_nothing(bridge: Bridge, accept: str) -> None:
    """Several cuts while hundreds of messages are published: the client has each of them once, in order."""
    topic = f"resume/cut/{accept[-4:].strip('-')}"
    count, cuts = 300, 6
    found: list[int] = []
    position = ""
    with publishing(bridge, topic, 0):
        pass
    opened = RawStream(bridge.port, topic, accept=accept)
    with publishing(bridge, topic, count):
        for number in range(cuts + 1):
            stream = (
                opened
                if number == 0
                else RawStream(bridge.port, topic, accept=accept, last_event_id=position)
            )
            wanted = count if number == cuts else len(found) + count // (2 * cuts)
            while len(found) < wanted:
                stream.read()
                assert not stream.is_closed
                if accept == NDJSON:
                    assert not any("event" in each for each in stream.lines if each)
                    new = [(each["id"], each["payload"]) for each in stream.lines if each]
                    stream.lines.clear()
                else:
                    assert all(each.name == "message" for each in stream.events)
                    new = [(each.id, each.json["payload"]) for each in stream.events]
                    stream.events.clear()
                for position, payload in new:  # noqa: B007 - the last one is where the client stands
                    found.append(payload)
            stream.cut()
    assert found == list(range(count))


def test_a_quiet_stream_that_leaves_before_any_message_misses_none(bridge: Bridge) -> None:
    """The opening has an id without data: a browser knows from the start where it stands."""
    with RawStream(bridge.port, "resume/quiet") as quiet:
        quiet.read_until(lambda: quiet.last_event_id != "")
        assert quiet.events == []
        assert quiet.last_event_id == quiet.headers["last-event-id"]
        quiet.cut()
    has_left(bridge)
    publish(bridge, "resume/quiet", "missed")
    with RawStream(bridge.port, "resume/quiet", last_event_id=quiet.last_event_id) as back:
        assert back.read_messages(1) == ["missed"]
        assert [each.name for each in back.events] == ["message"]


def test_a_quiet_ndjson_stream_has_its_position_in_a_header(bridge: Bridge) -> None:
    """Lines have no place for an id without a message; the header has."""
    with RawStream(bridge.port, "resume/lines", accept=NDJSON) as quiet:
        position = quiet.headers["last-event-id"]
    has_left(bridge)
    publish(bridge, "resume/lines", "missed")
    with RawStream(bridge.port, "resume/lines", accept=NDJSON, last_event_id=position) as back:
        back.read_until(lambda: bool(back.lines))
        assert back.headers["last-event-id"] == position
    line = back.lines[0]
    assert next(iter(line)) == "id"
    assert line["payload"] == "missed"


def test_an_id_of_one_form_is_good_for_another(bridge: Bridge) -> None:
    """A place is a place, however it was told."""
    with RawStream(bridge.port, "resume/forms", accept=NDJSON) as lines:
        publish(bridge, "resume/forms", "seen")
        lines.read_until(lambda: bool(lines.lines))
    has_left(bridge)
    publish(bridge, "resume/forms", "missed")
    with RawStream(bridge.port, "resume/forms", last_event_id=lines.lines[0]["id"]) as back:
        assert back.read_messages(1) == ["missed"]


def test_an_id_is_good_for_its_filters_however_they_are_asked_for(bridge: Bridge) -> None:
    """In a query or in a body, in any order, and over a WebSocket; a filter more is a gap that names it."""
    filters = ["resume/set/a", "resume/set/b"]
    added = "resume/set/c"
    publish(bridge, added, "kept", retain=True)
    with RawStream(bridge.port, added, *filters) as other:
        other.read_messages(1)
        with RawStream(bridge.port, *filters) as first:
            publish(bridge, filters[0], 1)
            first.read_messages(1)
        place = first.last_event_id.removesuffix("-r")
        publish(bridge, filters[1], 2)
        body = {"topics": filters[::-1], "last_event_id": place}
        with RawStream(bridge.port, body=body) as back:
            assert back.read_messages(1) == [2]
            assert [each.name for each in back.events] == ["message"]
        with SocketClient(bridge.port) as client:
            subscription = client.subscribe(*filters, last_event_id=place)
            assert client.read_messages(subscription, 1) == [2]
            assert client.named("gap") == []
            more = client.subscribe(*filters, added, last_event_id=place)
            assert client.read_messages(more, 2) == [2, "kept"]
            (gap,) = client.named("gap")
            assert gap.pop("id").split("-")[1] != place.split("-")[1]
            assert gap == {
                "subscription": more,
                "reason": "not_kept",
                "last_event_id": place,
                "filters": [added],
            }


def test_retained_messages_are_marked_and_asked_for_again_until_all_have_come(bridge: Bridge) -> None:
    """Who is cut off among them gets them again; who has the mark no longer does not."""
    for number in range(3):
        publish(bridge, f"resume/kept/{number}", number, retain=True)
    with RawStream(bridge.port, "resume/kept/#") as first:
        first.read_messages(3)
    assert all(each.id.endswith("-r") for each in first.messages)
    has_left(bridge)
    publish(bridge, "resume/kept/live", 3)
    with RawStream(bridge.port, "resume/kept/#", last_event_id=first.messages[0].id) as back:
        back.read_messages(4)
        retained = [each.json["payload"] for each in back.messages if each.json["retain"]]
        live = [each.json["payload"] for each in back.messages if not each.json["retain"]]
        assert (sorted(retained), live) == ([0, 1, 2], [3])
        assert back.named("gap") == []
    has_left(bridge)
    unmarked = back.last_event_id.removesuffix("-r")
    with RawStream(bridge.port, "resume/kept/#", last_event_id=unmarked) as again:
        publish(bridge, "resume/kept/live", 4)
        assert again.read_messages(1) == [4]


def test_a_restart_of_the_bridge_is_a_gap_and_brings_the_retained_messages(mosquitto: Mosquitto) -> None:
    """Another run counts anew: the id says so by itself, and nothing is taken for continued."""
    topic = "resume/restart"
    with running_bridge(mosquitto.url) as bridge:
        publish(bridge, topic, "value", retain=True)
        with RawStream(bridge.port, topic) as first:
            first.read_messages(1)
            publish(bridge, topic, "live")
            first.read_messages(2)
    with (
        running_bridge(mosquitto.url) as bridge,
        RawStream(bridge.port, topic, last_event_id=first.last_event_id) as back,
    ):
        assert back.read_messages(1) == ["value"]
        gap, message = back.events
        assert (gap.name, gap.json) == (
            "gap",
            {"reason": "unknown_id", "last_event_id": first.last_event_id},
        )
        assert message.json["retain"]
        assert gap.id.partition("-")[0] != first.last_event_id.partition("-")[0]


@pytest.mark.parametrize("given", ["x-7", "0", "x" * 500])
def test_an_id_that_is_none_is_a_gap(bridge: Bridge, given: str) -> None:
    """Whatever a client made up."""
    with RawStream(bridge.port, "resume/none", last_event_id=given) as stream:
        stream.read_until(lambda: bool(stream.events))
        assert stream.named("gap") == [{"reason": "unknown_id", "last_event_id": given[:200]}]


def test_a_restart_of_the_broker_while_away_is_a_gap(fresh_mosquitto: Mosquitto) -> None:
    """What it took meanwhile is not known; what the bridge kept before and after comes all the same."""
    broker = fresh_mosquitto
    with running_bridge(broker.url) as bridge:
        publish(bridge, "kept", "value", retain=True)
        with RawStream(bridge.port, "live", "kept") as first:
            first.read_messages(1)
            publish(bridge, "live", 1)
            first.read_messages(2)
        has_left(bridge)
        publish(bridge, "live", 2)
        with RawStream(bridge.port, "witness") as witness:
            broker.restart()
            witness.read_until(lambda: bool(witness.named("gap")))
        publish(bridge, "kept", "new value", retain=True)
        publish(bridge, "live", 3)
        with RawStream(bridge.port, "live", "kept", last_event_id=first.last_event_id) as back:
            back.read_until(lambda: any(each.json["retain"] for each in back.messages))
            publish(bridge, "live", 4)
            back.read_until(lambda: bool(back.messages) and back.payloads[-1] == 4)
        assert back.named("gap")[0]["reason"] == "broker_connection"
        assert back.events[0].name == "gap"
        live = [each.json["payload"] for each in back.messages if each.json["topic"] == "live"]
        assert live == [2, 3, 4]
        kept = [each.json for each in back.messages if each.json["topic"] == "kept"]
        assert [(each["payload"], each["retain"]) for each in kept] in (
            [("new value", True)],
            [("new value", False), ("new value", True)],
        )


def test_what_the_journal_no_longer_has_is_a_gap(mosquitto: Mosquitto) -> None:
    """Bounded as the settings say; the newest are there."""
    with running_bridge(mosquitto.url, journal_max_messages=5) as bridge:
        with RawStream(bridge.port, "resume/bounded") as first:
            publish(bridge, "resume/bounded", 0)
            first.read_messages(1)
        has_left(bridge)
        for number in range(1, 11):
            publish(bridge, "resume/bounded", number)
        with RawStream(bridge.port, "resume/bounded", last_event_id=first.last_event_id) as back:
            assert back.read_messages(5) == [6, 7, 8, 9, 10]
            assert back.events[0].name == "gap"
            assert back.named("gap") == [
                {"reason": "not_kept", "last_event_id": first.last_event_id, "filters": ["resume/bounded"]}
            ]


def test_several_clients_come_back_each_to_its_own_place(bridge: Bridge) -> None:
    """One journal serves them all, and each filter its own."""
    places = []
    for number in range(5):
        with RawStream(bridge.port, "resume/many/#", "resume/other") as stream:
            publish(bridge, f"resume/many/{number % 2}", number)
            stream.read_messages(1)
            places.append(stream.last_event_id)
        has_left(bridge)
    for number, place in enumerate(places):
        with RawStream(bridge.port, "resume/other", "resume/many/#", last_event_id=place) as back:
            publish(bridge, "resume/other", "end")
            expected = [*range(number + 1, 5), *["end"] * (number + 1)]
            assert back.read_messages(len(expected)) == expected
        has_left(bridge)
