"""How ``/v1/ws`` ends, by either side, and that nothing is left of it; and a broker that went away."""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator

import pytest

from app.hub.listener import CloseReason
from tests.support.bridge import running_bridge, wait_until
from tests.support.mosquitto import Mosquitto
from tests.support.websocket import SocketClient

SHUTDOWN = {"reason": "shutdown", "may_reconnect": True}
LIFETIME = {"reason": "lifetime", "may_reconnect": True}
GOING_AWAY = 1001


@pytest.fixture
def no_errors(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Nobody logs anything at the level of errors, not even of a task that nobody waited for."""
    yield
    gc.collect()
    found = [each.getMessage() for each in caplog.get_records("call") if each.levelno >= logging.ERROR]
    assert [] == found


def test_the_broker_is_away_once_a_socket_and_a_gap_once_a_subscription(
    fresh_mosquitto: Mosquitto, no_errors: None
) -> None:
    """A socket without subscriptions is told too; afterwards messages come again."""
    with (
        running_bridge(fresh_mosquitto.url) as bridge,
        SocketClient(bridge.port) as client,
        SocketClient(bridge.port) as idle,
    ):
        first, second = client.subscribe("a"), client.subscribe("a", "b/#")
        fresh_mosquitto.restart()
        client.read_until(lambda: len(client.named("gap")) == 2)
        idle.read_until(lambda: len(idle.named("broker")) == 2)
        client.publish("a", "after")
        client.read_messages(first, 1)
        client.read_messages(second, 1)
        for each in (client, idle):
            each.ask("ping")
            assert ["down", "up"] == [told["state"] for told in each.named("broker")]
            assert {"state", "reason"} == set(each.named("broker")[0])
            assert {"state": "up", "session_present": False} == each.named("broker")[1]
        gaps = client.named("gap")
        assert {first, second} == {each["subscription"] for each in gaps}
        assert {"broker_connection"} == {each["reason"] for each in gaps}
        assert [] == idle.named("gap")


def test_a_stopping_bridge_says_goodbye(mosquitto: Mosquitto, no_errors: None) -> None:
    """To each subscription and to the socket, once, and closes with 1001; also where nothing is followed."""
    with (
        running_bridge(mosquitto.url) as bridge,
        SocketClient(bridge.port) as client,
        SocketClient(bridge.port) as idle,
    ):
        first, second = client.subscribe("a"), client.subscribe("b")
        bridge.stop()
        assert GOING_AWAY == client.read_to_end()
        assert GOING_AWAY == idle.read_to_end()
        farewells = client.named("close")
        assert SHUTDOWN == farewells[-1]
        assert {first, second} == {each.get("subscription") for each in farewells[:-1]}
        assert all({**SHUTDOWN, "subscription": each["subscription"]} == each for each in farewells[:-1])
        assert 3 == len(farewells)
        assert [SHUTDOWN] == idle.named("close")
        assert 0 == bridge.app.state.hub.listeners


def test_a_socket_has_a_lifetime(mosquitto: Mosquitto, no_errors: None) -> None:
    """It is told why it ends, and that coming back is fine."""
    with (
        running_bridge(mosquitto.url, stream_lifetime_seconds=0.2) as bridge,
        SocketClient(bridge.port) as client,
    ):
        client.subscribe("a")
        assert GOING_AWAY == client.read_to_end()
        assert [LIFETIME] == client.named("close")
        wait_until(lambda: bridge.app.state.hub.listeners == 0)


def test_a_goodbye_that_has_to_wait_is_said_once(mosquitto: Mosquitto, no_errors: None) -> None:
    """Where the connection takes nothing at that moment, it comes behind what the connection holds."""
    with (
        running_bridge(
            mosquitto.url,
            stream_lifetime_seconds=0.5,
            max_body_bytes=8_000_000,
            listener_max_bytes=16_000_000,
        ) as bridge,
        SocketClient(bridge.port, receive_buffer_bytes=4096) as client,
    ):
        hub = bridge.app.state.hub
        subscription = client.subscribe("ws-ends/waits")
        (own,) = (each for each in hub._listeners if not each.filters)
        answer = bridge.client.post("/v1/topics/ws-ends/waits?qos=1", content=b"1" * 4_000_000)
        assert answer.is_success
        wait_until(lambda: own.close_reason is not None)
        assert GOING_AWAY == client.read_to_end()
        assert [LIFETIME] == client.named("close")
        assert 1 == len(client.messages(subscription))


def test_a_client_that_says_goodbye(mosquitto: Mosquitto, no_errors: None) -> None:
    """Its close is answered, and it leaves the hub with all its subscriptions."""
    with running_bridge(mosquitto.url) as bridge, SocketClient(bridge.port) as client:
        client.subscribe("a")
        client.subscribe("b")
        client.say_goodbye()
        assert 1000 == client.read_to_end()
        wait_until(lambda: bridge.app.state.hub.listeners == 0)


def test_a_socket_that_is_cut_leaves_nothing_behind(mosquitto: Mosquitto, no_errors: None) -> None:
    """Whatever was under way: nothing, a subscription, being asked for one, messages, publishes."""
    with running_bridge(mosquitto.url) as bridge, SocketClient(bridge.port) as witness:
        hub = bridge.app.state.hub
        subscription = witness.subscribe("ws-ends/cut/#")
        for number in range(10):
            with SocketClient(bridge.port) as idle:
                idle.cut()
            with SocketClient(bridge.port) as following:
                following.subscribe("ws-ends/cut/#", "other/#")
                witness.publish("ws-ends/cut/a", number)
                following.cut()
            with SocketClient(bridge.port) as asking:
                asking.send(op="subscribe", topics=[f"ws-ends/new/{number}", "ws-ends/cut/#"])
                asking.cut()
            with SocketClient(bridge.port) as publishing:
                for qos in (0, 1, 2):
                    publishing.send(op="publish", topic="ws-ends/other", payload="x" * 10_000, qos=qos)
                publishing.cut()
        wait_until(lambda: hub.listeners == 2)
        witness.publish("ws-ends/cut/a", "end")
        assert [*range(10), "end"] == witness.read_to_payload(subscription, "end")
        wait_until(lambda: hub.filters == ("ws-ends/cut/#",))


def test_a_socket_that_is_cut_while_the_broker_is_silent(fresh_mosquitto: Mosquitto, no_errors: None) -> None:
    """What waits for the broker does not keep it."""
    with running_bridge(fresh_mosquitto.url) as bridge:
        hub = bridge.app.state.hub
        with SocketClient(bridge.port) as client:
            fresh_mosquitto.pause()
            client.send(op="publish", topic="a", payload=1)
            client.send(op="subscribe", topics=["a"])
            client.ask("ping")
            wait_until(lambda: hub.listeners == 2)
            client.cut()
        wait_until(lambda: hub.listeners == 0)
        fresh_mosquitto.resume()
        wait_until(lambda: bridge.client.get("/readyz").status_code == 200)
        wait_until(lambda: hub.filters == ())


def test_every_end_is_counted_and_logged(mosquitto: Mosquitto, caplog: pytest.LogCaptureFixture) -> None:
    """That of a subscription with its own reason, and that of a socket, also of one that followed nothing."""
    caplog.set_level(logging.INFO, "tidegate.streams")
    with running_bridge(mosquitto.url) as bridge:
        hub = bridge.app.state.hub
        with SocketClient(bridge.port) as client, SocketClient(bridge.port) as idle:
            limited = client.subscribe("ws-ends/counted", limit=1)
            client.subscribe("ws-ends/counted")
            left = client.subscribe("ws-ends/other")
            client.publish("ws-ends/counted", 1)
            client.read_until(lambda: bool(client.named("close")))
            assert [limited] == [each["subscription"] for each in client.named("close")]
            client.ask("unsubscribe", subscription=left)
            assert {CloseReason.LIMIT: 1, CloseReason.CLIENT_LEFT: 1} == hub.ended
            idle.close()
            client.close()
        wait_until(lambda: hub.listeners == 0)
        wait_until(lambda: hub.ended == {CloseReason.LIMIT: 1, CloseReason.CLIENT_LEFT: 4})
    found = sorted(each.getMessage() for each in caplog.records if "WebSocket" in each.getMessage())
    assert found == [
        *["a WebSocket ended: client_left"] * 2,
        *["a subscription of 1 filters on a WebSocket ended: client_left"] * 2,
        "a subscription of 1 filters on a WebSocket ended: limit",
    ]
