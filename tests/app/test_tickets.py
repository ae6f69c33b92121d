"""Tickets: who gets one, what it is good for, and that it is good once."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, quote

import httpx
import pytest
from typer.testing import CliRunner

from app.cli import cli
from app.problems import ProblemError, ProblemType
from app.security.authentication import Authentication, Ended
from app.security.grants import Grant, Grants
from app.security.principal import ANYBODY, Source, anybody_at
from app.security.tickets import LIFETIME_SECONDS, MemoryTicketStore, Purpose, Tickets
from tests.support.bridge import Bridge, running_bridge
from tests.support.fixed_tokens import FixedTokens, bearer, principal, tokens_of
from tests.support.mosquitto import Mosquitto
from tests.support.sse import Stream, following
from tests.support.valkey import Valkey
from tests.support.websocket import SocketClient

PATH: Final = "/v1/tickets"
UNAUTHENTICATED: Final = "urn:tidegate:problem:unauthenticated"
NOT_GRANTED: Final = "urn:tidegate:problem:not-granted"


def panel() -> Authentication:
    """One principal: it may publish below ``tickets/panel/set`` and follow ``tickets/panel/#``."""
    authentication, _ = tokens_of(
        principal("panel", publish=["tickets/{sub}/set/#"], subscribe=["tickets/{sub}/#"])
    )
    return authentication


@pytest.fixture(scope="module")
def bridge(mosquitto: Mosquitto) -> Iterator[Bridge]:
    """A bridge with one principal."""
    with running_bridge(mosquitto.url, authentication=panel(), max_filters_per_stream=20) as running:
        yield running


def ask(bridge: Bridge, body: dict[str, Any], *, subject: str = "panel") -> httpx.Response:
    """Ask for a ticket."""
    return bridge.client.post(PATH, json=body, headers=bearer(subject))


def ticket(bridge: Bridge, body: dict[str, Any], *, subject: str = "panel") -> str:
    """A ticket."""
    answer = ask(bridge, body, subject=subject)
    assert 200 == answer.status_code, answer.text
    found: str = answer.json()["ticket"]
    return found


def stream_ticket(bridge: Bridge, *topics: str) -> str:
    """A ticket for a stream."""
    return ticket(bridge, {"for": "subscribe", "topics": list(topics)})


def refusal(bridge: Bridge, query: str) -> tuple[int, str, str]:
    """Status, type and detail of a stream that is refused."""
    answer = bridge.client.get(f"/v1/subscribe?{query}")
    problem = answer.json()
    return answer.status_code, problem["type"], problem["detail"]


def opened(bridge: Bridge, query: str) -> int:
    """The status of a stream, which is closed at once where it is open."""
    with bridge.client.stream("GET", f"/v1/subscribe?{query}") as response:
        return response.status_code


def test_a_ticket_opens_a_stream(bridge: Bridge) -> None:
    """Without a header; messages come."""
    given = stream_ticket(bridge, "tickets/panel/a")
    with following(bridge, "tickets/panel/a", ticket=given) as stream:
        answer = bridge.client.post("/v1/topics/tickets/panel/set/a", content=b"1", headers=bearer("panel"))
        assert 200 == answer.status_code
        assert isinstance(stream, Stream)
    with following(bridge, "tickets/panel/set/a", ticket=stream_ticket(bridge, "tickets/panel/#")) as stream:
        bridge.client.post("/v1/topics/tickets/panel/set/a", content=b"2", headers=bearer("panel"))
        assert [("tickets/panel/set/a", 2, False)] == stream.wait_for_messages(1)


def test_the_answer_has_the_url(bridge: Bridge) -> None:
    """Relative to the call's own, with all that was asked for; the answer is kept nowhere."""
    answer = ask(bridge, {"for": "subscribe", "topics": ["tickets/panel/+/é&", "tickets/panel/#"], "qos": 0})
    given = answer.json()
    place, _, query = given["url"].partition("?")
    assert "subscribe" == place
    expected = [("topic", "tickets/panel/+/é&"), ("topic", "tickets/panel/#"), ("qos", "0")]
    assert [*expected, ("ticket", given["ticket"])] == parse_qsl(query)
    assert 200 == opened(bridge, query)
    assert "no-store" == answer.headers["cache-control"]
    assert re.fullmatch(r"[\w-]{43}", given["ticket"])  # 256 bits
    left = datetime.fromisoformat(given["expires_at"]) - datetime.now(UTC)
    assert timedelta(0) < left <= timedelta(seconds=LIFETIME_SECONDS)
    assert "ws" == ask(bridge, {"for": "websocket"}).json()["url"].partition("?")[0]


def test_a_ticket_is_good_once(bridge: Bridge) -> None:
    """A second stream with it is refused, with words that help."""
    given = stream_ticket(bridge, "tickets/panel/a")
    assert 200 == opened(bridge, f"topic=tickets/panel/a&ticket={given}")
    answer = bridge.client.get(f"/v1/subscribe?topic=tickets/panel/a&ticket={given}")
    assert (401, UNAUTHENTICATED) == (answer.status_code, answer.json()["type"])
    assert "POST /v1/tickets" in answer.json()["hint"]
    assert "Bearer" == answer.headers["www-authenticate"]
    assert given not in answer.text


@pytest.mark.parametrize("is_shared", [False, True])
def test_of_many_at_once_one_gets_in(mosquitto: Mosquitto, valkey: Valkey, is_shared: bool) -> None:
    """However close together they come; with a store that replicas share, also at two of them."""
    url = valkey.url if is_shared else ""
    with (
        running_bridge(mosquitto.url, authentication=panel(), redis_url=url) as one,
        running_bridge(mosquitto.url, authentication=panel(), redis_url=url) as other,
        ThreadPoolExecutor(16) as executor,
    ):
        for _ in range(5):
            given = stream_ticket(one, "tickets/panel/a")
            bridges = [one, other] * 8 if is_shared else [one] * 16
            query = f"topic=tickets/panel/a&ticket={given}"
            statuses = sorted(executor.map(lambda each, query=query: opened(each, query), bridges))
            assert [200] + [401] * 15 == statuses


def test_another_replica_takes_it(mosquitto: Mosquitto, valkey: Valkey) -> None:
    """With TIDEGATE_REDIS_URL; it carries the same grants there."""
    with (
        running_bridge(mosquitto.url, authentication=panel(), redis_url=valkey.url) as one,
        running_bridge(mosquitto.url, authentication=panel(), redis_url=valkey.url) as other,
    ):
        given = ticket(one, {"for": "websocket", "publish": ["tickets/panel/set/7"]})
        with SocketClient(other.port, path=f"/v1/ws?ticket={given}") as client:
            assert 0 == client.publish("tickets/panel/set/7", 1)["reason_code"]
            assert NOT_GRANTED == client.refusal("publish", topic="tickets/panel/set/8", payload=1)["type"]
            client.subscribe("tickets/panel/#")


def test_a_store_that_is_away_refuses(mosquitto: Mosquitto, fresh_valkey: Valkey) -> None:
    """503 with when to come back, to who asks for a ticket and to who brings one."""
    with running_bridge(mosquitto.url, authentication=panel(), redis_url=fresh_valkey.url) as bridge:
        given = stream_ticket(bridge, "tickets/panel/a")
        fresh_valkey.kill()
        asked = ask(bridge, {"for": "websocket"})
        brought = bridge.client.get(f"/v1/subscribe?topic=tickets/panel/a&ticket={given}")
    for answer in (asked, brought):
        assert (503, "urn:tidegate:problem:tickets-unavailable") == (
            answer.status_code,
            answer.json()["type"],
        )
        assert int(answer.headers["retry-after"]) > 0
        assert "hunter2" not in answer.text


@pytest.mark.parametrize(
    ("topic", "is_let"),
    [
        ("tickets/panel/a/b", True),
        ("tickets/panel/a/+", True),
        ("$share/g/tickets/panel/a/b", True),
        ("tickets/panel/#", False),
        ("tickets/panel/a", False),
        ("tickets/panel/+/b", False),
        ("#", False),
    ],
)
def test_a_ticket_is_for_what_it_was_asked_for(bridge: Bridge, topic: str, is_let: bool) -> None:
    """Or a part of that; another filter is refused, though the principal itself might follow it."""
    given = stream_ticket(bridge, "tickets/panel/a/+")
    query = f"topic={quote(topic, safe='')}&ticket={given}"
    if is_let:
        assert 200 == opened(bridge, query)
    else:
        assert (403, NOT_GRANTED) == refusal(bridge, query)[:2]


def test_a_ticket_has_its_qos(bridge: Bridge) -> None:
    """1 unless another was asked for; a higher one is refused."""
    given = stream_ticket(bridge, "tickets/panel/a")
    status, kind, detail = refusal(bridge, f"topic=tickets/panel/a&qos=2&ticket={given}")
    assert (403, NOT_GRANTED) == (status, kind)
    assert "QoS 1" in detail
    given = ticket(bridge, {"for": "subscribe", "topics": ["tickets/panel/a"], "qos": 2})
    assert 200 == opened(bridge, f"topic=tickets/panel/a&qos=2&ticket={given}")


def test_a_ticket_for_the_other_kind_is_refused(bridge: Bridge) -> None:
    """And used up by it."""
    given = ticket(bridge, {"for": "websocket"})
    status, kind, detail = refusal(bridge, f"topic=tickets/panel/a&ticket={given}")
    assert (401, UNAUTHENTICATED) == (status, kind)
    assert "the ticket is for a WebSocket, and this is a stream" == detail
    with SocketClient(bridge.port, path=f"/v1/ws?ticket={given}", is_open=False) as client:
        assert 401 == client.status
    given = stream_ticket(bridge, "tickets/panel/a")
    with SocketClient(bridge.port, path=f"/v1/ws?ticket={given}", is_open=False) as client:
        assert (401, "the ticket is for a stream, and this is a WebSocket") == (
            client.status,
            client.problem["detail"],
        )


def test_a_ticket_opens_a_websocket(bridge: Bridge) -> None:
    """With all that its principal is granted, where nothing else was asked for."""
    given = ticket(bridge, {"for": "websocket"})
    with SocketClient(bridge.port, path=f"/v1/ws?ticket={given}") as client:
        client.subscribe("tickets/panel/#")
        assert 0 == client.publish("tickets/panel/set/a", 1)["reason_code"]
        assert NOT_GRANTED == client.refusal("publish", topic="tickets/other", payload=1)["type"]


def test_a_ticket_can_carry_less(bridge: Bridge) -> None:
    """An empty list is nothing at all."""
    given = ticket(bridge, {"for": "websocket", "publish": [], "subscribe": ["tickets/panel/a"]})
    with SocketClient(bridge.port, path=f"/v1/ws?ticket={given}") as client:
        client.subscribe("tickets/panel/a")
        assert NOT_GRANTED == client.refusal("subscribe", topics=["tickets/panel/b"])["type"]
        assert NOT_GRANTED == client.refusal("publish", topic="tickets/panel/set/a", payload=1)["type"]


@pytest.mark.parametrize(
    ("body", "status", "slug", "field"),
    [
        ({"for": "subscribe", "topics": ["tickets/other"]}, 403, "not-granted", "/topics/0"),
        ({"for": "subscribe", "topics": ["tickets/panel/a", "#"]}, 403, "not-granted", "/topics/1"),
        ({"for": "websocket", "publish": ["tickets/panel/set/a", "a"]}, 403, "not-granted", "/publish/1"),
        ({"for": "websocket", "publish": ["#"]}, 403, "not-granted", "/publish/0"),
        ({"for": "websocket", "publish": ["$SYS/a"]}, 403, "reserved-topic", "/publish/0"),
        ({"for": "websocket", "subscribe": ["tickets/+/a"]}, 403, "not-granted", "/subscribe/0"),
        ({"for": "subscribe", "topics": ["a/#/b"]}, 400, "invalid-topic", "/topics/0"),
        ({"for": "websocket", "publish": ["$share/g/a"]}, 400, "invalid-topic", "/publish/0"),
        ({"for": "subscribe", "topics": []}, 422, "invalid-body", "/topics"),
        ({"for": "subscribe"}, 422, "invalid-body", "/topics"),
        ({"for": "subscribe", "topics": ["a"], "publish": ["a"]}, 422, "invalid-body", "/publish"),
        ({"for": "websocket", "topics": ["a"]}, 422, "invalid-body", "/topics"),
        ({"for": "websocket", "qos": 1}, 422, "invalid-body", "/qos"),
        ({"for": "subscribe", "topics": ["a"], "qos": True}, 422, "invalid-body", "/qos"),
        ({"for": "publish"}, 422, "invalid-body", "/for"),
        ({"fo": "websocket"}, 422, "invalid-body", "/fo"),
        ({"for": "websocket", "publish": ["a"] * 21}, 422, "invalid-body", "/publish"),
    ],
)
def test_what_no_ticket_is_given_for(
    bridge: Bridge, body: dict[str, Any], status: int, slug: str, field: str
) -> None:
    """The refusal points to the member."""
    answer = ask(bridge, body)
    problem = answer.json()
    assert (status, f"urn:tidegate:problem:{slug}", field) == (
        answer.status_code,
        problem["type"],
        problem["field"],
    )
    if field == "/fo":
        assert "did you mean 'for'?" == problem["hint"]


def test_nobody_gets_one_without_showing_who_asks(bridge: Bridge) -> None:
    """And no ticket can ask for a ticket: the call takes none."""
    body = {"for": "websocket"}
    assert 401 == bridge.client.post(PATH, json=body).status_code
    given = ticket(bridge, body)
    assert 401 == bridge.client.post(f"{PATH}?ticket={given}", json=body).status_code
    assert 401 == bridge.client.post(PATH, json=body, headers=bearer(given)).status_code


@pytest.mark.parametrize("path", ["/v1/topics/tickets/panel/a", "/v1/principal", "/v1/status"])
def test_other_calls_take_no_ticket(bridge: Bridge, path: str) -> None:
    """It is a parameter that they do not know, and it makes nobody anybody."""
    given = ticket(bridge, {"for": "websocket"})
    assert 401 == bridge.client.get(f"{path}?ticket={given}").status_code
    with SocketClient(bridge.port, path=f"/v1/ws?ticket={given}") as client:
        assert "ack" == client.ask("ping")["op"]


def test_the_ticket_decides_alone(bridge: Bridge) -> None:
    """A header beside it changes nothing, neither for the better nor for the worse."""
    given = stream_ticket(bridge, "tickets/panel/a")
    answer = bridge.client.get(f"/v1/subscribe?topic=tickets/panel/b&ticket={given}", headers=bearer("panel"))
    assert 403 == answer.status_code
    answer = bridge.client.get("/v1/subscribe?topic=tickets/panel/b&ticket=x", headers=bearer("panel"))
    assert 401 == answer.status_code


@pytest.mark.parametrize("name", ["ticket", "%74icket", "tick%65t"])
def test_the_parameter_is_gone_before_anybody_reads_the_query(bridge: Bridge, name: str) -> None:
    """However it is written, and wherever it stands; an error tells nothing of it."""
    for query in ("{}&topic=tickets/panel/a", "topic=tickets/panel/a&{}", "topic=tickets/panel/a&&{}&"):
        given = stream_ticket(bridge, "tickets/panel/a")
        assert 200 == opened(bridge, query.format(f"{name}={given}"))
    given = stream_ticket(bridge, "tickets/panel/a")
    answer = bridge.client.get(f"/v1/subscribe?topic=tickets/panel/a&x=1&{name}={given}")
    assert (400, "x") == (answer.status_code, answer.json()["field"])
    assert given not in answer.text
    answer = bridge.client.get(f"/v1/subscribe?topic=a&{name}={given}&ticket={given}")
    assert (400, "ticket") == (answer.status_code, answer.json()["field"])


@pytest.mark.parametrize("value", ["", "%00", "x" * 5000, "%ff%fe", "%F0%9F%94%91", "a+b"])
def test_nonsense_is_no_ticket(bridge: Bridge, value: str) -> None:
    """401, and nothing worse."""
    assert 401 == refusal(bridge, f"topic=a&ticket={value}")[0]


def test_without_authentication_tickets_work_too(mosquitto: Mosquitto) -> None:
    """A page that was written against such a bridge works with one that asks who it is."""
    with running_bridge(mosquitto.url) as bridge:
        given = bridge.client.post(PATH, json={"for": "subscribe", "topics": ["$SYS/#"]}).json()["ticket"]
        assert 403 == refusal(bridge, f"topic=a&ticket={given}")[0]
        assert (401, "Bearer") == (
            (answer := bridge.client.get("/v1/subscribe?topic=a&ticket=x")).status_code,
            answer.headers["www-authenticate"],
        )
        given = bridge.client.post(PATH, json={"for": "websocket"}).json()["ticket"]
        with SocketClient(bridge.port, path=f"/v1/ws?ticket={given}") as client:
            client.subscribe("tickets/any")
            client.subscribe("$SYS/broker/uptime")


def test_what_revokes_the_principal_revokes_its_tickets(mosquitto: Mosquitto) -> None:
    """A ticket that was given before opens nothing any more."""
    authentication, method = tokens_of(principal("panel", subscribe=["#"]))
    with running_bridge(mosquitto.url, authentication=authentication) as bridge:
        given = stream_ticket(bridge, "a")
        method.revoke("panel")
        status, kind, detail = refusal(bridge, f"topic=a&ticket={given}")
        assert (401, UNAUTHENTICATED) == (status, kind)
        assert detail.startswith("what the ticket was asked for with is good no more")


def test_what_ends_the_principal_ends_what_its_ticket_opened(mosquitto: Mosquitto) -> None:
    """The stream and the WebSocket say why, as they do for the token itself."""
    authentication, method = tokens_of(principal("panel", subscribe=["#"]))
    with running_bridge(mosquitto.url, authentication=authentication) as bridge:
        given = ticket(bridge, {"for": "websocket"})
        with (
            following(bridge, "a", ticket=stream_ticket(bridge, "a")) as stream,
            SocketClient(bridge.port, path=f"/v1/ws?ticket={given}") as client,
        ):
            method.revoke("panel")
            assert {"reason": "token_revoked", "may_reconnect": False} == stream.wait_for("close")
            stream.wait_for_end()
            client.read_to_end()
            assert "token_revoked" == client.frames[-1]["reason"]


# Without a bridge.


def asking(token: str = "") -> dict[str, Any]:
    """A request for a ticket."""
    headers = [(b"authorization", f"Bearer {token}".encode())] if token else []
    return {"type": "http", "headers": headers, "client": ("127.0.0.1", 1)}


class Clock:
    """A clock that a test sets."""

    now = 100.0

    def __call__(self) -> float:
        """The time."""
        return self.now


async def test_a_ticket_is_good_for_half_a_minute() -> None:
    """Not a moment longer."""
    clock = Clock()
    tickets = Tickets(MemoryTicketStore(clock=clock))
    early = await tickets.issue(asking(), Purpose.WEBSOCKET, None)
    late = await tickets.issue(asking(), Purpose.WEBSOCKET, None)
    clock.now += LIFETIME_SECONDS - 0.001
    assert await tickets.redeem(early) is not None
    clock.now += 0.001
    assert await tickets.redeem(late) is None


async def test_the_memory_of_tickets_is_bounded() -> None:
    """Those whose time is over make room; else the bound is named, and when to come back."""
    clock = Clock()
    tickets = Tickets(MemoryTicketStore(max_tickets=2, clock=clock))
    kept = [await tickets.issue(asking(), Purpose.WEBSOCKET, None) for _ in range(2)]
    with pytest.raises(ProblemError, match="2 tickets") as caught:
        await tickets.issue(asking(), Purpose.WEBSOCKET, None)
    assert (ProblemType.TOO_MANY_REQUESTS, "30") == (caught.value.kind, caught.value.headers["Retry-After"])
    assert await tickets.redeem(kept[0]) is not None
    await tickets.issue(asking(), Purpose.WEBSOCKET, None)
    clock.now += LIFETIME_SECONDS
    await tickets.issue(asking(), Purpose.WEBSOCKET, None)


class Watched(MemoryTicketStore):
    """Keeps what it is told, for a test to look at."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[bytes] = []

    async def put(self, name: bytes, value: bytes) -> None:
        """``TicketStore.put``."""
        self.told += [name, value]
        await super().put(name, value)


async def test_what_is_kept_is_of_no_use() -> None:
    """Neither the ticket nor the token that it was asked for with is in the store."""
    store = Watched()
    ticket = await Tickets(store).issue(asking("hunter2"), Purpose.WEBSOCKET, None)
    assert 2 == len(store.told)
    assert all(ticket.encode() not in each and b"hunter2" not in each for each in store.told)


async def test_a_ticket_stands_for_who_asked() -> None:
    """Its principal has the same name, identity and bounds and ends when that one ends, with no scope."""
    asked_by = principal("panel", subscribe=["a/#"], scopes=["status:read"], expires_at=time.time() + 60)
    method = FixedTokens(panel=asked_by)
    tickets = Tickets(MemoryTicketStore())
    authentication = Authentication([method], tickets=tickets)
    given = await tickets.issue(asking("panel"), Purpose.SUBSCRIBE, Grants((), [Grant("a/b", 1)]))
    found = await authentication.redeem(given, Purpose.SUBSCRIBE)
    assert (asked_by.subject, asked_by.identity, asked_by.bounded_as) == (
        found.subject,
        found.identity,
        found.bounded_as,
    )
    assert (asked_by.expires_at, asked_by.credential_id) == (found.expires_at, found.credential_id)
    assert (Source.TICKET, frozenset()) == (found.source, found.scopes)
    assert ((), (Grant("a/b", 1),)) == (found.grants.publish, found.grants.subscribe)
    assert authentication.why_ended(found) is None
    method.revoke("panel")
    assert Ended.REVOKED is authentication.why_ended(found)


async def test_without_authentication_it_stands_for_an_address() -> None:
    """Whose bounds are those of whoever asked."""
    tickets = Tickets(MemoryTicketStore())
    given = await tickets.issue(asking(), Purpose.WEBSOCKET, None)
    found = await Authentication(tickets=tickets).redeem(given, Purpose.WEBSOCKET)
    assert anybody_at("127.0.0.1").bounded_as == found.bounded_as
    assert ANYBODY.grants is found.grants


@pytest.mark.parametrize(
    ("now", "is_good"),
    [
        ({"subscribe": [Grant("a/#", 1)], "publish": [Grant("b", 1, False)]}, True),
        ({"subscribe": [Grant("a/#", 0)], "publish": [Grant("b", 1, False)]}, False),
        ({"subscribe": [Grant("a/c")], "publish": [Grant("b", 1, False)]}, False),
        ({"subscribe": [Grant("a/#", 1)], "publish": [Grant("b", 0, False)]}, False),
        ({"subscribe": [Grant("a/#", 1)]}, False),
    ],
)
async def test_a_ticket_holds_no_more_than_is_granted_now(now: dict[str, Any], is_good: bool) -> None:
    """Grants that were taken away since it was given are not in it."""
    tickets = Tickets(MemoryTicketStore())
    authentication = Authentication([FixedTokens(panel=principal("panel", **now))], tickets=tickets)
    grants = Grants([Grant("b", 1, False)], [Grant("a/+", 1)])
    given = await tickets.issue(asking("panel"), Purpose.WEBSOCKET, grants)
    if is_good:
        await authentication.redeem(given, Purpose.WEBSOCKET)
        return
    with pytest.raises(ProblemError, match="granted no more"):
        await authentication.redeem(given, Purpose.WEBSOCKET)


async def test_a_ticket_ends_with_the_token_of_who_asked() -> None:
    """However much of its own half minute is left."""
    tickets = Tickets(MemoryTicketStore())
    over = principal("panel", subscribe=["#"], expires_at=time.time() - 1)
    given = await tickets.issue(asking("panel"), Purpose.WEBSOCKET, None)
    with pytest.raises(ProblemError, match="is good no more"):
        await Authentication([FixedTokens(panel=over)], tickets=tickets).redeem(given, Purpose.WEBSOCKET)


def test_tickets_of_api_keys(mosquitto: Mosquitto, valkey: Valkey, tmp_path: Path) -> None:
    """Of the real ones, too, at another replica, and what they opened ends when the key is revoked."""
    file = tmp_path / "keys.yaml"
    key = ("key", "create", "panel", "--file", str(file), "--subscribe", "tickets/#")
    made = CliRunner().invoke(cli, key)
    assert 0 == made.exit_code, made.output
    token = made.stdout.strip()
    settings: dict[str, Any] = {"api_keys_file": file, "redis_url": valkey.url}
    with running_bridge(mosquitto.url, **settings) as one, running_bridge(mosquitto.url, **settings) as other:
        given = ticket(one, {"for": "subscribe", "topics": ["tickets/a"]}, subject=token)
        with following(other, "tickets/a", ticket=given) as stream:
            revoked = CliRunner().invoke(cli, ("key", "revoke", "panel", "--file", str(file)))
            assert 0 == revoked.exit_code, revoked.output
            assert "token_revoked" == stream.wait_for("close")["reason"]
