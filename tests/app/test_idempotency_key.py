"""``Idempotency-Key`` on the calls that publish, with a real broker, over each of the stores."""

from __future__ import annotations

import asyncio
import logging
import re
import uuid
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from app.api.stream.frames import read_frame
from app.problems import ProblemError
from tests.support.bridge import Bridge, running_bridge, wait_until
from tests.support.brokers import Client
from tests.support.mosquitto import Mosquitto
from tests.support.ports import LOOPBACK
from tests.support.valkey import Valkey
from tidegate.connection import ConnectOptions, Subscription
from tidegate.connections.aiomqtt_connection import connect

ACL = "topic readwrite once/#\ntopic readwrite end/#\ntopic read $SYS/#"


@pytest.fixture(scope="module", params=["memory", "valkey"])
def store(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The settings that choose each store in turn."""
    return {} if request.param == "memory" else {"redis_url": request.getfixturevalue("valkey").url}


@pytest.fixture(scope="module")
def broker() -> Iterator[Mosquitto]:
    """A broker that lets everybody publish under once/ and nowhere else."""
    with Mosquitto(acl=ACL) as running:
        yield running


@pytest.fixture(scope="module")
def bridge(broker: Mosquitto, store: dict[str, Any]) -> Iterator[Bridge]:
    """A bridge that only healthy tests use."""
    with running_bridge(broker.url, **store) as running:
        yield running


@contextmanager
def hasty(broker: Mosquitto, store: dict[str, Any], **settings: Any) -> Iterator[Bridge]:
    """A bridge that waits half a second for its broker."""
    with running_bridge(broker.url, publish_timeout_seconds=0.5, **store, **settings) as running:
        yield running


@pytest.fixture
async def follower(broker: Mosquitto) -> AsyncIterator[Client]:
    """An MQTT client that follows once/# with QoS 2."""
    async for client in following(broker):
        yield client


async def following(broker: Mosquitto) -> AsyncIterator[Client]:
    """A client of a broker, and its end."""
    client = Client()
    options = ConnectOptions(LOOPBACK, broker.port, client_id="follower", protocol_version=5)
    client.connection = await connect(options, client)
    await client.subscribe(Subscription("once/#", qos=2, retain_handling=2))
    yield client
    await client.connection.close()


def keyed(key: str | None = None, **headers: str) -> dict[str, str]:
    """The header, with a key that no other test has where none is given."""
    return {"Idempotency-Key": key or str(uuid.uuid4()), **headers}


def is_replayed(answer: httpx.Response) -> bool:
    """Whether an answer says that it is that of an earlier request."""
    return "true" in answer.headers.get_list("Idempotency-Replayed")


def problem(answer: httpx.Response) -> tuple[int, str]:
    """Status and type of an answer, which must be a problem."""
    kind: str = answer.json()["type"]
    return answer.status_code, kind.removeprefix("urn:tidegate:problem:")


def insist(bridge: Bridge, target: str, headers: dict[str, str]) -> httpx.Response:
    """Make a request until it succeeds: half a second may be too short for a busy machine."""
    answers: list[httpx.Response] = []

    def has_succeeded() -> bool:
        answers.append(bridge.client.post(target, content=b"x", headers=headers))
        assert answers[-1].status_code in (200, 409, 503, 504), answers[-1].text
        return answers[-1].status_code == 200

    wait_until(has_succeeded)
    return answers[-1]


VARYING = ("date", "idempotency-replayed", "x-request-id")
"""Headers in which the same answer differs from one time to the next."""


def same(one: httpx.Response, other: httpx.Response) -> bool:
    """Whether two answers are the same but for what is each request's own."""
    heads = [
        {name: value for name, value in each.headers.items() if name not in VARYING} for each in (one, other)
    ]
    return (one.status_code, one.content, heads[0]) == (other.status_code, other.content, heads[1])


# Healthy.


@pytest.mark.parametrize(
    ("method", "target", "body"),
    [
        ("POST", "/v1/topics/once/post", {"content": b"\x00\xff"}),
        ("POST", "/v1/topics/once/zero?qos=0", {"content": b"x"}),
        ("POST", "/v1/topics?topic=once/query&qos=2&expiry=60", {"content": b"x"}),
        ("PUT", "/v1/topics/once/put?qos=2", {"content": b"x"}),
        ("DELETE", "/v1/topics/once/put", {}),
        ("POST", "/v1/publish", {"json": {"topic": "once/json", "payload": {"a": 1.50}}}),
    ],
)
async def test_each_call_publishes_once(
    bridge: Bridge, follower: Client, method: str, target: str, body: dict[str, Any]
) -> None:
    """The same request with the same key gets the same answer, and the topic one message."""
    headers = keyed()
    first = bridge.client.request(method, target, headers=headers, **body)
    again = bridge.client.request(method, target, headers=headers, **body)
    assert first.is_success, first.text
    assert (False, True) == (is_replayed(first), is_replayed(again))
    assert same(first, again)
    assert 1 == len(await follower.collect())


async def test_without_a_key_every_request_publishes(bridge: Bridge, follower: Client) -> None:
    """And no answer mentions one."""
    for _ in range(2):
        answer = bridge.client.post("/v1/topics/once/none", content=b"x")
        assert "idempotency-replayed" not in answer.headers
    assert 2 == len(await follower.collect())


async def test_fifty_at_once_are_one(bridge: Bridge, follower: Client) -> None:
    """Those that come while the first is under way wait for its answer."""
    headers = keyed()

    def post(_: int) -> httpx.Response:
        return bridge.client.post("/v1/topics/once/fifty", content=b"x", headers=headers)

    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(post, range(50)))
    assert {(200, answers[0].content)} == {(each.status_code, each.content) for each in answers}
    assert 49 == sum(map(is_replayed, answers))
    assert 1 == len(await follower.collect())


@pytest.mark.parametrize(
    ("method", "target", "body", "headers"),
    [
        ("POST", "/v1/topics/once/b", b"x", {}),
        ("POST", "/v1/topics/once/a", b"y", {}),
        ("POST", "/v1/topics/once/a?qos=2", b"x", {}),
        ("POST", "/v1/topics/once/a?expiry=1", b"x", {}),
        ("POST", "/v1/topics/once/a", b"x", {"Content-Type": "text/plain"}),
        ("POST", "/v1/topics/once/a", b"x", {"Mqtt-User-Property": "a=b"}),
        ("PUT", "/v1/topics/once/a", b"x", {}),
        ("DELETE", "/v1/topics/once/a", b"", {}),
    ],
)
async def test_another_request_under_the_key_is_refused(
    bridge: Bridge, follower: Client, method: str, target: str, body: bytes, headers: dict[str, str]
) -> None:
    """Topic, body, options, properties and method make the request; nothing is sent for another."""
    key = str(uuid.uuid4())
    assert bridge.client.post("/v1/topics/once/a", content=b"x", headers=keyed(key)).is_success
    answer = bridge.client.request(method, target, content=body, headers=keyed(key, **headers))
    assert (422, "idempotency-key-reused") == problem(answer)
    assert "Idempotency-Key" == answer.json()["field"]
    assert key not in answer.text
    assert 1 == len(await follower.collect())


async def test_the_same_request_may_be_written_otherwise(bridge: Bridge, follower: Client) -> None:
    """The topic in the path or in the query, a default left out or not, JSON with other spaces."""
    headers = keyed()
    first = bridge.client.post("/v1/topics/once/a%20b", content=b"x", headers=headers)
    again = bridge.client.post("/v1/topics?topic=once/a%20b&qos=1", content=b"x", headers=headers)
    assert (False, True) == (is_replayed(first), is_replayed(again))
    headers = keyed(**{"Content-Type": "application/json"})
    first = bridge.client.post("/v1/publish", content=b'{"topic":"once/j","payload":1}', headers=headers)
    body = b'{ "payload": 1, "qos": 1, "topic": "once/j" }'
    again = bridge.client.post("/v1/publish", content=body, headers=headers)
    assert (False, True) == (is_replayed(first), is_replayed(again))
    assert 2 == len(await follower.collect())


@pytest.mark.parametrize(
    ("first", "again"),
    [("abc-{}", '"abc-{}"'), ('a"b\\{}', '"a\\"b\\\\{}"'), ("spaced out {}", '"spaced out {}"')],
)
def test_quotes_do_not_make_another_key(bridge: Bridge, first: str, again: str) -> None:
    """A structured-field string and the bare characters are one key (RFC 9651 §3.3.3)."""
    unique = uuid.uuid4().hex
    answers = [
        bridge.client.post("/v1/topics/once/quotes", content=b"x", headers=keyed(written.format(unique)))
        for written in (first, again)
    ]
    assert [(200, False), (200, True)] == [(each.status_code, is_replayed(each)) for each in answers]


@pytest.mark.parametrize("key", ["k" * 255, '"' + '\\"' * 255 + '"', "!", "~"])
def test_the_longest_and_the_shortest_key(bridge: Bridge, key: str) -> None:
    """255 characters, and one."""
    assert bridge.client.post("/v1/topics/once/length", content=b"x", headers=keyed(key)).is_success


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
@pytest.mark.parametrize("key", ["", '""', "k" * 256, '"abc', '"a\\b"', '"a";p=1', "caf\u00e9", "a\tb"])
def test_what_is_no_key_is_refused(bridge: Bridge, method: str, key: str) -> None:
    """Nothing is sent, and the detail does not repeat it."""
    answer = bridge.raw(method, b"/v1/topics/once/a", headers={"Idempotency-Key": key}, body=b"x")
    found = answer.json()
    assert (400, "urn:tidegate:problem:invalid-header", "Idempotency-Key") == (
        answer.status,
        found["type"],
        found["field"],
    )
    assert len(found["detail"]) < 80


def test_a_key_twice_is_refused(bridge: Bridge) -> None:
    """One request has one key."""
    headers = [("Idempotency-Key", "a"), ("Idempotency-Key", "a")]
    answer = bridge.client.post("/v1/topics/once/a", content=b"x", headers=headers)
    assert (400, "invalid-header") == problem(answer)


def test_a_stream_takes_no_key(bridge: Bridge) -> None:
    """A subscription publishes nothing, and may be opened again as it is."""
    answer = bridge.client.post("/v1/subscribe", json={"topics": ["once/a"]}, headers=keyed())
    assert (400, "unsupported-header") == problem(answer)


def test_a_frame_takes_no_key() -> None:
    """A publish over a WebSocket has no member for it, and says so."""
    text = b'{"op":"publish","id":1,"topic":"a","payload":1,"idempotency_key":"k"}'
    found, _ = read_frame(text)
    assert isinstance(found, ProblemError)
    assert "/idempotency_key" == found.field


# Refused, away, stalled, gone.


async def test_a_refusal_by_the_broker_is_kept(bridge: Bridge) -> None:
    """The broker was asked once and said no: a retry gets the same answer."""
    headers = keyed()
    first = bridge.client.post("/v1/topics/forbidden", content=b"x", headers=headers)
    again = bridge.client.post("/v1/topics/forbidden", content=b"x", headers=headers)
    assert (403, 0x87) == (first.status_code, first.json()["reason_code"])
    assert (False, True) == (is_replayed(first), is_replayed(again))
    assert same(first, again)


def test_what_was_not_sent_is_published_by_the_retry(
    fresh_mosquitto: Mosquitto, store: dict[str, Any]
) -> None:
    """A broker that is away leaves the key free, and so does a request that cannot be taken."""
    headers = keyed()
    with hasty(fresh_mosquitto, store) as bridge:
        fresh_mosquitto.stop()
        first = bridge.client.post("/v1/topics/once/away", content=b"x", headers=headers)
        assert (503, "broker-unavailable") == problem(first)
        fresh_mosquitto.start()
        bridge.wait_until_ready()
        assert 0 <= insist(bridge, "/v1/topics/once/away", headers).json()["reason_code"] < 0x80


@pytest.mark.parametrize("qos", [1, 2])
async def test_a_late_answer_is_the_answer(
    fresh_mosquitto: Mosquitto, store: dict[str, Any], qos: int
) -> None:
    """While a stalled broker is silent nothing is sent again; when it goes on, the retry gets its answer."""
    target, headers = f"/v1/topics/once/late?qos={qos}", keyed()
    with hasty(fresh_mosquitto, store) as bridge:
        async for follower in following(fresh_mosquitto):
            fresh_mosquitto.pause()
            first = await asyncio.to_thread(bridge.client.post, target, content=b"x", headers=headers)
            assert (504, "outcome-unknown") == problem(first)
            again = await asyncio.to_thread(bridge.client.post, target, content=b"x", headers=headers)
            assert (504, "outcome-unknown") == problem(again)
            assert "nothing was sent again" in again.json()["detail"]
            fresh_mosquitto.resume()
            late = await asyncio.to_thread(insist, bridge, target, headers)
            assert (0, True) == (late.json()["reason_code"], is_replayed(late))
            assert 1 == len(await follower.collect())


@pytest.mark.parametrize(("qos", "is_sent_again"), [(1, True), (2, False)])
async def test_an_answer_that_can_no_longer_come(
    fresh_mosquitto: Mosquitto, store: dict[str, Any], qos: int, is_sent_again: bool
) -> None:
    """The broker died with it: at least once publishes again, exactly once never does."""
    target, headers = f"/v1/topics/once/gone?qos={qos}", keyed()
    with hasty(fresh_mosquitto, store) as bridge:
        fresh_mosquitto.pause()
        first = await asyncio.to_thread(bridge.client.post, target, content=b"x", headers=headers)
        assert (504, "outcome-unknown") == problem(first)
        fresh_mosquitto.kill()
        wait_until(lambda: bridge.client.get("/readyz").status_code == 503)
        fresh_mosquitto.start()
        bridge.wait_until_ready()
        async for follower in following(fresh_mosquitto):
            if is_sent_again:
                await asyncio.to_thread(insist, bridge, target, headers)
            else:
                again = await asyncio.to_thread(bridge.client.post, target, content=b"x", headers=headers)
                assert (504, "outcome-unknown") == problem(again)
                assert "at QoS 2 nothing is sent again" in again.json()["detail"]
            assert is_sent_again == bool(await follower.collect())


def test_a_full_memory_names_its_bound(fresh_mosquitto: Mosquitto) -> None:
    """Requests under way keep their keys; another one is told to come again, and one without a key is not."""
    with hasty(fresh_mosquitto, {}, idempotency_max_keys=1) as bridge:
        fresh_mosquitto.pause()
        first = bridge.client.post("/v1/topics/once/a", content=b"x", headers=keyed())
        assert (504, "outcome-unknown") == problem(first)
        full = bridge.client.post("/v1/topics/once/a", content=b"x", headers=keyed())
        assert (429, "too-many-requests") == problem(full)
        assert "TIDEGATE_IDEMPOTENCY_MAX_KEYS" in full.json()["detail"]
        assert int(full.headers["Retry-After"]) > 0
        assert 202 == bridge.client.post("/v1/topics/once/a?qos=0", content=b"x").status_code
        fresh_mosquitto.resume()


async def test_a_content_type_on_an_old_connection(broker: Mosquitto, store: dict[str, Any]) -> None:
    """On MQTT 3.1.1 it is left aside, and a property that was asked for is refused, with a key as without."""
    with running_bridge(f"{broker.url}?protocol=3.1.1", **store) as bridge:
        headers = keyed(**{"Content-Type": "text/plain"})
        answers = [bridge.client.post("/v1/topics/once/old", content=b"x", headers=headers) for _ in range(2)]
        assert [(200, False), (200, True)] == [(each.status_code, is_replayed(each)) for each in answers]
        for target in ("/v1/topics/once/old?expiry=1", "/v1/publish"):
            body = {"topic": "once/old", "payload": 1, "properties": {"message_expiry": 1}}
            answer = bridge.client.post(target, json=body, headers=keyed())
            assert (400, "unsupported") == problem(answer)


def test_keys_and_bodies_stay_out_of_the_log(
    broker: Mosquitto, fresh_valkey: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor does the store's password get there, when all goes well and when the store is away."""
    caplog.set_level(logging.DEBUG)
    with running_bridge(broker.url, redis_url=fresh_valkey.url) as bridge:
        headers = keyed("a-secret-key")
        for status in (200, 200):
            answer = bridge.client.post("/v1/topics/once/log", content=b"a secret body", headers=headers)
            assert status == answer.status_code
        fresh_valkey.kill()
        answer = bridge.client.post("/v1/topics/once/log", content=b"a secret body", headers=headers)
        assert (503, "idempotency-unavailable") == problem(answer)
    said = caplog.text + answer.text
    assert [] == [
        secret for secret in ("a-secret-key", "a secret body", "hunter2", "redis://") if secret in said
    ]


def test_the_document_tells_what_a_key_looks_like(bridge: Bridge) -> None:
    """The pattern of the header takes what the bridge takes."""
    paths = bridge.client.get("/openapi.json").json()["paths"]
    for path, method in (("/v1/publish", "post"), ("/v1/topics/{topic}", "delete")):
        operation = paths[path][method]
        (found,) = [each for each in operation["parameters"] if each["name"] == "Idempotency-Key"]
        for key, is_one in (("a", True), ('"a\\""', True), ('"a', False), ("", False), ("\u00e9", False)):
            assert is_one == bool(re.search(found["schema"]["pattern"], key)), key
        assert {"409", "422", "429", "503"} <= set(operation["responses"])
        assert all(
            "Idempotency-Replayed" in operation["responses"][status]["headers"] for status in ("200", "202")
        )


def test_a_page_of_another_origin_may_use_keys(broker: Mosquitto) -> None:
    """A browser asks first whether it may send the header, and is told that it may read the other."""
    origin = "https://panel.example"
    with running_bridge(broker.url, cors_origins=(origin,)) as bridge:
        asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        asked["Access-Control-Request-Headers"] = "Idempotency-Key"
        assert 200 == bridge.client.options("/v1/topics/once/a", headers=asked).status_code
        answer = bridge.client.post("/v1/topics/once/a", content=b"x", headers=keyed(Origin=origin))
        assert "Idempotency-Replayed" in answer.headers["Access-Control-Expose-Headers"]
