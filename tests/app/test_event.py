"""The envelope: what a message looks like on a stream."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.api.stream.forms import EventStreamForm, LinesForm
from app.hub.event import Event, envelope
from app.hub.position import Epoch
from tidegate.message import Message, Properties


def read(message: Message) -> dict[str, Any]:
    """The envelope as a client reads it."""
    return json.loads(envelope(message))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("payload", "encoding", "expected"),
    [
        (b'{"a": [1, 2.50]}', "json", {"a": [1, 2.5]}),
        (b"23.5", "json", 23.5),
        (b'"text"', "json", "text"),
        (b"null", "json", None),
        (b"plain words", "text", "plain words"),
        (b"", "text", ""),
        (b"NaN", "text", "NaN"),
        ("grün".encode(), "text", "grün"),
        (b"\xff\x00", "base64", base64.b64encode(b"\xff\x00").decode()),
    ],
)
def test_the_encoding_says_what_the_payload_is(payload: bytes, encoding: str, expected: object) -> None:
    """JSON stays JSON, text becomes a string, anything else base64."""
    body = read(Message("a", payload))
    assert (body["encoding"], body["payload"]) == (encoding, expected)


def test_json_numbers_keep_every_digit() -> None:
    """The payload's own characters are passed on, so no reader's number type gets between."""
    assert b'"payload":123456789012345678901234567890.10,' in envelope(
        Message("a", b"123456789012345678901234567890.10")
    )


def test_the_whole_envelope() -> None:
    """Topic, payload, encoding, QoS, retain flag, time in UTC, and the properties that were there."""
    properties = Properties(
        content_type="application/json",
        response_topic="answers/1",
        correlation_data=b"\x01",
        message_expiry=60,
        user_properties=(("a", "1"), ("a", "2")),
    )
    assert read(Message("a/b", b"1", 2, True, properties, received_at=1_700_000_000.25)) == {
        "topic": "a/b",
        "payload": 1,
        "encoding": "json",
        "qos": 2,
        "retain": True,
        "time": "2023-11-14T22:13:20.250Z",
        "properties": {
            "message_expiry": 60,
            "content_type": "application/json",
            "response_topic": "answers/1",
            "correlation_data": "AQ==",
            "user_properties": [["a", "1"], ["a", "2"]],
        },
    }


def test_a_copy_that_was_sent_before_says_so() -> None:
    """A broker sends again what was not acknowledged before the connection was lost (MQTT 5 §4.4)."""
    assert read(Message("a", b"1", 1, duplicate=True))["dup"] is True
    assert "dup" not in read(Message("a", b"1", 1))


@given(
    topic=st.text(min_size=1),
    payload=st.binary() | st.text().map(str.encode) | st.text().map(json.dumps).map(str.encode),
)
def test_nothing_in_a_message_becomes_a_line_of_the_stream(topic: str, payload: bytes) -> None:
    """Whatever topic and payload hold, an event is an id line, a data line and an empty one."""
    event = Event(Message(topic, payload), Epoch(), 1)
    lines = EventStreamForm().encode([event], 0, Epoch(), marked=False).split(b"\n")
    assert [line.partition(b":")[0] for line in lines] == [b"id", b"data", b"", b""]
    assert b"\r" not in b"".join(lines)
    line, *rest = LinesForm().encode([event], 0, Epoch(), marked=False).split(b"\n")
    assert (rest, b"\r" in line) == ([b""], False)
    assert json.loads(line)["topic"] == topic


def test_line_breaks_between_json_tokens_do_not_break_the_stream() -> None:
    """Pretty-printed JSON becomes one line with the same value."""
    body = read(Message("a", b'{\r\n  "a":\n 1\r}\n'))
    assert body["payload"] == {"a": 1}
