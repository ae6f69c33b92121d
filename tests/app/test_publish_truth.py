"""A 2xx is the truth, by each way of publishing: refusals name the code, and one bad message fails alone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest

from tests.support.bridge import Bridge, running_bridge, wait_until
from tests.support.fault_proxy import Fault, FaultProxy
from tests.support.mosquitto import Mosquitto
from tests.support.ports import LOOPBACK
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


def by_batch(bridge: Bridge, topic: str, qos: int) -> Answer:
    """The only message of POST /v1/publish/batch."""
    message = {"topic": topic, "payload": 1, "qos": qos}
    (result,) = bridge.client.post("/v1/publish/batch", json=[message]).json()["results"]
    return dict(result.get("problem", result))


def by_websocket(bridge: Bridge, topic: str, qos: int) -> Answer:
    """A frame of /v1/ws."""
    with SocketClient(bridge.port) as client:
        answer = dict(client.ask("publish", id="x", topic=topic, payload=1, qos=qos))
        return dict(answer.get("problem", answer))


Way = Callable[[Bridge, str, int], Answer]
WAYS: list[Way] = [by_topics, by_put, by_delete, by_json, by_batch, by_websocket]


def kind(answer: Answer) -> str:
    """The name of a problem's type; empty for a success."""
    return str(answer.get("type", "")).removeprefix("urn:tidegate:problem:")


@pytest.fixture(scope="module")
def guarded() -> Iterator[Bridge]:
    """A bridge that its broker lets publish below open/ alone."""
    with Mosquitto(acl="topic readwrite open/#\n") as broker, running_bridge(broker.url) as bridge:
        yield bridge


@pytest.mark.parametrize("qos", [1, 2])
@pytest.mark.parametrize("publish", WAYS)
def test_a_refused_publish_names_the_reason_code(guarded: Bridge, publish: Way, qos: int) -> None:
    """PUBACK refuses at QoS 1, PUBREC at QoS 2; both are 403 with code 135 and its name."""
    answer = publish(guarded, "closed/door", qos)
    assert (answer["status"], answer["reason_code"], answer["reason"]) == (403, 135, "Not authorized")


@pytest.mark.parametrize("qos", [1, 2])
@pytest.mark.parametrize("publish", WAYS)
def test_a_publish_that_nobody_follows_is_a_success(guarded: Bridge, publish: Way, qos: int) -> None:
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


@pytest.mark.parametrize("publish", WAYS)
def test_qos_0_is_handed_over(guarded: Bridge, publish: Way) -> None:
    """Nobody acknowledges it, and nobody refuses it: code 0, also where the rules drop it."""
    for topic in ("open/handed-over", "closed/handed-over"):
        answer = publish(guarded, topic, 0)
        assert (answer["qos"], answer["reason_code"], kind(answer)) == (0, 0, "")


@pytest.mark.parametrize("qos", [1, 2])
def test_a_broker_that_stands_still_is_an_unknown_outcome(qos: int) -> None:
    """SIGSTOP: each way of publishing is 504, since the message was sent, and it arrives later on."""
    with (
        Mosquitto() as broker,
        running_bridge(broker.url, publish_timeout_seconds=0.5) as bridge,
        SocketClient(bridge.port) as witness,
        ThreadPoolExecutor(len(WAYS)) as pool,
    ):
        seen = witness.subscribe("still/#", qos=2, retained=False)
        broker.pause()
        answers = [pool.submit(publish, bridge, f"still/{publish.__name__}", qos) for publish in WAYS]
        found = [(each.result()["status"], kind(each.result())) for each in answers]
        broker.resume()
        assert found == [(504, "outcome-unknown")] * len(WAYS)
        witness.read_messages(seen, len(WAYS))
        topics = {each["topic"] for each in witness.messages(seen)}
        assert topics == {f"still/{publish.__name__}" for publish in WAYS}


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_broker_that_was_killed_is_a_503(qos: int) -> None:
    """Nothing is sent, and the same request succeeds when the broker is back."""
    with (
        Mosquitto() as broker,
        running_bridge(broker.url, publish_timeout_seconds=0.5) as bridge,
        ThreadPoolExecutor(len(WAYS)) as pool,
    ):
        broker.kill()
        wait_until(lambda: bridge.client.get("/readyz").status_code == 503)
        answers = [pool.submit(publish, bridge, "killed/a", qos) for publish in WAYS]
        found = [(each.result()["status"], kind(each.result())) for each in answers]
        assert found == [(503, "broker-unavailable")] * len(WAYS)
        broker.start()
        wait_until(lambda: bridge.client.get("/readyz").status_code == 200)
        assert [kind(publish(bridge, "killed/a", qos)) for publish in WAYS] == [""] * len(WAYS)


async def test_a_black_hole_is_an_unknown_outcome() -> None:
    """No byte comes through: what was handed to the socket may arrive, and does so when the way is free."""
    with ExitStack() as stack:
        broker = stack.enter_context(Mosquitto())
        async with FaultProxy(broker.port) as proxy:
            url = f"mqtt://{LOOPBACK}:{proxy.port}"
            bridge = await asyncio.to_thread(
                stack.enter_context, running_bridge(url, publish_timeout_seconds=0.5)
            )
            await proxy.set(Fault.BLACK_HOLE)
            answers = await asyncio.gather(
                *(asyncio.to_thread(publish, bridge, "hole/a", 1) for publish in WAYS)
            )
            assert [(each["status"], kind(each)) for each in answers] == [(504, "outcome-unknown")] * len(
                WAYS
            )
            await proxy.set(Fault.PASS)
            answer = await asyncio.to_thread(by_topics, bridge, "hole/a", 1)
            assert answer["reason_code"] in (0, 16)
            await asyncio.to_thread(bridge.stop)


@pytest.mark.parametrize("publish", WAYS)
def test_a_receive_maximum_of_one_is_kept_to(publish: Way) -> None:
    """One message at a time is in flight (MQTT 5 §3.2.2.3.3), and all are acknowledged in the end."""
    with (
        Mosquitto(extra=["max_inflight_messages 1"]) as broker,
        running_bridge(broker.url) as bridge,
        ThreadPoolExecutor(16) as pool,
    ):
        limits = bridge.client.get("/v1/status").json()["broker"]["limits"]
        assert limits["receive_maximum"] == 1
        answers = [pool.submit(publish, bridge, f"one/{each}", 1 + each % 2) for each in range(64)]
        assert [kind(each.result()) for each in answers] == [""] * 64


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_the_maximum_packet_size_is_kept_to(qos: int) -> None:
    """MQTT 5 tells it: 413 with code 149, nothing is sent, and the connection stays."""
    with (
        Mosquitto(extra=["max_packet_size 2000"]) as broker,
        running_bridge(broker.url) as bridge,
    ):
        answer = bridge.client.post(f"/v1/topics/large?qos={qos}", content=b"x" * 3000)
        problem = answer.json()
        assert (answer.status_code, kind(problem), problem["reason_code"]) == (413, "packet-too-large", 149)
        assert "2000" in problem["detail"]
        fits = bridge.client.post(f"/v1/topics/large?qos={qos}", content=b"x" * 1900)
        assert fits.is_success
        assert broker.log.count("New client connected") == 1
