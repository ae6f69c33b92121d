"""WebSockets on which nothing happens, or never an end comes, or too much."""

from __future__ import annotations

from app.connections.websocket import MAX_FRAGMENTS, MAX_UNSENT_BYTES
from tests.support.bridge import running_bridge, wait_until
from tests.support.mosquitto import Mosquitto
from tests.support.websocket import SocketClient

PINGS = 20
"""Of the bridge's heartbeat; as many as come in a time that is longer than the bounds of these tests."""

ONE_READ_BYTES = 300_000
"""What the server reads at once, and answers at once."""


def read_pings(client: SocketClient, count: int) -> None:
    """Read until the bridge has sent this many pings."""
    client.read_until(lambda: client.pings >= count)


def test_a_socket_on_which_nothing_happens_is_closed(mosquitto: Mosquitto) -> None:
    """With the reason; its pongs are no life of its own."""
    with (
        running_bridge(mosquitto.url, websocket_idle_seconds=0.3, heartbeat_seconds=0.05) as bridge,
        SocketClient(bridge.port) as client,
    ):
        assert 1001 == client.read_to_end()
        assert [{"reason": "idle_timeout", "may_reconnect": False}] == client.named("close")
        wait_until(lambda: bridge.app.state.hub.listeners == 0)


def test_a_socket_that_follows_something_is_not_idle(mosquitto: Mosquitto) -> None:
    """However long nothing comes; it is once it follows nothing any more."""
    with (
        running_bridge(mosquitto.url, websocket_idle_seconds=0.3, heartbeat_seconds=0.05) as bridge,
        SocketClient(bridge.port) as client,
    ):
        subscription = client.subscribe("ws-bounds/quiet")
        read_pings(client, PINGS)
        client.publish("ws-bounds/quiet", 1)
        assert [1] == client.read_messages(subscription, 1)
        client.ask("unsubscribe", subscription=subscription)
        assert 1001 == client.read_to_end()


def test_a_socket_that_asks_now_and_then_is_not_idle(mosquitto: Mosquitto) -> None:
    """Any frame counts, be it a ping or one that is refused."""
    with (
        running_bridge(mosquitto.url, websocket_idle_seconds=0.5, heartbeat_seconds=0.05) as bridge,
        SocketClient(bridge.port) as client,
    ):
        for number in range(2 * PINGS):
            client.ask("ping" if number % 2 else "pong")
            read_pings(client, number + 1)
        assert [] == client.named("close")


def test_a_message_in_fragments_has_an_end(mosquitto: Mosquitto) -> None:
    """1008 names the setting: while it is not whole, pongs would keep the connection for ever."""
    with (
        running_bridge(mosquitto.url, body_timeout_seconds=0.3, heartbeat_seconds=0.05) as bridge,
        SocketClient(bridge.port) as client,
        SocketClient(bridge.port) as other,
    ):
        client.send_fragment('{"op":', is_first=True)
        assert 1008 == client.read_to_end()
        assert "TIDEGATE_BODY_TIMEOUT_SECONDS" in (client.close_reason or "")
        assert "ack" == other.ask("ping")["op"]


def test_a_message_in_fragments_that_ends_is_carried_out(mosquitto: Mosquitto) -> None:
    """And the next one has a time of its own."""
    with (
        running_bridge(mosquitto.url, body_timeout_seconds=0.5, heartbeat_seconds=0.05) as bridge,
        SocketClient(bridge.port) as client,
    ):
        for number in range(2):
            client.send_fragment('{"op":"ping",', is_first=True)
            client.send_last(f'"id":{number}}}')
            assert "ack" == client.answer_to(number)["op"]
            read_pings(client, PINGS * (number + 1))
        assert "ack" == client.ask("ping")["op"]


def test_empty_fragments_are_counted(mosquitto: Mosquitto) -> None:
    """They never reach the size of a message, and each takes memory."""
    with running_bridge(mosquitto.url) as bridge, SocketClient(bridge.port) as client:
        client.send_fragment("", is_first=True)
        client.send_fragment("", times=MAX_FRAGMENTS + 1)
        assert 1008 == client.read_to_end()
        assert f"more than {MAX_FRAGMENTS} fragments" == client.close_reason


def test_pings_of_a_client_that_reads_nothing(mosquitto: Mosquitto) -> None:
    """Its pongs do not pile up in the bridge; the last pings are answered once it reads."""
    with (
        running_bridge(mosquitto.url) as bridge,
        SocketClient(bridge.port, receive_buffer_bytes=4096) as client,
    ):
        client.send_pings(b"p" * 125, 80_000)
        assert max(bridge.unsent_bytes) <= MAX_UNSENT_BYTES + ONE_READ_BYTES
        assert "ack" == client.ask("ping")["op"]


def test_the_frame_has_a_bound_of_its_own(mosquitto: Mosquitto) -> None:
    """Smaller or larger than that of a body."""
    with (
        running_bridge(mosquitto.url, websocket_max_message_bytes=100, max_body_bytes=1000) as bridge,
        SocketClient(bridge.port) as client,
    ):
        client.send_text('{"op":"ping","id":1}'.ljust(100))
        assert "ack" == client.answer_to(1)["op"]
        client.send_text('{"op":"ping","id":2}'.ljust(101))
        assert 1009 == client.read_to_end()
        body = b"x" * 1000
        assert 200 == bridge.client.post("/v1/topics/ws-bounds/body", content=body).status_code


def test_frames_are_requests(mosquitto: Mosquitto) -> None:
    """The handshake and each frame count; one too many is an error that names the bound, and no end."""
    with (
        running_bridge(mosquitto.url, rate_limit_requests="3/day") as bridge,
        SocketClient(bridge.port) as client,
    ):
        for _ in range(2):
            assert "ack" == client.ask("ping")["op"]
        problem = client.refusal("ping", id="late")
        assert 429 == problem["status"]
        assert "TIDEGATE_RATE_LIMIT_REQUESTS allows 3/day" in problem["detail"]
        assert not client.is_closed
