"""CloudEvents 1.0 out of the broker: on streams, and of what is kept."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from cloudevents.core.bindings.http import (
    HTTPMessage,
    from_structured_event,
)

from tests.support.bridge import Bridge, running_bridge
from tests.support.cloud_events import BATCH, BINARY, EVENT, NDJSON, REQUIRED, STRUCTURED, followed
from tests.support.mosquitto import Mosquitto
from tests.support.mosquitto_clients import publish
from tests.support.raw_stream import RawStream
from tests.support.sse import following


@pytest.fixture(scope="module")
def bridge(mosquitto: Mosquitto) -> Iterator[Bridge]:
    """A bridge that the tests of this module share."""
    with running_bridge(mosquitto.url, cloudevents_source="https://plant.example/mqtt") as running:
        yield running


def refusal(answer: httpx.Response) -> tuple[int, str, str | None]:
    """Status, type and field of a refusal."""
    found = answer.json()
    return answer.status_code, found["type"].removeprefix("urn:tidegate:problem:"), found.get("field")


# Streams.


@pytest.mark.parametrize("accept", ["text/event-stream", NDJSON])
def test_any_other_message_is_wrapped(bridge: Bridge, mosquitto: Mosquitto, accept: str) -> None:
    """With type, source, subject and time, and with its own data; the SDK reads it as an event."""
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    properties = [("user-property", "traceparent", trace), ("user-property", "unit", "celsius")]
    publish(mosquitto, "events/wrapped", b'{"x": 1.10}', retain=True, properties=properties)
    event = followed(bridge, "events/wrapped", accept=accept)[0]
    place = event.pop("tidegateid", None)
    assert (place is not None) is (accept == NDJSON)
    assert place is None or re.fullmatch(f"{event['id']}-[0-9a-f]{{8}}-r", place)
    assert {
        "specversion": "1.0",
        "id": event["id"],
        "source": "https://plant.example/mqtt",
        "type": "io.tidegate.message",
        "subject": "events/wrapped",
        "time": event["time"],
        "mqttqos": 1,
        "mqttretain": True,
        "traceparent": trace,
        "datacontenttype": "application/json",
        "data": {"x": 1.1},
    } == event
    read = from_structured_event(HTTPMessage({"content-type": STRUCTURED}, json.dumps(event).encode()))
    assert ("events/wrapped", {"x": 1.1}) == (read.get_subject(), read.get_data())


@pytest.mark.parametrize(
    ("payload", "content_type", "expected"),
    [
        (b"21.5", None, {"datacontenttype": "application/json", "data": 21.5}),
        (b"warm", None, {"datacontenttype": "text/plain", "data": "warm"}),
        (b"\xff", None, {"datacontenttype": "application/octet-stream", "data_base64": "/w=="}),
        (b"21.5", "text/plain", {"datacontenttype": "text/plain", "data": "21.5"}),
        (
            b'{"a":1}',
            "application/vnd.x+json; v=1",
            {"datacontenttype": "application/vnd.x+json; v=1", "data": {"a": 1}},
        ),
        (
            b"no JSON",
            "application/json",
            {"datacontenttype": "application/json", "data_base64": "bm8gSlNPTg=="},
        ),
        (b"\xff", "image/png", {"datacontenttype": "image/png", "data_base64": "/w=="}),
        (b"<a/>", "application/xml", {"datacontenttype": "application/xml", "data": "<a/>"}),
        (
            b"\xc3\xa9",
            "text/plain; charset=iso-8859-1",
            {"datacontenttype": "text/plain; charset=iso-8859-1", "data_base64": "w6k="},
        ),
        (b"1", "no media type", {"datacontenttype": "application/json", "data": 1}),
    ],
)
def test_data_is_what_its_type_says(
    bridge: Bridge, mosquitto: Mosquitto, payload: bytes, content_type: str | None, expected: dict[str, Any]
) -> None:
    """JSON stands as JSON where the type is JSON, text as a string, and the rest in base64; a type that is
    not there is told by what the payload is.
    """
    properties = [] if content_type is None else [("content-type", content_type)]
    publish(mosquitto, "events/data", payload, retain=True, properties=properties)
    event = followed(bridge, "events/data")[0]
    assert expected == {name: event[name] for name in event if name.startswith("data")}


def test_an_event_of_binary_mode_comes_out_as_it_is(bridge: Bridge, mosquitto: Mosquitto) -> None:
    """With its own id, source and type; a user property that is no attribute's name is none."""
    properties = [*BINARY, ("user-property", "ext", "x"), ("user-property", "No-Attribute", "x")]
    publish(mosquitto, "events/from-binary", b'{"x": 1.10}', retain=True, properties=properties)
    assert [
        {
            "specversion": "1.0",
            "id": "A-1",
            "source": "/sensors/7",
            "type": "com.example.measured",
            "ext": "x",
            "datacontenttype": "application/json",
            "data": {"x": 1.1},
        }
    ] == [each for each in followed(bridge, "events/from-binary") if "id" in each][:1]


@pytest.mark.parametrize("content_type", [STRUCTURED, f"{STRUCTURED}; charset=utf-8", None])
def test_an_event_of_structured_mode_comes_out_as_it_is(
    bridge: Bridge, mosquitto: Mosquitto, content_type: str | None
) -> None:
    """To the byte, but for line breaks; on MQTT 3.1.1 no content type says what it is."""
    properties = [] if content_type is None else [("content-type", content_type)]
    text = EVENT.replace(",", ",\n")
    publish(mosquitto, "events/from-structured", text.encode(), retain=True, properties=properties)
    answer = bridge.client.get("/v1/subscribe?topic=events/from-structured&limit=1&format=cloudevents")
    assert f"data: {text.replace(chr(10), ' ')}\n" in answer.text


@pytest.mark.parametrize(
    ("payload", "properties"),
    [
        (b'{"specversion":"1.0","id":"1"}', [("content-type", STRUCTURED)]),
        (b'"specversion"', []),
        (b"1", BINARY[:-1]),
        (b"1", [*BINARY[:1], ("user-property", "specversion", "0.3"), *BINARY[2:]]),
        (b"1", [("content-type", STRUCTURED), *BINARY[1:]]),
    ],
)
def test_what_is_not_quite_an_event_is_wrapped(
    bridge: Bridge, mosquitto: Mosquitto, payload: bytes, properties: list[tuple[str, ...]]
) -> None:
    """A stream of events has events alone, and nothing is left out of it."""
    publish(mosquitto, "events/not-quite", payload, retain=True, properties=properties)
    event = followed(bridge, "events/not-quite")[0]
    assert ("io.tidegate.message", json.loads(payload)) == (event["type"], event["data"])


@pytest.mark.parametrize(
    ("accept", "form", "media"),
    [
        (STRUCTURED, "", NDJSON),
        (f"{STRUCTURED}, text/event-stream", "", "text/event-stream; charset=utf-8"),
        (f"{STRUCTURED}, {NDJSON}", "", NDJSON),
        (f"text/event-stream;q=0.5, {NDJSON}, {STRUCTURED};q=0.1", "", NDJSON),
        (f"{NDJSON}", "&format=cloudevents", NDJSON),
        ("*/*", "&format=cloudevents", "text/event-stream; charset=utf-8"),
    ],
)
def test_how_events_are_asked_for(
    bridge: Bridge, mosquitto: Mosquitto, accept: str, form: str, media: str
) -> None:
    """By Accept, or in the query, since a browser's EventSource cannot set a header."""
    publish(mosquitto, "events/asked", b"1", retain=True)
    target = f"/v1/subscribe?topic=events/asked&limit=1{form}"
    answer = bridge.client.get(target, headers={"Accept": accept})
    assert media == answer.headers["content-type"]
    assert '"specversion":"1.0"' in answer.text


@pytest.mark.parametrize("accept", ["*/*", f"text/event-stream, {STRUCTURED};q=0", "application/*, */*"])
def test_nobody_gets_events_unasked(bridge: Bridge, mosquitto: Mosquitto, accept: str) -> None:
    """A wildcard does not ask for them."""
    publish(mosquitto, "events/asked", b"1", retain=True)
    answer = bridge.client.get("/v1/subscribe?topic=events/asked&limit=1", headers={"Accept": accept})
    assert "specversion" not in answer.text


def test_raw_and_events_exclude_one_another(bridge: Bridge) -> None:
    """A query that asks for payloads alone is not overruled by Accept."""
    answer = bridge.client.get("/v1/subscribe?topic=a&format=raw", headers={"Accept": STRUCTURED})
    assert (406, "not-acceptable", "Accept") == refusal(answer)


def test_events_by_body(bridge: Bridge, mosquitto: Mosquitto) -> None:
    """POST takes the format as a member."""
    publish(mosquitto, "events/body", b"1", retain=True)
    body = {"topics": ["events/body"], "limit": 1, "format": "cloudevents"}
    answer = bridge.client.post("/v1/subscribe", json=body)
    assert '"type":"io.tidegate.message"' in answer.text


def test_each_line_is_an_event(bridge: Bridge, mosquitto: Mosquitto) -> None:
    """Also what is to be told of the stream itself: an unknown id and the end, here."""
    publish(mosquitto, "events/lines", b"1", retain=True)
    target = "/v1/subscribe?topic=events/lines&limit=1&last_event_id=unknown"
    answer = bridge.client.get(target, headers={"Accept": STRUCTURED})
    events = [
        from_structured_event(HTTPMessage({"content-type": STRUCTURED}, line.encode()))
        for line in answer.text.splitlines()
    ]
    kinds = [each.get_type() for each in events]
    assert ["io.tidegate.gap", "io.tidegate.message", "io.tidegate.close"] == kinds
    assert {"reason": "limit", "may_reconnect": False} == events[-1].get_data()
    assert 3 == len({each.get_id() for each in events})


def test_a_line_says_where_to_go_on(bridge: Bridge, mosquitto: Mosquitto) -> None:
    """Its attribute tidegateid is what last_event_id takes; the event's own id is its sender's."""
    with RawStream(bridge.port, "events/resumed", accept=STRUCTURED) as stream:
        publish(mosquitto, "events/resumed", b'{"n":1}', properties=BINARY)
        publish(mosquitto, "events/resumed", b'{"n":2}', properties=BINARY)
        stream.read_until(lambda: len([each for each in stream.lines if each is not None]) == 2)
        first = next(each for each in stream.lines if each is not None)
    assert "A-1" == first["id"]
    with RawStream(
        bridge.port, "events/resumed", accept=STRUCTURED, last_event_id=first["tidegateid"]
    ) as back:
        back.read_until(lambda: any(back.lines))
        again = next(each for each in back.lines if each is not None)
    assert {"n": 2} == again["data"]


def test_server_sent_events_keep_their_own_ids_and_controls(bridge: Bridge, mosquitto: Mosquitto) -> None:
    """The field id is the place in the stream, and what has a name is as in every stream."""
    with following(bridge, "events/sse", format="cloudevents", limit="1") as stream:
        publish(mosquitto, "events/sse", b'{"n":1}', properties=BINARY)
        assert {"reason": "limit", "may_reconnect": False} == stream.wait_for("close")
        event = stream.events[0]
    assert ("message", "A-1") == (event.name, event.data["id"])
    assert event.id != "A-1"


def test_a_fault_is_an_attribute(mosquitto: Mosquitto, tmp_path: Any) -> None:
    """What does not match its JSON Schema is flagged in events too, whoever made them."""
    file = tmp_path / "schemas.json"
    file.write_text(json.dumps({"schemas": [{"topics": "events/fault/#", "schema": {"required": ["x"]}}]}))
    publish(mosquitto, "events/fault/wrapped", b"{}", retain=True)
    publish(mosquitto, "events/fault/structured", EVENT.encode(), retain=True)
    with running_bridge(mosquitto.url, schemas_file=file) as bridge:
        for topic in ("events/fault/wrapped", "events/fault/structured"):
            assert ': "x" is a required property' == followed(bridge, topic)[0]["tidegatefault"]


# What is kept.


def test_a_kept_binary_event_has_its_headers(bridge: Bridge, mosquitto: Mosquitto) -> None:
    """GET answers with ce- headers, encoded as the standard has it."""
    properties = [*BINARY, ("user-property", "subject", 'Euro € "x" 100%')]
    publish(mosquitto, "events/kept", b"{}", retain=True, properties=properties)
    got = bridge.client.get("/v1/topics/events/kept")
    found = {name: value for name, value in got.headers.items() if name.startswith("ce-")}
    assert {**REQUIRED, "ce-subject": "Euro%20%E2%82%AC%20%22x%22%20100%25"} == found
    assert ("application/json", b"{}") == (got.headers["content-type"], got.content)


def test_the_content_type_counts(bridge: Bridge, mosquitto: Mosquitto) -> None:
    """The MQTT binding's example has datacontenttype as a user property too; it is no header, and no second
    attribute.
    """
    properties = [*BINARY, ("user-property", "datacontenttype", "text/xml")]
    publish(mosquitto, "events/twice", b"{}", retain=True, properties=properties)
    assert "ce-datacontenttype" not in bridge.client.get("/v1/topics/events/twice").headers
    assert "application/json" == followed(bridge, "events/twice")[0]["datacontenttype"]


def test_a_kept_message_that_is_none_has_no_headers(bridge: Bridge, mosquitto: Mosquitto) -> None:
    """Three of four attributes make no event."""
    publish(mosquitto, "events/kept-none", b"{}", retain=True, properties=BINARY[:-1])
    got = bridge.client.get("/v1/topics/events/kept-none")
    assert [] == [name for name in got.headers if name.startswith("ce-")]


def test_a_kept_message_as_an_event(bridge: Bridge, mosquitto: Mosquitto) -> None:
    """Accept asks for structured mode, of a message that is an event and of one that is not."""
    publish(mosquitto, "events/get/a", b"21.50", retain=True)
    publish(mosquitto, "events/get/b", b"{}", retain=True, properties=BINARY)
    wrapped = bridge.client.get("/v1/topics/events/get/a", headers={"Accept": STRUCTURED})
    assert STRUCTURED == wrapped.headers["content-type"]
    assert ("events/get/a", 21.5) == (wrapped.json()["subject"], wrapped.json()["data"])
    assert b'"data":21.50' in wrapped.content
    event = bridge.client.get("/v1/topics/events/get/b", headers={"Accept": f"text/html, {STRUCTURED}"})
    assert ("A-1", {}) == (event.json()["id"], event.json()["data"])
    plain = bridge.client.get("/v1/topics/events/get/a", headers={"Accept": "*/*"})
    assert b"21.50" == plain.content


def test_a_list_as_a_batch(bridge: Bridge, mosquitto: Mosquitto) -> None:
    """A filter with wildcards answers the JSON batch format where Accept prefers it."""
    publish(mosquitto, "events/list/a", b"1", retain=True)
    publish(mosquitto, "events/list/b", EVENT.encode(), retain=True)
    got = bridge.client.get("/v1/topics/events/list/%23", headers={"Accept": BATCH})
    assert BATCH == got.headers["content-type"]
    assert ["events/list/a", None] == [each.get("subject") for each in got.json()]
    assert json.loads(EVENT) == got.json()[1]
