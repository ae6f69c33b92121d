"""JSON that is nested without end, and numbers without end: refused in words by whatever reads JSON."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from app.api.output.refusals import MAX_DEPTH
from tests.support.bridge import Bridge, running_bridge
from tests.support.mosquitto import Mosquitto
from tests.support.raw_stream import RawStream
from tests.support.websocket import SocketClient

LEVELS = 200_000
DIGITS = 1_000_000
JSON = "application/json"
LINES = "application/x-ndjson"
EVENT = "application/cloudevents+json"

HOSTILE = {
    "arrays": b"[" * LEVELS + b"]" * LEVELS,
    "objects": b'{"a":' * LEVELS + b"1" + b"}" * LEVELS,
    "open": b"[" * LEVELS,
}
MESSAGES = {
    "whole": b"%b",
    "payload": b'{"topic":"deep","payload":%b}',
    "topic": b'{"topic":%b,"payload":1}',
    "qos": b'{"topic":"deep","payload":1,"qos":%b}',
    "properties": b'{"topic":"deep","payload":1,"properties":%b}',
    "unknown": b'{"topic":"deep","payload":1,"zz":%b}',
}
REQUESTS = {"whole": b"%b", "topics": b'{"topics":%b}', "limit": b'{"topics":["deep"],"limit":%b}'}
EVENTS = {
    "whole": b"%b",
    "data": b'{"specversion":"1.0","id":"1","source":"/a","type":"t","data":%b}',
    "specversion": b'{"specversion":%b,"id":"1","source":"/a","type":"t"}',
}
FRAMES = {
    "whole": b"%b",
    "op": b'{"op":%b,"id":1}',
    "id": b'{"op":"ping","id":%b}',
    "payload": b'{"op":"publish","id":1,"topic":"deep","payload":%b}',
    "topics": b'{"op":"subscribe","id":1,"topics":%b}',
}


def entries() -> Iterator[tuple[str, str, bytes]]:
    """Each way into the bridge for JSON: path, content type, and the text around what is hostile."""
    for around in MESSAGES.values():
        yield "/v1/publish", JSON, around
        yield "/v1/publish/batch", JSON, b"[%b]" % around
        yield "/v1/publish/batch", LINES, b"%b\n" % around
    for around in REQUESTS.values():
        yield "/v1/subscribe", JSON, around
    for around in EVENTS.values():
        yield "/v1/topics/deep", EVENT, around
        yield "/v1/requests/deep", EVENT, around


@pytest.fixture(scope="module")
def bridge(mosquitto: Mosquitto) -> Iterator[Bridge]:
    """A bridge with room for large bodies; at the end it works still."""
    with running_bridge(mosquitto.url, max_body_bytes=4_000_000) as running:
        yield running
        assert 200 == running.client.post("/v1/topics/deep/after", content=b"1").status_code


@pytest.mark.parametrize("what", HOSTILE)
@pytest.mark.parametrize(("path", "content_type", "around"), list(entries()))
def test_json_that_is_nested_without_end(
    bridge: Bridge, path: str, content_type: str, around: bytes, what: str
) -> None:
    """400, and the hint tells how deep it may be."""
    headers = {"Content-Type": content_type}
    answer = bridge.client.post(path, content=around % HOSTILE[what], headers=headers)
    assert 400 == answer.status_code
    problem = answer.json()
    assert "urn:tidegate:problem:malformed-body" == problem["type"]
    told = problem if "results" not in problem else problem["results"][0]["problem"]
    assert f"{MAX_DEPTH} levels" in told["hint"]


@pytest.mark.parametrize(("path", "content_type", "around"), list(entries()))
def test_a_number_without_end(bridge: Bridge, path: str, content_type: str, around: bytes) -> None:
    """A megabyte of digits is refused, but as a payload, which nobody reads."""
    headers = {"Content-Type": content_type}
    answer = bridge.client.post(path, content=around % (b"1" * DIGITS), headers=headers)
    is_payload = b'"payload":%b' in around
    assert (200 if is_payload else 400) == answer.status_code


@pytest.mark.parametrize("what", [*HOSTILE.values(), b"1" * DIGITS], ids=[*HOSTILE, "number"])
@pytest.mark.parametrize("around", FRAMES.values(), ids=list(FRAMES))
def test_frames_that_are_hostile(bridge: Bridge, around: bytes, what: bytes) -> None:
    """An error each, and the socket works afterwards."""
    with SocketClient(bridge.port) as client:
        client.send_text((around % what).decode())
        problem = client.answer_to(None)["problem"]
        assert ("urn:tidegate:problem:malformed-body", 400) == (problem["type"], problem["status"])
        assert "ack" == client.ask("ping")["op"]


@pytest.mark.parametrize("payload", [*HOSTILE.values(), b"1" * DIGITS], ids=[*HOSTILE, "number"])
def test_a_raw_payload_is_nobodys_to_read(bridge: Bridge, payload: bytes) -> None:
    """It is published as it is, reaches a stream to the byte, and is given as a retained message."""
    with RawStream(bridge.port, "deep/raw", format="raw", accept=LINES) as stream:
        assert 200 == bridge.client.put("/v1/topics/deep/raw", content=payload).status_code
        stream.read_until(lambda: stream.text.count(b"\n") >= 1)
        assert payload in stream.text.replace(b'\\"', b'"')
    assert payload == bridge.client.get("/v1/topics/deep/raw").content
    listed = bridge.client.get("/v1/topics/deep/%23")
    assert 200 == listed.status_code
    assert payload.decode() in listed.text.replace('\\"', '"')
    assert 200 == bridge.client.delete("/v1/topics/deep/raw").status_code
