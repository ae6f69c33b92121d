"""Connections that send slowly, too much, or nothing, over plain sockets to a real server."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from app.connections.http import SPARE_CONNECTIONS
from tests.support.bridge import Bridge, running_bridge, wait_until
from tests.support.mosquitto import Mosquitto
from tests.support.raw_socket import RawSocket

HALF = b"GET /livez HTTP/1.1\r\nHost: bri"
WHOLE = b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
HALF_OPEN = 1000
IMPATIENT = 0.3
HEARTBEATS = 10
"""As many as there are in a time that is longer than a head may take."""


@pytest.fixture(scope="module")
def bridge(mosquitto: Mosquitto) -> Iterator[Bridge]:
    """A bridge with small bounds that has patience for a head."""
    with running_bridge(
        mosquitto.url, header_timeout_seconds=60, max_header_bytes=2000, max_target_bytes=1000
    ) as running:
        yield running


@pytest.fixture(scope="module")
def impatient_bridge(mosquitto: Mosquitto) -> Iterator[Bridge]:
    """A bridge that has none."""
    with running_bridge(mosquitto.url, header_timeout_seconds=IMPATIENT, heartbeat_seconds=0.1) as running:
        yield running


def kind(opened: RawSocket) -> str:
    """The type of the problem that came."""
    return str(opened.json["type"]).removeprefix("urn:tidegate:problem:")


def request(*, fields: bytes = b"", target: bytes = b"/livez") -> bytes:
    """A request with header fields, each with its line end."""
    return b"GET %b HTTP/1.1\r\nHost: 127.0.0.1\r\n%b\r\n" % (target, fields)


# Slow heads.


@pytest.mark.parametrize("half", [b"G", HALF, b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n"])
def test_half_a_head_is_given_up(impatient_bridge: Bridge, half: bytes) -> None:
    """However much of it came, it is answered in words that name the setting, and the connection closed."""
    with RawSocket(impatient_bridge.port, half) as slow:
        slow.read_to_close()
        assert (408, "header-timeout") == (slow.status, kind(slow))
        assert "TIDEGATE_HEADER_TIMEOUT_SECONDS" in slow.json["detail"]
        assert "connection: close" in slow.head


@pytest.mark.parametrize("sent", [b"", b"\r\n", b"\r\n\r\n"])
def test_a_connection_that_asks_nothing_is_closed(impatient_bridge: Bridge, sent: bytes) -> None:
    """A browser opens one ahead, and would take an answer for that of its first request: there is none."""
    with RawSocket(impatient_bridge.port, sent) as silent:
        assert b"" == silent.read_to_close()


def test_half_a_head_after_a_whole_request(impatient_bridge: Bridge) -> None:
    """A connection that was of use once is not trusted for ever."""
    with RawSocket(impatient_bridge.port, WHOLE) as slow:
        slow.read_answer()
        assert 200 == slow.status
        slow.received = b""
        slow.send(HALF)
        slow.read_to_close()
        assert 408 == slow.status


def test_half_a_head_in_the_same_piece_as_a_whole_request(impatient_bridge: Bridge) -> None:
    """The first is answered as ever, and the second is given up."""
    with RawSocket(impatient_bridge.port, WHOLE + HALF) as slow:
        first, second = slow.read_to_close().split(b"HTTP/1.1 ")[1:]
        assert first.startswith(b"200 ")
        assert second.startswith(b"408 ")


def test_line_ends_after_an_answer_keep_nothing_open(impatient_bridge: Bridge) -> None:
    """The server's own time-out of a connection at rest is off once anything came."""
    with RawSocket(impatient_bridge.port, WHOLE) as slow:
        slow.read_answer()
        slow.received = b""
        slow.send(b"\r\n")
        assert b"" == slow.read_to_close()


def test_a_body_after_a_refusal_keeps_nothing_open(impatient_bridge: Bridge) -> None:
    """The answer is there, and nobody waits for a body that trickles in for nothing."""
    head = b"POST /v1/nothing HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100000\r\n\r\n"
    with RawSocket(impatient_bridge.port, head) as slow:
        slow.read_answer()
        assert 404 == slow.status
        slow.send(b"x")
        slow.read_to_close()


def test_a_stream_lasts_longer_than_a_head_may_take(impatient_bridge: Bridge) -> None:
    """Also where half a request came behind it on the same connection."""
    topic = "connections/stream"
    with RawSocket(
        impatient_bridge.port, request(target=b"/v1/subscribe?topic=%b" % topic.encode())
    ) as stream:
        stream.read_until(b"\r\n\r\n")
        stream.send(HALF)
        stream.read_until(b"\n:", HEARTBEATS)
        assert impatient_bridge.client.post(f"/v1/topics/{topic}", content=b"42").is_success
        stream.read_until(b'"payload":42')
        assert 1 == stream.received.count(b'"payload":42')


def test_half_open_connections_hinder_nobody(bridge: Bridge) -> None:
    """A thousand of them stand, and another client publishes."""
    with contextlib.ExitStack() as stack:
        for _ in range(HALF_OPEN):
            stack.enter_context(RawSocket(bridge.port, HALF))
        wait_until(lambda: len(bridge.unsent_bytes) >= HALF_OPEN)
        answer = bridge.client.post("/v1/topics/connections/half-open", content=b"1")
        assert 200 == answer.status_code
        assert len(bridge.unsent_bytes) >= HALF_OPEN
    wait_until(lambda: len(bridge.unsent_bytes) < HALF_OPEN)


def test_many_half_open_connections_are_given_up(impatient_bridge: Bridge) -> None:
    """Each is told, and closed."""
    with contextlib.ExitStack() as stack:
        stood = [stack.enter_context(RawSocket(impatient_bridge.port, HALF)) for _ in range(100)]
        for each in stood:
            each.read_to_close()
        assert {408} == {each.status for each in stood}


# Large heads.


def test_the_largest_header_fields_pass(bridge: Bridge) -> None:
    """The bound itself is allowed: names, values and what stands between and behind them count."""
    fixed = len(b"Host: 127.0.0.1\r\n") + len(b"X: \r\n") + len(b"Connection: close\r\n")
    padding = b"x" * (2000 - fixed)
    for more, status in ((b"", 200), (b"x", 431)):
        fields = b"Connection: close\r\nX: %b\r\n" % (padding + more)
        with RawSocket(bridge.port, request(fields=fields)) as asked:
            asked.read_to_close()
            assert status == asked.status


@pytest.mark.parametrize(
    "fields",
    [b"X: " + b"x" * 3000 + b"\r\n", b"X: y\r\n" * 1000, b"X" * 3000 + b": y\r\n"],
    ids=["value", "number", "name"],
)
def test_header_fields_that_are_too_large(bridge: Bridge, fields: bytes) -> None:
    """One, or many: refused in words, before the application sees them."""
    with RawSocket(bridge.port, request(fields=fields)) as asked:
        asked.read_to_close()
        assert (431, "headers-too-large") == (asked.status, kind(asked))
        assert "TIDEGATE_MAX_HEADER_BYTES allows: 2000" in asked.json["detail"]


def test_header_fields_that_come_piece_by_piece(bridge: Bridge) -> None:
    """What came in many small pieces counts all the same."""
    with RawSocket(bridge.port, b"GET /livez HTTP/1.1\r\n") as asked:
        asked.send_to_refusal(b"X: y\r\n", 400)
        asked.send_to_refusal(b"\r\n", 1)
        asked.read_to_close()
        assert 431 == asked.status


@pytest.mark.parametrize("start", [b"GET /livez HTTP/1.1\r\nX: ", b"GET /livez?"])
def test_a_head_without_an_end(bridge: Bridge, start: bytes) -> None:
    """It is refused while it is sent: nobody keeps megabytes of it."""
    with RawSocket(bridge.port, start) as asked:
        asked.send_to_refusal(b"x" * 10_000, 1000)
        asked.read_to_close()
        assert asked.status in (0, 414, 431)  # the rest that is on its way may take the answer with it


def test_a_target_that_is_too_long(bridge: Bridge) -> None:
    """414 names the setting; the longest passes."""
    with RawSocket(bridge.port, request(target=b"/" + b"x" * 999)) as asked:
        asked.read_answer()
        assert 404 == asked.status
    with RawSocket(bridge.port, request(target=b"/" + b"x" * 1000)) as asked:
        asked.read_to_close()
        assert (414, "target-too-long") == (asked.status, kind(asked))
        assert "TIDEGATE_MAX_TARGET_BYTES allows 1000" in asked.json["detail"]


def test_the_default_is_what_the_server_can_take(impatient_bridge: Bridge) -> None:
    """One byte more, which the server would not read as HTTP at all, is told for what it is."""
    path = b"/v1/topics/"
    longest = path + b"t" * (65_535 - len(path))
    assert 200 == impatient_bridge.raw("POST", longest, body=b"1").status
    answer = impatient_bridge.raw("POST", longest + b"t", body=b"1")
    assert (414, "urn:tidegate:problem:target-too-long") == (answer.status, answer.json()["type"])


@pytest.mark.parametrize("junk", [b"\x16\x03\x01\x02\x00\x01", b"nonsense\r\n\r\n", b"GET\r\n\r\n"])
def test_what_is_no_http(bridge: Bridge, junk: bytes) -> None:
    """TLS at a plain port, or noise: problem details, like every refusal."""
    with RawSocket(bridge.port, junk) as asked:
        asked.read_to_close()
        assert (400, "bad-request") == (asked.status, kind(asked))


# Too many connections.


def test_one_connection_too_many_is_told(mosquitto: Mosquitto) -> None:
    """503 names the setting; probes are answered, and a place that is left is free again."""
    with running_bridge(mosquitto.url, max_connections=3, wait_until_ready=False) as bridge:
        wait_until(lambda: b" 200 " in ask(bridge, request(target=b"/readyz")))
        with contextlib.ExitStack() as stack:
            for _ in range(3):
                opened = stack.enter_context(RawSocket(bridge.port, request(target=b"/v1/principal")))
                opened.read_answer()
                assert 200 == opened.status
            with RawSocket(bridge.port, request(target=b"/v1/principal")) as refused:
                refused.read_to_close()
                assert (503, "too-many-connections") == (refused.status, kind(refused))
                assert "TIDEGATE_MAX_CONNECTIONS allows: 3" in refused.json["detail"]
                assert "retry-after: " in refused.head
            for target in (b"/livez", b"/readyz"):
                with RawSocket(bridge.port, request(target=target)) as probe:
                    probe.read_to_close()
                    assert 200 == probe.status
        wait_until(lambda: b" 200 " in ask(bridge, request(target=b"/v1/principal")))


def test_a_websocket_too_many_is_told(mosquitto: Mosquitto) -> None:
    """Its handshake is refused with the same words."""
    with (
        running_bridge(mosquitto.url, max_connections=1, wait_until_ready=False) as bridge,
        RawSocket(bridge.port, WHOLE) as first,
    ):
        first.read_answer()
        with RawSocket(bridge.port, request(target=b"/v1/ws", fields=UPGRADE)) as refused:
            refused.read_to_close()
            assert (503, "too-many-connections") == (refused.status, kind(refused))


def test_many_too_many_are_closed_at_once(mosquitto: Mosquitto) -> None:
    """Telling each why would hold more than the bound allows."""
    with (
        running_bridge(
            mosquitto.url, max_connections=1, header_timeout_seconds=60, wait_until_ready=False
        ) as bridge,
        contextlib.ExitStack() as stack,
    ):
        stood = [stack.enter_context(RawSocket(bridge.port)) for _ in range(SPARE_CONNECTIONS + 2)]
        assert b"" == stood[-1].read_to_close()


# Handshakes of WebSockets.

UPGRADE = (
    b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
)


@pytest.mark.parametrize(
    ("target", "fields", "status"),
    [
        (b"/v1/ws?a=" + b"b" * 8192, b"", 414),
        (b"/v1/ws", b"X: " + b"y" * 8192 + b"\r\n", 431),
        (b"/v1/ws", b"X: y\r\n" * 200, 431),
        (b"/v1/ws", b"Content-Length: 5\r\n", 400),
    ],
    ids=["target", "field", "fields", "body"],
)
def test_a_handshake_that_is_not_read(
    mosquitto: Mosquitto, target: bytes, fields: bytes, status: int
) -> None:
    """It gets an answer and is closed; it was left open for ever, and broke the end of the bridge."""
    with (
        running_bridge(mosquitto.url, wait_until_ready=False) as bridge,
        RawSocket(bridge.port, request(target=target, fields=fields + UPGRADE)) as asked,
    ):
        asked.read_to_close()
        assert status == asked.status
        assert "content-type: application/problem+json" in asked.head


def ask(bridge: Bridge, sent: bytes) -> bytes:
    """What one request on a connection of its own is answered with."""
    with RawSocket(bridge.port, sent) as asked:
        asked.read_answer()
        return asked.received
