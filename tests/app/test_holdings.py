"""What becomes of streams when the principal that holds them is good no more, and how many it may hold."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from app.security.authentication import Authentication
from app.security.principal import Principal
from tests.support.bridge import Bridge, running_bridge, wait_until
from tests.support.fixed_tokens import FixedTokens, bearer, principal
from tests.support.mosquitto import Mosquitto
from tests.support.raw_stream import RawStream
from tests.support.upload import Upload
from tests.support.websocket import SocketClient

NDJSON = "application/x-ndjson"


@pytest.fixture
def tokens() -> FixedTokens:
    """Who is who; of a test's own, since it is changed."""
    return FixedTokens(
        first=principal("first", publish=("holdings/#",), subscribe=("holdings/#",)),
        second=principal("second", publish=("holdings/#",), subscribe=("holdings/#",)),
    )


@pytest.fixture
def bridge(mosquitto: Mosquitto, tokens: FixedTokens) -> Iterator[Bridge]:
    """A bridge that asks who one is, and lets nobody have more than three streams."""
    with running_bridge(
        mosquitto.url, authentication=Authentication([tokens]), max_streams_per_principal=3
    ) as running:
        yield running


def revoke(tokens: FixedTokens) -> str:
    """Revoke the first token, and give the reason that is told."""
    tokens.revoked.add(tokens.principals["first"])
    return "token_revoked"


def expire(tokens: FixedTokens) -> str:
    """Let the first token expire, and give the reason that is told."""
    expired = tokens.principals["first"]
    object.__setattr__(expired, "expires_at", time.time())
    return "token_expired"


@pytest.mark.parametrize("end", [revoke, expire])
def test_a_stream_ends_with_its_principal(
    bridge: Bridge, tokens: FixedTokens, end: Callable[[FixedTokens], str]
) -> None:
    """Of every form, with the reason; those of others go on."""
    with (
        RawStream(bridge.port, "holdings/a", token="first") as stream,
        RawStream(bridge.port, "holdings/a", token="first", accept=NDJSON) as lines,
        RawStream(bridge.port, "holdings/a", token="second") as other,
        SocketClient(bridge.port, headers=bearer("first")) as client,
    ):
        client.subscribe("holdings/a")
        reason = end(tokens)
        stream.read_to_end()
        assert stream.events[-1].json == {"reason": reason, "may_reconnect": False}
        lines.read_to_end()
        assert lines.lines[-1] == {"event": "close", "reason": reason, "may_reconnect": False}
        assert client.read_to_end() == 4401
        assert client.named("close")[0]["reason"] == reason
        answer = bridge.client.post("/v1/topics/holdings/a", content=b"1", headers=bearer("second"))
        assert answer.status_code == 200
        other.read_messages(1)
    assert bridge.client.get("/v1/principal", headers=bearer("first")).status_code == 401


def test_a_principal_that_expires_by_itself_loses_its_stream(bridge: Bridge, tokens: FixedTokens) -> None:
    """Nobody has to do anything for it."""
    tokens.principals["short"] = principal("short", subscribe=("holdings/#",), expires_at=time.time() + 2)
    with RawStream(bridge.port, "holdings/b", token="short") as stream:
        stream.read_to_end()
        assert stream.events[-1].json["reason"] == "token_expired"


def test_an_upload_without_an_end_ends_with_its_principal(bridge: Bridge, tokens: FixedTokens) -> None:
    """Lines that come after the token was revoked are not published, and the answer says why."""
    with Upload(bridge.port, token="first", accept="application/json") as upload:
        upload.send({"topic": "holdings/up", "payload": 1, "retain": True})
        wait_until(
            lambda: bridge.client.get("/v1/topics/holdings/up", headers=bearer("second")).status_code == 200
        )
        revoke(tokens)
        upload.send({"topic": "holdings/up", "payload": 2, "retain": True})
        upload.read_to_end()
        assert b"been revoked since" in upload.received
    kept = bridge.client.get("/v1/topics/holdings/up", headers=bearer("second"))
    assert kept.content == b"1"
    bridge.client.delete("/v1/topics/holdings/up", headers=bearer("second"))


def test_a_principal_has_so_many_streams_and_no_more(bridge: Bridge, tokens: FixedTokens) -> None:
    """WebSockets count, their subscriptions do not; the refusal names the bound; what ends makes room."""
    tokens.principals["again"] = principal("first", subscribe=("holdings/#",))
    with (
        RawStream(bridge.port, "holdings/c", token="first"),
        RawStream(bridge.port, "holdings/c", token="again", accept=NDJSON),
    ):
        with SocketClient(bridge.port, headers=bearer("first")) as client:
            client.subscribe("holdings/c")
            client.subscribe("holdings/d")
            refused = bridge.client.get(
                "/v1/subscribe", params={"topic": "holdings/c"}, headers=bearer("first")
            )
            assert refused.status_code == 429
            assert "TIDEGATE_MAX_STREAMS_PER_PRINCIPAL" in refused.json()["detail"]
            assert int(refused.headers["Retry-After"]) > 0
            with SocketClient(bridge.port, headers=bearer("again"), is_open=False) as late:
                assert late.status == 429
            with RawStream(bridge.port, "holdings/c", token="second"):
                pass
        wait_until(lambda: can_open(bridge, "first"))


def test_a_stream_that_is_refused_holds_nothing(bridge: Bridge) -> None:
    """Refusals do not use up what a principal may have."""
    for _ in range(5):
        answer = bridge.client.get("/v1/subscribe", params={"topic": "#"}, headers=bearer("first"))
        assert answer.status_code == 403
    assert can_open(bridge, "first")


def can_open(bridge: Bridge, token: str) -> bool:
    """Whether a stream can be opened; it is closed again."""
    with RawStream(bridge.port, "holdings/c", token=token, is_open=False) as stream:
        stream.read_until(lambda: stream.status != 0)
        return stream.status == 200


def test_a_principal_shows_no_grants_in_a_log() -> None:
    """Its text is its name and source."""
    shown: Principal = principal("first", publish=("secret/topic",))
    assert "secret/topic" not in repr(shown)
