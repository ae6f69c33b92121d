"""A 2xx is the truth, by each way of publishing: refusals name the code, and one bad message fails alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.support.bridge import Bridge, running_bridge
from tests.support.mosquitto import Mosquitto
from tests.support.websocket import SocketClient

Answer = dict[str, Any]


def by_topics(bridge: Bridge, topic: str, qos: int) -> Answer:
    """POST /v1/topics/{topic}."""
    return dict(bridge.client.post(f"/v1/topics/{topic}?qos={qos}", content=b"1").json())


def by_put(bridge: Bridge, topic: str, qos: int) -> Answer:
    """PUT /v1/topics/{topic}."""
    return dict(bridge.client.put(f"/v1/topics/{topic}?qos={qos}", content=b"1").json())


def by_delete(bridge: Bridge, topic: str, qos: int) -> Answer:
    """DELETE /v1/topics/{topic}."""
    return dict(bridge.client.delete(f"/v1/topics/{topic}?qos={qos}").json())


def by_json(bridge: Bridge, topic: str, qos: int) -> Answer:
    """POST /v1/publish."""
    return dict(bridge.client.post("/v1/publish", json={"topic": topic, "payload": 1, "qos": qos}).json())


def by_websocket(bridge: Bridge, topic: str, qos: int) -> Answer:
    """A frame of /v1/ws."""
    with SocketClient(bridge.port) as client:
        answer = dict(client.ask("publish", id="x", topic=topic, payload=1, qos=qos))
        return dict(answer.get("problem", answer))


WAYS = [by_topics, by_put, by_delete, by_json, by_websocket]


@pytest.fixture(scope="module")
def guarded() -> Iterator[Bridge]:
    """A bridge that its broker lets publish below open/ alone."""
    with Mosquitto(acl="topic readwrite open/#\n") as broker, running_bridge(broker.url) as bridge:
        yield bridge


@pytest.mark.parametrize("qos", [1, 2])
@pytest.mark.parametrize("publish", WAYS)
def test_a_refused_publish_names_the_reason_code(
    guarded: Bridge, publish: Callable[[Bridge, str, int], Answer], qos: int
) -> None:
    """PUBACK refuses at QoS 1, PUBREC at QoS 2; both are 403 with code 135 and its name."""
    answer = publish(guarded, "closed/door", qos)
    assert (answer["status"], answer["reason_code"], answer["reason"]) == (403, 135, "Not authorized")


@pytest.mark.parametrize("qos", [1, 2])
@pytest.mark.parametrize("publish", WAYS)
def test_a_publish_that_nobody_follows_is_a_success(
    guarded: Bridge, publish: Callable[[Bridge, str, int], Answer], qos: int
) -> None:
    """Code 16 says so where the broker gives it, which Mosquitto does for QoS 1; with QoS 2 it says 0."""
    answer = publish(guarded, "open/nobody", qos)
    expected = (16, "No matching subscribers") if qos == 1 else (0, "Success")
    assert (answer["reason_code"], answer["reason"]) == expected
    assert answer.get("type") is None


def test_a_message_that_makes_the_broker_hang_up_fails_alone() -> None:
    """On MQTT 3.1.1 Mosquitto closes the connection on a packet too large; everybody else is answered 200."""
    with (
        Mosquitto(extra=["max_packet_size 2000"]) as broker,
        running_bridge(f"{broker.url}?protocol=3.1.1", publish_timeout_seconds=60) as bridge,
        ThreadPoolExecutor(8) as pool,
    ):
        large = pool.submit(bridge.client.post, "/v1/topics/large", content=b"x" * 3000)
        others = [
            pool.submit(bridge.client.post, f"/v1/topics/other/{number}", content=b"x")
            for number in range(50)
        ]
        answer = large.result()
        assert (answer.status_code, answer.json()["type"]) == (504, "urn:tidegate:problem:outcome-unknown")
        assert "ended 3 times" in answer.json()["detail"]
        assert [other.result().status_code for other in others] == [200] * 50
