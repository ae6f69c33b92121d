"""How often a caller may do something: over HTTP, in batches and over WebSockets, by principal or address."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from pydantic import ValidationError

from app.problems import ProblemError
from app.security.audit import Throttled
from app.security.authentication import Authentication
from app.security.rate_counters import MAX_KEYS
from app.security.rates import Rates, counted_as
from app.settings import Settings
from tests.support.bridge import Bridge, running_bridge
from tests.support.fixed_tokens import FixedTokens, bearer, principal
from tests.support.mosquitto import Mosquitto
from tests.support.websocket import SocketClient

TOO_MANY = "urn:tidegate:problem:too-many-requests"
LINES = {"Content-Type": "application/x-ndjson"}


def tokens() -> Authentication:
    """Two callers who may do everything."""
    everything: dict[str, Any] = {"publish": ("#",), "subscribe": ("#",)}
    return Authentication(
        [FixedTokens(first=principal("first", **everything), second=principal("second", **everything))]
    )


@pytest.fixture
def bridge(mosquitto: Mosquitto) -> Iterator[Bridge]:
    """A bridge on which each caller may publish three messages, and all together five."""
    with running_bridge(
        mosquitto.url,
        authentication=tokens(),
        rate_limit_publishes="3/day",
        rate_limit_publishes_total="5 per 1 day",
    ) as running:
        yield running


def publish(bridge: Bridge, token: str, *, topic: str = "rates/a") -> tuple[int, dict[str, str], Any]:
    """Publish one message: status, headers, body."""
    answer = bridge.client.post(f"/v1/topics/{topic}", content=b"1", headers=bearer(token))
    return answer.status_code, dict(answer.headers), answer.json()


def test_one_publish_too_many(bridge: Bridge) -> None:
    """429 names the setting and its value, and says when to come back."""
    assert [200, 200, 200] == [publish(bridge, "first")[0] for _ in range(3)]
    status, headers, body = publish(bridge, "first")
    assert (429, TOO_MANY) == (status, body["type"])
    assert "TIDEGATE_RATE_LIMIT_PUBLISHES allows 3/day" in body["detail"]
    assert 0 < int(headers["retry-after"]) <= 2 * 86_400
    assert f"in {headers['retry-after']} s" in body["hint"]


def test_everybody_has_a_bound_of_their_own(bridge: Bridge) -> None:
    """One who is over it takes nothing from another; the bound of all together holds for both."""
    assert [200, 200, 200, 429] == [publish(bridge, "first")[0] for _ in range(4)]
    assert [200, 200] == [publish(bridge, "second")[0] for _ in range(2)]
    status, _, body = publish(bridge, "second")
    assert 429 == status
    assert "all callers together: TIDEGATE_RATE_LIMIT_PUBLISHES_TOTAL allows 5 per 1 day" in body["detail"]


def test_headers_tell_what_is_left(bridge: Bridge) -> None:
    """On successes and refusals alike, in the form of draft-ietf-httpapi-ratelimit-headers-10."""
    for left in (2, 1, 0, 0):
        _, headers, _ = publish(bridge, "first")
        assert '"publishes";q=3;w=86400' == headers["ratelimit-policy"]
        name, remaining, seconds = headers["ratelimit"].split(";")
        assert ('"publishes"', f"r={left}") == (name, remaining)
        assert 0 < int(seconds.removeprefix("t=")) <= 2 * 86_400


def test_nothing_is_told_where_nothing_is_set(mosquitto: Mosquitto) -> None:
    """No header, and as many as one likes."""
    with running_bridge(mosquitto.url) as bridge:
        for _ in range(20):
            answer = bridge.client.post("/v1/topics/rates/free", content=b"1")
            assert 200 == answer.status_code
            assert not [name for name in answer.headers if name.startswith("ratelimit")]


def test_each_message_of_a_batch_counts(bridge: Bridge) -> None:
    """Those over the bound fail alone, in their places."""
    messages = [{"topic": "rates/batch", "payload": number} for number in range(5)]
    body = b"".join(json.dumps(each).encode() + b"\n" for each in messages)
    answer = bridge.client.post("/v1/publish/batch", content=body, headers=bearer("first") | LINES)
    found = answer.json()
    assert (3, 2) == (found["accepted"], found["failed"])
    assert [TOO_MANY] * 2 == [each["problem"]["type"] for each in found["results"][3:]]
    assert [3, 4] == [each["index"] for each in found["results"][3:]]
    assert 429 == publish(bridge, "first")[0]


def test_each_publish_over_a_websocket_counts(bridge: Bridge) -> None:
    """An error frame, and the socket works on."""
    with SocketClient(bridge.port, headers=bearer("first")) as client:
        for number in range(3):
            client.publish("rates/ws", number)
        problem = client.refusal("publish", topic="rates/ws", payload=3)
        assert (TOO_MANY, 429) == (problem["type"], problem["status"])
        assert "ack" == client.ask("ping")["op"]
    assert 429 == publish(bridge, "first")[0]


@pytest.mark.parametrize(
    ("method", "path", "content"),
    [
        ("PUT", "/v1/topics/rates/b", b"1"),
        ("DELETE", "/v1/topics/rates/b", b""),
        ("POST", "/v1/publish", b'{"topic":"rates/b","payload":1}'),
        ("POST", "/v1/requests/rates/b?timeout=1", b"1"),
    ],
)
def test_every_way_to_publish_counts(bridge: Bridge, method: str, path: str, content: bytes) -> None:
    """There is no call around the bound."""
    for _ in range(3):
        publish(bridge, "first")
    headers = bearer("first") | {"Content-Type": "application/json"}
    answer = bridge.client.request(method, path, content=content, headers=headers)
    assert (429, TOO_MANY) == (answer.status_code, answer.json()["type"])


def test_what_is_not_granted_does_not_count(mosquitto: Mosquitto) -> None:
    """Grants come first: a refusal by them takes nothing, and tells nothing of the bound."""
    who = FixedTokens(only=principal("only", publish=("rates/mine",)))
    with running_bridge(
        mosquitto.url, authentication=Authentication([who]), rate_limit_publishes="1/day"
    ) as bridge:
        assert [403, 403] == [publish(bridge, "only", topic="rates/other")[0] for _ in range(2)]
        assert [200, 429] == [publish(bridge, "only", topic="rates/mine")[0] for _ in range(2)]
        assert 403 == publish(bridge, "only", topic="rates/other")[0]


def test_a_refusal_is_not_kept_under_a_key(mosquitto: Mosquitto) -> None:
    """Nothing was sent: the same request may be made again, and a repetition of a sent one is no publish."""
    with running_bridge(mosquitto.url, rate_limit_publishes="1/day") as bridge:

        def send(key: str) -> tuple[int, str | None]:
            headers = {"Idempotency-Key": key}
            answer = bridge.client.post("/v1/topics/rates/key", content=b"1", headers=headers)
            return answer.status_code, answer.headers.get("Idempotency-Replayed")

        assert [(200, None), (200, "true"), (200, "true")] == [send("one") for _ in range(3)]
        assert [(429, None), (429, None)] == [send("two") for _ in range(2)]


def test_requests_are_counted(mosquitto: Mosquitto) -> None:
    """Of all kinds, together; probes, documents and the console are not."""
    with running_bridge(mosquitto.url, rate_limit_requests="3/day", rate_limit_publishes="9/day") as bridge:
        for path in ("/livez", "/readyz", "/openapi.json") * 3:
            assert 200 == bridge.client.get(path).status_code
        answers = [bridge.client.get(path) for path in ("/v1/principal", "/v1/status", "/v1/nothing")]
        assert [200, 200, 404] == [each.status_code for each in answers]
        assert '"requests";q=3;w=86400, "publishes";q=9;w=86400' == answers[0].headers["ratelimit-policy"]
        assert ["2", "1", "0"] == [each.headers["ratelimit"].split("r=")[1][0] for each in answers]
        refused = bridge.client.get("/v1/principal")
        assert 429 == refused.status_code
        assert "TIDEGATE_RATE_LIMIT_REQUESTS allows 3/day" in refused.json()["detail"]
        with SocketClient(bridge.port, is_open=False) as client:
            assert (429, TOO_MANY) == (client.status, client.problem["type"])


def test_streams_are_counted(mosquitto: Mosquitto) -> None:
    """Streams, WebSockets and their subscriptions; one too many is refused before it begins."""
    with running_bridge(mosquitto.url, rate_limit_streams="4/day") as bridge:
        for _ in range(2):
            with bridge.client.stream("GET", "/v1/subscribe?topic=rates/s") as answer:
                assert 200 == answer.status_code
        with SocketClient(bridge.port) as client:
            client.subscribe("rates/s")
            problem = client.refusal("subscribe", topics=["rates/t"])
            assert "TIDEGATE_RATE_LIMIT_STREAMS allows 4/day" in problem["detail"]
        refused = bridge.client.post("/v1/subscribe", json={"topics": ["rates/s"]})
        assert (429, TOO_MANY) == (refused.status_code, refused.json()["type"])
        with SocketClient(bridge.port, is_open=False) as late:
            assert (429, TOO_MANY) == (late.status, late.problem["type"])


def test_failed_attempts_are_counted(mosquitto: Mosquitto) -> None:
    """After some, a token from there that is not known is not looked at; one that is known gets through."""
    with running_bridge(mosquitto.url, authentication=tokens(), rate_limit_failed_attempts="3/day") as bridge:
        tried = [publish(bridge, f"guess-{number}") for number in range(5)]
        assert [401, 401, 401, 429, 429] == [status for status, _, _ in tried]
        assert "TIDEGATE_RATE_LIMIT_FAILED_ATTEMPTS allows 3/day" in tried[-1][2]["detail"]
        assert int(tried[-1][1]["retry-after"]) > 0
        assert 429 == bridge.client.get("/v1/principal").status_code
        assert 200 == publish(bridge, "first")[0]


class SlowTokens(FixedTokens):
    """Knows no token by sight, as the first time with each."""

    def recall(self, scope: Any) -> None:
        """None, ever."""
        return

    async def authenticate(self, scope: Any) -> Any:
        """The principal, by a second look."""
        return FixedTokens.recall(self, scope) or await FixedTokens.authenticate(self, scope)


def test_attempts_that_succeed_do_not_count(mosquitto: Mosquitto) -> None:
    """However often a good token is looked at."""
    who = SlowTokens(good=principal("good", publish=("#",)))
    with running_bridge(
        mosquitto.url, authentication=Authentication([who]), rate_limit_failed_attempts="2/day"
    ) as bridge:
        assert [200] * 5 == [publish(bridge, "good")[0] for _ in range(5)]
        assert [401, 401, 429] == [publish(bridge, "bad")[0] for _ in range(3)]
        assert 429 == publish(bridge, "good")[0]


def test_without_authentication_the_address_counts(mosquitto: Mosquitto) -> None:
    """Two clients of one address share its bound; another address has its own."""
    with running_bridge(mosquitto.url, rate_limit_publishes="2/day") as bridge:
        assert [200, 200, 429] == [send_from(bridge, "127.0.0.1") for _ in range(3)]
        assert [200, 200, 429] == [send_from(bridge, "127.0.0.2") for _ in range(3)]


def send_from(bridge: Bridge, source: str) -> int:
    """Publish from an address of the loopback network; the status."""
    with httpx.Client(transport=httpx.HTTPTransport(local_address=source), trust_env=False) as client:
        return client.post(f"{bridge.url}/v1/topics/rates/address", content=b"1").status_code


async def test_strangers_push_nobody_out() -> None:
    """However many addresses fail, what principals did is still known."""
    rates = Rates(Settings(rate_limit_publishes="1/day"), Throttled())
    assert rates.publishes is not None
    assert rates.attempts is not None
    rates.publishes.take("api_key:first")
    for number in range(MAX_KEYS + 1):
        rates.attempts.take(f"address {number}")
    with pytest.raises(ProblemError, match="TIDEGATE_RATE_LIMIT_PUBLISHES allows 1/day"):
        rates.publishes.take("api_key:first")


@pytest.mark.parametrize(
    ("address", "counted"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2::7", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::9", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("::1", "::/64"),
        ("testclient", "testclient"),
        ("", ""),
    ],
)
def test_what_counts_as_one_address(address: str, counted: str) -> None:
    """Of IPv6 a network: whoever has one address there has more than could be counted."""
    assert counted == counted_as(address)


@pytest.mark.parametrize(
    "value", ["100", "fast", "0/second", "1/second;5/minute", "-1/second", "1/fortnight"]
)
def test_what_is_no_rate(value: str) -> None:
    """It stops the start, in words."""
    with pytest.raises(ValidationError, match="is no rate; write a number above 0 and a time"):
        Settings(rate_limit_publishes=value)
