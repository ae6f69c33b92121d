"""The AsyncAPI document: valid, in step with the code, and true of real streams and a real WebSocket."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import jsonschema_rs
import pytest

from app.api.stream.frames import PingFrame, PublishFrameModel, SubscribeFrame, UnsubscribeFrame, read_frame
from app.contracts.asyncapi import CLOSE_CODES
from app.main import create_app
from app.problems import ProblemError
from app.security.authentication import Authentication
from app.settings import Settings
from tests.support.bridge import Bridge, running_bridge
from tests.support.command import ROOT, run_command
from tests.support.described import Described
from tests.support.fixed_tokens import FixedTokens
from tests.support.mosquitto import Mosquitto
from tests.support.mosquitto_clients import publish
from tests.support.raw_stream import RawStream
from tests.support.websocket import SocketClient

OFFICIAL: Final = ROOT / "tests/support/asyncapi/3.0.0.json"
NDJSON: Final = "application/x-ndjson"
FORMATS: Final = {"message": "envelope", "payload": "raw", "cloudEvent": "cloudevents"}
COUNT: Final = 48
BODY: Final = b'"' + b"x" * 400_000 + b'"'
"""So many of them are more than the kernel's buffers of one connection hold."""

PROPERTIES: Final = [
    ("content-type", "application/json"),
    ("response-topic", "described/reply"),
    ("correlation-data", "7"),
    ("message-expiry-interval", "600"),
    ("payload-format-indicator", "1"),
    ("user-property", "unit", "celsius"),
]


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    """The document as the code makes it."""
    made: dict[str, Any] = create_app(Settings()).state.describe_streams()
    return json.loads(json.dumps(made))  # type: ignore[no-any-return]


@pytest.fixture
def described(document: dict[str, Any]) -> Described:
    """A judge of what came."""
    return Described(document)


@pytest.fixture
def bridge(fresh_mosquitto: Mosquitto, tmp_path: Path) -> Iterator[Bridge]:
    """A bridge with small buffers and a schema that nothing matches but numbers."""
    file = tmp_path / "schemas.yaml"
    file.write_text('schemas:\n  - topics: "described/typed"\n    schema: {type: number}\n')
    with running_bridge(fresh_mosquitto.url, schemas_file=file, listener_max_messages=8) as running:
        yield running


def test_the_document_is_one_of_asyncapi(document: dict[str, Any]) -> None:
    """By the JSON Schema of the AsyncAPI Initiative itself, which takes no other members."""
    validator = jsonschema_rs.validator_for(json.loads(OFFICIAL.read_text()))
    assert [] == [f"{each.message} at {each.instance_path}" for each in validator.iter_errors(document)]
    assert not validator.is_valid({**document, "chanels": {}})


def references(value: Any) -> Iterator[str]:
    """Every reference in a document."""
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for each in value.values():
            yield from references(each)
    elif isinstance(value, list):
        for each in value:
            yield from references(each)


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    """And every message and every schema is referred to; an operation's messages are those of its channel."""
    found = set(references(document))
    for each in found:
        place: Any = document
        for part in each.removeprefix("#/").split("/"):
            place = place[part]
    for kind in ("messages", "schemas", "securitySchemes"):
        assert {f"#/components/{kind}/{name}" for name in document["components"][kind]} <= found
    for operation in document["operations"].values():
        for asked in (operation, operation.get("reply", operation)):
            channel = asked["channel"]["$ref"]
            assert all(each["$ref"].startswith(f"{channel}/messages/") for each in asked["messages"])


def test_the_examples_are_what_they_are_examples_of(document: dict[str, Any], described: Described) -> None:
    """Each message has one."""
    messages = document["components"]["messages"]
    for name, message in messages.items():
        for example in message["examples"]:
            described.require(name, example["payload"], example.get("headers"))
    assert set(messages) == described.seen


def test_it_is_served_as_it_is_committed(mosquitto: Mosquitto, document: dict[str, Any]) -> None:
    """To anybody, like the OpenAPI document."""
    closed = Authentication([FixedTokens()])
    with running_bridge(mosquitto.url, authentication=closed, wait_until_ready=False) as bridge:
        assert 401 == bridge.client.get("/v1/status").status_code
        answers = [bridge.client.get("/asyncapi.json") for _ in range(2)]
        assert [document] * 2 == [each.json() for each in answers]
        assert "application/json" == answers[0].headers["content-type"]


def test_the_committed_document_is_that_of_the_code(tmp_path: Path) -> None:
    """Whoever changes an event commits its description with it."""
    answer = run_command("asyncapi", "--check", "--output", str(ROOT / "openapi" / "asyncapi.yaml"))
    assert 0 == answer.returncode, answer.stderr
    other = run_command("asyncapi", "--check", "--output", str(tmp_path / "none.yaml"))
    assert 1 == other.returncode
    assert "run 'tidegate asyncapi'" in other.stderr


def fill(bridge: Bridge, mosquitto: Mosquitto) -> None:
    """Leave retained messages of every sort: with properties, text, bytes, one that breaks its schema."""
    publish(mosquitto, "described/all", b'{"celsius": 21.5}', retain=True, properties=PROPERTIES)
    publish(mosquitto, "described/typed", b"warm", retain=True)
    bridge.client.put("/v1/topics/described/bytes", content=b"\xff").raise_for_status()


def flood(bridge: Bridge) -> None:
    """Publish more than a reader who reads nothing can be sent."""
    for _ in range(COUNT):
        bridge.client.post("/v1/topics/described/flood", content=BODY).raise_for_status()


@pytest.mark.parametrize("accept", ["text/event-stream", NDJSON])
@pytest.mark.parametrize("form", FORMATS)
def test_every_event_of_real_streams_is_described(
    bridge: Bridge, fresh_mosquitto: Mosquitto, described: Described, accept: str, form: str
) -> None:
    """Messages of every sort, a gap, lags, the broker's absence, and the end: all are judged."""
    fill(bridge, fresh_mosquitto)
    slow: dict[str, Any] = {
        "accept": accept,
        "format": FORMATS[form],
        "receive_buffer_bytes": 4096,
        "retained": "false",
    }
    with (
        RawStream(bridge.port, "described/flood", policy="drop", **slow) as drops,
        RawStream(bridge.port, "described/flood", policy="latest", **slow) as latest,
        RawStream(
            bridge.port, "described/#", accept=accept, format=FORMATS[form], last_event_id="nobody"
        ) as stream,
    ):
        streams = (drops, latest, stream)
        stream.read_until(lambda: len(stream.events) + len(stream.lines) >= 4 or stream.has_ended)
        flood(bridge)
        fresh_mosquitto.restart()
        bridge.wait_until_ready()
        bridge.drain()
        for each in streams:
            each.read_to_end()
            lines = [line for line in each.lines if line is not None]
            described.require_lines(lines, form)
            if accept != NDJSON:
                described.require_events(each.text.decode(), form)
    controls = ("broker", "gap", "lag", "close")
    if accept != NDJSON:
        assert {f"eventStream.{each}" for each in (form, *controls)} == described.seen
    elif form == "payload":
        assert {"lines.payload"} == described.seen  # and then it ends, for it has no words for a lag
    else:
        suffix = "CloudEvent" if form == "cloudEvent" else ""
        assert {f"lines.{form}", *(f"lines.{each}{suffix}" for each in controls)} == described.seen


def test_every_frame_of_a_real_websocket_is_described(
    bridge: Bridge, fresh_mosquitto: Mosquitto, described: Described
) -> None:
    """What is sent is judged too; the close has a status that the document lists."""
    fill(bridge, fresh_mosquitto)
    sent: list[dict[str, Any]] = [
        {"op": "subscribe", "id": 1, "topics": ["described/#"], "last_event_id": "nobody"},
        {"op": "subscribe", "id": "flood", "topics": ["described/flood"], "policy": "drop"},
        {
            "op": "publish",
            "id": 2,
            "topic": "described/b",
            "payload": [1],
            "properties": {"message_expiry": 9},
        },
        {"op": "ping", "id": 3},
        {"op": "subscribe", "id": 4, "topics": ["x"], "interval": 0.5, "policy": "latest"},
        {"op": "unsubscribe", "id": 5, "subscription": 4},
    ]
    refused: list[object] = [
        {"op": "publish", "id": 6, "topic": "a/#", "payload": 1},
        {"op": "sing", "id": [7]},
    ]
    with SocketClient(bridge.port, receive_buffer_bytes=4096) as client:
        for frame in sent:
            described.require(f"webSocket.{frame['op']}", frame)
            assert "ack" == client.ask(**frame)["op"], frame
        for wrong in refused:
            client.send_text(json.dumps(wrong))
        client.read_until(lambda: len(client.named("error")) == len(refused))
        flood(bridge)
        fresh_mosquitto.restart()
        bridge.wait_until_ready()
        bridge.drain()
        code = client.read_to_end()
        described.require_frames(client.frames, {frame["id"]: frame["op"] for frame in sent})
    channel = described.seen
    assert {name for name in described.names if name.startswith("webSocket.")} == channel
    assert code in CLOSE_CODES


@pytest.mark.parametrize("model", [SubscribeFrame, UnsubscribeFrame, PublishFrameModel, PingFrame])
def test_the_frames_that_are_described_are_those_that_are_read(
    document: dict[str, Any], described: Described, model: type
) -> None:
    """What a schema takes is read, and one member more is refused by both."""
    for example in document["components"]["schemas"][model.__name__]["examples"]:
        frame, _ = read_frame(json.dumps(example).encode())
        assert not isinstance(frame, ProblemError)
        wrong = {**example, "unheard": 1}
        assert isinstance(read_frame(json.dumps(wrong).encode())[0], ProblemError)
        with pytest.raises(AssertionError, match="unheard"):
            described.require(f"webSocket.{example['op']}", wrong)
