"""MQTT 5 properties in both directions, with Mosquitto's own clients on the other side."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

import httpx
import pytest

from tests.support.bridge import Bridge, running_bridge
from tests.support.mosquitto import Mosquitto
from tests.support.mosquitto_clients import Seen, publish, retained, subscribed
from tests.support.sse import following
from tests.support.websocket import SocketClient

USER_PROPERTIES: Final = [("unit", "celsius"), ("place", "Küche"), ("unit", "°C")]
SENT: Final = {
    "content-type": "application/json",
    "response-topic": "replies/é",
    "correlation-data": "request-7",
    "payload-format-indicator": 1,
}
"""As Mosquitto's clients name them, without the expiry, which counts down."""

AS_HEADERS: Final = [
    ("Content-Type", "application/json"),
    ("Mqtt-Message-Expiry", "3600"),
    ("Mqtt-Response-Topic", "replies/%C3%A9"),
    ("Mqtt-Correlation-Data", "cmVxdWVzdC03"),
    ("Mqtt-Payload-Format", "1"),
    ("Mqtt-User-Property", "unit=celsius"),
    ("Mqtt-User-Property", "place=K%C3%BCche"),
    ("Mqtt-User-Property", "unit=%C2%B0C"),
]
AS_JSON: Final[dict[str, Any]] = {
    "content_type": "application/json",
    "message_expiry": 3600,
    "response_topic": "replies/é",
    "correlation_data": "cmVxdWVzdC03",
    "payload_format": 1,
    "user_properties": [list(each) for each in USER_PROPERTIES],
}
AS_ARGUMENTS: Final = [
    *[(name, str(value)) for name, value in SENT.items()],
    ("message-expiry-interval", "3600"),
    *[("user-property", *pair) for pair in USER_PROPERTIES],
]


@pytest.fixture(scope="module")
def bridge(mosquitto: Mosquitto) -> Iterator[Bridge]:
    """A bridge that the tests of this module share."""
    with running_bridge(mosquitto.url) as running:
        yield running


@pytest.fixture(scope="module")
def old_bridge(mosquitto: Mosquitto) -> Iterator[Bridge]:
    """A bridge whose connection to the broker speaks MQTT 3.1.1."""
    with running_bridge(f"{mosquitto.url}?protocol=3.1.1") as running:
        yield running


def insist_on_all(seen: Seen) -> None:
    """Every property has arrived."""
    expiry = seen.properties.pop("message-expiry-interval")
    assert 3590 <= expiry <= 3600
    assert SENT == seen.properties
    assert USER_PROPERTIES == seen.user_properties


def problem(answer: httpx.Response) -> tuple[int, str, str | None]:
    """Status, type and field of a refusal."""
    found = answer.json()
    return answer.status_code, found["type"].removeprefix("urn:tidegate:problem:"), found.get("field")


# Out to the broker.


@pytest.mark.parametrize("way", ["headers", "query", "json", "websocket"])
def test_every_property_goes_out(bridge: Bridge, mosquitto: Mosquitto, way: str) -> None:
    """Whichever way it is said, a subscriber gets content type, format, expiry, response topic, correlation
    data, and user properties in their order.
    """
    topic = f"properties/out/{way}"
    message = {"topic": topic, "payload": {"x": 1}, "properties": AS_JSON}
    with subscribed(mosquitto, topic) as subscriber:
        if way == "headers":
            bridge.client.post(
                f"/v1/topics/{topic}", content=b'{"x": 1}', headers=AS_HEADERS
            ).raise_for_status()
        elif way == "query":
            query = "expiry=3600&response_topic=replies/%C3%A9&payload_format=1"
            headers = [
                each for each in AS_HEADERS if each[0] not in ("Mqtt-Message-Expiry", "Mqtt-Response-Topic")
            ]
            headers.remove(("Mqtt-Payload-Format", "1"))
            answer = bridge.client.post(f"/v1/topics/{topic}?{query}", content=b'{"x": 1}', headers=headers)
            answer.raise_for_status()
        elif way == "json":
            bridge.client.post("/v1/publish", json=message).raise_for_status()
        else:
            with SocketClient(bridge.port) as client:
                assert "ack" == client.ask("publish", id=1, **message)["op"]
        seen = subscriber.next()
    assert {"x": 1} == json.loads(seen.payload)
    insist_on_all(seen)


def test_a_message_without_properties_has_none(bridge: Bridge, mosquitto: Mosquitto) -> None:
    """Nothing is made up."""
    with subscribed(mosquitto, "properties/none") as subscriber:
        bridge.client.post("/v1/topics/properties/none", content=b"x").raise_for_status()
        seen = subscriber.next()
    assert ({}, []) == (seen.properties, seen.user_properties)


# In from the broker.


def test_every_property_comes_in_on_a_stream(bridge: Bridge, mosquitto: Mosquitto) -> None:
    """The envelope of Server-Sent Events has them all, as JSON that could be published again."""
    with following(bridge, "properties/in") as stream:
        publish(mosquitto, "properties/in", b'{"x": 1}', properties=AS_ARGUMENTS)
        stream.wait_for_messages(1)
    assert AS_JSON == stream.events[0].data["properties"]


def test_every_property_comes_in_on_a_line(bridge: Bridge, mosquitto: Mosquitto) -> None:
    """So does a line of NDJSON."""
    publish(mosquitto, "properties/line", b"1", retain=True, properties=AS_ARGUMENTS)
    answer = bridge.client.get(
        "/v1/subscribe?topic=properties/line&limit=1", headers={"Accept": "application/x-ndjson"}
    )
    properties = json.loads(answer.text.splitlines()[0])["properties"]
    assert 3590 <= properties["message_expiry"] <= 3600
    assert {**AS_JSON, "message_expiry": properties["message_expiry"]} == properties


def test_every_property_comes_in_over_a_websocket(bridge: Bridge, mosquitto: Mosquitto) -> None:
    """And a message of a WebSocket."""
    with SocketClient(bridge.port) as client:
        subscription = client.subscribe("properties/socket")
        publish(mosquitto, "properties/socket", b"1", properties=AS_ARGUMENTS)
        client.read_messages(subscription, 1)
        assert AS_JSON == client.messages(subscription)[0]["properties"]


def test_every_property_is_a_header_of_what_is_kept(bridge: Bridge, mosquitto: Mosquitto) -> None:
    """GET answers with the headers that a publish takes."""
    publish(mosquitto, "properties/kept", b'{"x": 1}', retain=True, properties=AS_ARGUMENTS)
    answer = bridge.client.get("/v1/topics/properties/kept")
    found = [(name.title(), value) for name, value in answer.headers.multi_items()]
    found = [each for each in found if each[0].startswith("Mqtt-") and each[0] != "Mqtt-Topic"]
    expiry = next(int(value) for name, value in found if name == "Mqtt-Message-Expiry")
    assert 3590 <= expiry <= 3600
    expected = [each for each in AS_HEADERS if each[0] not in ("Content-Type", "Mqtt-Message-Expiry")]
    assert sorted([*expected, ("Mqtt-Message-Expiry", str(expiry))]) == sorted(found)
    users = [value for name, value in found if name == "Mqtt-User-Property"]
    assert ["unit=celsius", "place=K%C3%BCche", "unit=%C2%B0C"] == users
    assert "application/json" == answer.headers["content-type"]


def test_what_get_answers_can_be_published(bridge: Bridge, mosquitto: Mosquitto) -> None:
    """The headers of one answer, sent with another publish, are the same properties again."""
    publish(mosquitto, "properties/first", b'{"x": 1}', retain=True, properties=AS_ARGUMENTS)
    got = bridge.client.get("/v1/topics/properties/first")
    copied = [
        (name, value)
        for name, value in got.headers.multi_items()
        if name == "content-type" or (name.startswith("mqtt-") and name != "mqtt-topic")
    ]
    bridge.client.put("/v1/topics/properties/second", content=got.content, headers=copied).raise_for_status()
    insist_on_all(retained(mosquitto, "properties/second"))


def test_a_page_of_another_origin_may_say_and_read_them(mosquitto: Mosquitto) -> None:
    """Where an origin is allowed, so are all headers that carry something."""
    page = "https://panel.example"
    names = ["mqtt-payload-format", "mqtt-message-expiry", "mqtt-response-topic", "traceparent", "ce-id"]
    with running_bridge(mosquitto.url, cors_origins=(page,)) as bridge:
        asked = {"Origin": page, "Access-Control-Request-Method": "POST"}
        asked["Access-Control-Request-Headers"] = ", ".join(names)
        preflight = bridge.client.options("/v1/topics/a", headers=asked)
        answer = bridge.client.get("/livez", headers={"Origin": page})
    assert 200 == preflight.status_code
    exposed = answer.headers["access-control-expose-headers"].lower().split(", ")
    assert [] == [name for name in names if name not in exposed]


# What is refused.


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Mqtt-Message-Expiry", "-1"),
        ("Mqtt-Message-Expiry", "1.5"),
        ("Mqtt-Message-Expiry", "4294967296"),
        ("Mqtt-Message-Expiry", ""),
        ("Mqtt-Payload-Format", "2"),
        ("Mqtt-Payload-Format", "utf-8"),
        ("Mqtt-Response-Topic", ""),
        ("Mqtt-Response-Topic", "a/%2B"),
        ("Mqtt-Response-Topic", "a%0Ab"),
        ("Mqtt-Response-Topic", "%FF"),
        ("Mqtt-Topic", "a"),
    ],
)
def test_a_header_that_cannot_be_read_is_refused(bridge: Bridge, name: str, value: str) -> None:
    """The problem names the header."""
    answer = bridge.client.post("/v1/topics/properties/bad", content=b"x", headers={name: value})
    assert (400, "invalid-header", name) == problem(answer)


@pytest.mark.parametrize("name", ["Mqtt-Message-Expiry", "Mqtt-Payload-Format", "Mqtt-Response-Topic"])
def test_a_header_that_has_one_value_is_there_once(bridge: Bridge, name: str) -> None:
    """Twice is refused, also where both say the same."""
    answer = bridge.client.post(
        "/v1/topics/properties/twice", content=b"1", headers=[(name, "1"), (name, "1")]
    )
    assert (400, "invalid-header", name) == problem(answer)


@pytest.mark.parametrize("value", ["2", "true", ""])
def test_a_format_in_the_query_is_0_or_1(bridge: Bridge, value: str) -> None:
    """Anything else is refused."""
    answer = bridge.client.post(f"/v1/topics/properties/bad?payload_format={value}", content=b"x")
    assert (400, "invalid-parameter", "payload_format") == problem(answer)


def test_header_and_query_have_to_agree(bridge: Bridge, mosquitto: Mosquitto) -> None:
    """A property said twice, and differently, is refused; the same said twice is said."""
    headers = {"Mqtt-Message-Expiry": "3600"}
    target = "/v1/topics/properties/both?retain=true&expiry="
    answer = bridge.client.post(target + "3601", content=b"x", headers=headers)
    assert (400, "invalid-header", "Mqtt-Message-Expiry") == problem(answer)
    bridge.client.post(target + "3600", content=b"x", headers=headers).raise_for_status()
    assert 3590 <= retained(mosquitto, "properties/both").properties["message-expiry-interval"] <= 3600


@pytest.mark.parametrize("field", ["payload_format", "Mqtt-Payload-Format", "/properties/payload_format"])
def test_bytes_are_not_sent_as_text(bridge: Bridge, field: str) -> None:
    """A payload that is said to be UTF-8 and is not is refused: a broker may end the connection on it."""
    if field == "payload_format":
        answer = bridge.client.post("/v1/topics/properties/text?payload_format=1", content=b"a\xff")
    elif field == "Mqtt-Payload-Format":
        answer = bridge.client.post("/v1/topics/properties/text", content=b"a\xff", headers={field: "1"})
    else:
        message = {"topic": "properties/text", "payload": "Yf8=", "encoding": "base64"}
        answer = bridge.client.post("/v1/publish", json={**message, "properties": {"payload_format": 1}})
    assert (422, "invalid-payload", field) == problem(answer)
    assert "byte 2" in answer.json()["detail"]


def test_bytes_may_be_sent_as_bytes(bridge: Bridge, mosquitto: Mosquitto) -> None:
    """Format 0 says nothing about the payload, and is carried."""
    target = "/v1/topics/properties/bytes?payload_format=0"
    bridge.client.put(target, content=b"\xff").raise_for_status()
    got = bridge.client.get("/v1/topics/properties/bytes")
    assert (b"\xff", "0") == (got.content, got.headers["mqtt-payload-format"])
    bridge.client.delete("/v1/topics/properties/bytes").raise_for_status()


@pytest.mark.parametrize(
    ("query", "headers", "field"),
    [
        ("?payload_format=0", {}, "payload_format"),
        ("", {"Mqtt-Payload-Format": "1"}, "Mqtt-Payload-Format"),
        ("", {"Mqtt-Message-Expiry": "1"}, "Mqtt-Message-Expiry"),
        ("", {"Mqtt-Response-Topic": "r"}, "Mqtt-Response-Topic"),
    ],
)
def test_a_property_is_refused_where_mqtt_has_none(
    old_bridge: Bridge, query: str, headers: dict[str, str], field: str
) -> None:
    """What a 3.1.1 connection cannot carry is refused, not dropped."""
    answer = old_bridge.client.post(f"/v1/topics/properties/old{query}", content=b"x", headers=headers)
    assert (400, "unsupported", field) == problem(answer)
