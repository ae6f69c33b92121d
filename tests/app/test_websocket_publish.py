"""Publishing over ``/v1/ws``, with a real broker, and its own client to read what came of it."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.bridge import Bridge, running_bridge, wait_until
from tests.support.mosquitto import Mosquitto, find_program
from tests.support.websocket import SocketClient

BINARY = bytes(range(256))


@pytest.fixture(scope="module")
def bridge(mosquitto: Mosquitto) -> Iterator[Bridge]:
    """One bridge for the tests that only use it."""
    with running_bridge(mosquitto.url) as running:
        yield running


@pytest.fixture
def client(bridge: Bridge) -> Iterator[SocketClient]:
    """A WebSocket of the test's own."""
    with SocketClient(bridge.port) as opened:
        yield opened


def retained(broker: Mosquitto, topic: str, form: str) -> str:
    """The retained message of a topic, as Mosquitto's own client prints it (mosquitto_sub(1), ``-F``)."""
    command = [find_program("mosquitto_sub"), "-h", broker.host, "-p", str(broker.port), "-V", "5"]
    command += ["-t", topic, "-C", "1", "-W", "10", "-F", form]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=20).stdout.strip()


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_publish_is_acknowledged_with_the_brokers_reason_code(client: SocketClient, qos: int) -> None:
    """0 where somebody subscribes."""
    subscription = client.subscribe("ws-publish/acknowledged", qos=2)
    answer = client.ask("publish", id="p", topic="ws-publish/acknowledged", payload=qos, qos=qos)
    assert {
        "op": "ack",
        "id": "p",
        "topic": "ws-publish/acknowledged",
        "qos": qos,
        "retain": False,
        "reason_code": 0,
        "reason": "Success",
    } == answer
    assert [qos] == client.read_messages(subscription, 1)
    assert qos == client.messages(subscription)[0]["qos"]


def test_nobody_subscribes(client: SocketClient) -> None:
    """16 is a success that says so (MQTT 5 §3.4.2.1); Mosquitto says it with QoS 1 alone."""
    answer = client.publish("ws-publish/nobody", 1)
    assert (16, "No matching subscribers") == (answer["reason_code"], answer["reason"])


def test_qos_1_is_what_is_meant_where_nothing_is_said(client: SocketClient) -> None:
    """As everywhere in the API."""
    assert 1 == client.publish("ws-publish/default", 1)["qos"]


@pytest.mark.parametrize(
    ("members", "payload"),
    [
        ('"payload":1.10', b"1.10"),
        ('"payload":100000000000000000000.0000000001', b"100000000000000000000.0000000001"),
        ('"payload": {"b": 1.0e3, "a":[ 1.10 ]} ', b'{"b": 1.0e3, "a":[ 1.10 ]}'),
        ('"payload":"1.10"', b'"1.10"'),
        ('"payload":null', b"null"),
        ('"encoding":"text","payload":"1.10 \\u00b0C\\u0000"', "1.10 °C\0".encode()),
        (f'"encoding":"base64","payload":"{base64.b64encode(BINARY).decode()}"', BINARY),
        ('"payload":1.10,"encoding":"json"', b"1.10"),
    ],
)
def test_a_payload_reaches_the_broker_byte_for_byte(
    mosquitto: Mosquitto, client: SocketClient, members: str, payload: bytes
) -> None:
    """JSON as it was written, every digit of it; text as UTF-8; base64 decoded. And it is retained."""
    client.send_text(f'{{"op":"publish","id":"x","topic":"ws-publish/bytes","retain":true,{members}}}')
    answer = client.answer_to("x")
    assert ("ack", True) == (answer["op"], answer.get("retain")), answer
    assert payload.hex() == retained(mosquitto, "ws-publish/bytes", "%x")


def test_digits_survive_the_way_back_too(client: SocketClient) -> None:
    """What is published as 1.10 comes as 1.10."""
    subscription = client.subscribe("ws-publish/digits")
    client.send_text('{"op":"publish","id":"x","topic":"ws-publish/digits","payload":1.10}')
    client.read_messages(subscription, 1)
    text = next(each for each in client.texts if '"op":"message"' in each)
    assert '"payload":1.10,' in text


def test_properties(mosquitto: Mosquitto, client: SocketClient) -> None:
    """All of them reach the broker and come back; user properties repeat and keep their order."""
    properties: dict[str, Any] = {
        "content_type": "text/plain",
        "message_expiry": 3600,
        "response_topic": "ws-publish/answers",
        "correlation_data": base64.b64encode(b"\x00\xff").decode(),
        "user_properties": [["b", "1"], ["a", "2"], ["b", "3"]],
        "payload_format": 1,
    }
    subscription = client.subscribe("ws-publish/properties")
    client.publish("ws-publish/properties", "text", encoding="text", retain=True, properties=properties)
    client.read_messages(subscription, 1)
    message = client.messages(subscription)[0]
    assert properties == message["properties"]
    assert ("text", "text") == (message["payload"], message["encoding"])
    shown = json.loads(retained(mosquitto, "ws-publish/properties", '["%C","%R","%P"]'))
    assert ["text/plain", "ws-publish/answers", "b:1 a:2 b:3"] == shown


def test_properties_need_mqtt_5(mosquitto: Mosquitto) -> None:
    """They are refused where the broker's session cannot carry them, and not dropped."""
    with (
        running_bridge(mosquitto.url, broker_protocol="3.1.1") as bridge,
        SocketClient(bridge.port) as client,
    ):
        properties = {"content_type": "a"}
        problem = client.refusal("publish", topic="ws-publish/old", payload=1, properties=properties)
        assert "/properties" == problem["field"]
        assert 0 == client.publish("ws-publish/old", 1)["reason_code"]


def test_a_refused_publish_names_the_brokers_reason_code() -> None:
    """135 on MQTT 5, where a client that looks no further would take it for a success."""
    with (
        Mosquitto(acl="topic readwrite open/#\n") as broker,
        running_bridge(broker.url) as bridge,
        SocketClient(bridge.port) as client,
    ):
        problem = client.refusal("publish", topic="closed/a", payload=1)
        assert (135, "Not authorized", 403) == (
            problem["reason_code"],
            problem["reason"],
            problem["status"],
        )
        assert "ack" == client.publish("open/a", 1)["op"]


def test_a_refused_subscription_names_the_brokers_reason_code() -> None:
    """And leaves nothing behind of the filters beside it."""
    with (
        Mosquitto(denied="closed/#") as broker,
        running_bridge(broker.url) as bridge,
        SocketClient(bridge.port) as client,
    ):
        problem = client.refusal("subscribe", id="s", topics=["open", "closed/a"])
        assert (135, 403) == (problem["reason_code"], problem["status"])
        assert 1 == bridge.app.state.hub.listeners
        client.subscribe("open", id="s")


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_the_order_of_one_socket_is_kept(client: SocketClient, qos: int) -> None:
    """Five hundred frames in one write arrive in their order, each once, and each is acknowledged."""
    subscription = client.subscribe(f"ws-publish/order/{qos}", qos=2)
    client.send_text(
        *(
            json.dumps(
                {"op": "publish", "id": n, "topic": f"ws-publish/order/{qos}", "payload": n, "qos": qos}
            )
            for n in range(1000, 1500)
        )
    )
    assert list(range(1000, 1500)) == client.read_messages(subscription, 500)
    client.read_until(lambda: len(client.named("ack")) == 501)
    assert set(range(1000, 1500)) <= {each["id"] for each in client.named("ack")}


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_what_was_sent_before_the_close_is_published(bridge: Bridge, client: SocketClient, qos: int) -> None:
    """A client that does not care for the answers loses nothing by leaving at once."""
    topic = f"ws-publish/farewell/{qos}"
    subscription = client.subscribe(topic, qos=2)
    with SocketClient(bridge.port) as leaving:
        frame = {"op": "publish", "topic": topic, "qos": qos}
        leaving.say_goodbye(*(json.dumps({**frame, "id": n, "payload": n}) for n in range(50)))
        assert 1000 == leaving.read_to_end()
    assert list(range(50)) == client.read_messages(subscription, 50)


def test_while_the_broker_is_away(fresh_mosquitto: Mosquitto) -> None:
    """The socket opens; what needs the broker is an error that says so; later everything works on it."""
    fresh_mosquitto.stop()
    with (
        running_bridge(fresh_mosquitto.url, wait_until_ready=False, publish_timeout_seconds=0.2) as bridge,
        SocketClient(bridge.port) as client,
    ):
        publish = client.refusal("publish", topic="a", payload=1)
        subscribe = client.refusal("subscribe", topics=["a"], id="s")
        unavailable = ("urn:tidegate:problem:broker-unavailable", 503)
        assert unavailable == (publish["type"], publish["status"])
        assert unavailable == (subscribe["type"], subscribe["status"])
        assert "ack" == client.ask("ping")["op"]
        fresh_mosquitto.start()
        wait_until(lambda: bridge.client.get("/readyz").status_code == 200)
        client.subscribe("a", id="s")
        client.publish("a", 1)
        assert [1] == client.read_messages("s", 1)


def test_no_answer_from_the_broker_is_no_success(fresh_mosquitto: Mosquitto) -> None:
    """A message that was sent and not acknowledged may have arrived, and the answer says so."""
    with (
        running_bridge(fresh_mosquitto.url, publish_timeout_seconds=0.2) as bridge,
        SocketClient(bridge.port) as client,
    ):
        fresh_mosquitto.pause()
        problem = client.refusal("publish", topic="a", payload=1)
        assert ("urn:tidegate:problem:outcome-unknown", 504) == (problem["type"], problem["status"])
        fresh_mosquitto.resume()
