"""CloudEvents 1.0 into the broker, with Mosquitto's clients and the CloudEvents SDK on the other side."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import pytest
from cloudevents.core.bindings.http import (
    HTTPMessage,
    from_binary_event,
    to_binary_event,
)
from cloudevents.core.bindings.http import to_structured_event as to_structured
from cloudevents.core.v1.event import CloudEvent

from tests.support.bridge import Bridge, running_bridge
from tests.support.cloud_events import BATCH, EVENT, REQUIRED, STRUCTURED, followed
from tests.support.mosquitto import Mosquitto
from tests.support.mosquitto_clients import retained, subscribed


@pytest.fixture(scope="module")
def bridge(mosquitto: Mosquitto) -> Iterator[Bridge]:
    """A bridge that the tests of this module share."""
    with running_bridge(mosquitto.url, cloudevents_source="https://plant.example/mqtt") as running:
        yield running


@pytest.fixture(scope="module")
def old_bridge(mosquitto: Mosquitto) -> Iterator[Bridge]:
    """A bridge whose connection to the broker speaks MQTT 3.1.1."""
    with running_bridge(f"{mosquitto.url}?protocol=3.1.1") as running:
        yield running


def refusal(answer: httpx.Response) -> tuple[int, str, str | None]:
    """Status, type and field of a refusal."""
    found = answer.json()
    return answer.status_code, found["type"].removeprefix("urn:tidegate:problem:"), found.get("field")


# Binary mode, in.


def test_a_binary_event_becomes_user_properties(bridge: Bridge, mosquitto: Mosquitto) -> None:
    """Each attribute is a user property under its own name, in order; Content-Type is the content type, and
    the body the payload. What was asked for as a user property follows.
    """
    headers = {
        "Content-Type": "application/json; charset=utf-8",
        **REQUIRED,
        "ce-subject": "Euro%20%E2%82%AC%20%F0%9F%98%80",
        "ce-time": "2026-01-31T12:00:00.5+01:00",
        "ce-comexample": "5",
        "Mqtt-User-Property": "unit=celsius",
    }
    with subscribed(mosquitto, "events/binary") as subscriber:
        answer = bridge.client.post("/v1/topics/events/binary", content=b'{"x": 1.10}', headers=headers)
        assert 200 == answer.status_code
        seen = subscriber.next()
    assert '{"x": 1.10}' == seen.payload
    assert {"content-type": "application/json; charset=utf-8"} == seen.properties
    assert [
        ("specversion", "1.0"),
        ("id", "A-1"),
        ("source", "/sensors/7"),
        ("type", "com.example.measured"),
        ("subject", "Euro € 😀"),
        ("time", "2026-01-31T12:00:00.5+01:00"),
        ("comexample", "5"),
        ("unit", "celsius"),
    ] == seen.user_properties


def test_what_the_sdk_sends_is_taken(bridge: Bridge, mosquitto: Mosquitto) -> None:
    """The CloudEvents SDK's binary request, and what it reads from the answer to GET, are the same event."""
    attributes = {
        "id": "1 %",
        "source": "/é",
        "type": "t",
        "subject": 'say "x"',
        "datacontenttype": "text/plain",
    }
    event = CloudEvent(attributes, "dät")
    made = to_binary_event(event)
    answer = bridge.client.put("/v1/topics/events/sdk", content=made.body, headers=made.headers)
    assert 200 == answer.status_code, answer.text
    assert dict(retained(mosquitto, "events/sdk").user_properties)["subject"] == 'say "x"'
    got = bridge.client.get("/v1/topics/events/sdk")
    read = from_binary_event(HTTPMessage(dict(got.headers), got.content))
    assert (event.get_attributes(), "dät") == (read.get_attributes(), read.get_data())


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ('"a \\"b\\" c"', 'a "b" c'),
        ('"a%20b"', "a b"),
        ("a%2520b", "a%20b"),
        ("%c3%a9", "é"),
        ('5" pipe', '5" pipe'),
    ],
)
def test_header_values_are_decoded_once(
    bridge: Bridge, mosquitto: Mosquitto, raw: str, expected: str
) -> None:
    """Quoted strings are unescaped first, as older versions of the standard wrote them."""
    headers = {**REQUIRED, "ce-subject": raw}
    bridge.client.put("/v1/topics/events/decoded", content=b"x", headers=headers).raise_for_status()
    assert expected == dict(retained(mosquitto, "events/decoded").user_properties)["subject"]


@pytest.mark.parametrize(
    ("changed", "kind", "field"),
    [
        ({"ce-specversion": None}, "invalid-cloudevent", "ce-specversion"),
        ({"ce-id": None}, "invalid-cloudevent", "ce-id"),
        ({"ce-source": None}, "invalid-cloudevent", "ce-source"),
        ({"ce-type": None}, "invalid-cloudevent", "ce-type"),
        ({"ce-id": ""}, "invalid-cloudevent", "ce-id"),
        ({"ce-specversion": "0.3"}, "invalid-cloudevent", "ce-specversion"),
        ({"ce-time": "yesterday"}, "invalid-cloudevent", "ce-time"),
        ({"ce-time": "2026-02-31T12:00:00Z"}, "invalid-cloudevent", "ce-time"),
        ({"ce-subject": ""}, "invalid-cloudevent", "ce-subject"),
        ({"ce-my-extension": "x"}, "invalid-cloudevent", "ce-my-extension"),
        ({"ce-data": "x"}, "invalid-cloudevent", "ce-data"),
        ({"ce-datacontenttype": "text/plain"}, "invalid-cloudevent", "ce-datacontenttype"),
        ({"ce-subject": "%C0%A0"}, "invalid-header", "ce-subject"),
        ({"ce-subject": "100%"}, "invalid-header", "ce-subject"),
        ({"ce-subject": "a%00b"}, "invalid-header", "ce-subject"),
    ],
)
def test_what_is_no_event_is_refused(
    bridge: Bridge, changed: dict[str, str | None], kind: str, field: str
) -> None:
    """One ``ce-`` header is the claim to be an event; the problem names the header that is at fault."""
    headers = {name: value for name, value in {**REQUIRED, **changed}.items() if value is not None}
    answer = bridge.client.post("/v1/topics/events/refused", content=b"x", headers=headers)
    assert (400, kind, field) == refusal(answer)


def test_an_attribute_is_there_once(bridge: Bridge) -> None:
    """Twice is refused."""
    headers = [*REQUIRED.items(), ("ce-id", "B-2")]
    answer = bridge.client.post("/v1/topics/events/refused", content=b"x", headers=headers)
    assert (400, "invalid-header", "ce-id") == refusal(answer)


@pytest.mark.parametrize(
    ("method", "target"), [("DELETE", "/v1/topics/a"), ("POST", "/v1/publish"), ("POST", "/v1/subscribe")]
)
def test_other_calls_take_no_event(bridge: Bridge, method: str, target: str) -> None:
    """A header that would do nothing is refused."""
    headers = {**REQUIRED, "Content-Type": "application/json"}
    answer = bridge.client.request(method, target, content=b"{}", headers=headers)
    assert (400, "invalid-header", "ce-specversion") == refusal(answer)


# Structured mode, in.


def test_a_structured_event_is_published_as_it_is(bridge: Bridge, mosquitto: Mosquitto) -> None:
    """Every digit and space of it, with its content type; headers that say the same again are left aside."""
    text = EVENT.replace(",", " ,\n")
    headers = {"Content-Type": f"{STRUCTURED}; charset=UTF-8", "ce-id": "A-1"}
    bridge.client.put("/v1/topics/events/structured", content=text, headers=headers).raise_for_status()
    seen = retained(mosquitto, "events/structured")
    assert (text, []) == (seen.payload, seen.user_properties)
    assert {"content-type": f"{STRUCTURED}; charset=UTF-8"} == seen.properties


def test_what_the_sdk_writes_is_taken(bridge: Bridge) -> None:
    """The CloudEvents SDK's structured request, with extensions of each type."""
    event = CloudEvent({"source": "/s", "type": "t", "ext1": True, "ext2": 7, "ext3": "x"}, b"\x00\xff")
    made = to_structured(event)
    answer = bridge.client.post("/v1/topics/events/sdk-structured", content=made.body, headers=made.headers)
    assert 200 == answer.status_code, answer.text


@pytest.mark.parametrize(
    ("body", "status", "kind", "field"),
    [
        ("{", 400, "malformed-body", None),
        ("", 400, "malformed-body", None),
        ("[]", 400, "invalid-cloudevent", ""),
        ("{}", 400, "invalid-cloudevent", "/specversion"),
        (EVENT.replace("A-1", ""), 400, "invalid-cloudevent", "/id"),
        (EVENT.replace('"A-1"', "1"), 400, "invalid-cloudevent", "/id"),
        (EVENT.replace('"A-1"', "null"), 400, "invalid-cloudevent", "/id"),
        (EVENT.replace("1.0", "1.1", 1), 400, "invalid-cloudevent", "/specversion"),
        (EVENT.replace('"data"', '"my/ext":1,"data"'), 400, "invalid-cloudevent", "/my~1ext"),
        (EVENT.replace('"data"', '"ext":{},"data"'), 400, "invalid-cloudevent", "/ext"),
        (EVENT.replace('"data"', '"ext":1.5,"data"'), 400, "invalid-cloudevent", "/ext"),
        (EVENT.replace('"data"', '"data_base64":"AA==","data"'), 400, "invalid-cloudevent", "/data_base64"),
        (EVENT.replace('"data":1.10', '"data_base64":"?"'), 400, "invalid-cloudevent", "/data_base64"),
        (EVENT.replace('"data"', '"time":"now","data"'), 400, "invalid-cloudevent", "/time"),
    ],
)
def test_a_structured_body_that_is_no_event_is_refused(
    bridge: Bridge, body: str, status: int, kind: str, field: str | None
) -> None:
    """The problem has a JSON pointer into the body."""
    answer = bridge.client.post(
        "/v1/topics/events/refused", content=body, headers={"Content-Type": STRUCTURED}
    )
    assert (status, kind, field) == refusal(answer)


def test_a_member_that_is_null_is_none(bridge: Bridge) -> None:
    """Null is the same as left out, but for data."""
    body = EVENT.replace('"data":1.10', '"time":null,"data":null')
    answer = bridge.client.post("/v1/topics/events/null", content=body, headers={"Content-Type": STRUCTURED})
    assert 200 == answer.status_code


def test_a_batch_of_events_is_refused(bridge: Bridge) -> None:
    """One publish is one message."""
    answer = bridge.client.post("/v1/topics/events/a", content=f"[{EVENT}]", headers={"Content-Type": BATCH})
    assert (415, "unsupported-media-type", "Content-Type") == refusal(answer)


# MQTT 3.1.1.


def test_binary_mode_needs_mqtt_5(old_bridge: Bridge) -> None:
    """The hint is the other mode."""
    answer = old_bridge.client.post("/v1/topics/events/old", content=b"x", headers=REQUIRED)
    assert (400, "unsupported", "ce-specversion") == refusal(answer)
    assert STRUCTURED in answer.json()["hint"]


def test_structured_mode_does_not(old_bridge: Bridge, mosquitto: Mosquitto) -> None:
    """The event is in the payload, and is known for one by it; what is none is refused here too."""
    headers = {"Content-Type": STRUCTURED}
    target = "/v1/topics/events/old-structured"
    assert 400 == old_bridge.client.put(target, content=b"{}", headers=headers).status_code
    old_bridge.client.put(target, content=EVENT, headers=headers).raise_for_status()
    assert EVENT == retained(mosquitto, "events/old-structured").payload
    assert [json.loads(EVENT)] == followed(old_bridge, "events/old-structured")[:1]
