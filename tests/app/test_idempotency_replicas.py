"""``Idempotency-Key`` on two bridges that share one Valkey and one broker."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx
import pytest
from redis import Redis

from tests.support.bridge import Bridge, running_bridge, wait_until
from tests.support.brokers import Client
from tests.support.command import Command
from tests.support.mosquitto import Mosquitto
from tests.support.ports import LOOPBACK, ReservedPort
from tests.support.valkey import Valkey
from tidegate.connection import ConnectOptions, Subscription
from tidegate.connections.aiomqtt_connection import connect


@contextmanager
def replicas(broker: Mosquitto, server: Valkey, **settings: Any) -> Iterator[tuple[Bridge, Bridge]]:
    """Two bridges that share a broker and a server."""
    settings["redis_url"] = server.url
    with running_bridge(broker.url, **settings) as one, running_bridge(broker.url, **settings) as other:
        yield one, other


@contextmanager
def killable(broker: Mosquitto, server: Valkey) -> Iterator[tuple[Command, str]]:
    """A bridge that is a process of its own, and its URL."""
    with ReservedPort() as reserved:
        url = f"http://{LOOPBACK}:{reserved.number}"
        settings = {"TIDEGATE_PUBLISH_TIMEOUT_SECONDS": "0.5", "TIDEGATE_REDIS_URL": server.url}
        arguments = ("serve", "--port", str(reserved.number), "--broker-url", broker.url)
        with Command(*arguments, settings=settings) as process:
            process.wait_for("serving at")
            wait_until(lambda: httpx.get(f"{url}/readyz", trust_env=False).status_code == 200)
            yield process, url


async def follow(broker: Mosquitto) -> Client:
    """A client that follows shared/# with QoS 2."""
    client = Client()
    options = ConnectOptions(LOOPBACK, broker.port, client_id="follower", protocol_version=5)
    client.connection = await connect(options, client)
    await client.subscribe(Subscription("shared/#", qos=2, retain_handling=2))
    return client


def headers() -> dict[str, str]:
    """A key that no other test has."""
    return {"Idempotency-Key": str(uuid.uuid4())}


def kind_of(answer: httpx.Response) -> str:
    """The type of problem that an answer is."""
    kind: str = answer.json()["type"]
    return kind.removeprefix("urn:tidegate:problem:")


def cut_off(url: str, key: dict[str, str]) -> None:
    """Make a request whose bridge may die meanwhile."""
    with contextlib.suppress(httpx.HTTPError):
        httpx.post(url, content=b"x", headers=key, trust_env=False)


def ask_until(
    bridge: Bridge, target: str, key: dict[str, str], is_right: Callable[[httpx.Response], bool]
) -> httpx.Response:
    """Make a request until its answer is right."""
    answers: list[httpx.Response] = []

    def ask() -> bool:
        answers.append(bridge.client.post(target, content=b"x", headers=key))
        return is_right(answers[-1])

    wait_until(ask)
    return answers[-1]


def is_sent(server: Valkey, qos: int) -> bool:
    """Whether a server has one key, whose holder has gone on to send: at QoS 2 it outlives any lease."""
    with Redis.from_url(server.url) as client:
        lives = [client.pttl(key) for key in client.scan_iter()]
    return bool(lives) and (qos < 2 or lives[0] > 60_000)


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_fifty_requests_over_two_bridges_are_one_message(
    mosquitto: Mosquitto, valkey: Valkey, qos: int
) -> None:
    """One key, fifty connections, both bridges: one message, and fifty times the same answer."""
    follower = await follow(mosquitto)
    key, together = headers(), threading.Barrier(50)
    with replicas(mosquitto, valkey) as bridges, ThreadPoolExecutor(50) as pool:

        def post(number: int) -> httpx.Response:
            together.wait()
            target = f"/v1/topics/shared/fifty?qos={qos}"
            return bridges[number % 2].client.post(target, content=b"x", headers=key)

        answers = list(pool.map(post, range(50)))
    assert {(202 if qos == 0 else 200, answers[0].content)} == {
        (each.status_code, each.content) for each in answers
    }
    assert 49 == sum("idempotency-replayed" in each.headers for each in answers)
    assert 1 == len(await follower.collect(qos=qos))
    await follower.connection.close()


def test_the_other_bridge_knows_the_request(mosquitto: Mosquitto, valkey: Valkey) -> None:
    """It refuses another request under the key, and replays the first."""
    key = headers()
    with replicas(mosquitto, valkey) as (one, other):
        first = one.client.post("/v1/topics/shared/known", content=b"x", headers=key)
        refused = other.client.post("/v1/topics/shared/known", content=b"y", headers=key)
        again = other.client.post("/v1/topics/shared/known", content=b"x", headers=key)
    assert (422, "idempotency-key-reused") == (refused.status_code, kind_of(refused))
    assert (first.status_code, first.content) == (again.status_code, again.content)


async def test_an_open_outcome_is_known_to_the_other_bridge(
    fresh_mosquitto: Mosquitto, valkey: Valkey
) -> None:
    """It sends nothing while the broker may still answer the first bridge, and then gives that answer."""
    key, target = headers(), "/v1/topics/shared/open"
    follower = await follow(fresh_mosquitto)
    with replicas(fresh_mosquitto, valkey, publish_timeout_seconds=0.5) as (one, other):
        fresh_mosquitto.pause()
        first = await asyncio.to_thread(one.client.post, target, content=b"x", headers=key)
        assert (504, "outcome-unknown") == (first.status_code, kind_of(first))
        again = await asyncio.to_thread(other.client.post, target, content=b"x", headers=key)
        assert (504, "outcome-unknown") == (again.status_code, kind_of(again))
        assert "nothing was sent again" in again.json()["detail"]
        fresh_mosquitto.resume()
        late = await asyncio.to_thread(ask_until, other, target, key, lambda answer: answer.is_success)
        assert "true" == late.headers["idempotency-replayed"]
        assert 1 == len(await follower.collect())
    await follower.connection.close()


@pytest.mark.parametrize(("qos", "is_sent_again"), [(1, True), (2, False)])
async def test_a_bridge_that_is_killed_does_not_keep_the_key(
    fresh_mosquitto: Mosquitto, fresh_valkey: Valkey, qos: int, is_sent_again: bool
) -> None:
    """Between publish and outcome: after its lease the other bridge publishes, at QoS 2 never again."""
    key, target = headers(), f"/v1/topics/shared/killed?qos={qos}"
    with ExitStack() as stack:
        process, url = stack.enter_context(killable(fresh_mosquitto, fresh_valkey))
        other = stack.enter_context(
            running_bridge(fresh_mosquitto.url, publish_timeout_seconds=0.5, redis_url=fresh_valkey.url)
        )
        fresh_mosquitto.pause()
        first = asyncio.create_task(asyncio.to_thread(cut_off, f"{url}{target}", key))
        await asyncio.to_thread(wait_until, lambda: is_sent(fresh_valkey, qos))
        process.interrupt(signal.SIGKILL)
        await first
        fresh_mosquitto.resume()
        other.wait_until_ready()
        follower = await follow(fresh_mosquitto)
        early = await asyncio.to_thread(other.client.post, target, content=b"x", headers=key)
        assert early.status_code != 409 or "2" == early.headers["Retry-After"]

        def is_settled(answer: httpx.Response) -> bool:
            return answer.is_success if is_sent_again else "at QoS 2 nothing is sent again" in answer.text

        answer = await asyncio.to_thread(ask_until, other, target, key, is_settled)
        assert (200 if is_sent_again else 504) == answer.status_code
        assert is_sent_again == bool(await follower.collect(qos=qos))
        await follower.connection.close()


def test_without_the_store_only_keys_are_refused(mosquitto: Mosquitto, fresh_valkey: Valkey) -> None:
    """A promise that cannot be kept is not made; requests without a key do not notice; it heals by itself."""
    with replicas(mosquitto, fresh_valkey) as (one, _):
        fresh_valkey.kill()
        key = headers()
        refused = one.client.post("/v1/topics/shared/away", content=b"x", headers=key)
        assert (503, "idempotency-unavailable") == (refused.status_code, kind_of(refused))
        assert int(refused.headers["Retry-After"]) > 0
        assert 200 == one.client.post("/v1/topics/shared/away", content=b"x").status_code
        assert 200 == one.client.get("/readyz").status_code
        fresh_valkey.start()
        again = one.client.post("/v1/topics/shared/away", content=b"x", headers=key)
        assert 200 == again.status_code
        assert "idempotency-replayed" not in again.headers


async def test_an_outcome_survives_a_store_that_is_away(
    fresh_mosquitto: Mosquitto, fresh_valkey: Valkey
) -> None:
    """The first is answered with the truth; repetitions get the same answer when the store is back."""
    follower = await follow(fresh_mosquitto)
    key, target = headers(), "/v1/topics/shared/survives"
    with replicas(fresh_mosquitto, fresh_valkey) as (one, other):
        fresh_mosquitto.pause()
        first = asyncio.create_task(asyncio.to_thread(one.client.post, target, content=b"x", headers=key))
        session = one.app.state.link.session
        await asyncio.to_thread(wait_until, lambda: session.in_flight == 1)
        fresh_valkey.pause()
        fresh_mosquitto.resume()
        answer = await first
        assert 200 == answer.status_code
        fresh_valkey.resume()
        again = await asyncio.to_thread(other.client.post, target, content=b"x", headers=key)
        assert (200, answer.content) == (again.status_code, again.content)
        assert 1 == len(await follower.collect())
    await follower.connection.close()
