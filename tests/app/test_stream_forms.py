"""The forms of a stream: Server-Sent Events and NDJSON, in envelopes and raw, and how one is asked for."""

from __future__ import annotations

import base64
import json
import re
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.api.stream import forms
from app.api.stream.forms import EventStreamForm, Form, LinesForm, RawEventStreamForm, RawLinesForm
from app.hub.event import ControlEvent, Event
from app.hub.position import Epoch, Position, parse_position
from tests.support.bridge import Bridge, running_bridge, wait_until
from tests.support.mosquitto import Mosquitto
from tests.support.raw_stream import RawStream
from tidegate.message import Message

NDJSON = "application/x-ndjson"
EPOCH = Epoch()
FILTERS = "cdef4567"
"""The digest of the filters of a stream."""


@pytest.fixture(scope="module")
def bridge(mosquitto: Mosquitto) -> Iterator[Bridge]:
    """One bridge for the tests that only use it."""
    with running_bridge(mosquitto.url) as running:
        yield running


def publish(bridge: Bridge, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> None:
    """Publish a raw body, and insist that it was taken."""
    method = "PUT" if retain else "POST"
    answer = bridge.client.request(method, f"/v1/topics/{topic}?qos={qos}", content=payload)
    assert answer.is_success, answer.text


def event(payload: bytes, *, sequence: int = 7, qos: int = 2, retain: bool = False) -> Event:
    """A message."""
    return Event(Message("a", payload, qos, retain, received_at=1.0), EPOCH, sequence)


# Bytes.


def test_an_event_stream_opens_with_the_time_to_wait_and_the_place() -> None:
    """No data comes with it, so that a page hears of nothing."""
    opening = EventStreamForm().opening(Position(EPOCH, 3, FILTERS, True), ["look\nhere"])
    place = str(Position(EPOCH, 3, FILTERS, True)).encode()
    assert opening == b"retry: 2000\n\n: look\n: here\n\nid: %b\n\n" % place
    assert EventStreamForm().opening(None, []) == b"retry: 2000\n\n"


def test_lines_open_with_nothing() -> None:
    """The first line is the first message."""
    assert LinesForm().opening(Position(EPOCH, 3, FILTERS), ["remark"]) == b""
    assert RawLinesForm().opening(Position(EPOCH, 3, FILTERS), ["remark"]) == b""


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        (EventStreamForm(), b": heartbeat\n\n"),
        (RawEventStreamForm(), b": heartbeat\n\n"),
        (LinesForm(), b"\n"),
        (RawLinesForm(), b"\n"),
    ],
)
def test_heartbeats_are_no_events(form: Form, expected: bytes) -> None:
    """A comment, or an empty line."""
    assert form.heartbeat == expected


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        (EventStreamForm(), b'event: gap\nid: ID\ndata: {"reason":"not_kept"}\n\n'),
        (LinesForm(), b'{"event":"gap","id":"ID","reason":"not_kept"}\n'),
        (RawLinesForm(), b""),
    ],
)
def test_a_control_event_that_changes_the_place_has_an_id(form: Form, expected: bytes) -> None:
    """Who comes back after it is not told again."""
    gap = ControlEvent("gap", {"reason": "not_kept"}, sequence=9)
    encoded = form.encode([gap], 1, EPOCH, marked=False, filters=FILTERS)
    found = re.search(rb"[\w.]{22}-cdef4567", encoded)
    if found is not None:
        assert parse_position(found[0].decode(), EPOCH) == Position(EPOCH, 9, FILTERS)
        encoded = encoded.replace(found[0], b"ID")
    assert sorted(encoded.split(b"\n")) == sorted(expected.split(b"\n"))
    lag = form.encode([ControlEvent("lag", {"dropped": 2})], 1, EPOCH, marked=False)
    assert b"id" not in lag


def test_the_told_qos_is_the_lower() -> None:
    """A listener is told what it would have got, and the bytes of one are not taken for another's."""
    form, message = LinesForm(), event(b"1", qos=1)
    told = [json.loads(form.encode([message], qos, EPOCH, marked=False))["qos"] for qos in (0, 1, 2, 0)]
    assert told == [0, 1, 1, 0]


def test_a_mark_is_in_the_ids_as_long_as_it_is_asked_for() -> None:
    """Live messages between retained ones carry it, retained ones always do."""
    form, live, kept = LinesForm(), event(b"1"), event(b"2", retain=True)
    ids = [
        json.loads(form.encode([each], 1, EPOCH, marked=marked, filters=FILTERS))["id"]
        for each, marked in ((live, False), (live, True), (kept, False), (live, False))
    ]
    place = str(Position(EPOCH, 7, FILTERS))
    assert ids == [place, f"{place}-r", f"{place}-r", place]
    several = form.encode([live, kept], 1, EPOCH, marked=True, filters=FILTERS).splitlines()
    assert [json.loads(each)["id"] for each in several] == [f"{place}-r", f"{place}-r"]


def test_the_ids_are_those_of_the_filters_of_the_stream() -> None:
    """Streams with other filters share what was encoded, and not their ids."""
    for form in (LinesForm(), EventStreamForm(), RawEventStreamForm()):
        found = [form.encode([event(b"1")], 1, EPOCH, marked=False, filters=each) for each in "ab"]
        assert b"%b-a" % EPOCH.place(7) in found[0]
        assert found[0].replace(b"%b-a" % EPOCH.place(7), b"%b-b" % EPOCH.place(7)) == found[1]


def test_what_a_form_keeps_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many large messages go by, and whoever still holds them; the bytes are the same afterwards."""
    monkeypatch.setattr(forms, "KEPT_BYTES", 100_000)
    events = [event(b"x" * 10_000, sequence=number) for number in range(50)]
    first = [EventStreamForm().encode([each], 1, EPOCH, marked=False) for each in events]
    form = EventStreamForm()
    tracemalloc.start()
    try:
        for _ in range(2):
            assert first == [form.encode([each], 1, EPOCH, marked=False) for each in events]
        held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert held < 200_000


def test_a_run_of_events_is_joined_once_for_all_that_have_it() -> None:
    """And never given to who has another run, another QoS or another form."""
    form = EventStreamForm()
    events = [event(b"1", sequence=1), event(b"2", sequence=2), event(b"3", sequence=3)]
    first = form.encode(events, 1, EPOCH, marked=False)
    assert form.encode(list(events), 1, EPOCH, marked=False) is first
    for others, qos in ((events[:2], 1), (events, 0), (events[1:], 1)):
        found = form.encode(others, qos, EPOCH, marked=False)
        assert found == b"".join(form.encode([each], qos, EPOCH, marked=False) for each in others)
    assert form.encode(events, 1, EPOCH, marked=False) == first
    assert LinesForm().encode(events, 1, EPOCH, marked=False) != first


TEXT = st.text().map(str.encode) | st.binary() | st.text("\r\n\x85\u2028 :").map(str.encode)


@given(TEXT)
def test_raw_text_comes_back_from_an_event_stream(payload: bytes) -> None:
    """But for the kind of its line breaks, which the format does not carry; bytes come in base64."""
    text = RawEventStreamForm().encode([event(payload)], 1, EPOCH, marked=False).decode()
    assert text.endswith("\n\n")
    assert "\n\n" not in text[:-1]
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    assert lines[-2:] == ["", ""]
    read = "\n".join(
        line.removeprefix("data:").removeprefix(" ") for line in lines if line.startswith("data")
    )
    assert {line.partition(":")[0] for line in lines} <= {"id", "data", ""}
    try:
        expected = payload.decode().replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError:
        expected = base64.b64encode(payload).decode()
    assert read == expected


@given(TEXT | st.recursive(st.none() | st.text() | st.integers(), st.lists).map(json.dumps).map(str.encode))
def test_a_raw_line_is_one_json_value(payload: bytes) -> None:
    """JSON as it came, text as a string, bytes in base64."""
    line = RawLinesForm().encode([event(payload)], 1, EPOCH, marked=False)
    assert line.endswith(b"\n")
    assert b"\n" not in line[:-1]
    assert b"\r" not in line
    found = json.loads(line)
    try:
        expected: Any = json.loads(payload)
        json.dumps(expected, allow_nan=False)
    except ValueError:
        try:
            expected = payload.decode()
        except UnicodeDecodeError:
            expected = base64.b64encode(payload).decode()
    assert found == expected or found == payload.decode(errors="replace")


# Over a real connection.


def test_lines_by_accept(bridge: Bridge) -> None:
    """The whole envelope with the id in front, an object a line."""
    with RawStream(bridge.port, "forms/lines", accept=NDJSON) as stream:
        assert stream.headers["content-type"] == NDJSON
        assert stream.headers["cache-control"] == "no-store"
        publish(bridge, "forms/lines", b'{"a": 1.10}')
        publish(bridge, "forms/lines", b"two\nlines", qos=0)
        stream.read_until(lambda: len(stream.lines) == 2)
    first, second = stream.lines
    assert list(first) == ["id", "topic", "payload", "encoding", "qos", "retain", "time", "properties"]
    assert (first["payload"], first["encoding"], first["qos"]) == ({"a": 1.1}, "json", 1)
    assert (second["payload"], second["encoding"], second["qos"]) == ("two\nlines", "text", 0)
    assert b'"payload":{"a": 1.10}' in stream.text


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("*/*", "text/event-stream"),
        ("text/*", "text/event-stream"),
        ("application/x-ndjson, text/event-stream", "text/event-stream"),
        ("text/event-stream;q=0.5, application/x-ndjson", NDJSON),
        ("application/*", NDJSON),
    ],
)
def test_the_form_is_negotiated(bridge: Bridge, accept: str, form: str) -> None:
    """By RFC 9110 §12.5.1, with Server-Sent Events where nothing else is preferred."""
    with RawStream(bridge.port, "forms/accept", accept=accept) as stream:
        assert stream.headers["content-type"].partition(";")[0] == form


def test_the_payload_alone_as_events(bridge: Bridge) -> None:
    """Text of several lines, JSON untouched, and bytes in base64; each with its id."""
    payloads = [b"one\ntwo", b'{"b": 1,  "a": 2.50}', b"\xff\x00", b"", b"last"]
    with RawStream(bridge.port, "forms/raw", format="raw") as stream:
        for each in payloads:
            publish(bridge, "forms/raw", each)
        stream.read_messages_count(len(payloads))
        assert [each.data for each in stream.messages] == [
            "one\ntwo",
            '{"b": 1,  "a": 2.50}',
            base64.b64encode(b"\xff\x00").decode(),
            "",
            "last",
        ]
        assert len({each.id for each in stream.messages}) == len(payloads)


def test_the_payload_alone_as_lines(bridge: Bridge) -> None:
    """One JSON value a line, to be piped into a program that reads such."""
    payloads = [b"one\ntwo", b'{"b": 1,  "a": 2.50}', b"\xff\x00", b""]
    with RawStream(bridge.port, "forms/rawlines", accept=NDJSON, format="raw") as stream:
        for each in payloads:
            publish(bridge, "forms/rawlines", each)
        stream.read_until(lambda: len(stream.lines) == len(payloads))
    assert stream.text.splitlines() == [b'"one\\ntwo"', b'{"b": 1,  "a": 2.50}', b'"/wA="', b'""']


def test_control_events_are_lines_too(fresh_mosquitto: Mosquitto) -> None:
    """Told apart from messages by their first member."""
    with (
        running_bridge(fresh_mosquitto.url) as bridge,
        RawStream(bridge.port, "a", accept=NDJSON, last_event_id="x") as stream,
    ):
        fresh_mosquitto.restart()
        stream.read_until(lambda: len(stream.lines) >= 4)
        bridge.stop()
        stream.read_to_end()
    lines = [each for each in stream.lines if each is not None]
    assert [(next(iter(each)), each["event"]) for each in lines] == [
        ("event", name) for name in ("gap", "broker", "broker", "gap", "close")
    ]
    assert lines[-1] == {"event": "close", "reason": "shutdown", "may_reconnect": True}
    assert [("id" in each) for each in lines] == [True, False, False, True, False]


def test_raw_lines_end_where_a_gap_has_to_be_told(fresh_mosquitto: Mosquitto) -> None:
    """There is no room for a word between payloads, and silence would be a lie: the response ends."""
    with running_bridge(fresh_mosquitto.url) as bridge:
        with RawStream(bridge.port, "a", accept=NDJSON, format="raw") as stream:
            publish(bridge, "a", b"1")
            stream.read_until(lambda: len(stream.lines) == 1)
            fresh_mosquitto.restart()
            stream.read_to_end()
            assert (stream.has_ended, bytes(stream.text)) == (True, b"1\n")
        with RawStream(bridge.port, "a", accept=NDJSON, format="raw", last_event_id="x") as stream:
            stream.read_to_end()
            assert (stream.has_ended, bytes(stream.text)) == (True, b"")
        wait_until(lambda: bridge.app.state.hub.listeners == 0)
        assert {each.reason: count for each, count in bridge.app.state.hub.ended.items()} == {"gap": 2}


@pytest.mark.parametrize(
    ("accept", "form"), [("text/event-stream", "raw"), (NDJSON, "raw"), (NDJSON, "envelope")]
)
def test_a_quiet_stream_of_any_form_has_a_heartbeat(mosquitto: Mosquitto, accept: str, form: str) -> None:
    """A comment or an empty line, which is no event."""
    beat = b"\n" if accept == NDJSON else b": heartbeat\n\n"
    with (
        running_bridge(mosquitto.url, heartbeat_seconds=0.1) as bridge,
        RawStream(bridge.port, "quiet", accept=accept, format=form) as stream,
    ):
        stream.read_until(lambda: stream.text.count(beat) >= 2)
        assert stream.messages == [each for each in stream.lines if each is not None] == []
        publish(bridge, "quiet", b"1")
        stream.read_until(lambda: bool(stream.messages or any(each is not None for each in stream.lines)))


# In a body.


def test_a_stream_of_many_filters_in_a_body(bridge: Bridge) -> None:
    """More than a URL can hold; each of them is followed."""
    topics = [f"forms/many/{number:04d}/{'x' * 40}" for number in range(500)]
    with RawStream(bridge.port, body={"topics": topics, "qos": 0}) as stream:
        for topic in (topics[0], topics[250], topics[-1]):
            publish(bridge, topic, b"1")
        stream.read_messages_count(3)
        assert [each.json["topic"] for each in stream.messages] == [topics[0], topics[250], topics[-1]]
        assert {each.json["qos"] for each in stream.messages} == {0}


def test_a_body_may_say_all_that_a_query_may(bridge: Bridge) -> None:
    """Under the same names; the form of the answer is still asked for by Accept."""
    publish(bridge, "forms/body", b'"kept"', retain=True)
    body = {
        "topics": ["forms/body"],
        "qos": 2,
        "retained": False,
        "format": "raw",
        "policy": "latest",
        "interval": 0.01,
        "limit": 2,
        "idle_timeout": 60,
        "last_event_id": "",
    }
    with RawStream(bridge.port, body=body, accept=NDJSON) as stream:
        publish(bridge, "forms/body", b"1")
        stream.read_until(lambda: len(stream.lines) == 1)
        publish(bridge, "forms/body", b"2")
        stream.read_to_end()
        assert (stream.has_ended, bytes(stream.text)) == (True, b"1\n2\n")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "/topics"),
        ({"topics": []}, "/topics"),
        ({"topics": "a"}, "/topics"),
        ({"topics": [1]}, "/topics/0"),
        ({"topics": ["a"], "qos": "1"}, "/qos"),
        ({"topics": ["a"], "qos": False}, "/qos"),
        ({"topics": ["a"], "qos": 3}, "/qos"),
        ({"topics": ["a"], "retained": 1}, "/retained"),
        ({"topics": ["a"], "format": "xml"}, "/format"),
        ({"topics": ["a"], "policy": "oldest"}, "/policy"),
        ({"topics": ["a"], "interval": "1"}, "/interval"),
        ({"topics": ["a"], "interval": 0}, "/interval"),
        ({"topics": ["a"], "interval": 3601}, "/interval"),
        ({"topics": ["a"], "limit": 0}, "/limit"),
        ({"topics": ["a"], "limit": 1.5}, "/limit"),
        ({"topics": ["a"], "limit": True}, "/limit"),
        ({"topics": ["a"], "idle_timeout": -1}, "/idle_timeout"),
        ({"topics": ["a"], "last_event_id": 7}, "/last_event_id"),
        ({"topics": ["a"], "last_event_id": "x" * 201}, "/last_event_id"),
        (["a"], ""),
    ],
)
def test_a_body_is_read_strictly(bridge: Bridge, body: object, field: str) -> None:
    """422, with a JSON pointer to the fault."""
    answer = bridge.client.post("/v1/subscribe", json=body)
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["field"] == field


@pytest.mark.parametrize(
    ("body", "field", "words"),
    [
        ({"topics": []}, "/topics", "at least one topic filter"),
        ({"topics": "a"}, "/topics", "a list of topic filters"),
        ({"topic": ["a"]}, "/topic", "did you mean 'topics'?"),
        ({"topic": "a", "qos": 7}, "/topic", "did you mean 'topics'?"),
    ],
)
def test_what_is_wrong_with_the_filters_is_said(bridge: Bridge, body: object, field: str, words: str) -> None:
    """In words for whoever wrote the body."""
    answer = bridge.client.post("/v1/subscribe", json=body)
    assert (answer.status_code, answer.json()["field"]) == (422, field)
    assert words in answer.json()["detail"] + answer.json().get("hint", "")


def test_a_filter_in_a_body_is_named_by_its_place(bridge: Bridge) -> None:
    """The one that is malformed, not the whole list."""
    answer = bridge.client.post("/v1/subscribe", json={"topics": ["a", "b/#/c"]})
    assert (answer.status_code, answer.json()["field"]) == (400, "/topics/1")


@pytest.mark.parametrize(
    ("member", "hint"), [("topic", "'topics'"), ("retain", "'retained'"), ("idletimeout", "'idle_timeout'")]
)
def test_an_unknown_member_is_refused_with_the_nearest(bridge: Bridge, member: str, hint: str) -> None:
    """A typo is never silent."""
    answer = bridge.client.post("/v1/subscribe", json={"topics": ["a"], member: 1})
    assert (answer.status_code, answer.json()["field"]) == (422, f"/{member}")
    assert hint in answer.json()["hint"]


def test_a_body_that_does_not_say_that_it_is_json_is_refused(bridge: Bridge) -> None:
    """A page of another origin can send text without asking; JSON it cannot."""
    answer = bridge.client.post(
        "/v1/subscribe", content=b'{"topics":["a"]}', headers={"Content-Type": "text/plain"}
    )
    assert (answer.status_code, answer.json()["field"]) == (415, "Content-Type")


def test_a_body_takes_no_query_beside_it(bridge: Bridge) -> None:
    """What is said twice might be said differently."""
    answer = bridge.client.post("/v1/subscribe?qos=1", json={"topics": ["a"]})
    assert (answer.status_code, answer.json()["field"]) == (400, "qos")


def test_properties_of_messages_have_no_place_in_a_subscription(bridge: Bridge) -> None:
    """They belong to a publish, and are not ignored."""
    answer = bridge.client.post(
        "/v1/subscribe", json={"topics": ["a"]}, headers={"Mqtt-User-Property": "a=b"}
    )
    assert (answer.status_code, answer.json()["field"]) == (400, "Mqtt-User-Property")


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("policy=oldest", "policy"),
        ("policy=", "policy"),
        ("format=xml", "format"),
        ("interval=0", "interval"),
        ("interval=1e3", "interval"),
        ("interval=nan", "interval"),
        ("interval=-1", "interval"),
        ("interval=3601", "interval"),
        ("limit=0", "limit"),
        ("limit=1.5", "limit"),
        ("limit=99999999999999999999", "limit"),
        ("limit=%D9%A1", "limit"),
        ("idle_timeout=.", "idle_timeout"),
        ("idle_timeout=inf", "idle_timeout"),
        ("limit=1&limit=2", "limit"),
    ],
)
def test_an_option_of_a_query_is_read_strictly(bridge: Bridge, query: str, field: str) -> None:
    """400, with the parameter's name."""
    answer = bridge.client.get(f"/v1/subscribe?topic=a&{query}")
    assert (answer.status_code, answer.json()["field"]) == (400, field), answer.text


def test_the_number_of_filters_is_bounded(mosquitto: Mosquitto) -> None:
    """By the setting, in a body and in a query, and the refusal says by how many."""
    with running_bridge(mosquitto.url, max_filters_per_stream=2) as bridge:
        in_body = bridge.client.post("/v1/subscribe", json={"topics": ["a", "b", "c"]})
        in_query = bridge.client.get("/v1/subscribe?topic=a&topic=b&topic=c")
        for answer, field in ((in_body, "/topics"), (in_query, "topic")):
            assert (answer.status_code, answer.json()["field"]) == (400, field)
            assert "TIDEGATE_MAX_FILTERS_PER_STREAM allows 2" in answer.json()["detail"]
