"""Who may open ``/v1/ws``, and what is said to those who may not."""

from __future__ import annotations

import logging
import re
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.bridge import Bridge, running_bridge, wait_until
from tests.support.command import Command
from tests.support.mosquitto import Mosquitto
from tests.support.websocket import SUBPROTOCOL, SocketClient

PAGE = "https://panel.example"
SECRET = "hunter2-in-the-handshake"


@pytest.fixture(scope="module")
def bridge(mosquitto: Mosquitto) -> Iterator[Bridge]:
    """A bridge that one other origin may use."""
    with running_bridge(mosquitto.url, cors_origins=(PAGE,)) as running:
        yield running


def refusal(bridge: Bridge, **options: Any) -> tuple[int, dict[str, Any]]:
    """The status and the problem of a handshake; it is a problem document, and makes no listener."""
    wait_until(lambda: bridge.app.state.hub.listeners == 0)
    with SocketClient(bridge.port, is_open=False, **options) as client:
        assert client.answer is not None
        assert "application/problem+json" == client.answer.headers["content-type"]
        assert 0 == bridge.app.state.hub.listeners
        return client.status, client.problem


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "null",
        "http://127.0.0.1:1",
        "http://127.0.0.1",
        f"{PAGE}.evil.example",
        f"{PAGE}:8443",
        "http://panel.example",
        f"{PAGE}/",
    ],
)
def test_pages_of_others_may_not_connect(bridge: Bridge, origin: str) -> None:
    """A browser would let them, and says whose page it is (RFC 6455 §10.2)."""
    status, problem = refusal(bridge, origin=origin)
    assert (403, "urn:tidegate:problem:forbidden", "Origin") == (status, problem["type"], problem["field"])
    assert "TIDEGATE_CORS_ORIGINS" in problem["hint"]


@pytest.mark.parametrize("origin", ["", PAGE, "http://127.0.0.1:{port}", "https://127.0.0.1:{port}"])
def test_own_pages_and_those_of_the_settings_may(bridge: Bridge, origin: str) -> None:
    """And programs, which have no origin."""
    with SocketClient(bridge.port, origin=origin.format(port=bridge.port)) as client:
        assert "ack" == client.ask("ping")["op"]


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [((SUBPROTOCOL,), SUBPROTOCOL), (("other", SUBPROTOCOL), SUBPROTOCOL), ((), None)],
)
def test_the_subprotocol(bridge: Bridge, offered: tuple[str, ...], chosen: str | None) -> None:
    """It is chosen where it is offered; a client that offers none is taken at its word."""
    with SocketClient(bridge.port, subprotocols=offered) as client:
        assert chosen == client.subprotocol
        assert "ack" == client.ask("ping")["op"]


def test_other_subprotocols_are_refused(bridge: Bridge) -> None:
    """The problem names the one that there is."""
    status, problem = refusal(bridge, subprotocols=("mqtt", "tidegate.v2"))
    assert (400, "Sec-WebSocket-Protocol") == (status, problem["field"])
    assert SUBPROTOCOL in problem["detail"]


@pytest.mark.parametrize("query", ["topic=a", "tickets=x", "x=%ff"])
def test_query_parameters_are_refused(bridge: Bridge, query: str) -> None:
    """What a socket is to do is said in frames."""
    status, problem = refusal(bridge, path=f"/v1/ws?{query}")
    assert (400, query.partition("=")[0]) == (status, problem["field"])


@pytest.mark.parametrize("path", ["/v1/ws", "/v1/ws?", "/v1/%77s", "/%761/ws"])
def test_paths_that_mean_the_same(bridge: Bridge, path: str) -> None:
    """Percent-encoding changes nothing (RFC 3986 §6.2.2.2)."""
    with SocketClient(bridge.port, path=path) as client:
        assert "ack" == client.ask("ping")["op"]


@pytest.mark.parametrize("path", ["/v1/ws/", "/v1/ws/a", "/v1/wss", "//v1/ws", "/v1%2Fws", "/v1/WS", "/"])
def test_other_paths_are_no_websocket(bridge: Bridge, path: str) -> None:
    """The handshake fails."""
    with SocketClient(bridge.port, path=path, is_open=False) as client:
        assert client.status in {403, 404}


def test_plain_http_is_told_to_upgrade(bridge: Bridge) -> None:
    """426, with the protocol to change to (RFC 9110 §15.5.22)."""
    answer = bridge.client.get("/v1/ws")
    assert (426, "urn:tidegate:problem:upgrade-required") == (answer.status_code, answer.json()["type"])
    assert "websocket" == answer.headers["upgrade"]
    assert "Upgrade" in answer.headers["connection"]
    answer = bridge.client.post("/v1/ws", json={})
    assert (405, "GET") == (answer.status_code, answer.headers["allow"])


def test_the_number_of_streams_is_bounded(mosquitto: Mosquitto) -> None:
    """A socket counts as one and each of its subscriptions as one more; a place given back can be taken."""
    with running_bridge(mosquitto.url, max_streams=2) as bridge:
        with SocketClient(bridge.port) as client:
            first = client.subscribe("a")
            problem = client.refusal("subscribe", topics=["b"])
            assert ("urn:tidegate:problem:too-many-streams", 503) == (problem["type"], problem["status"])
            with SocketClient(bridge.port, is_open=False) as refused:
                assert (503, problem["type"]) == (refused.status, refused.problem["type"])
                assert refused.answer is not None
                assert int(refused.answer.headers["retry-after"]) > 0
            assert 503 == bridge.client.get("/v1/subscribe?topic=a").status_code
            client.ask("unsubscribe", subscription=first)
            client.subscribe("b")
            client.close()
        wait_until(lambda: bridge.app.state.hub.listeners == 0)
        with SocketClient(bridge.port) as client:
            client.subscribe("a")


def test_a_refused_handshake_is_no_fault_of_the_bridge(
    bridge: Bridge, caplog: pytest.LogCaptureFixture
) -> None:
    """The audit log has it, nothing is logged as an error, and the connection is closed."""
    for _ in range(20):
        with SocketClient(bridge.port, origin="http://evil.example", is_open=False) as client:
            client.read_to_end()
        with SocketClient(bridge.port, origin="http://evil.example", is_open=False) as client:
            client.cut()
    assert 200 == bridge.client.get("/livez").status_code
    loud = [each for each in caplog.records if each.levelno >= logging.WARNING]
    assert {"tidegate.audit"} == {each.name for each in loud}
    assert all("http://evil.example" in each.getMessage() for each in loud)


def test_no_secret_of_a_handshake_is_logged(mosquitto: Mosquitto) -> None:
    """Neither query string nor header nor frame, whatever becomes of the socket, with every level logged."""
    settings = {
        "TIDEGATE_BROKER_URL": mosquitto.url,
        "TIDEGATE_PORT": "0",
        "TIDEGATE_LOG_LEVEL": "debug",
    }
    headers = {"Authorization": f"Bearer {SECRET}", "Cookie": f"session={SECRET}", "X-Key": SECRET}
    with Command("serve", settings=settings) as command:
        command.wait_for("connected to")
        command.wait_for("serving at")
        found = re.search(r"serving at http://127\.0\.0\.1:(\d+)", command.output)
        assert found is not None
        port = int(found[1])
        with SocketClient(port, headers=headers) as client:
            client.send_text(SECRET, f'{{"op":"{SECRET}","id":"{SECRET}"}}')
            client.publish("ws-handshake/secret", SECRET)
            client.send_bytes(SECRET.encode())
            client.ask("ping")
            client.close()
        with SocketClient(port, headers=headers) as client:
            client.cut()
        refusals: tuple[dict[str, Any], ...] = (
            {"path": f"/v1/ws?ticket={SECRET}"},
            {"path": f"/v1/other?ticket={SECRET}"},
            {"origin": "http://evil.example", "path": f"/v1/ws?a={SECRET}"},
            {"subprotocols": (SECRET,)},
        )
        for options in refusals:
            with SocketClient(port, headers=headers, is_open=False, **options) as client:
                assert client.status >= 400
                client.read_to_end()
        command.wait_for("a WebSocket ended: client_left")
        assert 0 == command.interrupt(signal.SIGTERM)
        assert SECRET not in command.output
        assert " ERROR " not in command.output
