"""The audit log: every decision that counts, who made it necessary, and no more than that."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from app.logs.context import request_id
from app.problems import ProblemError, ProblemType
from app.security.audit import MAX_THROTTLED, Audit
from app.security.authentication import Authentication
from app.security.tickets import MAX_BYTES, SHARES
from tests.support.bridge import Bridge, running_bridge, wait_until
from tests.support.fixed_tokens import FixedTokens, bearer, principal
from tests.support.mosquitto import Mosquitto
from tests.support.raw_stream import RawStream
from tests.support.websocket import SocketClient

MEMBERS = (
    "action",
    "decision",
    "target",
    "rule",
    "reason",
    "principal",
    "source",
    "credential_id",
    "peer",
    "qos",
    "retain",
    "unrecorded",
    "refused",
)


class Records(logging.Handler):
    """Keeps what the audit log was told, as a table of members."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[dict[str, Any]] = []
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the members beside the text."""
        self.texts.append(record.getMessage())
        self.found.append({name: getattr(record, name) for name in MEMBERS if hasattr(record, name)})

    def of(self, action: str, decision: str) -> list[dict[str, Any]]:
        """Those of an action and a decision."""
        return [
            each
            for each in list(self.found)
            if (each.get("action"), each.get("decision")) == (action, decision)
        ]


@pytest.fixture
def records() -> Iterator[Records]:
    """What the audit log says during a test."""
    handler = Records()
    logger = logging.getLogger("tidegate.audit")
    before = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(before)


@pytest.fixture
def bridge(mosquitto: Mosquitto) -> Iterator[Bridge]:
    """A bridge that asks who one is, and records every publish."""
    tokens = FixedTokens(
        first=principal("first", publish=("audit/own/+",), subscribe=("audit/own/#",)),
        operator=principal("operator", scopes=("status:read",)),
    )
    with running_bridge(
        mosquitto.url,
        authentication=Authentication([tokens]),
        audit_publish_sample=1.0,
        audit_max_refusals_per_second=1000,
    ) as running:
        yield running


def test_a_publish_is_recorded_with_the_rule_that_allowed_it(bridge: Bridge, records: Records) -> None:
    """Who, what, where from, and which grant."""
    answer = bridge.client.post("/v1/topics/audit/own/t", content=b"payload-text", headers=bearer("first"))
    assert answer.status_code == 200
    assert records.of("publish", "allowed") == [
        {
            "action": "publish",
            "decision": "allowed",
            "target": "audit/own/t",
            "rule": "audit/own/+",
            "principal": "first",
            "source": "api_key",
            "peer": "127.0.0.1",
            "qos": 1,
            "retain": False,
        }
    ]
    assert "payload-text" not in str(records.texts) + str(records.found)


def test_every_refusal_is_recorded_with_its_reason(bridge: Bridge, records: Records) -> None:
    """By every way: single, batch, stream, WebSocket, retained, request, scope, and no token at all."""
    client, headers = bridge.client, bearer("first")
    client.post("/v1/topics/audit/others", content=b"x", headers=headers)
    client.post(
        "/v1/publish/batch",
        content=json.dumps([{"topic": "audit/batch", "payload": 1}]).encode(),
        headers={**headers, "Content-Type": "application/json"},
    )
    client.get("/v1/subscribe", params={"topic": "audit/#"}, headers=headers)
    client.get("/v1/topics/audit/others", headers=headers)
    client.post("/v1/requests/audit/own/r?response_topic=audit/others", content=b"x", headers=headers)
    with SocketClient(bridge.port, headers=headers) as socket:
        socket.refusal("publish", id="p", topic="audit/socket", payload=1)
    client.get("/v1/status", headers=headers)
    client.get("/v1/principal", headers=bearer("made-up-token"))
    refused = [(each["action"], each["target"]) for each in records.found if each["decision"] == "refused"]
    assert refused == [
        ("publish", "audit/others"),
        ("publish", "audit/batch"),
        ("subscribe", "audit/#"),
        ("read", "audit/others"),
        ("reply", "audit/others"),
        ("publish", "audit/socket"),
        ("status:read", "GET /v1/status"),
        ("authenticate", "GET /v1/principal"),
    ]
    assert all(each["reason"] for each in records.found if each["decision"] == "refused")
    assert "principal" not in records.of("authenticate", "refused")[0]
    assert "made-up-token" not in str(records.texts) + str(records.found)


def test_following_and_reading_are_recorded(bridge: Bridge, records: Records) -> None:
    """Each filter, with the grant that covers it; status and metrics are not."""
    with RawStream(bridge.port, "audit/own/a", "audit/own/b", token="first"):
        pass
    bridge.client.get("/v1/topics/audit/own/a", headers=bearer("first"))
    assert bridge.client.get("/v1/status", headers=bearer("operator")).status_code == 200
    assert [each["target"] for each in records.of("subscribe", "allowed")] == ["audit/own/a", "audit/own/b"]
    assert [each["rule"] for each in records.of("read", "allowed")] == ["audit/own/#"]
    assert not records.of("status:read", "allowed")


def test_tickets_are_recorded(bridge: Bridge, records: Records) -> None:
    """What each may be used for, by which grant; and a refusal."""
    for wanted in (
        {"for": "subscribe", "topics": ["audit/own/a"]},
        {"for": "websocket"},
        {"for": "websocket", "publish": ["audit/own/p"], "subscribe": ["audit/own/s"]},
        {"for": "subscribe", "topics": ["audit/others"]},
    ):
        bridge.client.post("/v1/tickets", json=wanted, headers=bearer("first"))
    assert [(each["target"], each["rule"]) for each in records.of("ticket", "allowed")] == [
        ("audit/own/a", "audit/own/#"),
        ("whatever is granted", "whatever is granted"),
        ("audit/own/p", "audit/own/+"),
        ("audit/own/s", "audit/own/#"),
    ]
    assert ["audit/others"] == [each["target"] for each in records.of("ticket", "refused")]
    assert not records.of("subscribe", "allowed")


def test_a_topic_cannot_write_lines_of_its_own(bridge: Bridge, records: Records) -> None:
    """Line breaks, colours and directions of writing show as escapes, and a long text is cut."""
    topic = "audit/\u202e\u2028evil"
    bridge.client.post("/v1/publish", json={"topic": topic, "payload": 1}, headers=bearer("first"))
    bridge.client.post("/v1/topics/audit/" + "x" * 5000, content=b"x", headers=bearer("first"))
    evil, long = (each["target"] for each in records.of("publish", "refused"))
    assert evil == "audit/\\u202e\\u2028evil"
    assert len(long) < 300
    assert all(each.isprintable() for each in records.texts)


def test_refusals_beyond_the_bound_are_counted(mosquitto: Mosquitto, records: Records) -> None:
    """A flood writes so many records a second, and one more that says how many are missing."""
    tokens = FixedTokens(first=principal("first"))
    with running_bridge(
        mosquitto.url, authentication=Authentication([tokens]), audit_max_refusals_per_second=2
    ) as bridge:
        for _ in range(20):
            answer = bridge.client.post("/v1/topics/audit/x", content=b"", headers=bearer("first"))
            assert answer.status_code == 403

        def accounted() -> int:
            told = len(records.of("publish", "refused"))
            return told + sum(int(each.get("unrecorded", 0)) for each in list(records.found))

        wait_until(lambda: accounted() == 20)
    assert len(records.of("publish", "refused")) < 20


def test_who_comes_too_often_is_recorded(mosquitto: Mosquitto, records: Records) -> None:
    """Once for each caller and bound, with how often: by requests, publishes, batches, frames and streams."""
    everything: dict[str, Any] = {"publish": ("#",), "subscribe": ("#",)}
    tokens = FixedTokens(
        first=principal("first", **everything),
        second=principal("second", **everything),
    )
    with running_bridge(
        mosquitto.url,
        authentication=Authentication([tokens]),
        audit_max_refusals_per_second=1,
        rate_limit_publishes="1/day",
        rate_limit_publishes_total="2/day",
        rate_limit_streams="1/day",
        rate_limit_failed_attempts="2/day",
        max_streams_per_principal=1,
    ) as bridge:
        client, headers = bridge.client, bearer("first")
        publish = "/v1/topics/audit/often"
        statuses = [client.post(publish, content=b"1", headers=headers).status_code for _ in range(20)]
        assert [200] + [429] * 19 == statuses
        lines = b'{"topic":"audit/often","payload":1}\n' * 3
        client.post(
            "/v1/publish/batch", content=lines, headers={**headers, "Content-Type": "application/x-ndjson"}
        )
        with SocketClient(bridge.port, headers=headers) as socket:
            socket.refusal("publish", id="p", topic="audit/often", payload=1)
            socket.refusal("subscribe", id="s", topics=["audit/often"])
            assert 429 == client.get("/v1/subscribe?topic=a", headers=headers).status_code
        for status in (200, 429):
            assert status == client.post(publish, content=b"1", headers=bearer("second")).status_code
        client.post(publish, content=b"1", headers=bearer("second"))
        for status in (401, 401, 429, 429, 429):
            assert status == client.get("/v1/principal", headers=bearer("made-up")).status_code
    found = records.of("throttle", "refused")
    assert [
        ("TIDEGATE_RATE_LIMIT_PUBLISHES", "first", 23),
        ("TIDEGATE_RATE_LIMIT_STREAMS", "first", 1),
        ("TIDEGATE_MAX_STREAMS_PER_PRINCIPAL", "first", 1),
        ("TIDEGATE_RATE_LIMIT_PUBLISHES", "second", 2),
        ("TIDEGATE_RATE_LIMIT_FAILED_ATTEMPTS", None, 3),
    ] == [(each["target"], each.get("principal"), each["refused"]) for each in found]
    assert ("127.0.0.1", "api_key") == (found[0]["peer"], found[0]["source"])
    assert found[0]["reason"].endswith("TIDEGATE_RATE_LIMIT_PUBLISHES allows 1/day")
    assert all("peer" in each for each in found)
    assert 2 == sum(
        each.get("unrecorded", 1) for each in records.found if each.get("action") in (None, "authenticate")
    )


def test_a_bound_of_all_names_who_it_refuses(mosquitto: Mosquitto, records: Records) -> None:
    """The caller, and not all together."""
    tokens = FixedTokens(first=principal("first", publish=("#",)), second=principal("second", publish=("#",)))
    with running_bridge(
        mosquitto.url, authentication=Authentication([tokens]), rate_limit_publishes_total="1/day"
    ) as bridge:
        for name in ("first", "second", "second"):
            bridge.client.post("/v1/topics/audit/all", content=b"1", headers=bearer(name))
    assert [("TIDEGATE_RATE_LIMIT_PUBLISHES_TOTAL", "second", 2)] == [
        (each["target"], each["principal"], each["refused"]) for each in records.of("throttle", "refused")
    ]


def test_who_has_too_many_tickets_is_recorded(mosquitto: Mosquitto, records: Records) -> None:
    """Like who publishes too often; a ticket holds the headers that asked for it."""
    with running_bridge(mosquitto.url) as bridge:
        statuses = set()
        for _ in range(MAX_BYTES // SHARES // 60_000 + 3):
            asked = bridge.client.post(
                "/v1/tickets", json={"for": "websocket"}, headers={"X-Fill": "x" * 60_000}
            )
            statuses.add(asked.status_code)
    assert {200, 429} == statuses
    (told,) = records.of("throttle", "refused")
    assert ("tickets", "anonymous") == (told["target"], told["principal"])
    assert "tickets of yours" in told["reason"]


async def test_whoever_comes_too_often_cannot_flood_the_log(records: Records) -> None:
    """So many callers have a record, and so many strangers beside them; of the rest there is the count."""
    audit = Audit()
    problem = ProblemError(ProblemType.TOO_MANY_REQUESTS, "too many")
    for number in range(MAX_THROTTLED + 50):
        audit.throttled.note("TIDEGATE_A", f"address {number}", None, problem)
    for number in range(MAX_THROTTLED + 7):
        for _ in range(3):
            audit.throttled.note("TIDEGATE_A", f"caller {number}", principal(f"caller-{number}"), problem)
    assert [] == records.found
    audit.throttled.record()
    told = records.of("throttle", "refused")
    known = [each for each in told if "principal" in each]
    assert (MAX_THROTTLED, {3}) == (len(known), {each["refused"] for each in known})
    assert 2 * MAX_THROTTLED + 1 == len(told)
    assert 50 + 3 * 7 == told[-1]["unrecorded"]
    audit.throttled.record()
    assert 2 * MAX_THROTTLED + 1 == len(records.found)


async def test_who_comes_too_often_is_recorded_while_the_bridge_runs(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the time is over for which it is counted, in no request's name; then a new count begins."""
    monkeypatch.setattr("app.security.audit.THROTTLED_SECONDS", 0.001)
    ids: list[str] = []

    def filter_record(_: logging.LogRecord) -> bool:
        ids.append(request_id.get())
        return True

    records.addFilter(filter_record)
    audit = Audit()
    token = request_id.set("of the first of them")
    problem = ProblemError(ProblemType.TOO_MANY_REQUESTS, "too many")
    for number in range(1, 3):
        audit.throttled.note("TIDEGATE_A", "caller", principal("caller"), problem)
        audit.throttled.note("TIDEGATE_A", "caller", principal("caller"), problem)
        async with asyncio.timeout(10):
            while len(records.found) < number:
                await asyncio.sleep(0)
    request_id.reset(token)
    assert [2, 2] == [each["refused"] for each in records.found]
    assert ["", ""] == ids


def test_without_authentication_only_refusals_are_recorded(mosquitto: Mosquitto, records: Records) -> None:
    """There is nobody to name; what is refused is worth a line all the same."""
    with running_bridge(mosquitto.url, audit_publish_sample=1.0) as bridge:
        assert bridge.client.post("/v1/topics/audit/x", content=b"x").status_code == 200
        with RawStream(bridge.port, "audit/x"):
            pass
        assert bridge.client.post("/v1/topics/%24SYS/x", content=b"x").status_code == 403
    assert [each["decision"] for each in records.found] == ["refused"]


def test_a_sample_is_a_share_of_the_publishes() -> None:
    """None, all, or some of them."""
    assert not any(Audit(publish_sample=0.0).samples_publish() for _ in range(1000))
    assert all(Audit(publish_sample=1.0).samples_publish() for _ in range(1000))
    some = sum(Audit(publish_sample=0.5).samples_publish() for _ in range(1000))
    assert 300 < some < 700
