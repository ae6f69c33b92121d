from __future__ import annotations

import asyncio
import base64
import json
import socket
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.support.bridge import Bridge, running_bridge, wait_until
from tests.support.brokers import Client
from tests.support.mosquitto import Mosquitto
from tests.support.ports import LOOPBACK, ReservedPort
from tidegate.connection import ConnectOptions, Subscription
from tidegate.connections.aiomqtt_connection import connect
from tidegate.memory import MemoryBroker
from tidegate.message import NO_PROPERTIES, Message, Properties


@pytest.fixture(scope="module")
def bridge(mosquitto: Mosquitto) -> Iterator[Bridge]:
    """A bridge that the tests of this module share; it takes bodies of 1,000 bytes, for half a second."""
    with running_bridge(mosquitto.url, max_body_bytes=1000, body_timeout_seconds=0.5) as running:
        yield running


@pytest.fixture(scope="module")
def old_bridge(mosquitto: Mosquitto) -> Iterator[Bridge]:
    """A bridge whose connection to the broker speaks MQTT 3.1.1."""
    with running_bridge(f"{mosquitto.url}?protocol=3.1.1") as running:
        yield running


@pytest.fixture
async def follower(mosquitto: Mosquitto) -> AsyncIterator[Client]:
    """An MQTT client that follows publish/# with QoS 2."""
    client = Client()
    options = ConnectOptions(LOOPBACK, mosquitto.port, client_id="follower", protocol_version=5)
    client.connection = await connect(options, client)
    await client.subscribe(Subscription("publish/#", qos=2, retain_handling=2, retain_as_published=True))
    yield client
    await client.connection.close()


def problem(answer: Any) -> str:
    """The name of an answer's problem type; the answer must be a problem."""
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == answer.status_code
    found: str = answer.json()["type"]
    return found.removeprefix("urn:tidegate:problem:")


# What arrives.


async def test_the_body_arrives_as_it_is(bridge: Bridge, follower: Client) -> None:
    """The payload is the body, byte for byte, with the default QoS 1 and not retained."""
    octets = bytes(range(256))
    answer = bridge.client.post("/v1/topics/publish/bytes", content=octets)
    expected = {"topic": "publish/bytes", "qos": 1, "retain": False, "reason_code": 0, "reason": "Success"}
    assert (answer.status_code, answer.json()) == (200, expected)
    message = await follower.message()
    assert (message.topic, message.payload, message.qos, message.retain) == (
        "publish/bytes",
        octets,
        1,
        False,
    )
    assert message.properties == NO_PROPERTIES


@pytest.mark.parametrize(("qos", "status"), [(0, 202), (1, 200), (2, 200)])
async def test_the_status_tells_what_the_broker_said(
    bridge: Bridge, follower: Client, qos: int, status: int
) -> None:
    """QoS 0 is 202, since nobody acknowledges it; QoS 1 and 2 are 200, since the broker did."""
    answer = bridge.client.post(f"/v1/topics/publish/qos?qos={qos}", content=b"x")
    assert (answer.status_code, answer.json()["qos"]) == (status, qos)
    assert (await follower.message()).qos == qos


def test_a_message_that_nobody_gets_is_a_success(bridge: Bridge) -> None:
    """Reason code 16 says that nobody subscribes: the broker took the message all the same."""
    answer = bridge.client.post("/v1/topics/nobody/listens", content=b"x")
    assert answer.status_code == 200
    assert answer.json()["reason_code"] == 16
    assert answer.json()["reason"] == "No matching subscribers"


async def test_an_empty_body_is_a_message(bridge: Bridge, follower: Client) -> None:
    """An empty payload is allowed where the message is not retained."""
    assert bridge.client.post("/v1/topics/publish/empty").status_code == 200
    assert (await follower.message()).payload == b""


async def test_a_chunked_body_arrives_whole(bridge: Bridge, follower: Client) -> None:
    """A body without a length is put together."""
    pieces = [b"one ", b"two ", b"three"]
    assert bridge.client.post("/v1/topics/publish/chunks", content=iter(pieces)).status_code == 200
    assert (await follower.message()).payload == b"one two three"


async def test_properties_arrive(bridge: Bridge, follower: Client) -> None:
    """Query and headers become MQTT 5 properties; user properties repeat and keep their order."""
    answer = bridge.client.post(
        "/v1/topics/publish/properties?expiry=3600&response_topic=replies/7",
        content=b"{}",
        headers=[
            ("Content-Type", "application/json; charset=utf-8"),
            ("Mqtt-User-Property", "unit=celsius"),
            ("Mqtt-User-Property", "caf%C3%A9%3D1=100%25 a=b"),
            ("Mqtt-User-Property", "unit="),
            ("Mqtt-Correlation-Data", base64.b64encode(b"\x00\xff").decode()),
        ],
    )
    assert answer.status_code == 200
    assert (await follower.message()).properties == Properties(
        message_expiry=3600,
        content_type="application/json; charset=utf-8",
        response_topic="replies/7",
        correlation_data=b"\x00\xff",
        user_properties=(("unit", "celsius"), ("café=1", "100% a=b"), ("unit", "")),
    )


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        ("text/plain", "text/plain"),
        ("application/x-www-form-urlencoded", None),
        ("Application/X-WWW-Form-URLEncoded; charset=UTF-8", None),
    ],
)
async def test_the_form_type_that_curl_sends_is_no_content_type(
    bridge: Bridge, follower: Client, content_type: str, expected: str | None
) -> None:
    """``curl -d`` says "form" without being asked; any other type is the message's."""
    bridge.client.post("/v1/topics/publish/type", content=b"x", headers={"Content-Type": content_type})
    assert (await follower.message()).properties.content_type == expected


# What is kept.


async def test_put_keeps_get_reads_and_delete_clears(bridge: Bridge, follower: Client) -> None:
    """The retained message is the topic's value: set, read with its properties, and cleared."""
    put = bridge.client.put(
        "/v1/topics/publish/kept%20%E2%82%AC?qos=2",
        content=b"\x00value",
        headers=[("Content-Type", "application/x-thing"), ("Mqtt-User-Property", "a%3D=%E2%82%AC")],
    )
    assert (put.status_code, put.json()["retain"]) == (200, True)
    seen = await follower.message()
    assert (seen.retain, seen.qos) == (True, 2)
    got = bridge.client.get("/v1/topics/publish/kept%20%E2%82%AC")
    assert (got.status_code, got.content) == (200, b"\x00value")
    assert got.headers["content-type"] == "application/x-thing"
    assert got.headers["mqtt-topic"] == "publish/kept%20%E2%82%AC"
    assert got.headers["mqtt-user-property"] == "a%3D=%E2%82%AC"
    assert got.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in got.headers["content-security-policy"]
    deleted = bridge.client.delete("/v1/topics/publish/kept%20%E2%82%AC")
    assert (deleted.status_code, deleted.json()["retain"]) == (200, True)
    gone = bridge.client.get("/v1/topics/publish/kept%20%E2%82%AC")
    assert (gone.status_code, problem(gone)) == (404, "no-retained-message")


def test_a_retained_message_without_a_content_type_is_bytes(bridge: Bridge) -> None:
    """Nothing is guessed from the payload."""
    bridge.client.post("/v1/topics/plain/kept?retain=true", content=b"<script>alert(1)</script>")
    got = bridge.client.get("/v1/topics/plain/kept")
    assert got.headers["content-type"] == "application/octet-stream"
    assert "mqtt-user-property" not in got.headers


@pytest.mark.parametrize("content_type", ["no media type", "text/plain\u20ac"])
async def test_a_content_type_that_is_none_becomes_no_header(
    bridge: Bridge, follower: Client, content_type: str
) -> None:
    """An MQTT content type is any text; only a media type may be a header."""
    message = Message("odd/type", b"x", 1, True, Properties(content_type=content_type))
    await follower.publish(message)
    got = await asyncio.to_thread(bridge.client.get, "/v1/topics/odd/type")
    assert (got.status_code, got.headers["content-type"]) == (200, "application/octet-stream")


def test_all_properties_come_back_as_headers(bridge: Bridge) -> None:
    """What was published with a value can be read with it."""
    bridge.client.put(
        "/v1/topics/headers/all?expiry=1000&response_topic=r/%C3%A9",
        content=b"x",
        headers={"Mqtt-Correlation-Data": "AP8="},
    )
    got = bridge.client.get("/v1/topics/headers/all").headers
    assert got["mqtt-response-topic"] == "r/%C3%A9"
    assert got["mqtt-correlation-data"] == "AP8="
    assert 0 < int(got["mqtt-message-expiry"]) <= 1000


@pytest.mark.parametrize("target", ["/v1/topics/list/+/a", "/v1/topics?topic=list/%2B/a"])
def test_a_filter_reads_a_list(bridge: Bridge, target: str) -> None:
    """A filter with wildcards answers all that match, ordered by topic, as the objects that streams have."""
    for number, payload in enumerate((b"1.10", b"text", b"\xff")):
        bridge.client.put(f"/v1/topics/list/{number}/a", content=payload)
    bridge.client.put("/v1/topics/list/9/b", content=b"another")
    got = bridge.client.get(target)
    assert (got.status_code, got.headers["content-type"]) == (200, "application/json")
    found = [(each["topic"], each["payload"], each["encoding"]) for each in got.json()]
    assert found == [
        ("list/0/a", 1.1, "json"),
        ("list/1/a", "text", "text"),
        ("list/2/a", "/w==", "base64"),
    ]
    assert b":1.10," in got.content


def test_a_list_comes_as_lines_where_the_client_likes_that(bridge: Bridge) -> None:
    """With Accept: application/x-ndjson each message is one line."""
    for number in range(3):
        bridge.client.put(f"/v1/topics/lines/{number}", content=b"%d" % number)
    got = bridge.client.get("/v1/topics/lines/%23", headers={"Accept": "application/x-ndjson, */*;q=0.1"})
    assert got.headers["content-type"] == "application/x-ndjson"
    assert [json.loads(line)["payload"] for line in got.text.splitlines()] == [0, 1, 2]


def test_a_list_of_nothing_is_empty(bridge: Bridge) -> None:
    """A filter that nothing matches is an empty list, and no error."""
    got = bridge.client.get("/v1/topics/nothing/here/%23")
    assert (got.status_code, got.json()) == (200, [])


def test_a_form_that_does_not_exist_is_not_acceptable(bridge: Bridge) -> None:
    """A client that takes neither JSON nor lines is told so before the broker is asked."""
    got = bridge.client.get("/v1/topics/list/%23", headers={"Accept": "text/html, application/json;q=0"})
    assert (got.status_code, problem(got)) == (406, "not-acceptable")


def test_a_list_too_long_is_refused(mosquitto: Mosquitto) -> None:
    """One answer holds a bounded number of messages, and says so."""
    with running_bridge(mosquitto.url, max_retained_messages=2) as bridge:
        for number in range(3):
            bridge.client.put(f"/v1/topics/many/{number}", content=b"x")
        got = bridge.client.get("/v1/topics/many/%23")
        assert (got.status_code, problem(got)) == (422, "too-many-retained")
        assert bridge.client.get("/v1/topics/many/1").content == b"x"


def test_the_brokers_own_topics_may_be_read(bridge: Bridge) -> None:
    """Only publishing to a topic that begins with $ is refused."""
    answer = bridge.client.get("/v1/topics/$SYS/broker/version")
    assert answer.status_code == 200
    assert answer.content.startswith(b"mosquitto version")


# JSON.


@pytest.mark.parametrize(
    "payload",
    [
        '{"b": 1.10,  "a": 12345678901234567890.0123456789}',
        "1e400",
        "9" * 500,
        '{"twice":1,"twice":2}',
        '"caf\\u00e9 \\ud83d\\ude00"',
        "[]",
        "null",
        "-0.0",
        '[[1, {"}":"]"}], "\\"", "\\\\"]',
    ],
)
async def test_a_json_payload_is_published_as_it_was_written(
    bridge: Bridge, follower: Client, payload: str
) -> None:
    """No digit, space, escape or repeated name of a JSON payload is lost."""
    body = '{ "qos" : 2 , "payload":\n' + payload + '\n, "topic":"publish/json" }'
    answer = bridge.client.post(
        "/v1/publish", content=body.encode(), headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 200
    message = await follower.message()
    assert (message.payload.decode(), message.qos) == (payload, 2)


@pytest.mark.parametrize(
    ("encoding", "payload", "expected"),
    [
        ("text", "21.5 °C\n", "21.5 °C\n".encode()),
        ("text", "", b""),
        ("base64", "AP8=", b"\x00\xff"),
        ("base64", "", b""),
        ("json", "text", b'"text"'),
    ],
)
async def test_the_encoding_says_what_a_string_stands_for(
    bridge: Bridge, follower: Client, encoding: str, payload: str, expected: bytes
) -> None:
    """Text is published as UTF-8, base64 decoded, and JSON as JSON."""
    message = {"topic": "publish/encoding", "payload": payload, "encoding": encoding}
    assert bridge.client.post("/v1/publish", json=message).status_code == 200
    assert (await follower.message()).payload == expected


async def test_json_carries_all_properties(bridge: Bridge, follower: Client) -> None:
    """The member "properties" has every property that a PUBLISH may have."""
    properties = {
        "content_type": "text/plain",
        "message_expiry": 4_294_967_295,
        "response_topic": "replies/7",
        "correlation_data": "AP8=",
        "payload_format": 1,
        "user_properties": [["b", "1"], ["a", "é"], ["b", "2"]],
    }
    message = {"topic": "publish/all", "payload": "x", "encoding": "text", "retain": True, "qos": 0}
    answer = bridge.client.post("/v1/publish", json={**message, "properties": properties})
    assert (answer.status_code, answer.json()["retain"]) == (202, True)
    found = (await follower.message()).properties
    assert found.message_expiry is not None
    assert found == Properties(
        payload_format=1,
        message_expiry=found.message_expiry,
        content_type="text/plain",
        response_topic="replies/7",
        correlation_data=b"\x00\xff",
        user_properties=(("b", "1"), ("a", "é"), ("b", "2")),
    )
    bridge.client.delete("/v1/topics/publish/all")


def test_a_json_type_with_a_suffix_is_json(bridge: Bridge) -> None:
    """Any application/…+json is JSON, with parameters or without."""
    for content_type in ("application/json; charset=utf-8", "application/vnd.example+json"):
        answer = bridge.client.post(
            "/v1/publish", content=b'{"topic":"a","payload":1}', headers={"Content-Type": content_type}
        )
        assert answer.status_code == 200


# MQTT 3.1.1.


def test_a_content_type_is_left_aside_where_mqtt_has_none(old_bridge: Bridge) -> None:
    """Every client sends a Content-Type: on a 3.1.1 connection it is not refused."""
    answer = old_bridge.client.put(
        "/v1/topics/old/type", content=b"x", headers={"Content-Type": "text/plain"}
    )
    assert answer.status_code == 200
    assert old_bridge.client.get("/v1/topics/old/type").headers["content-type"] == "application/octet-stream"


@pytest.mark.parametrize(
    ("query", "headers", "field"),
    [
        ("?expiry=1", {}, "expiry"),
        ("?response_topic=r", {}, "response_topic"),
        ("", {"Mqtt-User-Property": "a=b"}, "Mqtt-User-Property"),
        ("", {"Mqtt-Correlation-Data": "AP8="}, "Mqtt-Correlation-Data"),
    ],
)
def test_a_property_is_refused_where_mqtt_has_none(
    old_bridge: Bridge, query: str, headers: dict[str, str], field: str
) -> None:
    """What a 3.1.1 connection cannot carry is refused, not dropped."""
    answer = old_bridge.client.post(f"/v1/topics/old/refused{query}", content=b"x", headers=headers)
    assert (answer.status_code, problem(answer), answer.json()["field"]) == (400, "unsupported", field)


def test_json_properties_are_refused_where_mqtt_has_none(old_bridge: Bridge) -> None:
    """The same holds for the member "properties"; an empty one asks for nothing."""
    message = {"topic": "old/json", "payload": 1}
    refused = old_bridge.client.post("/v1/publish", json={**message, "properties": {"content_type": "a/b"}})
    assert (refused.status_code, refused.json()["field"]) == (400, "/properties")
    assert old_bridge.client.post("/v1/publish", json={**message, "properties": {}}).status_code == 200


def test_a_content_type_does_not_fail_a_publish_that_waited(fresh_mosquitto: Mosquitto) -> None:
    """A request that came before the connection leaves its Content-Type aside once that is 3.1.1."""
    fresh_mosquitto.kill()
    url = f"{fresh_mosquitto.url}?protocol=3.1.1"
    with running_bridge(url, wait_until_ready=False) as bridge, ThreadPoolExecutor() as pool:
        waiting = pool.submit(
            bridge.client.post, "/v1/topics/waited", content=b"x", headers={"Content-Type": "text/plain"}
        )
        wait_until(lambda: bridge.app.state.link.session.waiting == 1)
        fresh_mosquitto.start()
        assert waiting.result().status_code == 200


# Bounds.


def test_a_body_too_large_is_refused_by_its_length(bridge: Bridge) -> None:
    """The header is enough: the answer comes before the body is sent."""
    answer = bridge.raw("POST", b"/v1/topics/a", headers={"Content-Length": "1001"}, body=b"x")
    assert answer.status == 413
    assert answer.json()["type"] == "urn:tidegate:problem:body-too-large"
    assert answer.headers["connection"] == "close"


def test_a_chunked_body_too_large_is_refused(bridge: Bridge) -> None:
    """A body that tells no length is cut off at the bound."""
    chunk = b"1f4\r\n" + b"x" * 500 + b"\r\n"
    answer = bridge.raw("POST", b"/v1/topics/a", headers={"Transfer-Encoding": "chunked"}, body=chunk * 3)
    assert answer.status == 413


def test_the_largest_body_passes(bridge: Bridge) -> None:
    """The bound itself is allowed, with a length and in chunks."""
    assert bridge.client.post("/v1/topics/a", content=b"x" * 1000).status_code == 200
    assert bridge.client.post("/v1/topics/a", content=iter([b"x" * 500] * 2)).status_code == 200


@pytest.mark.parametrize("body", [b"", b"some"])
def test_a_body_that_stalls_is_given_up(bridge: Bridge, body: bytes) -> None:
    """A client that announces a body and does not send it is answered 408, and nothing is published."""
    answer = bridge.raw("POST", b"/v1/topics/a", headers={"Content-Length": "10"}, body=body)
    assert answer.status == 408
    assert answer.json()["type"] == "urn:tidegate:problem:body-timeout"


async def test_a_client_that_leaves_amid_its_body_publishes_nothing(bridge: Bridge, follower: Client) -> None:
    """Half a body is no message."""
    with socket.create_connection((LOOPBACK, bridge.port)) as connection:
        connection.sendall(
            b"POST /v1/topics/publish/half HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 10\r\n\r\nhalf"
        )
    bridge.client.post("/v1/topics/publish/whole", content=b"x")
    assert (await follower.message()).topic == "publish/whole"


# Refusals and outages.


def test_a_publish_that_the_broker_forbids_is_403() -> None:
    """The broker's access rules speak through its reason code, which the problem names."""
    with (
        Mosquitto(acl="topic readwrite allowed/#\ntopic read forbidden/#") as broker,
        running_bridge(broker.url) as bridge,
    ):
        for qos in (1, 2):
            answer = bridge.client.post(f"/v1/topics/forbidden/a?qos={qos}", content=b"x")
            assert (answer.status_code, problem(answer)) == (403, "not-authorized")
            assert (answer.json()["reason_code"], answer.json()["reason"]) == (135, "Not authorized")
        assert bridge.client.post("/v1/topics/allowed/a", content=b"x").status_code == 200


@pytest.mark.parametrize(
    ("reason_code", "status", "kind"),
    [
        (0x80, 502, "refused-by-broker"),
        (0x83, 502, "refused-by-broker"),
        (0x87, 403, "not-authorized"),
        (0x90, 400, "invalid-topic"),
        (0x95, 413, "packet-too-large"),
        (0x97, 429, "quota-exceeded"),
        (0x99, 422, "invalid-payload"),
    ],
)
def test_a_refusing_reason_code_is_an_error_that_names_it(reason_code: int, status: int, kind: str) -> None:
    """Whatever the broker refuses with is told, by every call that publishes."""

    def authorize(action: str, topic: str, options: ConnectOptions) -> int:
        return reason_code if action == "publish" else 0

    memory = MemoryBroker(authorize=authorize)
    with running_bridge("mqtt://memory.test", connect=memory.connect) as bridge:
        for answer in (
            bridge.client.post("/v1/topics/a", content=b"x"),
            bridge.client.put("/v1/topics/a?qos=2", content=b"x"),
            bridge.client.delete("/v1/topics/a"),
            bridge.client.post("/v1/publish", json={"topic": "a", "payload": 1}),
        ):
            assert (answer.status_code, problem(answer)) == (status, kind)
            assert answer.json()["reason_code"] == reason_code


def test_a_read_that_the_broker_forbids_is_403() -> None:
    """A filter that may not be subscribed to may not be read either."""
    with Mosquitto(denied="denied/#") as broker, running_bridge(broker.url) as bridge:
        answer = bridge.client.get("/v1/topics/denied/a")
        assert (answer.status_code, problem(answer)) == (403, "not-authorized")


def test_a_message_too_large_for_the_broker_is_413() -> None:
    """The broker's own bound is known from CONNACK, and the connection does not suffer."""
    with Mosquitto(extra=["max_packet_size 2000"]) as broker, running_bridge(broker.url) as bridge:
        answer = bridge.client.post("/v1/topics/large", content=b"x" * 3000)
        assert (answer.status_code, problem(answer)) == (413, "packet-too-large")
        assert answer.json()["reason_code"] == 0x95
        assert bridge.client.post("/v1/topics/large", content=b"x" * 1000).status_code == 200


def test_a_broker_without_retained_messages_is_told_apart() -> None:
    """What CONNACK says the broker cannot do is 400, and nothing is sent."""
    with Mosquitto(extra=["retain_available false"]) as broker, running_bridge(broker.url) as bridge:
        answer = bridge.client.put("/v1/topics/kept", content=b"x")
        assert (answer.status_code, problem(answer)) == (400, "unsupported")


def test_a_broker_that_is_away_is_503(fresh_mosquitto: Mosquitto) -> None:
    """Nothing was sent, and the answer says when to try again; with the broker back it works."""
    with running_bridge(fresh_mosquitto.url, publish_timeout_seconds=0.5) as bridge:
        fresh_mosquitto.kill()
        wait_until(lambda: bridge.client.get("/readyz").status_code == 503)
        for method, path in (
            ("POST", "/v1/topics/a?qos=0"),
            ("PUT", "/v1/topics/a"),
            ("DELETE", "/v1/topics/a"),
        ):
            answer = bridge.client.request(method, path, content=b"x")
            assert (answer.status_code, problem(answer)) == (503, "broker-unavailable")
            assert int(answer.headers["retry-after"]) > 0
        fresh_mosquitto.start()
        wait_until(lambda: bridge.client.post("/v1/topics/a", content=b"x").status_code == 200)


def test_a_short_outage_is_waited_out(fresh_mosquitto: Mosquitto) -> None:
    """A publish waits for the connection for as long as its time-out allows."""
    with running_bridge(fresh_mosquitto.url) as bridge, ThreadPoolExecutor() as pool:
        fresh_mosquitto.kill()
        wait_until(lambda: bridge.client.get("/readyz").status_code == 503)
        waiting = pool.submit(bridge.client.post, "/v1/topics/a", content=b"x")
        wait_until(lambda: bridge.app.state.link.session.waiting == 1)
        fresh_mosquitto.start()
        assert waiting.result().status_code == 200


def test_a_full_queue_is_503() -> None:
    """Only so many messages may wait for the broker; the next is refused at once."""
    with (
        ReservedPort() as port,
        running_bridge(
            f"mqtt://{LOOPBACK}:{port.number}",
            wait_until_ready=False,
            max_waiting=1,
            publish_timeout_seconds=3,
        ) as bridge,
        ThreadPoolExecutor() as pool,
    ):
        waiting = pool.submit(bridge.client.post, "/v1/topics/a?qos=0", content=b"x")
        wait_until(lambda: bridge.app.state.link.session.waiting == 1)
        answer = bridge.client.post("/v1/topics/a", content=b"x")
        assert (answer.status_code, problem(answer)) == (503, "queue-full")
        assert int(answer.headers["retry-after"]) > 0
        assert problem(waiting.result()) == "broker-unavailable"


def test_a_broker_that_hangs_is_504(fresh_mosquitto: Mosquitto) -> None:
    """The message went out and no answer came: the outcome is unknown, and the answer says so."""
    with running_bridge(fresh_mosquitto.url, publish_timeout_seconds=0.5) as bridge:
        fresh_mosquitto.pause()
        answer = bridge.client.post("/v1/topics/a", content=b"x")
        assert (answer.status_code, problem(answer)) == (504, "outcome-unknown")
        assert "retry-after" not in answer.headers
        fresh_mosquitto.resume()
        wait_until(lambda: bridge.client.post("/v1/topics/a", content=b"x").status_code == 200)


def test_a_read_from_a_broker_that_hangs_is_504(fresh_mosquitto: Mosquitto) -> None:
    """Reading ends in time too."""
    with running_bridge(fresh_mosquitto.url, retained_timeout_seconds=0.5) as bridge:
        fresh_mosquitto.pause()
        answer = bridge.client.get("/v1/topics/a")
        assert (answer.status_code, problem(answer)) == (504, "broker-timeout")
        fresh_mosquitto.resume()
