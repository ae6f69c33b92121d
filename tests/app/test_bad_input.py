"""Hostile and mistaken requests: each is refused in words, and the next user's publish succeeds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.support.bridge import Bridge, running_bridge
from tests.support.mosquitto import Mosquitto

CONNECTED = "New client connected"
GOOD = {"topic": "a", "payload": 1}


@pytest.fixture(scope="module")
def broker() -> Iterator[Mosquitto]:
    """A broker that only the bridge of this module connects to."""
    with Mosquitto() as running:
        yield running


@pytest.fixture(scope="module")
def bridge(broker: Mosquitto) -> Iterator[Bridge]:
    """A bridge that the tests of this module share."""
    with running_bridge(broker.url) as running:
        yield running


@pytest.fixture(autouse=True)
def next_user(bridge: Bridge, broker: Mosquitto) -> Iterator[None]:
    """Another user publishes after each test, over the connection that was there before."""
    connections = broker.log.count(CONNECTED)
    yield
    with httpx.Client(base_url=bridge.url, trust_env=False) as client:
        for qos, status in ((0, 202), (1, 200), (2, 200)):
            answer = client.post(f"/v1/topics/next/user?qos={qos}", content=b"x")
            assert answer.status_code == status
        assert client.post("/v1/publish", json={"topic": "next/user", "payload": 1}).status_code == 200
    assert broker.log.count(CONNECTED) == connections == 1


def refused(answer: Any, status: int, kind: str, field: str | None = None) -> dict[str, Any]:
    """Check that an answer is a problem of this type, and return it."""
    found: dict[str, Any] = answer.json()
    assert (answer.status_code, found["type"]) == (status, f"urn:tidegate:problem:{kind}"), found
    assert answer.headers["content-type"] == "application/problem+json"
    assert found["status"] == status
    assert found.get("field") == field
    return found


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "GET"])
@pytest.mark.parametrize(
    "topic",
    [
        b"poison%00",
        b"poison%0Ainjected",
        b"poison%0D%0A",
        b"poison%1B%5B2J",
        b"poison%7F",
        b"poison%C2%80",
        b"poison%EF%BF%BE",
        b"poison%EF%B7%AF",
        b"poison%F4%8F%BF%BF",
        b"poison%FF",
        b"poison%ED%A0%80",
        b"poison%C0%80",
        b"poison/a+b",
        b"poison/%23/a",
        b"%",
        b"",
    ],
)
def test_a_poisonous_topic_hurts_nobody(bridge: Bridge, method: str, topic: bytes) -> None:
    """Brokers close the connection on such topics, and it is everybody's: none is sent, by any call."""
    answer = bridge.raw(method, b"/v1/topics/" + topic, body=b"x")
    assert answer.status == 400
    assert answer.json()["type"] == "urn:tidegate:problem:invalid-topic"


@pytest.mark.parametrize(
    "topic", ["", "a\x00", "a\nb", "a/+", "#", "a\x85", "\ufdd0", "\U0010ffff", "a" * 65_536, "é" * 40_000]
)
def test_a_poisonous_topic_in_json_hurts_nobody(bridge: Bridge, topic: str) -> None:
    """The same rules hold for the member "topic"."""
    answer = bridge.client.post("/v1/publish", json={"topic": topic, "payload": 1})
    refused(answer, 400, "invalid-topic", "/topic")


@pytest.mark.parametrize("topic", ["$SYS/a", "$share/a/b", "$x"])
def test_a_reserved_topic_in_json_is_refused(bridge: Bridge, topic: str) -> None:
    """So do those for topics of the broker's own."""
    answer = bridge.client.post("/v1/publish", json={"topic": topic, "payload": 1})
    refused(answer, 403, "reserved-topic", "/topic")


@pytest.mark.parametrize(
    ("query", "kind", "field", "told"),
    [
        ("qos=3", "invalid-parameter", "qos", "0, 1 or 2"),
        ("qos=-1", "invalid-parameter", "qos", "0, 1 or 2"),
        ("qos=false", "invalid-parameter", "qos", "'false'"),
        ("qos=1.0", "invalid-parameter", "qos", "'1.0'"),
        ("qos=%201", "invalid-parameter", "qos", "' 1'"),
        ("qos=", "invalid-parameter", "qos", "''"),
        ("qos", "invalid-parameter", "qos", "''"),
        ("qos=1&qos=1", "repeated-parameter", "qos", "several"),
        ("Qos=1", "unknown-parameter", "Qos", "'Qos'"),
        ("retain=1", "invalid-parameter", "retain", "true or false"),
        ("retain=True", "invalid-parameter", "retain", "true or false"),
        ("retained=true", "unknown-parameter", "retained", "'retained'"),
        ("expiry=-1", "invalid-parameter", "expiry", "4294967295"),
        ("expiry=4294967296", "invalid-parameter", "expiry", "4294967295"),
        ("expiry=1e3", "invalid-parameter", "expiry", "seconds"),
        ("expiry=99999999999999999999", "invalid-parameter", "expiry", "seconds"),
        ("expiry=%D9%A1", "invalid-parameter", "expiry", "seconds"),
        ("response_topic=a/%23", "invalid-parameter", "response_topic", "wildcard"),
        ("response_topic=a%00", "invalid-parameter", "response_topic", "U+0000"),
        ("response_topic=%EF%B7%90", "invalid-parameter", "response_topic", "U+FDD0"),
        ("response_topic=", "invalid-parameter", "response_topic", "one character"),
        ("qos=%FF", "invalid-parameter", "qos", "UTF-8"),
        ("%FF=1", "invalid-parameter", "name of a query parameter", "UTF-8"),
    ],
)
def test_a_query_is_read_strictly(bridge: Bridge, query: str, kind: str, field: str, told: str) -> None:
    """A parameter that is unknown, repeated or not what it can be is refused by name."""
    answer = bridge.client.post(f"/v1/topics/a?{query}", content=b"x")
    assert told in refused(answer, 400, kind, field)["detail"]


def test_the_nearest_parameter_is_named(bridge: Bridge) -> None:
    """A typo is answered with what was meant."""
    answer = bridge.client.post("/v1/topics/a?retian=true", content=b"x")
    assert refused(answer, 400, "unknown-parameter", "retian")["hint"] == "did you mean 'retain'?"


@pytest.mark.parametrize(
    ("method", "query"), [("PUT", "retain=false"), ("DELETE", "expiry=1"), ("GET", "qos=1")]
)
def test_each_call_knows_its_own_parameters(bridge: Bridge, method: str, query: str) -> None:
    """A parameter of another method is unknown here."""
    answer = bridge.client.request(method, f"/v1/topics/a?{query}", content=b"x")
    refused(answer, 400, "unknown-parameter", query.partition("=")[0])


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("Mqtt-User-Property", b"no separator", "no '='"),
        ("Mqtt-User-Property", b"a=b%00", "U+0000"),
        ("Mqtt-User-Property", b"a%0A=b", "U+000A"),
        ("Mqtt-User-Property", b"a=%EF%B7%90", "U+FDD0"),
        ("Mqtt-User-Property", b"a=%FF", "0xFF"),
        ("Mqtt-User-Property", b"a=\xff", "0xFF"),
        ("Mqtt-User-Property", b"load=50%", "'%'"),
        ("Mqtt-Correlation-Data", b"not base64!", "not base64"),
        ("Mqtt-Correlation-Data", b"abc", "not base64"),
        ("Mqtt-Qos", b"1", "no header"),
        ("Mqtt-User-Propety", b"a=b", "no header"),
        ("Content-Type", b"text/plain; x=\xe9", "printable ASCII"),
        ("Content-Type", b"text/\tplain", "printable ASCII"),
    ],
)
def test_a_header_is_read_strictly(bridge: Bridge, name: str, value: bytes, told: str) -> None:
    """A header that would be dropped or would poison the connection is refused by name."""
    answer = bridge.client.post("/v1/topics/a", content=b"x", headers=[(name.encode(), value)])
    assert told in refused(answer, 400, "invalid-header", name)["detail"]


def test_correlation_data_twice_is_refused(bridge: Bridge) -> None:
    """It has one value in MQTT."""
    headers = [("Mqtt-Correlation-Data", "AP8="), ("Mqtt-Correlation-Data", "AP8=")]
    answer = bridge.client.post("/v1/topics/a", content=b"x", headers=headers)
    refused(answer, 400, "invalid-header", "Mqtt-Correlation-Data")


@pytest.mark.parametrize(
    ("method", "query"), [("PUT", ""), ("POST", "?retain=true"), ("POST", "?retain=true&qos=0")]
)
def test_a_lost_body_never_clears_a_value(bridge: Bridge, method: str, query: str) -> None:
    """An empty retained message is refused, with a hint to DELETE; the value stays."""
    assert bridge.client.put("/v1/topics/lost/body", content=b"value").status_code == 200
    answer = bridge.client.request(method, f"/v1/topics/lost/body{query}")
    assert "DELETE" in refused(answer, 400, "empty-retained")["hint"]
    assert bridge.client.get("/v1/topics/lost/body").content == b"value"


def test_a_lost_payload_never_clears_a_value(bridge: Bridge) -> None:
    """The same holds for JSON; null is a payload."""
    message = {"topic": "lost/payload", "payload": "", "encoding": "text", "retain": True}
    refused(bridge.client.post("/v1/publish", json=message), 400, "empty-retained")
    kept = bridge.client.post("/v1/publish", json={"topic": "lost/payload", "payload": None, "retain": True})
    assert kept.status_code == 200
    assert bridge.client.get("/v1/topics/lost/payload").content == b"null"


@pytest.mark.parametrize(
    ("message", "field"),
    [
        ({"topic": "a"}, "/payload"),
        ({"payload": 1}, "/topic"),
        ({**GOOD, "topic": 1}, "/topic"),
        ({**GOOD, "qos": False}, "/qos"),
        ({**GOOD, "qos": "1"}, "/qos"),
        ({**GOOD, "qos": 1.0}, "/qos"),
        ({**GOOD, "qos": 3}, "/qos"),
        ({**GOOD, "qos": None}, "/qos"),
        ({**GOOD, "retain": 1}, "/retain"),
        ({**GOOD, "retain": "true"}, "/retain"),
        ({**GOOD, "encoding": "hex"}, "/encoding"),
        ({**GOOD, "encoding": "text"}, "/payload"),
        ({**GOOD, "encoding": "base64", "payload": "not base64"}, "/payload"),
        ({**GOOD, "encoding": "base64", "payload": "é"}, "/payload"),
        ({**GOOD, "properties": []}, "/properties"),
        ({**GOOD, "properties": {"message_expiry": -1}}, "/properties/message_expiry"),
        ({**GOOD, "properties": {"message_expiry": True}}, "/properties/message_expiry"),
        ({**GOOD, "properties": {"message_expiry": 2**32}}, "/properties/message_expiry"),
        ({**GOOD, "properties": {"payload_format": 2}}, "/properties/payload_format"),
        ({**GOOD, "properties": {"payload_format": True}}, "/properties/payload_format"),
        ({**GOOD, "properties": {"content_type": "a\x00"}}, "/properties/content_type"),
        ({**GOOD, "properties": {"content_type": "é" * 32_768}}, "/properties/content_type"),
        ({**GOOD, "properties": {"response_topic": "a/#"}}, "/properties/response_topic"),
        ({**GOOD, "properties": {"response_topic": "\ufdd0"}}, "/properties/response_topic"),
        ({**GOOD, "properties": {"correlation_data": "?"}}, "/properties/correlation_data"),
        ({**GOOD, "properties": {"correlation_data": "AAAA" * 21_846}}, "/properties/correlation_data"),
        ({**GOOD, "properties": {"user_properties": {"a": "b"}}}, "/properties/user_properties"),
        ({**GOOD, "properties": {"user_properties": [["a", "b\n"]]}}, "/properties/user_properties/0/1"),
        ({**GOOD, "properties": {"user_properties": [["a"]]}}, "/properties/user_properties/0/1"),
        ({**GOOD, "properties": {"user_properties": [["a", 1]]}}, "/properties/user_properties/0/1"),
        ([GOOD], ""),
        ("text", ""),
    ],
)
def test_json_is_read_strictly(bridge: Bridge, message: Any, field: str) -> None:
    """What is not of the model is 422, with a JSON pointer to the fault."""
    refused(bridge.client.post("/v1/publish", json=message), 422, "invalid-body", field)


@pytest.mark.parametrize(
    ("message", "field", "hint"),
    [
        ({**GOOD, "retian": True}, "/retian", "'retain'"),
        ({**GOOD, "a/b~c": 1}, "/a~1b~0c", "known are"),
        ({**GOOD, "properties": {"contenttype": "a/b"}}, "/properties/contenttype", "'content_type'"),
    ],
)
def test_an_unknown_member_is_refused_with_the_nearest(
    bridge: Bridge, message: Any, field: str, hint: str
) -> None:
    """A typo in a member's name is never silent."""
    problem = refused(bridge.client.post("/v1/publish", json=message), 422, "invalid-body", field)
    assert hint in problem["hint"]


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"", "column"),
        (b'{"topic":"a",}', "column 14"),
        (b'{"topic":"a"\n"payload":1}', "line 2 column 1"),
        (b"topic=a&payload=1", "line 1"),
        (b'{"topic":"a","payload":NaN}', "NaN"),
        (b'{"topic":"a","payload":[Infinity]}', "Infinity"),
        (b'{"topic":"a","payload":[-Infinity]}', "Infinity"),
        (b'{"topic":"a","payload":"\xff"}', "column"),
        (b'{"topic":"a","payload":"\\ud800"}', "column"),
        (b'{"topic":"a","payload":1,"payload":2}', "twice"),
        (b'{"topic":"a","payload":1} {}', "trailing"),
        (b'{"topic":"a","payload":' + b"[" * 100_000, "recursion"),
        (b"\xef\xbb\xbf{}", "column"),
    ],
)
def test_malformed_json_is_told_with_its_place(bridge: Bridge, body: bytes, told: str) -> None:
    """What is not JSON is 400, and the reason tells where or what."""
    answer = bridge.client.post("/v1/publish", content=body, headers={"Content-Type": "application/json"})
    assert told in refused(answer, 400, "malformed-body")["detail"]


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", "text/json", ""]
)
def test_json_that_does_not_say_so_is_refused(bridge: Bridge, content_type: str) -> None:
    """A page of another origin can send text or forms without asking; JSON it cannot."""
    answer = bridge.client.post(
        "/v1/publish", content=b'{"topic":"a","payload":1}', headers={"Content-Type": content_type}
    )
    refused(answer, 415, "unsupported-media-type", "Content-Type")


def test_the_json_call_takes_no_query_and_no_properties_as_headers(bridge: Bridge) -> None:
    """What belongs into the body is refused elsewhere, and not ignored."""
    with_query = bridge.client.post("/v1/publish?qos=2", json=GOOD)
    refused(with_query, 400, "unknown-parameter", "qos")
    with_header = bridge.client.post("/v1/publish", json=GOOD, headers={"Mqtt-User-Property": "a=b"})
    refused(with_header, 400, "invalid-header", "Mqtt-User-Property")


def test_clearing_takes_no_properties(bridge: Bridge) -> None:
    """The message that clears reaches nobody who could read them."""
    answer = bridge.client.delete("/v1/topics/a", headers={"Mqtt-User-Property": "a=b"})
    refused(answer, 400, "invalid-header", "Mqtt-User-Property")


def test_a_shared_subscription_is_nothing_to_read(bridge: Bridge) -> None:
    """Brokers send it no retained messages: an empty answer would be a lie."""
    answer = bridge.client.get("/v1/topics/$share/group/a/%23")
    refused(answer, 400, "invalid-topic", "topic")


@pytest.mark.parametrize("topic", ["a/b%23", "a/%23/b", "a+"])
def test_a_malformed_filter_is_refused(bridge: Bridge, topic: str) -> None:
    """A wildcard stands alone in its level, and # in the last."""
    refused(bridge.client.get(f"/v1/topics/{topic}"), 400, "invalid-topic", "topic")


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/v1/topics/a", "DELETE, GET, POST, PUT"),
        ("/v1/topics", "DELETE, GET, POST, PUT"),
        ("/v1/publish", "POST"),
        ("/v1/subscribe", "GET, POST"),
        ("/livez", "GET"),
        ("/readyz", "GET"),
        ("/v1/credentials/a", "DELETE, GET, PUT"),
    ],
)
@pytest.mark.parametrize("method", ["PATCH", "HEAD", "OPTIONS", "PROPFIND"])
def test_another_method_is_told_what_there_is(bridge: Bridge, path: str, methods: str, method: str) -> None:
    """405 comes with the methods that the path takes, in the header and in words."""
    answer = bridge.client.request(method, path)
    assert (answer.status_code, answer.headers["allow"]) == (405, methods)
    if method != "HEAD":
        refused(answer, 405, "method-not-allowed")
        assert f" takes no {method}, only {methods}" in answer.json()["detail"]


def test_a_folder_of_files_tells_its_methods_too(bridge: Bridge) -> None:
    """The framework itself says nothing of them."""
    answer = bridge.client.put("/static-offline-docs/a")
    assert (405, "GET, HEAD") == (answer.status_code, answer.headers["allow"])
