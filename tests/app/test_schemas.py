"""JSON Schemas of payloads: what a publish has to be, and what becomes of what the broker delivers."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import yaml

from app.hub.event import Fault
from app.hub.hub import Hub
from app.hub.listener import Listener
from app.publishing.schema_file import load_schemas
from app.publishing.schemas import MAX_POINTER_CHARACTERS, MAX_REASON_CHARACTERS, MAX_TOPICS, Schemas
from tests.support.bridge import Bridge, running_bridge, wait_until
from tests.support.command import ROOT, environment
from tests.support.hub import RecordedUpstream
from tests.support.mosquitto import Mosquitto
from tests.support.mosquitto_clients import publish, subscribed
from tests.support.sse import following
from tests.support.websocket import SocketClient
from tidegate import Publisher
from tidegate.errors import PayloadError
from tidegate.message import Message

CELSIUS: Final = {
    "type": "object",
    "properties": {
        "celsius": {"type": "number", "minimum": -50},
        "at": {"type": "string", "format": "date-time"},
    },
    "required": ["celsius"],
}
ENTRIES: Final[list[dict[str, Any]]] = [
    {"topics": ["schemas/+/flagged", "schemas/out/#"], "schema": CELSIUS},
    {"topics": "schemas/+/dropped", "schema": CELSIUS, "invalid_from_broker": "drop"},
    {"topics": ["schemas/both/#"], "schema": {"required": ["a"]}},
    {"topics": ["schemas/both/strict"], "schema": {"required": ["b"]}, "invalid_from_broker": "drop"},
]
HOT: Final = '"hot" is not of type "number"'


def write(directory: Path, entries: Any) -> Path:
    """A file of schemas."""
    file = directory / "schemas.yaml"
    file.write_text(yaml.safe_dump({"schemas": entries}))
    return file


@pytest.fixture(scope="module")
def bridge(mosquitto: Mosquitto, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bridge]:
    """A bridge with schemas that the tests of this module share."""
    file = write(tmp_path_factory.mktemp("schemas"), ENTRIES)
    with running_bridge(mosquitto.url, schemas_file=file) as running:
        yield running


@pytest.fixture
def schemas(tmp_path: Path) -> Schemas:
    """The same schemas without a bridge."""
    return load_schemas(write(tmp_path, ENTRIES))


def counted(bridge: Bridge) -> dict[str, int]:
    """What the status tells of schemas."""
    found: dict[str, int] = bridge.client.get("/v1/status").json()["schemas"]
    return found


def refusal(answer: httpx.Response) -> tuple[int, str, str]:
    """Status, type and field of a refusal."""
    found = answer.json()
    return answer.status_code, found["type"].removeprefix("urn:tidegate:problem:"), found["field"]


# Out to the broker.


@pytest.mark.parametrize("way", ["post", "put", "json", "websocket"])
def test_a_publish_that_does_not_match_is_refused(bridge: Bridge, mosquitto: Mosquitto, way: str) -> None:
    """Every way of publishing tells where and why, and nothing reaches the broker."""
    before = counted(bridge)["refused"]
    topic = f"schemas/out/{way}"
    payload = {"celsius": "hot"}
    with subscribed(mosquitto, topic) as subscriber:
        if way == "websocket":
            with SocketClient(bridge.port) as client:
                problem = client.refusal("publish", id=1, topic=topic, payload=payload)
        else:
            if way == "json":
                answer = bridge.client.post("/v1/publish", json={"topic": topic, "payload": payload})
            else:
                answer = bridge.client.request(way, f"/v1/topics/{topic}", json=payload)
            assert 422 == answer.status_code
            problem = answer.json()
        bridge.client.post(f"/v1/topics/{topic}", json={"celsius": 21.5}).raise_for_status()
        assert {"celsius": 21.5} == json.loads(subscriber.next().payload)
    assert ("urn:tidegate:problem:schema-mismatch", "/celsius") == (problem["type"], problem["field"])
    assert f"/celsius: {HOT}; nothing was sent" == problem["detail"]
    assert "entry 1 (schemas/+/flagged, schemas/out/#)" in problem["hint"]
    assert before + 1 == counted(bridge)["refused"]


@pytest.mark.parametrize(
    ("payload", "field", "why"),
    [
        (b"21.5 degrees", "", "is not JSON"),
        (b"", "", "is not JSON"),
        (b"\xff", "", "is not JSON"),
        (b"[" * 2000, "", "is not JSON"),
        (b"[]", "", 'is not of type "object"'),
        (b"{}", "", '"celsius" is a required property'),
        (b'{"celsius":-60}', "/celsius", "minimum"),
        (b'{"celsius":1,"at":"today"}', "/at", 'is not a "date-time"'),
    ],
)
def test_where_and_why(bridge: Bridge, payload: bytes, field: str, why: str) -> None:
    """The field is a JSON pointer into the payload; what is not JSON is told so; formats are checked."""
    answer = bridge.client.post("/v1/topics/schemas/out/why", content=payload)
    assert (422, "schema-mismatch", field) == refusal(answer)
    assert why in answer.json()["detail"]


def test_a_pointer_is_escaped(tmp_path: Path) -> None:
    """Slashes and tildes in names are written as RFC 6901 has it; an index is a number."""
    schema = {"properties": {"a/b~c": {"items": {"type": "string"}}}}
    schemas = load_schemas(write(tmp_path, [{"topics": ["#"], "schema": schema}]))
    fault = schemas.judge(Message("a", b'{"a/b~c":["x",1]}'))
    assert Fault("/a~1b~0c/1", '1 is not of type "string"') == fault


def test_a_reason_is_bounded(tmp_path: Path) -> None:
    """A payload of any size makes no reason of any size."""
    schemas = load_schemas(write(tmp_path, [{"topics": ["#"], "schema": {"type": "number"}}]))
    fault = schemas.judge(Message("a", b'"%b"' % (b"x" * 10_000)))
    assert fault is not None
    assert MAX_REASON_CHARACTERS == len(fault.reason)


def test_a_pointer_is_bounded(tmp_path: Path) -> None:
    """Names of any length and depth make none of any length: it leads to what the fault is in."""
    schema = {"additionalProperties": {"$ref": "#"}, "type": "object"}
    schemas = load_schemas(write(tmp_path, [{"topics": ["#"], "schema": schema}]))
    fault = schemas.judge(Message("a", b'{"b":{"%b":1}}' % (b"x" * 10_000)))
    assert Fault("/b", '1 is not of type "object"') == fault
    deep = schemas.judge(Message("a", b'{"x":' * 900 + b"1" + b"}" * 900))
    assert deep is not None
    assert "/x" * (MAX_POINTER_CHARACTERS // 2) == deep.pointer


def test_the_sdk_tells_a_payload_error(bridge: Bridge) -> None:
    """Through a bridge, the fault is the payload's, and trying again is of no use."""
    with Publisher(bridge.url) as publisher, pytest.raises(PayloadError, match=re.escape(f"/celsius: {HOT}")):
        publisher.publish("schemas/out/sdk", {"celsius": "hot"})


def test_clearing_passes(bridge: Bridge) -> None:
    """DELETE publishes an empty payload, which no schema would take."""
    bridge.client.put("/v1/topics/schemas/out/kept", json={"celsius": 1}).raise_for_status()
    assert 200 == bridge.client.delete("/v1/topics/schemas/out/kept").status_code
    assert 404 == bridge.client.get("/v1/topics/schemas/out/kept").status_code


def test_a_topic_without_a_schema_takes_anything(bridge: Bridge) -> None:
    """Only the filters in the file bind."""
    assert 200 == bridge.client.post("/v1/topics/schemas-not/a", content=b"\xff").status_code


@pytest.mark.parametrize(
    ("payload", "is_taken"), [(b'{"a":1,"b":1}', True), (b'{"a":1}', False), (b'{"b":1}', False)]
)
def test_all_entries_that_match_have_to_hold(bridge: Bridge, payload: bytes, is_taken: bool) -> None:
    """Two filters that overlap ask for both of their schemas."""
    answer = bridge.client.post("/v1/topics/schemas/both/strict", content=payload)
    assert (200 if is_taken else 422) == answer.status_code


# In from the broker.


@pytest.mark.parametrize("accept", ["text/event-stream", "application/x-ndjson"])
def test_what_does_not_match_is_delivered_with_a_flag(
    bridge: Bridge, mosquitto: Mosquitto, accept: str
) -> None:
    """The envelope says so, where and why; one that matches has no flag."""
    topic = f"schemas/{len(accept)}/flagged"
    publish(mosquitto, topic, b'{"celsius":"hot"}', retain=True)
    answer = bridge.client.get(f"/v1/subscribe?topic={topic}&limit=1", headers={"Accept": accept})
    text = next(line for line in answer.text.splitlines() if "celsius" in line).removeprefix("data: ")
    found = json.loads(text)
    assert (False, {"pointer": "/celsius", "reason": HOT}) == (found["valid"], found["fault"])
    assert {"celsius": "hot"} == found["payload"]
    publish(mosquitto, topic, b'{"celsius":1}', retain=True)
    answer = bridge.client.get(f"/v1/subscribe?topic={topic}&limit=1", headers={"Accept": accept})
    assert "celsius" in answer.text
    assert "valid" not in answer.text


def test_a_websocket_has_the_flag(bridge: Bridge, mosquitto: Mosquitto) -> None:
    """A message there is the same object."""
    with SocketClient(bridge.port) as client:
        subscription = client.subscribe("schemas/socket/flagged")
        publish(mosquitto, "schemas/socket/flagged", b"hot")
        client.read_messages(subscription, 1)
        message = client.messages(subscription)[0]
    assert False is message["valid"]
    assert message["fault"]["reason"].startswith("it is not JSON")


def test_what_is_kept_has_the_flag(bridge: Bridge, mosquitto: Mosquitto) -> None:
    """A list has it in each object, a single message has it as a header."""
    publish(mosquitto, "schemas/kept/flagged", b'{"celsius":"hot"}', retain=True)
    listed = bridge.client.get("/v1/topics/schemas/kept/%23").json()
    assert [{"pointer": "/celsius", "reason": HOT}] == [each["fault"] for each in listed]
    single = bridge.client.get("/v1/topics/schemas/kept/flagged")
    assert '/celsius:%20"hot"%20is%20not%20of%20type%20"number"' == single.headers["mqtt-fault"]
    assert b'{"celsius":"hot"}' == single.content


def test_what_does_not_match_is_dropped_where_so_chosen(bridge: Bridge, mosquitto: Mosquitto) -> None:
    """The stream never sees it; the next one that matches comes, and the status counts both."""
    before = counted(bridge)
    topic = "schemas/live/dropped"
    with following(bridge, topic) as stream:
        publish(mosquitto, topic, b'{"celsius":"hot"}')
        publish(mosquitto, topic, b"hot")
        publish(mosquitto, topic, b'{"celsius":1}')
        stream.wait_for_messages(1)
        assert [(topic, {"celsius": 1}, False)] == stream.messages
    assert before["dropped"] + 2 == counted(bridge)["dropped"]
    assert (4, before["flagged"]) == (counted(bridge)["entries"], counted(bridge)["flagged"])


def test_what_is_dropped_is_not_read_either(bridge: Bridge, mosquitto: Mosquitto) -> None:
    """A kept message that would be dropped is none."""
    publish(mosquitto, "schemas/gone/dropped", b"hot", retain=True)
    assert 404 == bridge.client.get("/v1/topics/schemas/gone/dropped").status_code


def test_who_comes_back_gets_the_flag_and_nothing_dropped(bridge: Bridge, mosquitto: Mosquitto) -> None:
    """The journal gives what the stream gave."""
    topics = ("schemas/back/flagged", "schemas/back/dropped")
    with following(bridge, *topics) as stream:
        publish(mosquitto, topics[0], b'{"celsius":0}')
        stream.wait_for_messages(1)
    with following(bridge, *topics) as watcher:
        publish(mosquitto, topics[1], b"hot")
        publish(mosquitto, topics[0], b'{"celsius":"hot"}')
        watcher.wait_for_messages(1)
        with following(bridge, *topics, last_event_id=stream.events[0].id) as resumed:
            resumed.wait_for_messages(1)
            assert [watcher.events[0].data] == [resumed.events[0].data]
            assert watcher.events[0].id == resumed.events[0].id
    assert HOT == watcher.events[0].data["fault"]["reason"]


def test_clearing_comes_through(bridge: Bridge, mosquitto: Mosquitto) -> None:
    """Who follows a topic sees that its value is gone, whatever its schema."""
    topic = "schemas/cleared/dropped"
    publish(mosquitto, topic, b'{"celsius":1}', retain=True)
    with following(bridge, topic) as stream:
        stream.wait_for_messages(1)
        bridge.client.delete(f"/v1/topics/{topic}").raise_for_status()
        assert (topic, "", False) == stream.wait_for_messages(2)[1]
        assert "valid" not in stream.events[1].data


def test_one_entry_that_drops_is_enough(schemas: Schemas) -> None:
    """Of several that do not hold, one that drops decides, wherever it stands."""
    assert Fault("", '"a" is a required property') == schemas.judge(Message("schemas/both/x", b"{}"))
    strict = schemas.judge(Message("schemas/both/strict", b"{}"))
    assert Fault("", '"b" is a required property', is_dropped=True) == strict
    assert (1, 1) == (schemas.flagged, schemas.dropped)


async def test_each_message_is_judged_once() -> None:
    """Not once for each of its listeners."""
    judged: list[bytes] = []

    def judge(message: Message) -> Fault | None:
        judged.append(message.payload)
        return None

    upstream = RecordedUpstream()
    hub = Hub(upstream, judge=judge)
    for _ in range(3):
        await hub.join(Listener(["a"]))
    hub.deliver(Message("a", b"1", subscription_identifiers=(upstream.identifiers["a"][-1],)))
    hub.deliver(Message("not/followed", b"2"))
    assert [b"1"] == judged
    await hub.close()


def test_the_topics_remembered_are_bounded(schemas: Schemas) -> None:
    """Whoever publishes to ever new topics fills no memory, and gets the same answer."""
    for number in range(MAX_TOPICS + 10):
        assert schemas.judge(Message(f"schemas/{number}/none", b"x")) is None
    assert len(schemas._of_topics) <= MAX_TOPICS
    assert schemas.judge(Message("schemas/1/flagged", b"x")) is not None


# Without.


def test_without_schemas_nothing_is_loaded(mosquitto: Mosquitto) -> None:
    """The library stays on the disk, and the status says that there are none."""
    with running_bridge(mosquitto.url) as bridge:
        assert bridge.client.get("/v1/status").json()["schemas"] is None
    program = (
        "import sys; from app.main import create_app; from app.settings import Settings; "
        "create_app(Settings()); "
        "print('jsonschema_rs' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env=environment(),
        cwd=ROOT,
        timeout=60,
    )
    assert "False" == done.stdout.strip()


def test_a_bridge_without_listeners_judges_nothing(bridge: Bridge, mosquitto: Mosquitto) -> None:
    """What nobody follows is not looked at."""
    before = counted(bridge)
    publish(mosquitto, "schemas/nobody/dropped", b"hot")
    with following(bridge, "schemas/somebody/flagged") as stream:
        publish(mosquitto, "schemas/somebody/flagged", b"hot")
        stream.wait_for_messages(1)
    wait_until(lambda: counted(bridge)["flagged"] == before["flagged"] + 1)
    assert before["dropped"] == counted(bridge)["dropped"]
