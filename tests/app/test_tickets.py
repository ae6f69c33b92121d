"""Tickets: who gets one, what it is good for, and that it is good once."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import parse_qsl, quote

import httpx
import pytest
from redis.asyncio import Redis
from typer.testing import CliRunner

from app.cli import cli
from app.problems import ProblemError, ProblemType
from app.security.authentication import Authentication, Ended
from app.security.grants import Grant, Grants
from app.security.principal import ANYBODY, Source, anybody_at
from app.security.tickets import LIFETIME_SECONDS, MemoryTicketStore, Purpose, Tickets, TicketStore
from app.security.tickets_redis import RedisTicketStore
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


class Stores(Protocol):
    """Makes a store with bounds; of the kind that replicas share, each is one replica's."""

    def __call__(self, **bounds: Any) -> Tickets:
        """Tickets in it."""


@pytest.fixture(params=["memory", "shared"])
async def stores(request: pytest.FixtureRequest) -> AsyncIterator[Stores]:
    """Of both kinds, the same is expected."""
    made: list[Tickets] = []
    valkey: Valkey | None = request.getfixturevalue("fresh_valkey") if request.param == "shared" else None

    def make(**bounds: Any) -> Tickets:
        store: TicketStore
        if valkey is None:
            store = MemoryTicketStore(**bounds)
        else:
            store = RedisTicketStore(valkey.url, lost=lambda _: None, **bounds)
        made.append(Tickets(store))
        return made[-1]

    yield make
    for each in made:
        await each.close()


async def test_the_room_for_tickets_is_bounded(stores: Stores) -> None:
    """One that is used makes room; else the bound is named, and when to come back."""
    tickets = stores(max_tickets=20)
    kept = [await tickets.issue(asking(), Purpose.WEBSOCKET, None) for _ in range(2)]
    with pytest.raises(ProblemError, match="2 tickets of yours") as caught:
        await tickets.issue(asking(), Purpose.WEBSOCKET, None)
    assert (ProblemType.TOO_MANY_REQUESTS, "30") == (caught.value.kind, caught.value.headers["Retry-After"])
    assert await tickets.redeem(kept[0]) is not None
    assert await tickets.redeem(kept[0]) is None
    await tickets.issue(asking(), Purpose.WEBSOCKET, None)
    with pytest.raises(ProblemError, match="2 tickets of yours"):
        await tickets.issue(asking(), Purpose.WEBSOCKET, None)


async def test_tickets_that_are_used_give_their_bytes_back(stores: Stores) -> None:
    """However many there were, one after the other."""
    tickets = stores(max_bytes=30_000)
    for _ in range(40):
        given = await tickets.issue(asking("x" * 2000), Purpose.WEBSOCKET, None)
        with pytest.raises(ProblemError, match="1 tickets of yours"):
            await tickets.issue(asking("x" * 2000), Purpose.WEBSOCKET, None)
        assert await tickets.redeem(given) is not None


async def test_of_many_who_ask_at_once_no_more_get_a_ticket_than_may(stores: Stores) -> None:
    """However close together they come."""
    tickets = stores(max_tickets=50)
    asked = [tickets.issue(asking(), Purpose.WEBSOCKET, None, "one") for _ in range(40)]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert 5 == sum(isinstance(each, str) for each in answers)
    assert 35 == sum(isinstance(each, ProblemError) for each in answers)


async def test_replicas_share_the_room_for_tickets(fresh_valkey: Valkey) -> None:
    """What one has given counts at the other, and is given back there."""
    one, other = (
        Tickets(RedisTicketStore(fresh_valkey.url, lost=lambda _: None, max_tickets=10)) for _ in range(2)
    )
    given = await one.issue(asking(), Purpose.WEBSOCKET, None, "one")
    with pytest.raises(ProblemError, match="1 tickets of yours"):
        await other.issue(asking(), Purpose.WEBSOCKET, None, "one")
    assert await other.redeem(given) is not None
    await one.issue(asking(), Purpose.WEBSOCKET, None, "one")
    await one.close()
    await other.close()


async def test_shared_tickets_whose_time_is_over_make_room(fresh_valkey: Valkey) -> None:
    """In number and in bytes, their owner's and everybody's; and nothing is kept for ever."""
    bounds: dict[str, Any] = {"max_tickets": 40, "lost": lambda _: None}
    short = Tickets(RedisTicketStore(fresh_valkey.url, **bounds, lifetime_seconds=0.001))
    long = Tickets(RedisTicketStore(fresh_valkey.url, **bounds))
    await long.issue(asking(), Purpose.WEBSOCKET, None, "one")
    await short.issue(asking(), Purpose.WEBSOCKET, None, "one")
    for number in range(9):
        await short.issue(asking(), Purpose.WEBSOCKET, None, f"other {number}")
    client = Redis.from_url(fresh_valkey.url)

    async def keys() -> list[bytes]:
        return [key async for key in client.scan_iter(match="tidegate:{tickets}:*")]

    async with asyncio.timeout(10):
        while len(await keys()) > 3:  # a ticket, its owner's set, and that of all
            pass
    for _ in range(3):
        await long.issue(asking(), Purpose.WEBSOCKET, None, "one")
    with pytest.raises(ProblemError, match="4 tickets of yours"):
        await long.issue(asking(), Purpose.WEBSOCKET, None, "one")
    told: Any = await client.zrange("tidegate:{tickets}:all", 0, -1, withscores=True)
    held = dict(told)
    assert 4 == len(held) - 1
    assert sum(int(member[32:]) for member in held if member != b"bytes") == -held[b"bytes"]
    assert 4 + 2 == len(await keys())
    assert all([0 < await client.pttl(key) <= LIFETIME_SECONDS * 1000 for key in await keys()])
    await short.close()
    await long.close()
    await client.aclose()


async def test_tickets_in_memory_whose_time_is_over_make_room() -> None:
    """Those of others, too."""
    clock = Clock()
    tickets = Tickets(MemoryTicketStore(max_tickets=20, clock=clock))
    kept = [await tickets.issue(asking(), Purpose.WEBSOCKET, None) for _ in range(2)]
    assert 2 == len(kept)
    clock.now += LIFETIME_SECONDS
    await tickets.issue(asking(), Purpose.WEBSOCKET, None)


async def test_nobody_has_all_the_room_for_tickets(stores: Stores) -> None:
    """One caller has a tenth, in number and in bytes, and others theirs; together they have all."""
    tickets = stores(max_tickets=10, max_bytes=10 * 1000)
    await tickets.issue(asking(), Purpose.WEBSOCKET, None, "one")
    with pytest.raises(ProblemError, match="of yours"):
        await tickets.issue(asking(), Purpose.WEBSOCKET, None, "one")
    with pytest.raises(ProblemError, match="of yours"):
        await tickets.issue(asking("x" * 1000), Purpose.WEBSOCKET, None, "two")
    for number in range(9):
        await tickets.issue(asking(), Purpose.WEBSOCKET, None, f"other {number}")
    with pytest.raises(ProblemError, match="all callers together"):
        await tickets.issue(asking(), Purpose.WEBSOCKET, None, "late")


async def test_all_tickets_together_have_so_many_bytes(stores: Stores) -> None:
    """Each caller has less than a tenth, and there is no room for another."""
    tickets = stores(max_bytes=20_000)
    for number in range(12):
        await tickets.issue(asking("x" * 1500), Purpose.WEBSOCKET, None, f"caller {number}")
    with pytest.raises(ProblemError, match="all callers together"):
        await tickets.issue(asking("x" * 1500), Purpose.WEBSOCKET, None, "late")
    await tickets.issue(asking(), Purpose.WEBSOCKET, None, "small")


class Watched(MemoryTicketStore):
    """Keeps what it is told, for a test to look at."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[bytes] = []

    async def put(self, name: bytes, value: bytes, owner: str) -> None:
        """``TicketStore.put``."""
        self.told += [name, value]
        await super().put(name, value, owner)


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
