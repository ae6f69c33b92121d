from __future__ import annotations

from collections.abc import Iterator

import pytest

from app.api.input.path import after_prefix, topic_in
from tests.support.bridge import Bridge, running_bridge
from tests.support.mosquitto import Mosquitto


@pytest.fixture(scope="module")
def bridge(mosquitto: Mosquitto) -> Iterator[Bridge]:
    """A bridge that the tests of this module share."""
    with running_bridge(mosquitto.url) as running:
        yield running


@pytest.mark.parametrize(
    ("target", "topic"),
    [
        (b"/v1/topics/path/plain", "path/plain"),
        (b"/v1/topics/path%2Fescaped%2fslash", "path/escaped/slash"),
        (b"/v1/topics//path/leading", "/path/leading"),
        (b"/v1/topics/%2Fpath/leading", "/path/leading"),
        (b"/v1/topics///path//empty///levels/", "//path//empty///levels/"),
        (b"/v1/topics/path/../dots/./here", "path/../dots/./here"),
        (b"/v1/topics/path/%E2%82%AC%20and%20space", "path/€ and space"),
        (b"/v1/topics/path/%252F", "path/%2F"),
        (b"/v1/topics/path/%F0%9F%98%80", "path/😀"),
        (b"/v1/topics/path/a%3Fb%26c=d;e", "path/a?b&c=d;e"),
        (b"/v1/t%6fpics/path/fixed%20part", "path/fixed part"),
        (b"/v1/topics?topic=%2Fpath%2F%2Fquery%2F", "/path//query/"),
        (b"/v1/topics?topic=/path//query", "/path//query"),
        (b"/v1/topics/?topic=path/query", "path/query"),
        (b"/v1/topics?qos=1&topic=path/with+space", "path/with space"),
        (b"/v1/topics?topic=path/%20/space", "path/ /space"),
    ],
)
def test_the_topic_is_what_the_path_says(bridge: Bridge, target: bytes, topic: str) -> None:
    """A topic is percent-decoded once; leading slashes, empty levels and dots survive."""
    answer = bridge.raw("POST", target, body=b"x")
    assert answer.status == 200
    assert answer.json()["topic"] == topic


@pytest.mark.parametrize(
    ("target", "told"),
    [
        (b"/v1/topics", "there is no topic"),
        (b"/v1/topics/", "there is no topic"),
        (b"/v1/topics?topic=", "at least one character"),
        (b"/v1/topics/a/%FF", "byte 0xFF"),
        (b"/v1/topics/a/%C0%AF", "byte 0xC0"),
        (b"/v1/topics/a/%ED%A0%80", "byte 0xED"),
        (b"/v1/topics/a/%zz", "byte 3"),
        (b"/v1/topics/a/100%", "byte 6"),
        (b"/v1/topics/a/%00", "U+0000"),
        (b"/v1/topics/a%0Ab", "U+000A"),
        (b"/v1/topics/a%C2%85b", "U+0085"),
        (b"/v1/topics/a/%EF%BF%BF", "U+FFFF"),
        (b"/v1/topics/a/%EF%B7%90", "U+FDD0"),
        (b"/v1/topics/a/%F0%9F%BF%BE", "U+1FFFE"),
        (b"/v1/topics/a/+", "wildcard"),
        (b"/v1/topics/a/%23", "wildcard"),
    ],
)
def test_a_topic_that_mqtt_forbids_is_refused(bridge: Bridge, target: bytes, told: str) -> None:
    """What brokers close the connection on is refused with 400, and the reason tells what and where."""
    answer = bridge.raw("POST", target, body=b"x")
    assert answer.status == 400
    assert answer.json()["type"] == "urn:tidegate:problem:invalid-topic"
    assert answer.json()["field"] == "topic"
    assert told in answer.json()["detail"]


@pytest.mark.parametrize("topic", [b"$SYS/broker/uptime", b"%24SYS/x", b"$other"])
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_a_topic_of_the_brokers_own_is_refused(bridge: Bridge, method: str, topic: bytes) -> None:
    """Publishing to a topic that begins with $ is 403, however it is written."""
    answer = bridge.raw(method, b"/v1/topics/" + topic, body=b"x")
    assert answer.status == 403
    assert answer.json()["type"] == "urn:tidegate:problem:reserved-topic"


def test_a_dollar_sign_further_on_means_nothing(bridge: Bridge) -> None:
    """Only the first character makes a topic the broker's own."""
    assert bridge.raw("POST", b"/v1/topics/path/$SYS", body=b"x").status == 200


@pytest.mark.parametrize(
    ("target", "kind", "hint"),
    [
        (b"/v1/topics/a?topic=b", "invalid-parameter", None),
        (b"/v1/topics?topic=a/+/b", "invalid-parameter", "%2B"),
        (b"/v1/topics?topic=a%2F+", "invalid-parameter", "%2B"),
        (b"/v1/topics?topic=a%FF", "invalid-parameter", "UTF-8"),
        (b"/v1/topics?topic=a%", "invalid-parameter", "%25"),
        (b"/v1/topics?topic=a&topic=b", "repeated-parameter", None),
        (b"/v1/topics?tpoic=a", "unknown-parameter", "'topic'"),
    ],
)
def test_a_topic_in_the_query_is_read_strictly(
    bridge: Bridge, target: bytes, kind: str, hint: str | None
) -> None:
    """A query that could mean something else is refused, with what to write instead."""
    answer = bridge.raw("GET", target)
    assert answer.status == 400
    assert answer.json()["type"] == f"urn:tidegate:problem:{kind}"
    assert hint is None or hint in answer.json()["hint"]


def test_a_long_topic_fits_into_a_path(bridge: Bridge) -> None:
    """The server takes a request target of 65,535 bytes; what is left of that is the topic's."""
    topic = "a" * (65_535 - len("/v1/topics/"))
    answer = bridge.raw("POST", f"/v1/topics/{topic}".encode(), body=b"x")
    assert (answer.status, answer.json()["topic"]) == (200, topic)


def test_the_longest_topic_fits_into_json(bridge: Bridge) -> None:
    """65,535 bytes of UTF-8 are allowed, and one more is refused."""
    longest = bridge.client.post("/v1/publish", json={"topic": "a" * 65_535, "payload": 1})
    assert longest.status_code == 200
    longer = bridge.client.post("/v1/publish", json={"topic": "€" * 21_845 + "a", "payload": 1})
    assert (longer.status_code, longer.json()["field"]) == (400, "/topic")
    assert "65,536 bytes" in longer.json()["detail"]


@pytest.mark.parametrize(
    ("scope", "rest"),
    [
        ({"raw_path": b"/gate/v1/topics//a%2Fb", "root_path": "/gate"}, b"//a%2Fb"),
        ({"raw_path": b"/gate/v1/topics/a", "root_path": "/gate/"}, b"/a"),
        ({"raw_path": b"/v1/topics/a", "root_path": "/gate"}, b"/a"),
        ({"raw_path": b"/gateway/v1/topics/a", "root_path": "/gate"}, None),
        ({"raw_path": b"/caf%C3%A9/v1/topics/a", "root_path": "/café"}, b"/a"),
        ({"path": "/v1/topics/a b", "raw_path": None}, b"/a%20b"),
        ({"raw_path": b"/v1/topics"}, b""),
        ({"raw_path": b"/v1/topicsandmore"}, None),
        ({"raw_path": b"/v1%2Ftopics/a"}, None),
        ({"raw_path": b"/v1/publish%2F"}, None),
    ],
)
def test_a_prefix_before_the_application_is_left_aside(scope: dict[str, object], rest: bytes | None) -> None:
    """Behind a prefix that a proxy strips or a mount leaves, the same topic is read."""
    assert after_prefix(scope, b"/v1/topics") == rest


def test_nothing_behind_the_path_is_no_topic() -> None:
    """Without a topic in the path it is empty, so that the query may have it."""
    assert (topic_in(b""), topic_in(b"/"), topic_in(b"//")) == ("", "", "/")
