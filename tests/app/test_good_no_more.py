"""Principals that are good no more while a body of theirs comes, or a reply, or a reader stalls."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import httpx
import pytest

from tests.support.bridge import Bridge, running_bridge, wait_until
from tests.support.fixed_tokens import FixedTokens, bearer, principal, tokens_of
from tests.support.mosquitto import Mosquitto
from tests.support.raw_socket import RawSocket
from tests.support.raw_stream import RawStream
from tests.support.websocket import SocketClient

PADDING = b"x" * 100_000
BLOCKED_BYTES = 65_536
"""What waits in the bridge for a connection that takes nothing, at the least."""

FOREVER_SECONDS = 600.0


@pytest.fixture(scope="module")
def running(mosquitto: Mosquitto) -> Iterator[tuple[Bridge, FixedTokens]]:
    """A bridge that gives up no reader by itself, and its table of tokens."""
    names = ("stream", "socket", "body", "request", "keyed", "lasting")
    authentication, tokens = tokens_of(
        *(principal(each, publish=("ends/#",), subscribe=("ends/#",)) for each in names)
    )
    with running_bridge(
        mosquitto.url, authentication=authentication, stream_send_timeout_seconds=FOREVER_SECONDS
    ) as bridge:
        yield bridge, tokens


def publish_until_blocked(bridge: Bridge, topic: str) -> None:
    """Publish until somebody does not read."""
    for _ in range(200):
        assert bridge.client.post(
            f"/v1/topics/{topic}", content=PADDING, headers=bearer("lasting")
        ).is_success
        if max(bridge.unsent_bytes) > BLOCKED_BYTES:
            return
    raise AssertionError("everything was read")


def test_a_stream_ends_with_its_principal_also_when_nobody_reads_it(
    running: tuple[Bridge, FixedTokens],
) -> None:
    """It is not held open for as long as a slow reader is waited for."""
    bridge, tokens = running
    with RawStream(bridge.port, "ends/stream", token="stream", receive_buffer_bytes=4096):
        publish_until_blocked(bridge, "ends/stream")
        tokens.revoke("stream")
        wait_until(lambda: bridge.app.state.hub.listeners == 0)


def test_a_websocket_ends_with_its_principal_also_when_nobody_reads_it(
    running: tuple[Bridge, FixedTokens],
) -> None:
    """Nor can it go on to publish meanwhile."""
    bridge, tokens = running
    with SocketClient(bridge.port, headers=bearer("socket"), receive_buffer_bytes=4096) as client:
        client.subscribe("ends/socket")
        publish_until_blocked(bridge, "ends/socket")
        tokens.revoke("socket")
        wait_until(lambda: bridge.app.state.hub.listeners == 0)


def test_frames_of_a_revoked_principal_are_refused_at_once(
    mosquitto: Mosquitto, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the WebSocket is closed, too: neither published nor followed."""
    monkeypatch.setattr("app.api.stream.holdings.SWEEP_SECONDS", FOREVER_SECONDS)
    authentication, tokens = tokens_of(principal("frames", publish=("ends/#",), subscribe=("ends/#",)))
    with (
        running_bridge(mosquitto.url, authentication=authentication) as bridge,
        SocketClient(bridge.port, headers=bearer("frames")) as client,
    ):
        tokens.revoke("frames")
        for op, members in (
            ("publish", {"topic": "ends/f", "payload": 1}),
            ("subscribe", {"topics": ["ends/f"]}),
        ):
            assert client.refusal(op, id=op, **members)["type"] == "urn:tidegate:problem:unauthenticated"


def test_a_body_that_comes_after_the_revocation_is_not_published(
    running: tuple[Bridge, FixedTokens],
) -> None:
    """Whoever began in time has no longer for it."""
    bridge, tokens = running
    head = b"PUT /v1/topics/ends/body HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer body\r\n"
    with RawSocket(bridge.port, head + b"Content-Length: 1\r\nExpect: 100-continue\r\n\r\n") as client:
        client.read_until(b"100 Continue\r\n\r\n")
        tokens.revoke("body")
        client.send(b"1")
        client.read_until(b"been revoked since")
        assert b"HTTP/1.1 401 " in client.received
    answer = bridge.client.get("/v1/topics/ends/body", headers=bearer("lasting"))
    assert answer.status_code == 404


@pytest.mark.parametrize(("token", "key"), [("request", {}), ("keyed", {"Idempotency-Key": "ends-0d7b9c1e"})])
def test_a_reply_is_not_shown_to_who_was_revoked_while_it_waited(
    running: tuple[Bridge, FixedTokens], token: str, key: dict[str, str]
) -> None:
    """A request may wait for minutes."""
    bridge, tokens = running
    answers: list[httpx.Response] = []

    def ask() -> None:
        url = f"/v1/requests/ends/{token}?response_topic=ends/{token}/reply&timeout=60"
        answers.append(bridge.client.post(url, content=b"1", headers={**bearer(token), **key}))

    asking = threading.Thread(target=ask)
    with RawStream(bridge.port, f"ends/{token}", token="lasting") as device:
        asking.start()
        device.read_messages(1)
        tokens.revoke(token)
        reply = bridge.client.post(
            f"/v1/topics/ends/{token}/reply", content=b"secret", headers=bearer("lasting")
        )
        assert reply.is_success
        asking.join()
    assert [401] == [each.status_code for each in answers]
    assert "secret" not in answers[0].text
