"""A Redis or Valkey that goes away is told of, once, whether anybody uses it or not."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from redis import Redis

from app.redis_watch import RedisWatch
from tests.support.bridge import Bridge, running_bridge, wait_until
from tests.support.metrics import scrape
from tests.support.mosquitto import Mosquitto
from tests.support.ports import LOOPBACK
from tests.support.valkey import Valkey

SECONDS = 20.0
AWAY = "cannot be used"
BACK = "can be used again"


def publish(bridge: Bridge) -> int:
    """The status of a publish with a key of its own."""
    key = {"Idempotency-Key": str(uuid.uuid4())}
    return bridge.client.post("/v1/topics/watch/a", content=b"x", headers=key).status_code


@asynccontextmanager
async def watching(url: str) -> AsyncIterator[RedisWatch]:
    """A watch that probes without a pause."""
    watch = RedisWatch(url, probe_seconds=0.01, call_seconds=0.5)
    watch.start()
    try:
        yield watch
    finally:
        await watch.close()


async def until(holds: Callable[[], bool]) -> None:
    """Wait until something holds."""
    async with asyncio.timeout(SECONDS):
        while not holds():
            await asyncio.sleep(0.01)


def test_a_bridge_starts_without_it_and_says_so(
    mosquitto: Mosquitto, fresh_valkey: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    """It is ready; one line has host and port and not the password, however many are refused; one ends it."""
    caplog.set_level(logging.INFO)
    fresh_valkey.kill()
    with running_bridge(mosquitto.url, redis_url=fresh_valkey.url) as bridge:
        wait_until(lambda: AWAY in caplog.text)
        assert [503, 503] == [publish(bridge), publish(bridge)]
        fresh_valkey.start()
        wait_until(lambda: BACK in caplog.text)
        assert 200 == publish(bridge)
    address = f"Redis at {LOOPBACK}:{fresh_valkey.port}"
    lines = [each for each in caplog.records if "Redis at" in each.getMessage()]
    assert [logging.WARNING, logging.INFO] == [each.levelno for each in lines]
    assert lines[0].getMessage().startswith(f"{address} {AWAY} (ConnectionError): requests with an")
    assert f"{address} {BACK}" == lines[1].getMessage()
    assert "hunter2" not in caplog.text


def test_that_it_goes_away_is_told_to_a_bridge_that_nobody_uses(
    mosquitto: Mosquitto, fresh_valkey: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    """A probe finds out."""
    with running_bridge(mosquitto.url, redis_url=fresh_valkey.url) as bridge:
        assert 200 == publish(bridge)
        assert AWAY not in caplog.text
        fresh_valkey.kill()
        wait_until(lambda: AWAY in caplog.text)


def is_up(bridge: Bridge) -> float | None:
    """The gauge; None where there is none."""
    return scrape(bridge.url).get("tidegate_redis_up", {}).get(frozenset())


def test_the_gauge_follows_it(mosquitto: Mosquitto, fresh_valkey: Valkey) -> None:
    """The first use that fails turns it to 0, without one a probe does; and a probe turns it back to 1."""
    with running_bridge(mosquitto.url, redis_url=fresh_valkey.url) as bridge:
        wait_until(lambda: is_up(bridge) == 1)
        fresh_valkey.kill()
        assert 503 == publish(bridge)
        assert 0 == is_up(bridge)
        fresh_valkey.start()
        wait_until(lambda: is_up(bridge) == 1)
        fresh_valkey.pause()
        wait_until(lambda: is_up(bridge) == 0)


def test_a_bridge_that_shares_nothing_has_no_gauge(mosquitto: Mosquitto) -> None:
    """Zero would raise an alert; in the status, null says so."""
    with running_bridge(mosquitto.url) as bridge:
        assert is_up(bridge) is None
        assert bridge.client.get("/v1/status").json()["redis"] is None


def test_the_status_follows_it(mosquitto: Mosquitto, fresh_valkey: Valkey) -> None:
    """It says whether the server can be used, and not where it is."""
    with running_bridge(mosquitto.url, redis_url=fresh_valkey.url) as bridge:
        wait_until(lambda: bridge.client.get("/v1/status").json()["redis"] == {"connected": True})
        fresh_valkey.kill()
        assert 503 == publish(bridge)
        assert {"connected": False} == bridge.client.get("/v1/status").json()["redis"]


def test_a_ticket_that_is_refused_tells_of_it(
    mosquitto: Mosquitto, fresh_valkey: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    """The first that fails is enough: no probe is waited for."""
    with running_bridge(mosquitto.url, redis_url=fresh_valkey.url) as bridge:
        wait_until(lambda: bridge.client.get("/readyz").status_code == 200)
        fresh_valkey.kill()
        answer = bridge.client.get("/v1/subscribe?topic=watch/a&ticket=none")
    assert 503 == answer.status_code
    assert 1 == caplog.text.count(AWAY)


async def test_a_server_that_answers_and_takes_nothing_is_away(
    fresh_valkey: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    """Its memory is full: it says PONG, and keys cannot be kept there."""
    with Redis.from_url(fresh_valkey.url) as client:
        client.config_set("maxmemory", 1)
        async with watching(fresh_valkey.url) as watch:
            await until(lambda: AWAY in caplog.text)
            assert not watch.is_up
            assert client.ping()
            client.config_set("maxmemory", 0)
            await until(lambda: watch.is_up)
        assert [] == client.keys("*")
    assert "(OutOfMemoryError)" in caplog.text


async def test_uses_that_fail_fill_no_log(fresh_valkey: Valkey, caplog: pytest.LogCaptureFixture) -> None:
    """Only a probe finds out that it is back: a line a request is not written, whatever they see."""
    watch = RedisWatch(fresh_valkey.url)
    for _ in range(3):
        watch.lost(TimeoutError())
    await watch.close()
    assert 1 == caplog.text.count(AWAY)


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://redis.example", "redis.example:6379"),
        ("rediss://tidegate:hunter2@redis.example:7000/3", "redis.example:7000"),
        ("redis://:hunter2@[::1]/0?protocol=3", "[::1]:6379"),
    ],
)
async def test_host_and_port_are_told_and_nothing_else(
    url: str, address: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The port that is meant, where none is written."""
    watch = RedisWatch(url)
    watch.lost(TimeoutError())
    await watch.close()
    assert f"Redis at {address} {AWAY} (TimeoutError)" in caplog.text
    assert "hunter2" not in caplog.text
