"""Frames of ``/v1/ws`` that cannot be carried out: each is an error, and the socket works afterwards."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest

from tests.support.bridge import Bridge, running_bridge, wait_until
from tests.support.mosquitto import Mosquitto
from tests.support.websocket import Id, SocketClient


@pytest.fixture(scope="module")
def bridge(mosquitto: Mosquitto) -> Iterator[Bridge]:
    """One bridge for the tests that only use it."""
    with running_bridge(mosquitto.url) as running:
        yield running


@pytest.fixture
def client(bridge: Bridge) -> Iterator[SocketClient]:
    """A WebSocket of the test's own; at the end it works still, and nobody else's publish has failed."""
    with SocketClient(bridge.port) as opened:
        yield opened
        subscription = opened.subscribe("ws-frames/after", id="after")
        opened.publish("ws-frames/after", "alive")
        assert ["alive"] == opened.read_messages(subscription, 1)
        assert [] == opened.named("broker")


def test_ping(client: SocketClient) -> None:
    """An answer, and nothing else."""
    assert {"op": "ack", "id": "p"} == client.ask("ping", id="p")
    assert 1 == len(client.frames)


@pytest.mark.parametrize(
    "text",
    ["", "nope", "{", '{"op":"ping","id":1', '{"op":"ping","id":"\\ud800"}', "[" * 5000, "NaN", "'", "\x00"],
)
def test_what_is_not_json(client: SocketClient, text: str) -> None:
    """It has no id to bring back."""
    client.send_text(text)
    problem = client.answer_to(None)["problem"]
    assert ("urn:tidegate:problem:malformed-body", 400) == (problem["type"], problem["status"])


@pytest.mark.parametrize("text", ["[]", "1", "null", '"ping"', "true"])
def test_what_is_no_object(client: SocketClient, text: str) -> None:
    """JSON of another kind."""
    client.send_text(text)
    assert "urn:tidegate:problem:invalid-body" == client.answer_to(None)["problem"]["type"]


@pytest.mark.parametrize("content", [b"", b'{"op":"ping","id":1}', b"\xff"])
def test_a_binary_frame(client: SocketClient, content: bytes) -> None:
    """Even where it holds what a text frame might."""
    client.send_bytes(content)
    problem = client.answer_to(None)["problem"]
    assert "urn:tidegate:problem:malformed-body" == problem["type"]
    assert "binary" in problem["detail"]


@pytest.mark.parametrize(
    ("members", "field", "hint"),
    [
        ({}, "/op", "subscribe, unsubscribe, publish, ping"),
        ({"op": None}, "/op", "subscribe"),
        ({"op": 1}, "/op", "subscribe"),
        ({"op": ["ping"]}, "/op", "ping"),
        ({"op": "subscrib"}, "/op", "did you mean 'subscribe'?"),
        ({"op": "Publish"}, "/op", "did you mean 'publish'?"),
        ({"op": "message"}, "/op", "known are"),
        ({"op": "ping", "data": 1}, "/data", "known are id, op"),
        ({"op": "subscribe", "topics": ["a"], "topik": 1}, "/topik", "did you mean 'topics'?"),
        ({"op": "subscribe", "topics": ["a"], "format": "raw"}, "/format", ""),
        ({"op": "subscribe", "topics": ["a"], "idle_timeout": 1}, "/idle_timeout", ""),
        ({"op": "publish", "topic": "a", "payload": 1, "Retain": True}, "/Retain", "did you mean 'retain'?"),
        ({"op": "unsubscribe", "subscription": 1, "topics": ["a"]}, "/topics", ""),
        (
            {"op": "publish", "topic": "a", "payload": 1, "properties": {"expiry": 1}},
            "/properties/expiry",
            "",
        ),
    ],
)
@pytest.mark.parametrize("frame_id", [0, "x"])
def test_names_that_nobody_knows(
    client: SocketClient, members: dict[str, object], field: str, hint: str, frame_id: Id
) -> None:
    """The error says which, brings the id back, and has the nearest known name."""
    client.send_text(json.dumps({**members, "id": frame_id}))
    answer = client.answer_to(frame_id)
    assert ("error", field) == (answer["op"], answer["problem"]["field"])
    assert hint in answer["problem"].get("hint", "")


SUBSCRIBE = {"op": "subscribe", "topics": ["ws-frames/a"]}
PUBLISH = {"op": "publish", "topic": "ws-frames/a", "payload": 1}


@pytest.mark.parametrize(
    ("members", "field"),
    [
        ({"op": "subscribe"}, "/topics"),
        ({**SUBSCRIBE, "topics": "ws-frames/a"}, "/topics"),
        ({**SUBSCRIBE, "topics": []}, "/topics"),
        ({**SUBSCRIBE, "topics": [1]}, "/topics/0"),
        ({**SUBSCRIBE, "topics": ["a", ""]}, "/topics/1"),
        ({**SUBSCRIBE, "topics": ["a/#/b"]}, "/topics/0"),
        ({**SUBSCRIBE, "topics": ["a\x00"]}, "/topics/0"),
        ({**SUBSCRIBE, "topics": ["a" * 65_536]}, "/topics/0"),
        ({**SUBSCRIBE, "topics": ["a"] * 1001}, "/topics"),
        ({**SUBSCRIBE, "qos": True}, "/qos"),
        ({**SUBSCRIBE, "qos": "1"}, "/qos"),
        ({**SUBSCRIBE, "qos": 3}, "/qos"),
        ({**SUBSCRIBE, "qos": 1.0}, "/qos"),
        ({**SUBSCRIBE, "retained": 1}, "/retained"),
        ({**SUBSCRIBE, "policy": "newest"}, "/policy"),
        ({**SUBSCRIBE, "interval": 0}, "/interval"),
        ({**SUBSCRIBE, "interval": "1"}, "/interval"),
        ({**SUBSCRIBE, "interval": True}, "/interval"),
        ({**SUBSCRIBE, "limit": 0}, "/limit"),
        ({**SUBSCRIBE, "limit": 1.5}, "/limit"),
        ({**SUBSCRIBE, "limit": True}, "/limit"),
        ({**SUBSCRIBE, "last_event_id": 1}, "/last_event_id"),
        ({"op": "unsubscribe"}, "/subscription"),
        ({"op": "unsubscribe", "subscription": "nobody's"}, "/subscription"),
        ({"op": "publish", "payload": 1}, "/topic"),
        ({"op": "publish", "topic": "ws-frames/a"}, "/payload"),
        ({**PUBLISH, "topic": 1}, "/topic"),
        ({**PUBLISH, "topic": ""}, "/topic"),
        ({**PUBLISH, "topic": "a/+"}, "/topic"),
        ({**PUBLISH, "topic": "a\x00b"}, "/topic"),
        ({**PUBLISH, "topic": "a\nb"}, "/topic"),
        ({**PUBLISH, "topic": "$SYS/broker/uptime"}, "/topic"),
        ({**PUBLISH, "topic": "ä" * 32_768}, "/topic"),
        ({**PUBLISH, "qos": True}, "/qos"),
        ({**PUBLISH, "qos": "1"}, "/qos"),
        ({**PUBLISH, "retain": "true"}, "/retain"),
        ({**PUBLISH, "encoding": "hex"}, "/encoding"),
        ({**PUBLISH, "encoding": "text"}, "/payload"),
        ({**PUBLISH, "encoding": "base64", "payload": "#"}, "/payload"),
    ],
)
def test_what_a_member_may_not_be(client: SocketClient, members: dict[str, object], field: str) -> None:
    """The error brings the id back and points at the member."""
    answer = client.ask(**members, id="x")  # type: ignore[arg-type]
    assert ("error", field) == (answer["op"], answer["problem"].get("field")), answer


@pytest.mark.parametrize("encoding", ["text", "base64"])
def test_an_empty_retained_message(client: SocketClient, encoding: str) -> None:
    """It would clear the topic's value; the value stays."""
    client.publish("ws-frames/kept", "value", retain=True)
    members = {"topic": "ws-frames/kept", "payload": "", "encoding": encoding, "retain": True}
    problem = client.refusal("publish", **members)
    assert "urn:tidegate:problem:empty-retained" == problem["type"]
    assert "DELETE" in problem["hint"]
    assert ["value"] == client.read_messages(client.subscribe("ws-frames/kept"), 1)


@pytest.mark.parametrize(
    "text",
    [
        '{"op":"publish","id":"x","topic":"ws-frames/a","payload":1,"payload":2}',
        '{"op":"publish","id":"x","topic":"ws-frames/a","payload":' + "[" * 500 + "]" * 500 + "}",
        '{"op":"publish","id":"x","topic":"ws-frames/a","payload":NaN}',
    ],
)
def test_json_that_readers_do_not_agree_on(client: SocketClient, text: str) -> None:
    """A name that is there twice, a nesting without measure, a number that is none."""
    client.send_text(text)
    client.read_until(lambda: bool(client.named("error")))
    assert [] == client.named("ack")


@pytest.mark.parametrize(
    "frame_id", ["null", "true", "1.0", "1.5", "[]", "{}", "18446744073709551616", "1e400"]
)
@pytest.mark.parametrize("op", ["ping", "publish", "subscribe"])
def test_ids_that_are_none(client: SocketClient, op: str, frame_id: str) -> None:
    """Nothing is carried out that could not be answered."""
    members = {"ping": "", "publish": ',"topic":"ws-frames/a","payload":1', "subscribe": ',"topics":["a"]'}
    client.send_text(f'{{"op":"{op}","id":{frame_id}{members[op]}}}')
    problem = client.answer_to(None)["problem"]
    assert problem["status"] in {400, 422}


@pytest.mark.parametrize("text", ['{"op":"ping"}', f'{{"op":"ping","id":"{"x" * 65}"}}'])
def test_an_id_is_needed_and_short(client: SocketClient, text: str) -> None:
    """The error points at it."""
    client.send_text(text)
    client.read_until(lambda: bool(client.named("error")))
    assert client.named("error")[0]["problem"]["field"].startswith("/id")


def test_many_bad_frames_in_one_write(client: SocketClient) -> None:
    """As many errors, in their order, and the good ones among them are carried out."""
    client.send_text(
        *(f'{{"op":"{"ping" if each % 3 == 0 else "pong"}","id":{each}}}' for each in range(300))
    )
    client.read_until(lambda: len(client.frames) == 300)
    assert list(range(300)) == [each["id"] for each in client.frames]
    assert list(range(0, 300, 3)) == [each["id"] for each in client.named("ack")]


def test_a_frame_that_is_too_large_closes_its_socket_alone(mosquitto: Mosquitto) -> None:
    """1009 (RFC 6455 §7.4.1); one that just fits is carried out, and other sockets notice nothing."""
    with (
        running_bridge(mosquitto.url, max_body_bytes=1000) as bridge,
        SocketClient(bridge.port) as other,
        SocketClient(bridge.port) as client,
    ):
        subscription = other.subscribe("ws-frames/large")
        frame = '{"op":"publish","id":1,"topic":"ws-frames/large","encoding":"text","payload":""}'
        client.send_text(frame.replace('""', '"' + "x" * (1000 - len(frame)) + '"'))
        assert "ack" == client.answer_to(1)["op"]
        client.send_text(frame.replace('""', '"' + "x" * (1001 - len(frame)) + '"'))
        assert 1009 == client.read_to_end()
        other.publish("ws-frames/large", "end")
        assert ["x" * (1000 - len(frame)), "end"] == other.read_messages(subscription, 2)
        wait_until(lambda: bridge.app.state.hub.listeners == 2)


def test_text_that_is_not_utf_8_closes_its_socket(bridge: Bridge, caplog: pytest.LogCaptureFixture) -> None:
    """1007, as RFC 6455 §8.1 asks; it is no error of the bridge, and nothing for its log."""
    listeners = bridge.app.state.hub.listeners
    with SocketClient(bridge.port) as client:
        client.send_text("\ud800")
        assert 1007 == client.read_to_end()
    wait_until(lambda: bridge.app.state.hub.listeners <= listeners)
    assert [] == [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]
