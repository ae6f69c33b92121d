"""W3C Trace Context: ``traceparent`` and ``tracestate`` into user properties and out of them."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import httpx
import pytest

from app.publishing.trace_context import trace_of, with_trace
from tests.support.bridge import Bridge, running_bridge, wait_until
from tests.support.mosquitto import Mosquitto
from tests.support.mosquitto_clients import publish, retained, subscribed
from tests.support.sse import following
from tidegate.message import NO_PROPERTIES, Properties

PARENT: Final = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
OTHER: Final = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"
STATE: Final = "vendor=1,tenant@system=a b"


@pytest.fixture(scope="module")
def bridge(mosquitto: Mosquitto) -> Iterator[Bridge]:
    """A bridge that the tests of this module share."""
    with running_bridge(mosquitto.url) as running:
        yield running


@pytest.fixture(scope="module")
def old_bridge(mosquitto: Mosquitto) -> Iterator[Bridge]:
    """A bridge whose connection to the broker speaks MQTT 3.1.1."""
    with running_bridge(f"{mosquitto.url}?protocol=3.1.1") as running:
        yield running


def sent(*headers: tuple[str, str]) -> list[tuple[str, str]]:
    """The user properties that headers make of a message without any."""
    raw = [(name.encode(), value.encode()) for name, value in headers]
    return list(with_trace(NO_PROPERTIES, raw).user_properties)


# Out to the broker.


@pytest.mark.parametrize("target", ["/v1/topics/trace/out", "/v1/publish"])
def test_the_headers_become_user_properties(bridge: Bridge, mosquitto: Mosquitto, target: str) -> None:
    """Behind those that the caller asked for, and beside the other properties."""
    headers = {"traceparent": PARENT, "tracestate": STATE, "Content-Type": "application/json"}
    with subscribed(mosquitto, "trace/out") as subscriber:
        if target == "/v1/publish":
            properties = {"content_type": "application/json", "user_properties": [["a", "1"]]}
            message = {"topic": "trace/out", "payload": 1, "properties": properties}
            answer = bridge.client.post(target, json=message, headers=headers)
        else:
            headers["Mqtt-User-Property"] = "a=1"
            answer = bridge.client.post(target, content=b"1", headers=headers)
        assert 200 == answer.status_code
        seen = subscriber.next()
    assert [("a", "1"), ("traceparent", PARENT), ("tracestate", STATE)] == seen.user_properties
    assert {"content-type": "application/json"} == seen.properties


def test_a_user_property_wins(bridge: Bridge, mosquitto: Mosquitto) -> None:
    """Instrumentation adds the header to every request; what the caller says about the message counts."""
    headers = {"traceparent": PARENT, "tracestate": STATE, "Mqtt-User-Property": f"traceparent={OTHER}"}
    bridge.client.put("/v1/topics/trace/explicit", content=b"1", headers=headers).raise_for_status()
    assert [("traceparent", OTHER)] == retained(mosquitto, "trace/explicit").user_properties


@pytest.mark.parametrize("target", ["/v1/topics/trace/old", "/v1/publish"])
def test_it_is_left_aside_where_mqtt_has_no_properties(old_bridge: Bridge, target: str) -> None:
    """A header that instrumentation adds makes no publish fail."""
    headers = {"traceparent": PARENT, "Content-Type": "application/json"}
    answer = old_bridge.client.post(target, json={"topic": "trace/old", "payload": 1}, headers=headers)
    assert 200 == answer.status_code


@pytest.mark.parametrize("target", ["/v1/topics/trace/late", "/v1/publish"])
def test_it_is_left_aside_where_the_connection_comes_later(target: str) -> None:
    """A message that waited for a connection goes out without it, should that one speak 3.1.1."""
    broker = Mosquitto()
    headers = {"traceparent": PARENT, "Content-Type": "application/json"}
    message = {"topic": "trace/late", "payload": 1}
    try:
        with (
            running_bridge(f"{broker.url}?protocol=3.1.1", wait_until_ready=False) as bridge,
            ThreadPoolExecutor(1) as pool,
        ):
            answer = pool.submit(bridge.client.post, target, json=message, headers=headers)
            wait_until(lambda: httpx.get(f"{bridge.url}/v1/status").json()["broker"]["waiting"] == 1)
            broker.start()
            assert 200 == answer.result().status_code
    finally:
        broker.close()


@pytest.mark.parametrize(("method", "target"), [("DELETE", "/v1/topics/trace/a"), ("GET", "/v1/topics/%23")])
def test_other_calls_take_no_notice(bridge: Bridge, method: str, target: str) -> None:
    """It is no ``Mqtt-`` header, and nobody asked for anything by it."""
    assert 200 == bridge.client.request(method, target, headers={"traceparent": PARENT}).status_code


@pytest.mark.parametrize(
    "parent",
    [
        "",
        PARENT.upper(),
        PARENT[:-1],
        PARENT + "-00",
        PARENT + "0",
        "ff" + PARENT[2:],
        "0x" + PARENT[2:],
        f"00-{'0' * 32}-b7ad6b7169203331-01",
        f"00-0af7651916cd43dd8448eb211c80319c-{'0' * 16}-01",
        PARENT.replace("-", "_"),
    ],
)
def test_a_traceparent_that_is_not_valid_counts_as_none(parent: str) -> None:
    """And its tracestate with it (Trace Context §3.2.2, §3.3)."""
    assert [] == sent(("traceparent", parent), ("tracestate", STATE))


@pytest.mark.parametrize("parent", [PARENT, "01" + PARENT[2:], "cc" + PARENT[2:] + "-what.the-future-brings"])
def test_a_later_version_may_have_more_at_its_end(parent: str) -> None:
    """It is passed on as it came."""
    assert [("traceparent", parent)] == sent(("traceparent", parent))


def test_two_parents_are_none() -> None:
    """Which of them is meant nobody knows."""
    assert [] == sent(("traceparent", PARENT), ("traceparent", OTHER))


def test_a_state_without_a_parent_is_none() -> None:
    """It says nothing by itself."""
    assert [] == sent(("tracestate", STATE))


def test_states_are_one_list() -> None:
    """Several headers of the name are one, in order (RFC 9110 §5.3)."""
    headers = [("tracestate", "a=1"), ("traceparent", PARENT), ("tracestate", " b=2 ,")]
    assert [("traceparent", PARENT), ("tracestate", "a=1,b=2 ,")] == sent(*headers)


@pytest.mark.parametrize(
    "state",
    [
        "",
        ",",
        "a",
        "a=",
        "a=b=c",
        "A=1",
        "a=1,a=2",
        "a=é",
        "@x=1",
        "a@1=1",
        f"a={'x' * 257}",
        ",".join(f"k{number}=1" for number in range(33)),
    ],
)
def test_a_state_that_is_not_valid_is_left_out(state: str) -> None:
    """The parent stays (Trace Context §3.3.1)."""
    assert [("traceparent", PARENT)] == sent(("traceparent", PARENT), ("tracestate", state))


@pytest.mark.parametrize(
    "state", [STATE, "1a=x", f"a={'x' * 256}", ",".join(f"k{each}=1" for each in range(32))]
)
def test_a_state_that_is_valid_is_kept(state: str) -> None:
    """To the letter."""
    assert ("tracestate", state) in sent(("traceparent", PARENT), ("tracestate", state))


def test_properties_without_a_trace_stay_the_same() -> None:
    """Nothing is copied for nothing."""
    properties = Properties(content_type="a/b")
    assert properties is with_trace(properties, [(b"traceparent", b"no")])
    assert () == trace_of(NO_PROPERTIES)


# In from the broker.


def test_what_is_kept_has_the_headers(bridge: Bridge, mosquitto: Mosquitto) -> None:
    """GET answers with them, besides the user properties."""
    properties = [("user-property", "traceparent", PARENT), ("user-property", "tracestate", STATE)]
    publish(mosquitto, "trace/kept", b"1", retain=True, properties=properties)
    headers = bridge.client.get("/v1/topics/trace/kept").headers
    assert (PARENT, STATE) == (headers["traceparent"], headers["tracestate"])
    assert [f"traceparent={PARENT}", "tracestate=vendor=1,tenant@system=a%20b"] == headers.get_list(
        "mqtt-user-property"
    )


def test_what_is_no_trace_is_no_header(bridge: Bridge, mosquitto: Mosquitto) -> None:
    """A user property of the name may hold anything; a header line it does not become."""
    properties = [("user-property", "traceparent", "x" + PARENT), ("user-property", "tracestate", STATE)]
    publish(mosquitto, "trace/none", b"1", retain=True, properties=properties)
    headers = bridge.client.get("/v1/topics/trace/none").headers
    assert ("traceparent" in headers, "tracestate" in headers) == (False, False)


def test_streams_have_it_in_user_properties(bridge: Bridge) -> None:
    """From one request's header to another's event."""
    with following(bridge, "trace/stream") as stream:
        bridge.client.post("/v1/topics/trace/stream", content=b"1", headers={"traceparent": PARENT})
        stream.wait_for_messages(1)
    assert [["traceparent", PARENT]] == stream.events[0].data["properties"]["user_properties"]
